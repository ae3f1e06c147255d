//! What the program for `region-host` makes of files in a directory instead of a server's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use regionwise_provision::upgrade::SCRIPT;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

struct Server(TempDir);

impl Server {
    fn new() -> Self {
        let server = Self(tempfile::tempdir().unwrap());
        let path = |name: &str| server.0.path().join(name).display().to_string();
        // Whoever runs the test is not always root, and may not give files away.
        let script = SCRIPT
            .replace(
                "=/usr/local/bin/region-host",
                &format!("={}", path("region-host")),
            )
            .replace("/run/regionwise-steps.lock", &path("lock"))
            .replace("chown root:root", "true")
            .replace("%U:%G", "root:root");
        fs::write(path("tool"), script).unwrap();
        fs::create_dir(path("sent")).unwrap();
        server
    }

    /// Sends a program that says this of its version, and returns its sum.
    fn send(&self, version: &str) -> String {
        let program = match version {
            "broken" => "#!/bin/sh\necho wrong architecture\nexit 1\n".to_owned(),
            _ => format!("#!/bin/sh\necho region-host {version}\n"),
        };
        fs::write(self.0.path().join("sent/region-host"), &program).unwrap();
        data_encoding::HEXLOWER.encode(&Sha256::digest(program))
    }

    fn says(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new("sh")
            .arg(self.0.path().join("tool"))
            .args(words)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        match output.status.success() {
            true => Ok(said),
            false => Err(said),
        }
    }

    fn place(&self, sum: &str) -> Result<String, String> {
        let sent = self.0.path().join("sent").display().to_string();
        self.says(&["place", sum, &sent])
    }

    fn upgrade(&self, sum: &str) -> Result<String, String> {
        let sent = self.0.path().join("sent").display().to_string();
        self.says(&["upgrade", sum, &sent])
    }

    fn is_so(&self, sum: &str) -> bool {
        self.says(&["so", sum]).is_ok()
    }

    /// The versions of the one that serves and of the one that is kept.
    fn versions(&self) -> [Option<String>; 2] {
        ["region-host", "region-host.previous"].map(|name| {
            let text = fs::read_to_string(self.0.path().join(name)).ok()?;
            text.split_whitespace().last().map(str::to_owned)
        })
    }
}

fn versions(serves: &str, kept: &str) -> [Option<String>; 2] {
    [Some(serves.to_owned()), Some(kept.to_owned())]
}

#[test]
fn the_first_one_is_put_in_place_and_a_later_one_keeps_it() {
    let server = Server::new();
    let first = server.send("1");
    assert!(!server.is_so(&first));
    server.place(&first).unwrap();
    assert!(server.is_so(&first));
    assert_eq!(server.versions(), [Some("1".to_owned()), None]);
    let second = server.send("2");
    assert!(!server.is_so(&second));
    server.place(&second).unwrap();
    assert!(server.is_so(&second));
    assert_eq!(server.versions(), versions("2", "1"));
}

#[test]
fn one_that_somebody_went_back_from_comes_again_by_an_upgrade_only() {
    let server = Server::new();
    let first = server.send("1");
    server.place(&first).unwrap();
    let second = server.send("2");
    server.place(&second).unwrap();
    assert!(server.says(&["back"]).unwrap().starts_with("back\t"));
    assert_eq!(server.versions(), versions("1", "2"));
    assert!(server.is_so(&second), "a run leaves it alone");
    let note = server.says(&["notes", &second]).unwrap();
    assert!(note.contains("went back"), "{note}");
    // Another mode is mended, and brings nothing back.
    let path = server.0.path().join("region-host");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    assert!(!server.is_so(&second));
    server.place(&second).unwrap();
    assert!(server.is_so(&second));
    assert_eq!(server.versions(), versions("1", "2"));
    // Another one is none that somebody went back from.
    let third = server.send("3");
    assert!(!server.is_so(&third));
    assert_eq!(server.says(&["notes", &third]).unwrap(), "");
    server.send("2");
    let said = server.upgrade(&second).unwrap();
    assert!(said.starts_with("upgraded\t"), "{said}");
    assert_eq!(server.versions(), versions("2", "1"));
    assert_eq!(server.says(&["notes", &second]).unwrap(), "");
    // A way back that was cut off before its first move has not been gone.
    fs::write(
        server.0.path().join("region-host.left"),
        format!("{second}\n"),
    )
    .unwrap();
    assert!(server.is_so(&second));
    assert_eq!(server.says(&["notes", &second]).unwrap(), "");
}

#[test]
fn what_does_not_run_here_or_is_not_what_was_sent_changes_nothing() {
    let server = Server::new();
    let first = server.send("1");
    server.place(&first).unwrap();
    let broken = server.send("broken");
    let why = server.place(&broken).unwrap_err();
    assert!(
        why.contains("does not run here") && why.contains("wrong architecture"),
        "{why}"
    );
    let why = server.place(&"0".repeat(64)).unwrap_err();
    assert!(why.contains("is not what was sent"), "{why}");
    assert_eq!(server.versions(), [Some("1".to_owned()), None]);
    assert!(!server.0.path().join("region-host.new").exists());
}

#[test]
fn another_mode_is_mended_without_a_file_that_was_sent() {
    let server = Server::new();
    let first = server.send("1");
    server.place(&first).unwrap();
    let path = server.0.path().join("region-host");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!server.is_so(&first));
    fs::remove_file(server.0.path().join("sent/region-host")).unwrap();
    server.place(&first).unwrap();
    assert!(server.is_so(&first));
    assert_eq!(server.versions(), [Some("1".to_owned()), None]);
}
