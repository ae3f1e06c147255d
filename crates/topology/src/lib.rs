//! `regions.toml`: its model, parser, rules and JSON schema, and the workflow that follows from it. Pure: takes text,
//! touches no file.
//!
//! [`Topology::parse`] reads in three steps, and each reports everything it finds before the next begins:
//! the text is TOML (`document.rs`), the document has the keys and types of the schema (`shape.rs`), and the values
//! keep every rule (`rules.rs`). The schema that editors use is the one that the second step checks against.

mod document;
mod file;
mod model;
mod problem;
#[cfg(test)]
mod reference;
mod resolve;
mod rules;
mod shape;
mod workflow;

pub use model::{
    Backup, BalancerServers, Budget, Cluster, DatabaseServers, Github, HealthRule, Host, Jump,
    LagRule, Migration, Node, OnFailure, OtherUser, Outage, OwnerRule, Product, Provision,
    RedisServers, Region, Residency, Roles, RolloutRule, Secret, Shared, Sides, Ssh, TableRule,
    Topology, Unaddressed, Unowned,
};
pub use problem::{Problem, Problems};
pub use workflow::{Toolkit, WorkflowError};

use document::Document;
use file::File;
use resolve::Addresses;

impl Topology {
    /// Reads the text of a `regions.toml`. `file_name` stands in the problems only.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Problems> {
        Self::read(file_name, text, Addresses::Required)
    }

    /// As [`Topology::parse_bytes`], for the one binary that makes the servers: hosts may be without an address.
    pub fn parse_unprovisioned(file_name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        Self::read(file_name, utf8(file_name, bytes)?, Addresses::Pending)
    }

    fn read(file_name: &str, text: &str, addresses: Addresses) -> Result<Self, Problems> {
        let document = Document::parse(file_name, text)?;
        let findings = shape::check(&document, &file::schema());
        if !findings.is_empty() {
            return Err(Problems::located(&document, findings));
        }
        // What has the shape of the schema also deserializes: both come from the same types, and a test damages
        // files to find one where they differ. The message of serde is withheld, it could quote a secret.
        let file: File = toml::from_str(text).map_err(|error| document.unread(&error))?;
        resolve::resolve(&file, addresses)
            .map_err(|findings| Problems::located(&document, findings))
    }

    /// As [`Topology::parse`], for bytes that may not be text.
    pub fn parse_bytes(file_name: &str, bytes: &[u8]) -> Result<Self, Problems> {
        Self::parse(file_name, utf8(file_name, bytes)?)
    }

    /// The JSON schema (draft 7) of `regions.toml`, for editors.
    pub fn json_schema() -> serde_json::Value {
        file::schema()
    }
}

fn utf8<'b>(file_name: &str, bytes: &'b [u8]) -> Result<&'b str, Problems> {
    str::from_utf8(bytes).map_err(|error| document::not_utf8(file_name, bytes, error.valid_up_to()))
}
