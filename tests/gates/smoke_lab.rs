//! `smoke-test` against the reference product on the lab's hosts: through HAProxy, with real databases behind it.

use std::fs;
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::gate::{Gate, Outcome};
use crate::world::{Afterwards, LAB, US};

/// The release that the two regions of cluster `us` serve, brought there as it would be in production.
static DEPLOYED: LazyLock<Mutex<()>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let release = dir.path().join("v1.toml");
    let artifact = env!("CARGO_BIN_EXE_reference-api");
    fs::write(
        &release,
        format!("name = \"v1\"\nartifact = \"{artifact}\"\n"),
    )
    .unwrap();
    for region in ["ap-singapore", "us-east"] {
        let deploy = Command::new(env!("CARGO_BIN_EXE_deploy-region"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .args(["--region", region, "--release"])
            .arg(&release)
            .arg("--config")
            .arg(LAB.regions_toml())
            .output()
            .unwrap();
        assert!(
            deploy.status.success(),
            "{}",
            String::from_utf8_lossy(&deploy.stderr)
        );
    }
    Mutex::new(())
});

fn smoke(region: &str, args: &[&str]) -> Outcome {
    Gate::smoke_test(LAB.regions_toml())
        .args(["--region", region, "--expect-release", "v1"])
        .args(args.iter().copied())
        .run()
}

#[test]
fn a_region_with_real_databases_is_healthy_and_old_reads_pause_it() {
    let _us = US.alone();
    let _deployed = DEPLOYED.lock().unwrap_or_else(PoisonError::into_inner);
    smoke("ap-singapore", &[]).is(0, "proceed healthy");
    let held = LAB.standby("us-sin");
    let _release = Afterwards(|| held.release().unwrap());
    held.hold().unwrap();
    let ended = smoke("ap-singapore", &[]);
    ended.is(10, "pause lagging");
    smoke("us-east", &[]).is(0, "proceed healthy");
}

#[test]
fn dependencies_that_are_down_everywhere_pause_and_two_only_warn() {
    let _us = US.shared();
    let _deployed = DEPLOYED.lock().unwrap_or_else(PoisonError::into_inner);
    let down = ["payments", "mail", "tax"];
    let _up = Afterwards(|| {
        down.iter()
            .for_each(|name| LAB.dependency(name, true).unwrap());
    });
    for name in &down[..2] {
        LAB.dependency(name, false).unwrap();
    }
    let ended = smoke("us-east", &[]);
    ended.is(0, "proceed degraded");
    assert_eq!(
        ended.json["result"]["failing_dependencies"],
        serde_json::json!(["mail", "payments"])
    );
    LAB.dependency(down[2], false).unwrap();
    smoke("us-east", &[]).is(11, "roll-back dependencies-failing");
    smoke("us-east", &["--compare-with", "ap-singapore"]).is(10, "pause external");
}
