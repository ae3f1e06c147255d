//! What a workflow gets: outputs, a summary, annotations, and no secret.

use std::fs;

use regionwise_rollout::Verdict;

use crate::support::{DEPLOY, Run, World, hosts};

const EU: &str = "eu-central";

#[test]
fn a_workflow_gets_verdict_operation_and_a_table_and_no_secret() {
    let world = World::with(&[("rollout", "start_deadline", "1500ms")]);
    let (outputs, summary) = (world.file("outputs", b""), world.file("summary", b""));
    let secret = "hunter2-of-the-release";
    let deploy = |name: &str, fault: &[(&str, &str)], attempt: &str| {
        let env = [&[("API_TOKEN", secret)], fault].concat();
        let release = world.release(name, &env);
        let args = ["--region", EU, "--release", release.to_str().unwrap()];
        let mut command = world.command(DEPLOY, &args);
        command
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_OUTPUT", &outputs)
            .env("GITHUB_STEP_SUMMARY", &summary)
            .env("GITHUB_SERVER_URL", "https://github.example")
            .env("GITHUB_REPOSITORY", "shop/api")
            .env("GITHUB_RUN_ID", "77")
            .env("GITHUB_RUN_ATTEMPT", attempt);
        Run::of(command)
    };
    let good = deploy("v1", &[], "1").expect(Verdict::Proceed);
    assert_eq!(
        fs::read_to_string(&outputs).unwrap(),
        "verdict=proceed\nreason=serving\noperation=77-1-eu-central\ntraffic=new\nchanged=true\nserves=v1\n"
    );
    let text = fs::read_to_string(&summary).unwrap();
    assert!(
        text.starts_with("### deploy-region eu-central: proceed\n"),
        "{text}"
    );
    for line in [
        "| host | release | note |",
        "| eu-1 | v1 |",
        "| eu-2 | v1 |",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!good.stderr.contains("::error"), "{good}");

    let bad = deploy("v2", &[("FAULT_BASIC", "500")], "2").expect(Verdict::RollBack);
    let told = fs::read_to_string(&outputs).unwrap();
    assert!(told.ends_with("verdict=roll-back\nreason=not-healthy\noperation=77-2-eu-central\ntraffic=old\nchanged=false\nserves=\n"), "{told}");
    assert!(
        bad.stderr
            .contains("::error title=deploy-region::roll-back: "),
        "{bad}"
    );

    let key = fs::read_to_string(world.lab.directory().deploy_key()).unwrap();
    let summary = fs::read_to_string(&summary).unwrap();
    let masked = |line: &&str| !line.starts_with("::add-mask::");
    for line in key.lines().chain([secret]) {
        for run in [&good, &bad] {
            // The runner itself takes the masks out of the log.
            let log: Vec<&str> = run.stderr.lines().filter(masked).collect();
            for shown in [run.stdout.as_str(), &log.join("\n"), &summary, &told] {
                assert!(!shown.contains(line), "{shown}");
            }
        }
        for host in hosts(EU) {
            for file in [
                "history.jsonl",
                "lease.json",
                "slots/blue.json",
                "log/blue.log",
            ] {
                let text = fs::read_to_string(world.root(host).join(file)).unwrap();
                assert!(!text.contains(line), "{host} {file}");
            }
        }
    }
    assert!(
        world
            .processes_of("")
            .iter()
            .all(|line| !line.contains(secret))
    );
}
