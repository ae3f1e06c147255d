//! Blue and green: the two places on a host where a release can run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One serves; the other is empty, starting, draining or warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    Blue,
    Green,
}

impl Slot {
    pub const BOTH: [Self; 2] = [Self::Blue, Self::Green];

    pub const fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    Empty,
    Starting,
    Healthy,
    Serving,
    Draining,
    Warm,
    Failed,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Warm => "warm",
            Self::Failed => "failed",
        })
    }
}
