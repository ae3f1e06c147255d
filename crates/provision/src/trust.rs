//! Which host key a server may show, and what is still to be done with it. Fingerprints are `SHA256:..` as OpenSSH writes them.
//!
//! A server is born with a one-time key (label [`HOST_KEY`]). The first session announces the final key ([`FINAL_KEY`]) before
//! the server shows it, and takes the first label away once the one-time key was seen to be refused. So whoever reads the
//! labels, from any machine, knows which keys may be shown at every moment; a first key is never trusted for being first.

use crate::ownership::{FINAL_KEY, HOST_KEY, Labels, REBUILD, fingerprint};

/// What vouches for a server's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vouched {
    /// In the checked-in known_hosts, for the server's address.
    pub pinned: Vec<String>,
    /// The one-time key that it was born with, until that is refused.
    pub birth: Option<String>,
    /// The final key, from before it is shown.
    pub last: Option<String>,
    /// Whether a rebuild was announced: `birth` is that of the server as it is to be, `last` of that before.
    pub rebuild: bool,
}

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It shows the key that it was born with.
    Born,
    /// It shows its final key, and nobody has seen yet that the other one is refused.
    Exchanged,
    /// It shows its final key, and the other one is gone.
    Settled,
    /// It shows its final key, and the rebuild that was announced did not begin.
    Kept,
    /// known_hosts names the key that it shows, and no label names a final one: somebody set it up by hand.
    Pinned,
}

/// A key that nothing vouches for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it shows the host key {shown}, and {expected}")]
pub struct Stranger {
    pub shown: String,
    expected: String,
    /// Whether a final key was there before: it was rebuilt, or somebody is in between.
    pub settled: bool,
    /// Whether a rebuild was announced, by a run that nobody knows the end of.
    pub rebuild: bool,
}

impl Vouched {
    /// From the labels of the server, and what known_hosts has.
    pub fn of(labels: &Labels, pinned: Vec<String>) -> Self {
        let read = |key| labels.get(key).and_then(|label| fingerprint(label));
        Self {
            pinned,
            birth: read(HOST_KEY),
            last: read(FINAL_KEY),
            rebuild: labels.contains_key(REBUILD),
        }
    }

    /// How far a server is that shows this key.
    ///
    /// A label of a final key outweighs known_hosts: the file of an old checkout may pin the one-time key, which anybody with a
    /// root shell on the server could have read in its metadata.
    ///
    /// # Errors
    /// [`Stranger`]: nothing may be sent to it.
    pub fn stage(&self, shown: &str) -> Result<Stage, Stranger> {
        let is = |key: &Option<String>| key.as_deref() == Some(shown);
        match (&self.birth, &self.last) {
            (None, Some(_)) if is(&self.last) => Ok(Stage::Settled),
            (Some(_), Some(_)) if is(&self.last) => Ok(match self.rebuild {
                true => Stage::Kept,
                false => Stage::Exchanged,
            }),
            (Some(_), _) if is(&self.birth) => Ok(Stage::Born),
            (_, None) if self.pinned.iter().any(|pinned| pinned == shown) => Ok(Stage::Pinned),
            _ => Err(self.stranger(shown)),
        }
    }

    fn stranger(&self, shown: &str) -> Stranger {
        let labels = [&self.birth, &self.last].into_iter().flatten();
        let mut named: Vec<String> = labels.map(|key| format!("its label says {key}")).collect();
        if self.last.is_none() {
            named.extend(
                self.pinned
                    .iter()
                    .map(|key| format!("known_hosts says {key}")),
            );
        }
        let expected = match named.is_empty() {
            true => "neither a label nor known_hosts names one".to_owned(),
            false => named.join(", "),
        };
        Stranger {
            shown: shown.to_owned(),
            expected,
            settled: self.last.is_some() && self.birth.is_none(),
            rebuild: self.rebuild,
        }
    }
}

