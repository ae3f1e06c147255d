//! From what was done with the servers to the report. Pure.

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_provision::host::LOGINS;
use regionwise_provision::said::State;
use regionwise_provision::step::Step;
use regionwise_provisioner::{Stopped, Unmet, Why};
use regionwise_remote::root::RootError;
use regionwise_rollout::Verdict;
use serde_json::json;

use super::{Outcome, What};
use crate::apply::{self, Applied, Ending};
use crate::texts;

/// Adds to the report of the orders what was done with the servers, and what it ends with.
pub(crate) fn of(mut report: Report, again: &str, outcome: &Outcome) -> Report {
    let did = &outcome.did;
    let mut changed = report.result["changed"] == true;
    let mut rows = Vec::new();
    let mut servers = Vec::new();
    let mut ends = Vec::new();
    for one in did {
        match &one.what {
            What::Met(met) => {
                if let Ok(settled) = met {
                    changed |= settled.birth_refused || settled.pinned;
                }
                let (state, text) = match met {
                    Ok(settled) if settled.birth_refused => (
                        "changed",
                        "shows its own host key; the one that it was born with is refused"
                            .to_owned(),
                    ),
                    Ok(settled) if settled.pinned => {
                        ("changed", "known_hosts pins its key".to_owned())
                    }
                    Ok(_) => ("ok", String::new()),
                    Err(error) => ("failed", error.to_string()),
                };
                if state != "ok" {
                    rows.push(row(&one.host, "first-session", state, &text));
                }
                servers.push(json!({ "server": one.host, "step": "first-session", "state": state, "why": text }));
                ends.extend(met.as_ref().err().map(|error| unmet(&one.host, error)));
            }
            What::Waits(text) => report.findings.push(notice(&one.host, text)),
            What::Unlabelled(stopped) => ends.push(provider(&one.host, stopped)),
            What::Unsaid(what) => ends.push(End {
                verdict: Verdict::Pause,
                reason: "unsaid".to_owned(),
                text: format!("`{}` did not say {what}", one.host),
                hint: None,
            }),
            What::Unkept(error) => ends.push(End {
                verdict: Verdict::Pause,
                reason: "certificate".to_owned(),
                text: format!(
                    "cannot write the certificate of `{}` into a file: {error}",
                    one.host
                ),
                hint: Some("make the directory of regions.toml writable"),
            }),
            What::Stopped(verdict) => ends.push(End {
                verdict: *verdict,
                reason: "signal".to_owned(),
                text: "stopped by a signal between two servers".to_owned(),
                hint: None,
            }),
            What::Ran {
                steps,
                applied,
                missing,
                related,
            } => {
                for seen in &applied.steps {
                    let state = seen.state.word();
                    let why = reason_of(steps, &seen.name);
                    changed |= seen.state == State::Changed;
                    servers.push(json!({ "server": one.host, "step": seen.name, "state": state, "why": why }));
                    if seen.state != State::Ok {
                        rows.push(row(&one.host, &seen.name, state, why));
                    }
                }
                let notes = applied.notes.iter().chain(missing);
                report
                    .findings
                    .extend(notes.map(|text| notice(&one.host, text)));
                if let Some(mut end) = ending(&one.host, applied, steps) {
                    if *related && end.verdict != Verdict::Refused {
                        end.text = format!("{}; this region is not told to it yet", end.text);
                    }
                    ends.push(end);
                }
            }
        }
    }
    report.tables.push(Table {
        header: vec!["server", "step", "state", "why"],
        rows,
    });
    report.result["servers"] = servers.into();
    report.result["mesh"] = json!(outcome.mesh);
    if !outcome.certificates.is_empty() {
        changed = true;
        let files = outcome.certificates.join(", ");
        report.hints.push(format!(
            "check in {files}: connection strings of nodes name them with sslrootcert"
        ));
    }
    texts::changed(&mut report, changed);
    report.findings.extend(ends.iter().map(|end| Finding {
        level: Level::Error,
        text: end.text.clone(),
    }));
    // The first of those that weigh the same: what came after it may follow from it.
    let worst = ends.into_iter().rev().max_by_key(End::weight);
    match worst {
        None => {
            let waits = did.iter().any(|one| match &one.what {
                What::Ran { missing, .. } => !missing.is_empty(),
                What::Waits(_) => true,
                _ => false,
            });
            report.summary = match waits {
                false => format!(
                    "{} Every server of it is set up, and its parts are healthy.",
                    report.summary
                ),
                true => format!(
                    "{} Every server of it is set up as far as it can be now: see the notes.",
                    report.summary
                ),
            };
            report
                .hints
                .push("preflight --release RELEASE.toml".to_owned());
        }
        Some(end) => {
            report.verdict = end.verdict;
            report.reason = Some(end.reason);
            report.summary = format!(
                "{} The servers are ordered and not all set up: {}.",
                report.summary, end.text
            );
            report.hints.extend(end.hint.map(str::to_owned));
            report
                .hints
                .push(format!("then again: {again} goes on where it stands"));
        }
    }
    report
}

