//! `scripts/rollout` killed at each of its steps and run again ends where an undisturbed one does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::world::World;

/// Every binary that the script starts.
const STEPS: [&str; 4] = [
    "preflight",
    "deploy-region",
    "smoke-test",
    "check-replication-lag",
];

/// Stand-ins before the real binaries: each counts, and at the chosen count kills the script and, a moment later, the
/// real binary it became.
fn write_shims(directory: &Path) {
    let real = Path::new(env!("CARGO_BIN_EXE_deploy-region"))
        .parent()
        .unwrap();
    for step in STEPS {
        let shim = format!(
            "#!/bin/sh\n\
             count=$(($(cat {dir}/count) + 1))\n\
             echo $count > {dir}/count\n\
             if [ $count = \"$(cat {dir}/kill-at)\" ]; then\n\
             \x20 kill -9 $PPID\n\
             \x20 (sleep \"$(cat {dir}/after)\"; kill -9 $$) > /dev/null 2>&1 &\n\
             fi\n\
             exec {real}/{step} \"$@\"\n",
            dir = directory.display(),
            real = real.display(),
        );
        let path = directory.join(step);
        fs::write(&path, shim).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_rollout_killed_at_each_step_and_run_again_converges() {
    let mut world = World::with_v1();
    // The gates' windows are not the point here.
    let config = fs::read_to_string(&world.config).unwrap();
    let quick = config
        .replace("sustained = \"3s\"", "sustained = \"1s\"")
        .replace("clear_for = \"1s\"", "clear_for = \"500ms\"");
    let beside = world.config.with_file_name("quick.toml");
    fs::write(&beside, quick).unwrap();
    world.config = beside;

    let shims = tempfile::tempdir().unwrap();
    write_shims(shims.path());
    let v2 = world.release("v2", &[]);
    let seed = std::process::id();
    println!("seed {seed}");
    let mut state = seed;
    let mut steps = 0;
    for step in 1.. {
        // A linear congruential step is random enough for a delay (Numerical Recipes).
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let after = f64::from(state >> 16) / 65_536.0 * 0.8;
        fs::write(shims.path().join("count"), "0").unwrap();
        fs::write(shims.path().join("kill-at"), step.to_string()).unwrap();
        fs::write(shims.path().join("after"), format!("{after:.3}")).unwrap();
        let run = world
            .rollout(&v2, "often", &[], Some(shims.path()))
            .output()
            .unwrap();
        let status = run.status;
        if status.success() {
            // It ran through before the kill's turn came: every step was hit.
            steps = step - 1;
            break;
        }
        assert_eq!(
            status.code(),
            None,
            "step {step} ended by itself: {status}\n{}\n{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        );
        assert!(step < 40, "it never runs through");
        wait_for_the_killed(shims.path());
    }
    assert!(steps >= 10, "only {steps} steps were hit");
    world.serves(["v2"; 5]);
    for (host, facts) in world.hosts() {
        assert!(
            facts["intent"].is_null() && facts["lease"].is_null(),
            "{host}: {facts}"
        );
        assert_eq!(facts["serving"]["verified"], true, "{host}");
        assert_eq!(facts["file"], facts["runtime"], "{host}");
        assert!(facts["history_broken_at"].is_null(), "{host}");
    }
}

/// The step that was cut short must be dead before the next run, as on a machine that lost power.
fn wait_for_the_killed(shims: &Path) {
    let real = Path::new(env!("CARGO_BIN_EXE_deploy-region"))
        .parent()
        .unwrap()
        .display()
        .to_string();
    let shims = shims.display().to_string();
    let mine = |pid: &str| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&read("environ")).into_owned();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        environ.contains(&shims) && (command.starts_with(&real) || command.starts_with("ssh"))
    };
    for _ in 0..500 {
        let pids = Command::new("ps")
            .args(["-eo", "pid="])
            .output()
            .unwrap()
            .stdout;
        if !String::from_utf8_lossy(&pids).split_whitespace().any(mine) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("a killed step still lives");
}
