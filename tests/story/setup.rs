//! `scripts/setup` on a machine that lacks something: an exact list, exit code 2, and nothing is installed.

use std::path::Path;
use std::process::Command;

use regionwise_lab::skipped;

/// Runs the script as an ordinary account without sudo; `hidden` commands are made to be missing.
fn setup(hidden: &[&str], env: &[&str], words: &[&str]) -> Option<(Option<i32>, String)> {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let hide: String = hidden
        .iter()
        .map(|command| format!("mount --bind /dev/null \"$(command -v {command})\"; "))
        .collect();
    let script = format!(
        "PATH=$PATH:/usr/sbin:/sbin; {hide} \
         if command -v sudo > /dev/null; then mount --bind /dev/null \"$(command -v sudo)\"; fi; \
         cp \"$1\" \"$2\"; shift 1; script=$1; shift 1; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH=/usr/bin:/bin {} bash \"$script\" \"$@\" < /dev/null",
        env.join(" ")
    );
    // The clone may be readable by its owner only.
    let copy = tempfile::Builder::new()
        .prefix("rw-setup-")
        .tempdir()
        .unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(copy.path(), open).unwrap();
    let mut command = Command::new("timeout");
    command.arg("30");
    if !root {
        command.args(["sudo", "-n"]);
    }
    command.args(["unshare", "--mount", "bash", "-c", &script, "setup"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup"));
    command.arg(copy.path().join("setup")).args(words);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !root && said.starts_with("sudo:") {
        skipped(&format!(
            "hiding commands needs root, and sudo says: {said}"
        ));
        return None;
    }
    Some((output.status.code(), said))
}

#[test]
fn missing_packages_without_sudo_are_listed_exactly() {
    let Some((code, said)) = setup(&["haproxy", "pgbouncer"], &[], &[]) else {
        return;
    };
    assert_eq!(code, Some(2), "{said}");
    let wanted = "apt-get install --no-install-recommends haproxy pgbouncer";
    assert!(said.lines().any(|line| line.trim() == wanted), "{said}");
}

#[test]
fn what_boots_guests_is_listed_only_for_those_who_ask() {
    let of = |words: &[&str]| setup(&["mke2fs"], &["HOME=/nonexistent"], words);
    let Some((code, said)) = of(&["--guests"]) else {
        return;
    };
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("apt-get install") && said.contains(" e2fsprogs"),
        "{said}"
    );
    let (_, said) = of(&[]).unwrap();
    assert!(!said.contains("e2fsprogs"), "{said}");
}

#[test]
fn a_missing_rust_toolchain_is_answered_with_the_one_command_that_installs_it() {
    let Some((code, said)) = setup(&[], &["HOME=/nonexistent"], &[]) else {
        return;
    };
    // A machine with a new cargo in /usr/bin has a toolchain.
    if code == Some(0) && Path::new("/usr/bin/cargo").exists() {
        return;
    }
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("rustup") && said.contains("--install-rust"),
        "{said}"
    );
}

/// A directory with commands of the test's own, to stand before all others in PATH.
fn commands(scripts: &[(&str, &str)]) -> (tempfile::TempDir, String) {
    let directory = tempfile::Builder::new()
        .prefix("rw-commands-")
        .tempdir()
        .unwrap();
    let everybody = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody()).unwrap();
    for (name, script) in scripts {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, everybody()).unwrap();
    }
    let path = format!("PATH={}:/usr/bin:/bin", directory.path().display());
    (directory, path)
}

#[test]
fn a_cargo_that_is_too_old_counts_as_none_unless_rustup_can_fetch_a_newer_one() {
    let old = ("cargo", "echo 'cargo 1.94.1 (0123456789 2026-01-01)'");
    let (_directory, path) = commands(&[old]);
    let Some((code, said)) = setup(&[], &["HOME=/nonexistent", &path], &[]) else {
        return;
    };
    if !Path::new("/usr/bin/rustup").exists() {
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("only cargo 1.94.1"), "{said}");
        assert!(said.contains("sh.rustup.rs"), "without root: {said}");
    }
    for enough in [
        &[old, ("rustup", "exit 1")][..],
        &[("cargo", "echo 'cargo 1.95.0 (0123456789 2026-04-01)'")],
    ] {
        let (_directory, path) = commands(enough);
        let (code, said) = setup(&[], &["HOME=/nonexistent", &path], &[]).unwrap();
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn without_sudo_rust_is_installed_for_this_account_only() {
    let curl = r#"echo "exec echo installer was run with \"\$@\" >&2""#;
    let (_directory, path) = commands(&[("curl", curl), ("apt-cache", "exit 0")]);
    let Some((code, said)) = setup(&[], &["HOME=/nonexistent", &path], &["--install-rust"]) else {
        return;
    };
    if code == Some(0) && said.is_empty() {
        return; // a machine with a new cargo in /usr/bin
    }
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("installer was run with -y"), "{said}");
    assert!(!said.contains("apt-get"), "{said}");
}

#[test]
fn where_the_distribution_has_an_older_postgresql_the_list_names_the_way_to_a_newer_one() {
    let found: Vec<String> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .join("bin/initdb")
                .display()
                .to_string()
        })
        .collect();
    let hidden: Vec<&str> = found.iter().map(String::as_str).collect();
    let of = |candidate: &str| {
        let policy = format!("echo 'postgresql:'; echo '  Candidate: {candidate}'");
        let (_directory, path) = commands(&[("apt-cache", &policy)]);
        setup(&hidden, &[&path], &[])
    };
    let Some((code, said)) = of("14+238") else {
        return;
    };
    assert_eq!(code, Some(2), "{said}");
    let commands: Vec<&str> = said.lines().skip(1).map(str::trim).collect();
    assert_eq!(
        commands,
        [
            "apt-get install --no-install-recommends postgresql-common ca-certificates",
            "/usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y",
            "apt-get install --no-install-recommends postgresql-17",
        ]
    );
    // Lists that were never fetched say nothing about the distribution.
    for candidate in ["15+248", "(none)"] {
        let (_, said) = of(candidate).unwrap();
        let list = "apt-get install --no-install-recommends postgresql";
        assert!(said.lines().skip(1).map(str::trim).eq([list]), "{said}");
    }
}

#[test]
fn an_unknown_word_is_usage() {
    let Some((code, said)) = setup(&[], &[], &["--instal-rust"]) else {
        return;
    };
    assert_eq!(
        (code, said.trim()),
        (
            Some(2),
            "usage: scripts/setup [--install-rust] [--tests] [--guests]"
        )
    );
}