fn notice(host: &str, text: &str) -> Finding {
    Finding {
        level: Level::Notice,
        text: format!("{host}: {text}"),
    }
}

fn row(host: &str, step: &str, state: &str, why: &str) -> Vec<String> {
    [host, step, state, why].map(str::to_owned).to_vec()
}

fn reason_of<'s>(steps: &'s [Step], name: &str) -> &'s str {
    let step = steps.iter().find(|step| step.name == name);
    step.map_or("", |step| step.reason)
}

/// Why the run ends as it does.
struct End {
    verdict: Verdict,
    reason: String,
    text: String,
    hint: Option<&'static str>,
}

impl End {
    /// What somebody must know first. That a host does not get through to a node is what a server that is down leads to.
    fn weight(&self) -> u8 {
        match self.verdict {
            Verdict::Interrupted | Verdict::Terminated => 7,
            Verdict::Refused => 6,
            Verdict::Unknown => 5,
            Verdict::RolledBack => 4,
            Verdict::Locked => 3,
            Verdict::Pause if self.reason == reason(LOGINS) => 0,
            Verdict::Pause => 2,
            Verdict::Unreachable => 1,
            _ => 0,
        }
    }
}

/// Of a step that failed.
fn reason(step: &str) -> String {
    format!("step-{step}")
}

fn unmet(host: &str, error: &Unmet) -> End {
    let (verdict, reason, hint) = match error {
        Unmet::Stranger(stranger) => (Verdict::Refused, "host-key", Some(stranger.hint())),
        Unmet::Silent(_) => (
            Verdict::Unreachable,
            "no-ssh",
            Some(
                "look at the server's console, and whether ssh_from has the address of this machine",
            ),
        ),
        Unmet::Login(RootError::Lost(_)) => (Verdict::Unknown, "contact-lost", None),
        Unmet::Login(error) => {
            let (verdict, hint) = apply::meaning(error);
            (verdict, "no-login", Some(hint))
        }
        Unmet::Failed(_) => (Verdict::Pause, "first-session", None),
        Unmet::Provider(stopped) => return provider(host, stopped),
        Unmet::Here(_) => (
            Verdict::Invalid,
            "here",
            Some("install the OpenSSH client, and make known_hosts writable"),
        ),
        // What::Stopped says which one.
        Unmet::Signal => (Verdict::Pause, "signal", None),
    };
    End {
        verdict,
        reason: reason.to_owned(),
        text: format!("`{host}`: {}", chain(error)),
        hint,
    }
}

