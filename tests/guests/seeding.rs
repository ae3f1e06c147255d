//! How a standby is copied from its primary: the program of a node in a real shell, with systemd and Postgres in name only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A unit is a process of a session of its own, as one of systemd is.
const PROGRAMS: [(&str, &str); 8] = [
    (
        "systemd-run",
        "shift 2\nsetsid \"$@\" > \"$HOME/unit.out\" 2>&1 &\necho $! > \"$HOME/unit\"",
    ),
    (
        "systemctl",
        "[ \"$2\" != is-active ] || kill -0 \"$(cat \"$HOME/unit\" 2> /dev/null)\" 2> /dev/null",
    ),
    ("journalctl", "cat \"$HOME/unit.out\""),
    ("runuser", "shift 3\nexec \"$@\""),
    (
        "install",
        "for path; do :; done\nif [ \"$1\" = -d ]; then mkdir -p \"$path\"; else : > \"$path\"; fi",
    ),
    ("pg_createcluster", "mkdir -p \"$HOME/etc/15/regionwise\""),
    ("pg_lsclusters", ""),
    ("chown", ""),
];

/// It copies when `go` is there, and fails when `stop` is, or when its test is gone.
const COPY: &str = r#"#!/bin/sh
echo began >> "$HOME/begun"
until [ -e "$HOME/go" ]; do
  [ -d "$HOME" ] || exit 1
  [ ! -e "$HOME/stop" ] || { echo 'the primary is gone'; exit 1; }
  sleep 0.02
done
while [ "$1" != -D ]; do shift; done
echo 15 > "$2/PG_VERSION"
"#;

struct Node(TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        let home = node.0.path().display().to_string();
        let program = |name: &str, text: &str| {
            let path = node.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let tool = include_str!("../../crates/provision/src/host/postgres/node.sh")
            .replace("/etc/regionwise/postgres", &home)
            .replace("/etc/postgresql", &format!("{home}/etc"))
            .replace("/usr/lib/postgresql", &format!("{home}/lib"))
            .replace("=/var/lib/postgresql/regionwise", &format!("={home}/top"));
        program("tool", &tool);
        for (name, text) in PROGRAMS {
            program(&format!("bin/{name}"), &format!("#!/bin/sh\n{text}\n"));
        }
        program("lib/15/bin/pg_basebackup", COPY);
        program("lib/15/bin/postgres", "#!/bin/sh\n");
        fs::write(node.path("primary.crt"), "a certificate\n").unwrap();
        node.of_primary("eu-1");
        fs::create_dir(node.path("top")).unwrap();
        node
    }

    fn of_primary(&self, primary: &str) {
        let settings = format!(
            "volume='' part=standby node=eu-2 cluster=eu primary={primary} conninfo='host=fd00::1' standbys=''\n"
        );
        fs::write(self.path("node"), settings).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn touch(&self, name: &str) {
        fs::write(self.path(name), "").unwrap();
    }

    /// A run that makes the cluster.
    fn begin(&self) -> Child {
        let tool = self.path("tool").display().to_string();
        let mut command = self.command(&[&tool, "make_cluster"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// A shell that finds the programs.
    fn command(&self, words: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command
            .args(words)
            .env("HOME", self.0.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()));
        command
    }

    /// How many copies have begun.
    fn begun(&self) -> usize {
        let text = fs::read_to_string(self.path("begun")).unwrap_or_default();
        text.lines().count()
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A run begins a copy, and is killed.
    fn loses_its_run(&self) {
        let mut run = self.begin();
        self.wait_for("begun", |node| node.begun() == 1);
        run.kill().unwrap();
        run.wait().unwrap();
    }

    fn copies_without_its_run(&self) {
        self.loses_its_run();
        self.touch("go");
        self.wait_for("copied", |node| {
            node.path("top/15.new/regionwise-copied").exists()
        });
    }

    fn is_standby(&self) -> bool {
        self.path("top/15/standby.signal").exists() && !self.path("top/15.new").exists()
    }
}

#[test]
fn a_copy_goes_on_without_the_run_that_began_it_and_the_next_run_waits_for_it() {
    let node = Node::new();
    node.loses_its_run();
    let second = node.begin();
    node.touch("go");
    let ended = second.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(node.begun(), 1, "one copy");
    assert!(node.is_standby());
    assert!(!node.path("top/15/regionwise-copied").exists());
}

#[test]
fn whoever_waits_for_a_copy_ends_when_nobody_hears_of_it_any_more() {
    let node = Node::new();
    // As the frame runs it, whose stdout is that of the login.
    let mut waiting = node
        .command(&[
            "-c",
            "exec sh \"$HOME/tool\" make_cluster 7>&1 > \"$HOME/out\"",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.wait_for("begun", |node| node.begun() == 1);
    // The login is gone.
    drop(waiting.stdout.take());
    let deadline = Instant::now() + Duration::from_secs(30);
    let ended = loop {
        match waiting.try_wait().unwrap() {
            Some(ended) => break ended,
            None if Instant::now() > deadline => {
                waiting.kill().unwrap();
                panic!("it waits for ever");
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(!ended.success());
    node.touch("go");
    let next = node.begin().wait_with_output().unwrap();
    assert!(next.status.success(), "{next:?}");
    assert_eq!(node.begun(), 1, "one copy");
}

#[test]
fn a_copy_that_ended_between_two_runs_is_taken_and_one_of_another_primary_is_not() {
    let node = Node::new();
    node.copies_without_its_run();
    node.of_primary("eu-3");
    let other = node.begin().wait_with_output().unwrap();
    assert!(other.status.success(), "{other:?}");
    assert_eq!(node.begun(), 2, "the copy of eu-1 is none of eu-3");

    let node = Node::new();
    node.copies_without_its_run();
    let second = node.begin().wait_with_output().unwrap();
    assert!(second.status.success(), "{second:?}");
    assert_eq!(node.begun(), 1, "one copy");
    assert!(node.is_standby());
}

#[test]
fn a_copy_that_failed_is_said_and_made_anew() {
    let node = Node::new();
    node.touch("stop");
    let failed = node.begin().wait_with_output().unwrap();
    let said = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.contains("cannot copy eu-1") && said.contains("the primary is gone"),
        "{said}"
    );
    assert!(!node.path("top/15").exists());
    fs::remove_file(node.path("stop")).unwrap();
    node.touch("go");
    let made = node.begin().wait_with_output().unwrap();
    assert!(made.status.success(), "{made:?}");
    assert!(node.is_standby());
}
