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
/// fingerprints, has characters that a label may not have. It goes once that key was seen to be refused.
pub const HOST_KEY: &str = "regionwise-host-key";
/// The same of the final host key: there before the server shows it.
pub const FINAL_KEY: &str = "regionwise-final-key";
/// There from before a rebuild until the rebuilt server has announced its final key: [`HOST_KEY`] is one that it may never show.
pub const REBUILD: &str = "regionwise-rebuild";
/// The server's public WireGuard key, its 32 bytes in base32.
pub const WIREGUARD: &str = "regionwise-wireguard";

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

/// The fingerprint as OpenSSH writes it, from a label [`HOST_KEY`] or [`FINAL_KEY`]. `None` when it is none of ours.
pub fn fingerprint(label: &str) -> Option<String> {
    let bytes = data_encoding::BASE32_NOPAD.decode(label.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| format!("SHA256:{}", data_encoding::BASE64_NOPAD.encode(&bytes)))
}

/// The label for a fingerprint as OpenSSH writes it. `None` when it is no SHA-256.
pub fn label_of(fingerprint: &str) -> Option<String> {
    let hash = fingerprint.strip_prefix("SHA256:")?;
    let bytes = data_encoding::BASE64_NOPAD.decode(hash.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| data_encoding::BASE32_NOPAD.encode(&bytes))
}

/// The label for a public WireGuard key in base64. `None` when it is none.
pub fn wireguard_label(key: &str) -> Option<String> {
    let bytes = data_encoding::BASE64.decode(key.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| data_encoding::BASE32_NOPAD.encode(&bytes))
}

/// The public WireGuard key in base64, from its label.
pub fn wireguard_key(label: &str) -> Option<String> {
    let bytes = data_encoding::BASE32_NOPAD.decode(label.as_bytes()).ok()?;
    (bytes.len() == 32).then(|| data_encoding::BASE64.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_fingerprints_come_back_from_their_labels_and_nothing_else_does() {
        let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 % 256).unwrap());
        let shown = format!("SHA256:{}", data_encoding::BASE64_NOPAD.encode(&bytes));
        let label = label_of(&shown).unwrap();
        assert_eq!(label.len(), 52);
        assert_eq!(fingerprint(&label), Some(shown));
        let key = data_encoding::BASE64.encode(&bytes);
        assert_eq!(wireguard_label(&key), Some(label.clone()));
        assert_eq!(wireguard_key(&label), Some(key));
        for wrong in ["", "SHA256:", "SHA256:AAAA", "MD5:00"] {
            assert_eq!((label_of(wrong), wireguard_label(wrong)), (None, None));
            assert_eq!((fingerprint(wrong), wireguard_key(wrong)), (None, None));
        }
    }
}
