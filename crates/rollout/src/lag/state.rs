//! What the servers say about themselves: it names a lag's cause, and refuses what no waiting heals.

use super::Refusal;

/// The root primary of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryFacts {
    pub in_recovery: bool,
    pub system_identifier: u64,
    pub timeline: Option<u32>,
}

/// One standby.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub in_recovery: bool,
    pub system_identifier: u64,
    pub flow: Flow,
    /// The timeline it receives.
    pub timeline: Option<u32>,
    pub replay_paused: bool,
    /// `recovery_min_apply_delay` where it is not 0.
    pub apply_delay: Option<String>,
    /// The slot it streams from, if the primary no longer has the WAL for it.
    pub lost_slot: Option<String>,
    /// How far it replayed beyond the end of the primary's WAL, where that end was read *after* the standby's.
    pub ahead_bytes: u64,
}

/// The stream into a standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Streaming,
    /// A receiver that does not stream: waiting, starting, stopping.
    Waiting,
    Disconnected,
    /// The role may not see it.
    Hidden,
}

/// How a standby is, apart from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    Lagging,
    Unknown,
    DelayedByConfig,
    Paused,
    Disconnected,
}

impl State {
    /// The worst that is true. `facts` is `None` while the standby does not answer.
    pub fn of(facts: Option<&Facts>, over: bool) -> Self {
        match facts {
            None => Self::Unknown,
            Some(facts) if facts.flow == Flow::Disconnected => Self::Disconnected,
            Some(facts) if facts.replay_paused => Self::Paused,
            Some(facts) if facts.apply_delay.is_some() => Self::DelayedByConfig,
            Some(_) if over => Self::Lagging,
            Some(_) => Self::Ok,
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::Unknown => "unknown",
            Self::DelayedByConfig => "delayed-by-config",
            Self::Paused => "paused",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Why this pair must not be measured at all, if so.
pub fn refusal(primary: &PrimaryFacts, standby: &Facts) -> Option<Refusal> {
    primary_in_recovery(primary)
        .or_else(|| wrong_cluster(primary, standby))
        .or_else(|| standby_writable(standby))
        .or_else(|| forked(primary, standby))
        .or_else(|| needs_rebuild(standby))
}

fn primary_in_recovery(primary: &PrimaryFacts) -> Option<Refusal> {
    primary.in_recovery.then_some(Refusal::PrimaryInRecovery)
}

fn wrong_cluster(primary: &PrimaryFacts, standby: &Facts) -> Option<Refusal> {
    (primary.system_identifier != standby.system_identifier).then_some(Refusal::WrongCluster {
        primary: primary.system_identifier,
        standby: standby.system_identifier,
    })
}

fn standby_writable(standby: &Facts) -> Option<Refusal> {
    (!standby.in_recovery).then_some(Refusal::StandbyWritable)
}

fn forked(primary: &PrimaryFacts, standby: &Facts) -> Option<Refusal> {
    if standby.ahead_bytes > 0 {
        return Some(Refusal::Forked {
            ahead_bytes: standby.ahead_bytes,
        });
    }
    let (ours, theirs) = (primary.timeline?, standby.timeline?);
    (theirs > ours).then_some(Refusal::OtherTimeline {
        primary: ours,
        standby: theirs,
    })
}

fn needs_rebuild(standby: &Facts) -> Option<Refusal> {
    standby
        .lost_slot
        .clone()
        .map(|slot| Refusal::NeedsRebuild { slot })
}

#[cfg(test)]
mod tests {
    use super::{Facts, Flow, PrimaryFacts, State, refusal};
    use crate::lag::Refusal;

    const PRIMARY: PrimaryFacts = PrimaryFacts {
        in_recovery: false,
        system_identifier: 7,
        timeline: Some(2),
    };

    fn standby() -> Facts {
        Facts {
            in_recovery: true,
            system_identifier: 7,
            flow: Flow::Streaming,
            timeline: Some(2),
            replay_paused: false,
            apply_delay: None,
            lost_slot: None,
            ahead_bytes: 0,
        }
    }

    #[test]
    fn a_sound_pair_is_measured() {
        assert_eq!(refusal(&PRIMARY, &standby()), None);
        assert_eq!(
            refusal(
                &PRIMARY,
                &Facts {
                    timeline: Some(1),
                    ..standby()
                }
            ),
            None,
            "it still follows"
        );
    }

    #[test]
    fn what_no_waiting_heals_is_refused_by_name() {
        let promoted = Facts {
            in_recovery: false,
            ..standby()
        };
        assert_eq!(refusal(&PRIMARY, &promoted), Some(Refusal::StandbyWritable));
        let stranger = Facts {
            system_identifier: 8,
            ..standby()
        };
        assert_eq!(
            refusal(&PRIMARY, &stranger),
            Some(Refusal::WrongCluster {
                primary: 7,
                standby: 8
            })
        );
        let demoted = PrimaryFacts {
            in_recovery: true,
            ..PRIMARY
        };
        assert_eq!(
            refusal(&demoted, &standby()),
            Some(Refusal::PrimaryInRecovery)
        );
        let ahead = Facts {
            ahead_bytes: 96,
            ..standby()
        };
        assert_eq!(
            refusal(&PRIMARY, &ahead),
            Some(Refusal::Forked { ahead_bytes: 96 })
        );
        let newer = Facts {
            timeline: Some(3),
            ..standby()
        };
        assert_eq!(
            refusal(&PRIMARY, &newer),
            Some(Refusal::OtherTimeline {
                primary: 2,
                standby: 3
            })
        );
        let lost = Facts {
            lost_slot: Some("sin".to_owned()),
            ..standby()
        };
        assert_eq!(
            refusal(&PRIMARY, &lost),
            Some(Refusal::NeedsRebuild {
                slot: "sin".to_owned()
            })
        );
    }

    #[test]
    fn the_worst_state_wins() {
        let broken = Facts {
            flow: Flow::Disconnected,
            replay_paused: true,
            ..standby()
        };
        assert_eq!(State::of(Some(&broken), true), State::Disconnected);
        assert_eq!(
            State::of(
                Some(&Facts {
                    replay_paused: true,
                    ..standby()
                }),
                false
            ),
            State::Paused
        );
        assert_eq!(State::of(Some(&standby()), true), State::Lagging);
        assert_eq!(State::of(None, false), State::Unknown);
    }
}
