//! From what was done with the servers to the report. Pure.

use std::collections::BTreeSet;

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_provision::host::LOGINS;
use regionwise_provision::said::State;
use regionwise_provision::step::Step;
use regionwise_provisioner::{Settled, Stopped, Unmet, Why};
use regionwise_remote::root::RootError;
use regionwise_rollout::Verdict;
use serde_json::{Value, json};

use super::{Outcome, What};
use crate::apply::{self, Applied, Ending};
use crate::texts;

/// Adds to the report of the orders what was done with the servers, and what it ends with.
pub(crate) fn of(mut report: Report, again: &str, outcome: &Outcome) -> Report {
    let mut gathered = Gathered::of(outcome);
    gathered.changed |= report.result["changed"] == true;
    gathered.tell(&mut report);
    report.result["mesh"] = json!(outcome.mesh);
    if !outcome.certificates.is_empty() {
        let files = outcome.certificates.join(", ");
        report.hints.push(format!(
            "check in {files}: connection strings of nodes name them with sslrootcert"
        ));
    }
    let changed = gathered.changed || !outcome.certificates.is_empty();
    texts::changed(&mut report, changed);
    match gathered.worst() {
        None => {
            let is = gathered.state();
            report.summary = format!("{} Every server of it is {is}.", report.summary);
            report
                .hints
                .push("preflight --release RELEASE.toml".to_owned());
        }
        Some(end) => {
            report.verdict = end.verdict;
            report.reason = Some(end.reason.clone());
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

/// Adds to the report of the resources where the servers differ from what a set-up would make of them.
pub(crate) fn compared(mut report: Report, again: &str, outcome: &Outcome) -> Report {
    let gathered = Gathered::of(outcome);
    gathered.tell(&mut report);
    let differ = gathered.differ.len();
    if differ > 0 {
        report.verdict = Verdict::Pause;
        report.reason = Some("drift".to_owned());
        let servers = match differ {
            1 => "1 step would change something on its servers".to_owned(),
            n => format!("{n} steps would change something on its servers"),
        };
        report.summary = format!("{} {servers}.", report.summary);
        report.hints.push(again.to_owned());
    }
    // Whoever was not asked may differ, too.
    if let Some(end) = gathered.worst() {
        report.verdict = match end.verdict {
            // Nothing was to be changed, so nothing is half done.
            Verdict::Unknown => Verdict::Unreachable,
            verdict => verdict,
        };
        report.reason = Some(end.reason.clone());
        report.summary = format!("{} Not all of it was seen: {}.", report.summary, end.text);
        report.hints.extend(end.hint.map(str::to_owned));
    } else if differ == 0 {
        report.summary = format!(
            "{} Its servers are as a set-up would make them.",
            report.summary
        );
    }
    report
}

/// Everything that was done or seen, sorted by what it is to a report.
#[derive(Default)]
struct Gathered {
    rows: Vec<Vec<String>>,
    servers: Vec<Value>,
    notices: Vec<Finding>,
    ends: Vec<End>,
    changed: bool,
    /// Something is for a later run.
    waits: bool,
    /// Server and step that would change something, or what else is not as it should be; some steps are looked at twice.
    differ: BTreeSet<(String, String)>,
    /// Hosts with a release that answers.
    serving: usize,
    without_release: Vec<String>,
}

impl Gathered {
    fn of(outcome: &Outcome) -> Self {
        let mut gathered = Self::default();
        for one in &outcome.did {
            gathered.take(&one.host, &one.what);
        }
        gathered
    }

    fn take(&mut self, host: &str, what: &What) {
        match what {
            What::Met(met) => self.met(host, met),
            What::Waits(text) => {
                self.waits = true;
                self.notices.push(notice(host, text));
            }
            What::Differs(text) => {
                self.differ.insert((host.to_owned(), (*text).to_owned()));
                self.rows.push(row(host, "", "would", text));
            }
            What::Serves(true) => self.serving += 1,
            What::Serves(false) => self.without_release.push(host.to_owned()),
            What::Mute(said) => self.ends.push(End {
                verdict: Verdict::Pause,
                reason: "no-answer".to_owned(),
                text: format!(
                    "a release should serve on `{host}`, and a request is answered with: {said}"
                ),
                hint: Some("deploy-region status"),
            }),
            What::Unmet => self.ends.push(End {
                verdict: Verdict::Pause,
                reason: "never-set-up".to_owned(),
                text: format!("`{host}` was not asked: nobody has set it up"),
                hint: None,
            }),
            What::Unbalanced(hosts) => self.ends.push(End {
                verdict: Verdict::Pause,
                reason: "load-balancer".to_owned(),
                text: format!(
                    "load balancer `{host}` does not find {} healthy, and a release answers there",
                    hosts.join(", ")
                ),
                hint: Some(
                    "it asks over the private network, on port 80: look at both in the console",
                ),
            }),
            What::Unlabelled(stopped) | What::Unseen(stopped) => {
                self.ends.push(provider(host, stopped));
            }
            What::Unsaid(what) => self.ends.push(End {
                verdict: Verdict::Pause,
                reason: "unsaid".to_owned(),
                text: format!("`{host}` did not say {what}"),
                hint: None,
            }),
            What::Unkept(error) => self.ends.push(End {
                verdict: Verdict::Pause,
                reason: "certificate".to_owned(),
                text: format!("cannot write the certificate of `{host}` into a file: {error}"),
                hint: Some("make the directory of regions.toml writable"),
            }),
            What::Stopped(verdict) => self.ends.push(End {
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
                self.steps(host, steps, applied);
                self.waits |= !missing.is_empty();
                let notes = applied.notes.iter().chain(missing);
                self.notices.extend(notes.map(|text| notice(host, text)));
                if let Some(mut end) = ending(host, applied, steps) {
                    if *related && end.verdict != Verdict::Refused {
                        end.text = format!("{}; this region is not told to it yet", end.text);
                    }
                    self.ends.push(end);
                }
            }
        }
    }

    fn met(&mut self, host: &str, met: &Result<Settled, Unmet>) {
        let (state, text) = match met {
            Ok(settled) if settled.birth_refused => (
                "changed",
                "shows its own host key; the one that it was born with is refused".to_owned(),
            ),
            Ok(settled) if settled.pinned => ("changed", "known_hosts pins its key".to_owned()),
            Ok(_) => ("ok", String::new()),
            Err(error) => ("failed", error.to_string()),
        };
        self.changed |= state == "changed";
        if state != "ok" {
            self.rows.push(row(host, "first-session", state, &text));
        }
        self.servers
            .push(json!({ "server": host, "step": "first-session", "state": state, "why": text }));
        self.ends
            .extend(met.as_ref().err().map(|error| unmet(host, error)));
    }

    fn steps(&mut self, host: &str, steps: &[Step], applied: &Applied) {
        for seen in &applied.steps {
            let state = seen.state.word();
            let why = reason_of(steps, &seen.name);
            self.changed |= seen.state == State::Changed;
            if seen.state == State::Would
                && !self.differ.insert((host.to_owned(), seen.name.clone()))
            {
                continue;
            }
            self.servers
                .push(json!({ "server": host, "step": seen.name, "state": state, "why": why }));
            if seen.state != State::Ok {
                self.rows.push(row(host, &seen.name, state, why));
            }
        }
    }

    /// How its servers are, where all went well.
    fn state(&self) -> String {
        let without = self.without_release.join(", ");
        match (self.waits, self.serving, self.without_release.is_empty()) {
            (true, ..) => "set up as far as it can be now: see the notes".to_owned(),
            (false, _, true) => "set up, and its parts are healthy".to_owned(),
            (false, 0, false) => "set up; no release serves there yet".to_owned(),
            (false, _, false) => {
                format!("set up; no release serves on {without} yet: deploy the region again")
            }
        }
    }

    fn tell(&self, report: &mut Report) {
        report.tables.push(Table {
            header: vec!["server", "step", "state", "why"],
            rows: self.rows.clone(),
        });
        report.result["servers"] = self.servers.clone().into();
        report.findings.extend(self.notices.iter().cloned());
        report.findings.extend(self.ends.iter().map(|end| Finding {
            level: Level::Error,
            text: end.text.clone(),
        }));
    }

    /// The first of those that weigh the same: what came after it may follow from it.
    fn worst(&self) -> Option<&End> {
        self.ends.iter().rev().max_by_key(|end| end.weight())
    }
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
mod tests;
