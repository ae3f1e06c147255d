//! What the script prints, line by line.

/// One line of a running script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Step {
        state: State,
        name: String,
        text: String,
    },
    /// Nothing that stops anybody, and worth to be read.
    Note {
        step: String,
        text: String,
    },
    /// Something public that only the server knows.
    Fact {
        name: String,
        value: String,
    },
    End(End),
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was so already.
    Ok,
    Changed,
    /// A dry run: it is not so.
    Would,
    Failed,
}

impl State {
    /// The word in the script's output and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Changed => "changed",
            Self::Would => "would",
            Self::Failed => "failed",
        }
    }
}

/// How a script ended. Without such a line its end was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    /// A guarded change waits for its confirmation.
    Armed,
    Failed,
    /// Another run is at work on this server.
    Locked,
    /// A guarded change of an earlier run is not decided yet.
    Pending,
}

impl Line {
    /// `None` for a line that is not the script's: somebody's login message, for example.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, '\t');
        match (words.next()?, words.next()?) {
            ("step", state) => {
                let states = [State::Ok, State::Changed, State::Would, State::Failed];
                let state = states.into_iter().find(|known| known.word() == state)?;
                let name = words.next()?.to_owned();
                let text = words.next().unwrap_or_default().trim().to_owned();
                Some(Self::Step { state, name, text })
            }
            ("note", step) => Some(Self::Note {
                step: step.to_owned(),
                text: words.collect::<Vec<_>>().join(" "),
            }),
            ("fact", name) => Some(Self::Fact {
                name: name.to_owned(),
                value: words.next()?.to_owned(),
            }),
            ("end", "done") => Some(Self::End(End::Done)),
            ("end", "armed") => Some(Self::End(End::Armed)),
            ("end", "failed") => Some(Self::End(End::Failed)),
            ("end", "locked") => Some(Self::End(End::Locked)),
            ("end", "pending") => Some(Self::End(End::Pending)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_script_are_read_and_all_others_are_not() {
        let step = |state, text: &str| {
            Some(Line::Step {
                state,
                name: "packages".to_owned(),
                text: text.to_owned(),
            })
        };
        assert_eq!(Line::parse("step\tok\tpackages\t"), step(State::Ok, ""));
        assert_eq!(Line::parse("step\twould\tpackages"), step(State::Would, ""));
        assert_eq!(
            Line::parse("step\tfailed\tpackages\tno\troute "),
            step(State::Failed, "no\troute")
        );
        let note = Line::Note {
            step: "mesh".to_owned(),
            text: "no handshake with `eu-2`".to_owned(),
        };
        assert_eq!(
            Line::parse("note\tmesh\tno handshake with `eu-2`"),
            Some(note)
        );
        let fact = Line::Fact {
            name: "wireguard".to_owned(),
            value: "abc=".to_owned(),
        };
        assert_eq!(Line::parse("fact\twireguard\tabc="), Some(fact));
        assert_eq!(Line::parse("end\tarmed"), Some(Line::End(End::Armed)));
        for foreign in [
            "",
            "step",
            "fact\twireguard",
            "step\tfine\tpackages",
            "end\tsoon",
            "Welcome to Debian\tstep\tok\tx",
            "end",
        ] {
            assert_eq!(Line::parse(foreign), None, "{foreign}");
        }
    }
}
