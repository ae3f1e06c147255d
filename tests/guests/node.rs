//! A database node's steps in a real shell, without a Postgres: what is decided before one is asked.

use std::fs;
use std::process::Command;

use regionwise_provision::host::{Database, Part, Replica, Server, System, steps};
use regionwise_provision::step::{Action, Step};

use crate::script;

/// Of a node with these standbys, what its tool makes of the names that commits wait for.
#[test]
fn a_standby_that_the_cluster_has_no_more_loses_its_vote_and_one_that_is_absent_keeps_it() {
    let forgotten = |known: &str, before: &str| {
        let directory = tempfile::tempdir().unwrap();
        let tool = include_str!("../../crates/provision/src/host/postgres/node.sh").replace(
            "/etc/regionwise/postgres",
            &directory.path().display().to_string(),
        );
        let sync = directory.path().join("sync.conf");
        let line = |names: &str| format!("synchronous_standby_names = '{names}'\n");
        fs::write(directory.path().join("node"), format!("known='{known}'\n")).unwrap();
        fs::write(&sync, line(before)).unwrap();
        let verb = |verb: &str| {
            let run = Command::new("sh")
                .args(["-c", &tool, "postgres", verb])
                .output();
            run.unwrap().status.success()
        };
        let was_so = verb("departed_so");
        assert!(verb("forget_departed") && verb("departed_so"));
        let now = fs::read_to_string(&sync).unwrap();
        assert_eq!(was_so, now == line(before));
        now.strip_prefix("synchronous_standby_names = '")
            .and_then(|rest| rest.strip_suffix("'\n"))
            .unwrap()
            .to_owned()
    };
    let two = r#"ANY 2 ("eu-2", "eu-3")"#;
    assert_eq!(forgotten("eu-2 eu-3", two), two);
    assert_eq!(forgotten("eu-3", two), r#"ANY 1 ("eu-3")"#);
    assert_eq!(forgotten("eu-3 eu-22", two), r#"ANY 1 ("eu-3")"#);
    assert_eq!(forgotten("", two), "");
    assert_eq!(forgotten("eu-2", ""), "");
}

#[test]
fn that_fewer_standbys_than_wanted_confirm_a_commit_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().display().to_string();
    let tool = include_str!("../../crates/provision/src/host/postgres/node.sh")
        .replace("/etc/regionwise/postgres", &home);
    fs::write(directory.path().join("node"), "known='eu-2 eu-3'\n").unwrap();
    let said = |names: &str, wanted: &str| {
        // Postgres, as far as it is asked.
        let postgres = format!("runuser() {{ echo '{names}'; }}\n{tool}");
        let run = Command::new("sh")
            .args(["-c", &postgres, "postgres", "votes", wanted])
            .output()
            .unwrap();
        assert!(run.status.success());
        String::from_utf8(run.stdout).unwrap()
    };
    let two = r#"ANY 2 ("eu-2", "eu-3")"#;
    assert_eq!([said(two, "2"), said("", "0")], ["", ""]);
    let fewer = said(r#"ANY 1 ("eu-3")"#, "2");
    assert!(
        fewer.starts_with("commits wait for 1 standbys, and 2 are wanted"),
        "{fewer}"
    );
    let none = said("", "1");
    assert!(none.starts_with("commits wait for 0 standbys"), "{none}");
    assert!(none.contains("all of eu-2 eu-3 stream"), "{none}");
    let other = said("FIRST 1 (eu-2)", "1");
    assert!(
        other.contains("is set elsewhere (synchronous_standby_names is FIRST 1 (eu-2))"),
        "{other}"
    );
}

/// The filesystem is real, and the volume a file: only the question for its size is one for a disk.
#[test]
fn a_volume_that_was_made_larger_has_a_larger_filesystem() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    let home = directory.path().display().to_string();
    fs::write(
        directory.path().join("node"),
        format!("volume={}\n", volume.display()),
    )
    .unwrap();
    let tool = include_str!("../../crates/provision/src/host/postgres/node.sh")
        .replace("/etc/regionwise/postgres", &home);
    let tool = format!("PATH=$PATH:/usr/sbin:/sbin; blockdev() {{ stat -c %s \"$2\"; }}\n{tool}");
    let verb = |verb: &str| {
        let run = Command::new("sh")
            .args(["-c", &tool, "postgres", verb])
            .output();
        run.unwrap().status.success()
    };
    // What is less than a block is no reason.
    let file = fs::File::create(&volume).unwrap();
    file.set_len((64 << 20) + 1000).unwrap();
    let made = Command::new("/sbin/mkfs.ext4")
        .arg("-q")
        .arg(&volume)
        .status();
    assert!(made.unwrap().success());
    assert!(verb("volume_filled"));
    let open = fs::OpenOptions::new().write(true).open(&volume).unwrap();
    open.set_len(96 << 20).unwrap();
    assert!(!verb("volume_filled"));
    assert!(verb("fill_volume") && verb("volume_filled"));
    fs::write(&volume, "no filesystem").unwrap();
    assert!(!verb("volume_filled") && !verb("fill_volume"));
}

fn replica() -> Replica {
    Replica {
        node: "eu-2".to_owned(),
        server: "shop-eu-2".to_owned(),
        address: "fd00::2".parse().unwrap(),
        certificate: None,
    }
}

/// The step that looks at what lies in `top`, of a node of that part.
fn look(part: Part, top: &str) -> (Vec<&'static str>, Step) {
    let database = Database {
        cluster: "eu".to_owned(),
        node: "eu-1".to_owned(),
        part,
        volume: None,
        database: "shop".to_owned(),
        accounts: Vec::new(),
        migration: None,
        clients: Vec::new(),
        listen: Vec::new(),
        backup: None,
    };
    let server = Server {
        database: Some(database),
        ..Server::bare(System {
            ssh_port: 22,
            open: Vec::new(),
        })
    };
    let steps = steps(&server);
    let names = steps.iter().map(|step| step.name).collect();
    let mut steps = steps.into_iter();
    let mut step = steps.find(|step| step.name == "database-part").unwrap();
    let Action::Command(command) = &mut step.action else {
        panic!("it is a command");
    };
    for shell in [&mut command.check, &mut command.apply] {
        *shell = shell.replace("/var/lib/postgresql/regionwise", top);
    }
    (names, step)
}

#[test]
fn a_node_of_another_part_is_refused_before_any_of_its_files_is_written() {
    let primary = || Part::Primary {
        first: false,
        standbys: Vec::new(),
        known: Vec::new(),
        sync: 0,
        complete: false,
        last: false,
    };
    let standby = || Part::Standby { primary: replica() };
    let directory = tempfile::tempdir().unwrap();
    let top = directory.path().join("top");
    let said = |part: Part| {
        let (names, step) = look(part, &top.display().to_string());
        let at = |name| names.iter().position(|step| *step == name);
        assert!(at("database-part") < at("database-node"), "{names:?}");
        script::run(&[step], directory.path(), &["apply"]).1
    };
    let fine = ["step ok database-part", "end done"];
    // Nothing is there yet.
    assert_eq!([said(primary()), said(standby())], [fine, fine]);
    let data = top.join("15");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    assert_eq!(said(primary()), fine);
    assert!(said(standby())[0].contains("was promoted or never was a standby"));
    // What a copy that was cut off has left is no node.
    fs::rename(&data, top.join("15.new")).unwrap();
    assert_eq!(said(standby()), fine);
    fs::rename(top.join("15.new"), &data).unwrap();
    fs::write(data.join("standby.signal"), "").unwrap();
    assert_eq!(said(standby()), fine);
    let refused = said(primary());
    assert!(refused[0].contains("is a standby, and eu-1 shall be the primary of eu"));
    assert_eq!(refused[1], "end failed");
}