fn provider(host: &str, stopped: &Stopped) -> End {
    let verdict = match stopped.why {
        Why::Lost => Verdict::Unknown,
        Why::Unreachable => Verdict::Unreachable,
        _ => Verdict::Pause,
    };
    End {
        verdict,
        reason: stopped.why.word().to_owned(),
        text: format!("`{host}`: {stopped}"),
        hint: Some(texts::next(stopped.why)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn ending(host: &str, applied: &Applied, steps: &[Step]) -> Option<End> {
    let (verdict, reason, text, hint) = match &applied.ending {
        Ending::Done => return None,
        Ending::Failed => {
            let failed = applied
                .steps
                .iter()
                .find(|seen| seen.state == State::Failed);
            let Some(failed) = failed else {
                return Some(End {
                    verdict: Verdict::Unknown,
                    reason: "step".to_owned(),
                    text: format!("a step failed on `{host}` and did not say which"),
                    hint: None,
                });
            };
            // A server of another kind is nothing that a second try mends.
            let verdict = match failed.name.as_str() {
                "system" => Verdict::Refused,
                _ => Verdict::Pause,
            };
            let why = reason_of(steps, &failed.name);
            let text = format!(
                "step `{}` failed on `{host}` ({why}): {}",
                failed.name, failed.text
            );
            (verdict, reason(&failed.name), text, None)
        }
        Ending::Locked => (
            Verdict::Locked,
            "another-run".to_owned(),
            format!("another run is setting `{host}` up"),
            Some("wait for its end"),
        ),
        Ending::Pending => (
            Verdict::Locked,
            "unconfirmed-change".to_owned(),
            format!(
                "an earlier run changed firewall or sshd of `{host}`, and nobody has confirmed it yet"
            ),
            Some("the server undoes it within a minute"),
        ),
        Ending::Reverted(why) => (
            Verdict::RolledBack,
            "locked-out".to_owned(),
            format!(
                "nobody could log in to `{host}` after firewall and sshd changed: {why}; the server has undone both"
            ),
            Some("check that ssh_from has the address of this machine"),
        ),
        Ending::Unconfirmed(why) => (
            Verdict::Unknown,
            "not-seen-again".to_owned(),
            format!(
                "nobody could log in to `{host}` after firewall and sshd changed, and it was not seen again: {why}"
            ),
            Some("it undoes both by itself; look from its console whether it did"),
        ),
        Ending::Lost(why) => (
            Verdict::Unknown,
            "contact-lost".to_owned(),
            format!("contact with `{host}` was lost on the way: {why}"),
            None,
        ),
        Ending::NotOpened(error) => {
            let (verdict, hint) = apply::meaning(error);
            let text = format!("cannot log in to `{host}` as root: {error}");
            (verdict, "no-login".to_owned(), text, Some(hint))
        }
        Ending::Stopped(verdict) => (
            *verdict,
            "signal".to_owned(),
            format!("stopped by a signal; the step under way on `{host}` may be done in part"),
            None,
        ),
    };
    Some(End {
        verdict,
        reason,
        text,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use regionwise_provision::Labels;
    use regionwise_provision::trust::Vouched;
    use regionwise_provisioner::Settled;
    use regionwise_remote::ssh::OpenError;

    use super::*;
    use crate::apply::Seen;
    use crate::setup::Did;

    fn ordered() -> Report {
        let mut report = Report::new(Verdict::Proceed, "Nothing was changed.");
        report.result = json!({ "changed": false });
        report
    }

    fn ran(ending: Ending, missing: &[&str]) -> Did {
        let applied = Applied {
            steps: vec![Seen {
                name: "packages".to_owned(),
                state: State::Changed,
                text: String::new(),
            }],
            ..Applied::ended(ending)
        };
        Did {
            host: "eu-1".to_owned(),
            what: What::Ran {
                steps: Vec::new(),
                applied,
                missing: missing.iter().map(|text| (*text).to_owned()).collect(),
                related: false,
            },
        }
    }

    fn met(met: Result<Settled, Unmet>) -> Did {
        Did {
            host: "eu-1".to_owned(),
            what: What::Met(met),
        }
    }

    fn told(did: Vec<Did>) -> Report {
        let outcome = Outcome {
            did,
            ..Outcome::default()
        };
        of(ordered(), "eu-central", &outcome)
    }

    fn stranger() -> Unmet {
        let nothing = Vouched::of(&Labels::new(), Vec::new());
        Unmet::Stranger(nothing.stage("SHA256:other").unwrap_err())
    }

    #[test]
    fn every_ending_has_its_verdict_and_says_that_the_rest_is_not_set_up() {
        let why = || "no route".to_owned();
        let refused = || {
            let said = "no".to_owned();
            RootError::Open(OpenError::HostKey { said })
        };
        for (did, verdict) in [
            (met(Err(stranger())), Verdict::Refused),
            (met(Err(Unmet::Silent(why()))), Verdict::Unreachable),
            (met(Err(Unmet::Failed(why()))), Verdict::Pause),
            (
                met(Err(Unmet::Login(RootError::Lost(why())))),
                Verdict::Unknown,
            ),
            (met(Err(Unmet::Login(refused()))), Verdict::Refused),
            (
                met(Err(Unmet::Provider(Stopped::new(Why::Lost, "lost")))),
                Verdict::Unknown,
            ),
            (ran(Ending::Locked, &[]), Verdict::Locked),
            (ran(Ending::Pending, &[]), Verdict::Locked),
            (ran(Ending::Reverted(why()), &[]), Verdict::RolledBack),
            (ran(Ending::Unconfirmed(why()), &[]), Verdict::Unknown),
            (ran(Ending::Lost(why()), &[]), Verdict::Unknown),
            (ran(Ending::NotOpened(refused()), &[]), Verdict::Refused),
            (
                ran(Ending::Stopped(Verdict::Terminated), &[]),
                Verdict::Terminated,
            ),
            // It names no step, so nobody knows what is true.
            (ran(Ending::Failed, &[]), Verdict::Unknown),
        ] {
            let report = told(vec![did]);
            assert_eq!(report.verdict, verdict, "{}", report.summary);
            assert!(
                report.summary.contains("not all set up: "),
                "{}",
                report.summary
            );
            assert!(report.reason.is_some());
        }
    }

    #[test]
    fn a_run_that_went_well_says_what_it_changed_and_what_waits() {
        let nothing = told(vec![met(Ok(Settled::default()))]);
        assert_eq!(
            (nothing.verdict, &nothing.result["changed"]),
            (Verdict::Proceed, &json!(false))
        );
        let waits = told(vec![ran(Ending::Done, &["a standby waits"])]);
        assert_eq!(waits.verdict, Verdict::Proceed);
        assert_eq!(waits.result["changed"], true);
        assert!(
            waits.summary.contains("as far as it can be now"),
            "{}",
            waits.summary
        );
        assert!(waits.findings[0].text.contains("a standby waits"));
    }

    fn failed(step: &str) -> Did {
        let applied = Applied {
            steps: vec![Seen {
                name: step.to_owned(),
                state: State::Failed,
                text: format!("{step} said no"),
            }],
            ..Applied::ended(Ending::Failed)
        };
        Did {
            host: "eu-1".to_owned(),
            what: What::Ran {
                steps: Vec::new(),
                applied,
                missing: Vec::new(),
                related: true,
            },
        }
    }

    #[test]
    fn what_follows_from_something_else_does_not_hide_it() {
        let down = || met(Err(Unmet::Silent("us-1".to_owned())));
        let report = told(vec![down(), failed(LOGINS)]);
        assert_eq!(report.verdict, Verdict::Unreachable, "{}", report.summary);
        let report = told(vec![failed("packages"), failed("proxy"), failed(LOGINS)]);
        assert_eq!(report.reason.as_deref(), Some("step-packages"));
        // And nothing of it is lost.
        for step in ["packages", "proxy", LOGINS] {
            let said = format!("{step} said no");
            let mut texts = report.findings.iter().map(|finding| &finding.text);
            assert!(texts.any(|text| text.contains(&said)), "{said}");
        }
        let alone = told(vec![failed(LOGINS)]);
        assert_eq!(alone.verdict, Verdict::Pause);
    }

    #[test]
    fn of_several_endings_the_one_that_somebody_must_know_first_is_the_runs() {
        let did = vec![
            met(Err(Unmet::Silent("x".to_owned()))),
            met(Err(stranger())),
        ];
        assert_eq!(told(did).verdict, Verdict::Refused);
    }
}
