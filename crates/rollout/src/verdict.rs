//! What a binary found, and the exit code that says so. Every binary uses exactly these; other codes are reserved.

use std::fmt;

use serde::{Serialize, Serializer};

/// The verdict of one run. The words and codes are a contract with workflows and shell scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Observed and verified, also when there was nothing to do.
    Proceed,
    /// Unexpected: a bug. Handled as [`Verdict::Unknown`].
    Failed,
    /// Usage or configuration; nothing was touched.
    Invalid,
    /// Hold: the gate is not passed, or could not be measured.
    Pause,
    /// This release is bad in this region.
    RollBack,
    /// A safety rule forbids it.
    Refused,
    /// It failed, and the region is verified on the release before.
    RolledBack,
    /// The rollback failed, or hosts differ.
    Mixed,
    /// Infrastructure error; provably nothing changed.
    Unreachable,
    /// Contact lost midway; the truth is unknown.
    Unknown,
    /// Another run holds the region, or took over.
    Locked,
    /// Clean stop on SIGINT.
    Interrupted,
    /// Clean stop on SIGTERM.
    Terminated,
}

impl Verdict {
    /// Every verdict, in the order of the README's table.
    pub const ALL: [Self; 13] = [
        Self::Proceed,
        Self::Failed,
        Self::Invalid,
        Self::Pause,
        Self::RollBack,
        Self::Refused,
        Self::RolledBack,
        Self::Mixed,
        Self::Unreachable,
        Self::Unknown,
        Self::Locked,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The process exit code. Never 101 (panic), 126 to 128 (shell) or 255 (ssh).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Proceed => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Pause => 10,
            Self::RollBack => 11,
            Self::Refused => 12,
            Self::RolledBack => 13,
            Self::Mixed => 14,
            Self::Unreachable => 20,
            Self::Unknown => 21,
            Self::Locked => 22,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The word of the contract; both signals read `cancelled`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Proceed => "proceed",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Pause => "pause",
            Self::RollBack => "roll-back",
            Self::Refused => "refused",
            Self::RolledBack => "rolled-back",
            Self::Mixed => "mixed",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
            Self::Locked => "locked",
            Self::Interrupted | Self::Terminated => "cancelled",
        }
    }

    /// The verdict of that word; `cancelled` does not say by which signal.
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "cancelled" => Some(Self::Terminated),
            word => Self::ALL.into_iter().find(|verdict| verdict.word() == word),
        }
    }

    /// What the verdict means, for tables.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Proceed => "observed and verified, also when there was nothing to do",
            Self::Failed => "unexpected: a bug",
            Self::Invalid => "usage or configuration; nothing was touched",
            Self::Pause => "hold: the gate is not passed, or could not be measured",
            Self::RollBack => "this release is bad in this region",
            Self::Refused => "a safety rule forbids it",
            Self::RolledBack => "it failed, and the region is verified on the release before",
            Self::Mixed => "rollback failed or hosts differ",
            Self::Unreachable => "infrastructure error; provably nothing changed",
            Self::Unknown => "contact lost midway; the truth is unknown",
            Self::Locked => "another run holds the region, or took over",
            Self::Interrupted | Self::Terminated => "clean stop on a signal",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn every_word_leads_back_to_its_verdict() {
        for verdict in Verdict::ALL {
            let read = Verdict::of_word(verdict.word());
            assert_eq!(read.map(Verdict::word), Some(verdict.word()));
        }
        assert_eq!(Verdict::of_word(""), None);
        assert_eq!(Verdict::of_word("Proceed"), None);
    }

    #[test]
    fn codes_are_distinct_and_never_those_of_shell_or_ssh() {
        let mut codes: Vec<u8> = Verdict::ALL
            .iter()
            .map(|verdict| verdict.exit_code())
            .collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Verdict::ALL.len());
        assert!(
            codes
                .iter()
                .all(|code| ![101, 126, 127, 128, 255].contains(code))
        );
    }
}
