//! Every ending, and which of several is told.

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
