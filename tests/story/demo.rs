//! Ctrl-C at any moment of the demo leaves no live process behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Processes that belong to the demo in this directory, by command line or environment.
fn alive(work: &Path) -> Vec<String> {
    let work = work.display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let dead = read("stat")
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"));
        let command = read("cmdline");
        if !dead && (command.contains(&work) || read("environ").contains(&work)) {
            found.push(command);
        }
    }
    found
}

#[test]
fn ctrl_c_at_any_moment_of_the_demo_leaves_no_process() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for round in 0..4 {
        let work = tempfile::Builder::new()
            .prefix("rw-demo-")
            .tempdir()
            .unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        fs::set_permissions(work.path(), open).unwrap();
        let lab = work.path().join("lab");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["run", "--dir"])
            .arg(&lab)
            .arg("--")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/demo"))
            .arg("--story")
            .arg(work.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal sends SIGINT to the whole foreground group.
            .process_group(0)
            .spawn()
            .unwrap();
        // From the start of the lab to somewhere in the second rollout.
        let moment = Duration::from_millis((seed * 7_919 + round * 4_001) % 16_000);
        let until = Instant::now() + moment;
        while Instant::now() < until && demo.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(
            demo.try_wait().unwrap().is_none(),
            "the demo ended by itself within {moment:?}"
        );
        let group = format!("-{}", demo.id());
        assert!(
            Command::new("kill")
                .args(["-INT", "--", &group])
                .status()
                .unwrap()
                .success()
        );
        let asked = Instant::now();
        demo.wait().unwrap();
        let left = alive(work.path());
        assert!(left.is_empty(), "after SIGINT at {moment:?}: {left:#?}");
        assert!(
            asked.elapsed() < Duration::from_secs(15),
            "it took {:?} to stop",
            asked.elapsed()
        );
    }
}
