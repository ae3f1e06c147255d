//! What is ours: names and labels.
//!
//! A name says which resource it is, a label says whose. Both are needed: a name that somebody else took before us is not
//! ours to change, and a resource with our label under another name is left alone and said.

use std::collections::BTreeMap;

use crate::wanted::Role;

/// Keys without a prefix: a selector with one has to be quoted in some clients.
pub const PRODUCT: &str = "regionwise-product";
pub const REGION: &str = "regionwise-region";
pub const ROLE: &str = "regionwise-role";
/// SHA-256 of the one-time host key in base32: any runner can pin the first connection by it. Base64, as OpenSSH writes
/// fingerprints, has characters that a label may not have.
pub const HOST_KEY: &str = "regionwise-host-key";

pub type Labels = BTreeMap<String, String>;

/// What a list asks for to get all that is ours in a project, and nothing else.
pub fn selector(product: &str) -> String {
    format!("{PRODUCT}={product}")
}

/// Of what belongs to a product as a whole.
pub(crate) fn shared(product: &str) -> Labels {
    Labels::from([(PRODUCT.to_owned(), product.to_owned())])
}

/// Of what belongs to one region.
pub(crate) fn of_region(product: &str, region: &str) -> Labels {
    let mut labels = shared(product);
    labels.insert(REGION.to_owned(), region.to_owned());
    labels
}

/// Of a server and what belongs to it.
pub(crate) fn of_role(product: &str, region: &str, role: Role) -> Labels {
    let mut labels = of_region(product, region);
    labels.insert(ROLE.to_owned(), role.word().to_owned());
    labels
}

/// The hosts behind a region's load balancer.
pub(crate) fn api_selector(product: &str, region: &str) -> String {
    let role = Role::Api.word();
    format!("{PRODUCT}={product},{REGION}={region},{ROLE}={role}")
}

/// The fingerprint as OpenSSH writes it, from the label [`HOST_KEY`]. `None` when the label is none of ours.
pub fn fingerprint(label: &str) -> Option<String> {
    let bytes = data_encoding::BASE32_NOPAD.decode(label.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| format!("SHA256:{}", data_encoding::BASE64_NOPAD.encode(&bytes)))
}
