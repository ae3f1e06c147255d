//! Another `region-host` on a server that has one: the script, and what it says.

/// The script; see its head for its words.
pub const SCRIPT: &str = include_str!("upgrade/swap.sh");

/// What became of a server's `region-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It is the one that was sent already.
    Same(String),
    /// The new one serves from now on; its version.
    Upgraded(String),
    /// The kept one serves again; its version.
    Back(String),
    /// As [`Swapped::Back`], and the new one is gone.
    Undone(String),
    /// It does not run on this server, and was not put in place.
    Broken(String),
    /// This server has none.
    Absent,
    /// There is none to go back to.
    NothingKept,
    Busy(String),
    Failed(String),
}

impl Swapped {
    /// Of the script's line; `None` for any other.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, text) = line.split_once('\t')?;
        let text = text.trim().to_owned();
        Some(match word {
            "same" => Self::Same(text),
            "upgraded" => Self::Upgraded(text),
            "back" => Self::Back(text),
            "undone" => Self::Undone(text),
            "broken" => Self::Broken(text),
            "absent" => Self::Absent,
            "nothing-kept" => Self::NothingKept,
            "busy" => Self::Busy(text),
            "failed" => Self::Failed(text),
            _ => return None,
        })
    }

    /// Whether the server has another `region-host` than before.
    pub const fn changed(&self) -> bool {
        matches!(self, Self::Upgraded(_) | Self::Back(_) | Self::Undone(_))
    }
}
