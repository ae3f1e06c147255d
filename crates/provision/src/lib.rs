//! The servers of a region: which are needed at the provider and which are there, and what makes a server a host. Pure: takes
//! regions.toml, the provider's catalogue and an inventory, writes plans and scripts, and touches nothing.
//!
//! At the provider there is no state file: what carries our labels is ours (`ownership.rs`), and a plan (`plan.rs`) is the
//! difference between what is wanted (`wanted.rs`, `needs.rs`) and the inventory (`inventory.rs`). So a run that was killed after any
//! request goes on where the provider stands.
//!
//! On a server, [`host::steps`] is the one list of steps. [`script::render`] makes one POSIX shell script of it, which runs
//! over ssh or from cloud-init ([`cloud_config::render`]) alike; [`said::Line`] reads what the script prints.

mod catalogue;
pub mod cloud_config;
mod compare;
mod cost;
pub mod host;
mod inventory;
mod needs;
mod ownership;
mod plan;
pub mod recipes;
pub mod said;
pub mod script;
pub mod step;
mod trouble;
pub mod trust;
pub mod upgrade;
mod wanted;

pub use catalogue::{Catalogue, Offer, Prices, Product, Stock};
pub use compare::{Order, orders};
pub use cost::Cost;
pub use inventory::{
    Address, Balancer, Detail, Firewall, Inventory, Network, Resource, Server, Service, Volume,
};
pub use ownership::{
    FINAL_KEY, HOST_KEY, Labels, PRODUCT, REBUILD, REGION, ROLE, WIREGUARD, fingerprint, label_of,
    selector, wireguard_key, wireguard_label,
};
pub use plan::{Change, Difference, Line, Plan, Remedy, plan, settle_across};
pub use trouble::{Reaction, meaning, reaction};
pub use wanted::{
    BalancerSpec, FirewallRule, Kind, Known, Project, Protocol, Role, ServerSpec, Spec, Undecided,
    Wanted, tokens, wanted,
};