impl Stranger {
    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self.settled {
            _ if self.rebuild => {
                "a rebuild of it was sent more than once, and nobody knows which one it shows: `--rebuild HOST` once more"
            }
            true => {
                "if it was rebuilt in the console, it has the user data and the one-time key of its first day: `--rebuild HOST` gives it fresh ones (its address and volume stay); if nobody rebuilt it, somebody may be in between"
            }
            false => {
                "compare with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the server's own console, and put the key into known_hosts only if it is the same"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["SHA256:birth", "SHA256:last", "SHA256:other"];

    /// Every combination of labels, known_hosts and shown key, against rules that are written down another way.
    #[test]
    fn only_a_key_that_a_label_or_else_known_hosts_names_is_taken() {
        let mut combinations = 0;
        for (birth, last, rebuild) in [
            (false, false, false),
            (true, false, false),
            (true, true, false),
            (false, true, false),
            (true, true, true),
        ] {
            for pinned in [None, Some(KEYS[0]), Some(KEYS[1]), Some(KEYS[2])] {
                for shown in KEYS {
                    let vouched = Vouched {
                        pinned: pinned.iter().map(|key| (*key).to_owned()).collect(),
                        birth: birth.then(|| KEYS[0].to_owned()),
                        last: last.then(|| KEYS[1].to_owned()),
                        rebuild,
                    };
                    let labelled = (birth && shown == KEYS[0]) || (last && shown == KEYS[1]);
                    let by_hand = !last && pinned == Some(shown);
                    let stage = vouched.stage(shown);
                    assert_eq!(stage.is_ok(), labelled || by_hand, "{vouched:?} {shown}");
                    let expected = match shown {
                        "SHA256:birth" if birth => Some(Stage::Born),
                        "SHA256:last" if rebuild => Some(Stage::Kept),
                        "SHA256:last" if last && birth => Some(Stage::Exchanged),
                        "SHA256:last" if last => Some(Stage::Settled),
                        _ if by_hand => Some(Stage::Pinned),
                        _ => None,
                    };
                    assert_eq!(stage.ok(), expected, "{vouched:?} {shown}");
                    combinations += 1;
                }
            }
        }
        assert_eq!(combinations, 60);
    }

    #[test]
    fn the_one_time_key_of_a_settled_server_is_refused_though_an_old_known_hosts_pins_it() {
        let vouched = Vouched {
            pinned: vec![KEYS[0].to_owned()],
            birth: None,
            last: Some(KEYS[1].to_owned()),
            rebuild: false,
        };
        let stranger = vouched.stage(KEYS[0]).unwrap_err();
        assert!(stranger.settled && stranger.hint().contains("--rebuild"));
        assert_eq!(
            stranger.to_string(),
            "it shows the host key SHA256:birth, and its label says SHA256:last"
        );
    }

    #[test]
    fn of_a_server_whose_rebuild_nobody_saw_end_another_rebuild_is_the_way_on() {
        let vouched = Vouched {
            pinned: Vec::new(),
            birth: Some(KEYS[0].to_owned()),
            last: Some(KEYS[1].to_owned()),
            rebuild: true,
        };
        let stranger = vouched.stage(KEYS[2]).unwrap_err();
        assert!(stranger.hint().contains("--rebuild HOST` once more"));
    }

    #[test]
    fn labels_are_read_as_fingerprints_and_what_is_none_vouches_for_nothing() {
        let bytes = [7_u8; 32];
        let label = data_encoding::BASE32_NOPAD.encode(&bytes);
        let labels = Labels::from([
            (HOST_KEY.to_owned(), label),
            (FINAL_KEY.to_owned(), "nothing".to_owned()),
        ]);
        let vouched = Vouched::of(&labels, Vec::new());
        let expected = format!("SHA256:{}", data_encoding::BASE64_NOPAD.encode(&bytes));
        assert_eq!(vouched.birth, Some(expected));
        assert_eq!(vouched.last, None);
    }
}
