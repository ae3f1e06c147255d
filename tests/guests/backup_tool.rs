//! What the program for backups makes of a repository, in a directory instead of a server, with a pgBackRest that says what the
//! test wants.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

const TOOL: &str = concat!(
    include_str!("../../crates/provision/src/host/backup/backup.sh"),
    include_str!("../../crates/provision/src/host/backup/restore.sh"),
    include_str!("../../crates/provision/src/host/backup/notes.sh"),
);
/// Of the cluster that is there.
const SYSTEM: u64 = 7_714_054_822_302_798_271;

/// A Postgres of 30 MB that archives.
const POSTGRES: &str = r#"#!/bin/sh
case $(cat) in
*'SHOW archive_mode'*) echo on ;;
*pg_current_wal_lsn*) echo 00000001 ;;
*pg_database_size*) echo 30000000 ;;
*pg_create_restore_point*) echo 0/5000000 ;;
*pg_switch_wal*) echo 000000010000000000000005 ;;
*"last_archived_wal, 24) >="*) echo t ;;
esac
"#;

struct Server(TempDir);

impl Server {
    fn new(info: &Value) -> Self {
        let server = Self(tempfile::tempdir().unwrap());
        let home = server.0.path().display().to_string();
        let write = |name: &str, text: &str| server.write(name, text);
        write(
            "node",
            "cluster=eu\nnode=eu-1\npart=primary\ndatabase=shop\nvolume=\n",
        );
        write(
            "settings/settings",
            "repository='bucket shop at https://s3.example'\n",
        );
        write(
            "place",
            &format!(
                "#!/bin/sh\necho version=15 top={home}/top data={home}/top/15 programs={home}/bin unit=postgresql@15-regionwise.service\n"
            ),
        );
        write("info.json", &info.to_string());
        write("bin/runuser", "#!/bin/sh\nshift 3\nexec \"$@\"\n");
        write(
            "bin/pgbackrest",
            &format!("#!/bin/sh\ncat {home}/info.json\n"),
        );
        write("bin/psql", POSTGRES);
        write(
            "settings/conf.d/here.conf",
            "[global]\narchive-push-queue-max=10000MiB\n",
        );
        write("log/postgresql-15-regionwise.log", "");
        // Whoever runs the test is no root, and may not give files away.
        write("bin/chown", "#!/bin/sh\n");
        write(
            "bin/install",
            "#!/bin/sh\nfor word; do case $word in /*) mkdir -p \"$word\" ;; esac; done\n",
        );
        server.disk(40_000, 30_000);
        write(
            "bin/pg_controldata",
            &format!("#!/bin/sh\necho 'Database system identifier:           {SYSTEM}'\n"),
        );
        let tool = TOOL
            .replace("=/etc/regionwise/backup", &format!("={home}/settings"))
            .replace("/etc/regionwise/postgres/node", &format!("{home}/node"))
            .replace(
                "=/usr/local/lib/regionwise/postgres",
                &format!("={home}/place"),
            )
            .replace("=/var/log/postgresql/", &format!("={home}/log/"))
            .replace("=/var/lib/regionwise-backup", &format!("={home}/state"))
            .replace("=/run/regionwise-backup", &format!("={home}/run"));
        write("tool", &tool);
        server
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Whole at once: a program may read it meanwhile.
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Its size and what is free, in MB.
    fn disk(&self, size: u32, free: u32) {
        let text = format!("#!/bin/sh\necho 'x\ny {size} 1 {free} 1% /'\n");
        self.write("bin/df", &text);
    }

    /// How its Postgres would be started to bring a cluster back.
    fn started(&self, verb: &str) -> String {
        let home = self.0.path().display().to_string();
        let postgres = format!("#!/bin/sh\necho \"$*\" > {home}/started; echo FATAL: no; exit 1\n");
        self.write("bin/postgres", &postgres);
        self.write("bin/pg_isready", "#!/bin/sh\nexit 1\n");
        self.write("bin/systemctl", "#!/bin/sh\nexit 3\n");
        let (well, said) = self.asked(verb);
        assert!(!well && said.contains("does not recover"), "{said}");
        fs::read_to_string(self.0.path().join("started")).unwrap()
    }

    fn with_data(self) -> Self {
        let data = self.data();
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        self
    }

    fn data(&self) -> std::path::PathBuf {
        self.0.path().join("top/15")
    }

    fn asked(&self, verb: &str) -> (bool, String) {
        self.asked_for(&[verb])
    }

    /// Whether it succeeded, and what it said.
    fn asked_for(&self, words: &[&str]) -> (bool, String) {
        let (code, said) = self.code(words);
        (code == 0, said)
    }

    fn command(&self, words: &[&str]) -> Command {
        let home: &Path = self.0.path();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("sh");
        command
            .arg(home.join("tool"))
            .args(words)
            .env("PATH", format!("{}/bin:{path}", home.display()));
        command
    }

    fn code(&self, words: &[&str]) -> (i32, String) {
        let output = self.command(words).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), said)
    }
}

/// What pgBackRest 2.45 says of a repository with a backup that ended so many hours ago.
fn repository(system: u64, hours: u64, spoilt: bool) -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    json!([{
        "name": "eu", "status": { "code": 0, "message": "ok" }, "repo": [{ "key": 1, "status": { "code": 0, "message": "ok" } }],
        "db": [{ "id": 1, "repo-key": 1, "system-id": system, "version": "15" }],
        "archive": [{ "database": { "id": 1 }, "id": "15-1", "min": "000000010000000000000001", "max": "0000000100000000000000A0" }],
        "backup": [{
            "database": { "id": 1 }, "label": "20261130-195910F", "type": "full", "error": spoilt, "info": { "size": 30_000_000 },
            "archive": { "start": "000000010000000000000002" }, "timestamp": { "start": now - hours * 3600 - 9, "stop": now - hours * 3600 },
        }],
    }])
}

fn nothing(code: u32, message: &str) -> Value {
    let status = json!({ "code": code, "message": message });
    json!([{ "name": "eu", "status": status, "repo": [{ "key": 1, "status": status }], "db": [], "archive": [], "backup": [] }])
}

#[test]
fn a_new_cluster_begins_only_where_it_was_seen_that_no_lost_one_is() {
    let (well, said) = Server::new(&repository(SYSTEM, 1, false)).asked("place_so");
    assert!(
        !well && said.contains("promote it; else bring the cluster back"),
        "{said}"
    );
    let (well, said) = Server::new(&nothing(99, "[CryptoError] unknown ca")).asked("place_so");
    assert!(
        !well && said.contains("cannot look into bucket shop"),
        "{said}"
    );
    assert!(said.contains("unknown ca"), "{said}");
    let empty = nothing(1, "missing stanza path");
    assert_eq!(Server::new(&empty).asked("place_so"), (true, String::new()));
    // Nobody asks where data are.
    let there = Server::new(&nothing(99, "down")).with_data();
    assert_eq!(there.asked("place_so"), (true, String::new()));
}

#[test]
fn a_backup_never_goes_beside_those_of_another_cluster() {
    let server = Server::new(&repository(42, 1, false)).with_data();
    for verb in ["begin", "run", "prove"] {
        let (well, said) = server.asked(verb);
        assert!(
            !well && said.contains("belongs to another cluster eu (system identifier 42)"),
            "{verb}: {said}"
        );
    }
}

#[test]
fn what_a_backup_was_begun_with_counts_also_when_another_run_changed_it() {
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    let secrets = server.0.path().join("settings/conf.d/secrets.conf");
    fs::create_dir_all(secrets.parent().unwrap()).unwrap();
    fs::write(&secrets, "one").unwrap();
    assert!(!server.asked("begun_so").0);
    fs::create_dir_all(server.0.path().join("state")).unwrap();
    let sum = Command::new("sh")
        .args([
            "-c",
            "cat \"$1/settings/conf.d/secrets.conf\" | sha256sum | cut -d ' ' -f 1",
            "sh",
        ])
        .arg(server.0.path())
        .output()
        .unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let begun =
        format!("repository=bucket shop at https://s3.example\nsystem={SYSTEM}\nfiles={sum}");
    fs::write(server.0.path().join("state/begun"), begun).unwrap();
    assert!(server.asked("begun_so").0);
    fs::write(&secrets, "another").unwrap();
    assert!(!server.asked("begun_so").0);
}

#[test]
fn an_old_primary_that_still_runs_puts_nothing_beside_the_backups_of_the_new_one() {
    let mut info = repository(SYSTEM, 1, false);
    info[0]["archive"][0]["max"] = json!("000000020000000000000009");
    let server = Server::new(&info).with_data();
    for verb in ["begin", "run", "prove", "notes"] {
        let (well, said) = server.asked(verb);
        assert_eq!(well, verb == "notes");
        assert!(
            said.contains("has timeline 2 of eu, and eu-1 is on 1"),
            "{verb}: {said}"
        );
    }
}

#[test]
fn on_a_standby_the_timers_do_nothing_and_end_well() {
    let server = Server::new(&repository(SYSTEM, 99, false)).with_data();
    fs::write(server.data().join("standby.signal"), "").unwrap();
    for verb in ["run", "prove"] {
        let (well, said) = server.asked(verb);
        assert!(
            well && said.starts_with("eu-1 is a standby"),
            "{verb}: {said}"
        );
    }
    // It would have to do it once it is promoted, so what it cannot reach is said.
    assert_eq!(server.asked("notes"), (true, String::new()));
    let blind = Server::new(&nothing(99, "down")).with_data();
    fs::write(blind.data().join("standby.signal"), "").unwrap();
    assert!(blind.asked("notes").1.starts_with("cannot look into"));
}

#[test]
fn a_late_a_spoilt_and_an_unproven_backup_are_each_said() {
    let notes = |info: &Value, proof: Option<u64>| {
        let server = Server::new(info).with_data();
        if let Some(days) = proof {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs();
            let state = server.0.path().join("state");
            fs::create_dir_all(&state).unwrap();
            let text = format!(
                "repository=bucket shop at https://s3.example\nsystem={SYSTEM}\ntime={}\n",
                now - days * 86_400
            );
            fs::write(state.join("proof"), text).unwrap();
        }
        let (well, said) = server.asked("notes");
        assert!(well, "{said}");
        said
    };
    assert_eq!(notes(&repository(SYSTEM, 25, false), Some(7)), "");
    let late = notes(&repository(SYSTEM, 27, false), Some(7));
    assert!(late.starts_with("the last backup is of"), "{late}");
    let spoilt = notes(&repository(SYSTEM, 1, true), Some(7));
    assert!(
        spoilt.contains("pages that fail their checksum"),
        "{spoilt}"
    );
    let old = notes(&repository(SYSTEM, 1, false), Some(9));
    assert!(
        old.starts_with("the last proof that backups come back is of"),
        "{old}"
    );
    let none = notes(&repository(SYSTEM, 1, false), None);
    assert!(none.starts_with("no backup was ever proven"), "{none}");
    let other = notes(&repository(42, 1, false), Some(1));
    assert!(other.contains("belongs to another cluster"), "{other}");
    let gone = notes(&nothing(1, "missing stanza path"), Some(1));
    assert!(gone.contains("has nothing of eu"), "{gone}");
}

#[test]
fn a_proof_leaves_a_tenth_of_the_disk_to_the_cluster_that_serves() {
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    // 30 MB, 2 GB beside them, and a tenth.
    server.disk(40_000, 6078);
    let (well, said) = server.asked("prove");
    assert!(
        !well && said.contains("no place to restore in") && said.contains("needs 6078 MB"),
        "{said}"
    );
    // It fits, and while its files come something else fills the disk. They would take a minute.
    server.disk(40_000, 6079);
    let home = server.0.path().display().to_string();
    let slow = format!(
        "#!/bin/sh\ncase \" $* \" in *' restore '*) cp {home}/full {home}/bin/df; exec sleep 60 ;; esac\ncat {home}/info.json\n"
    );
    server.write("full", "#!/bin/sh\necho 'x\ny 40000 1 3999 1% /'\n");
    server.write("bin/pgbackrest", &slow);
    let started = Instant::now();
    let (well, said) = server.asked("prove");
    assert!(
        !well && said.contains("3999 MB left, and 4000 MB must stay free"),
        "{said}"
    );
    assert!(started.elapsed().as_secs() < 50);
    assert!(!server.0.path().join("top/restoring").exists());
}

#[test]
fn what_a_killed_proof_left_goes_and_a_stranger_with_its_number_is_not_stopped() {
    // It goes also when nobody sees the repository.
    let server = Server::new(&nothing(99, "down")).with_data();
    server.write("bin/pg_ctl", "#!/bin/sh\ntouch \"$2/../../stopped\"\n");
    let left = server.0.path().join("top/restoring");
    let stopped = server.0.path().join("top/stopped");
    let pid = "top/restoring/data/postmaster.pid";
    let mut sleep = Command::new("sleep");
    let mut stranger = sleep.arg("60").spawn().unwrap();
    server.write(pid, &format!("{}\n", stranger.id()));
    let (well, said) = server.asked("run");
    assert!(!well && said.contains("cannot look into"), "{said}");
    assert!(!left.exists() && !stopped.exists());
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    server.write(pid, "");
    let mut ours = sleep.current_dir(left.join("data")).spawn().unwrap();
    server.write(pid, &format!("{}\n", ours.id()));
    server.asked("run");
    assert!(!left.exists() && stopped.exists());
    ours.kill().unwrap();
    ours.wait().unwrap();
}

#[test]
fn a_proof_that_systemd_stops_leaves_nothing_although_all_its_processes_are_told_twice() {
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    let home = server.0.path().display().to_string();
    server.write(
        "bin/pgbackrest",
        &format!("#!/bin/sh\ncase \" $* \" in *' restore '*) exec sleep 60 ;; esac\ncat {home}/info.json\n"),
    );
    server.write(
        "bin/rm",
        &format!("#!/bin/sh\ntouch {home}/removing; sleep 1; exec /bin/rm \"$@\"\n"),
    );
    let mut proof = server.command(&["prove"]);
    let mut proof = proof
        .process_group(0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let left = server.0.path().join("top/restoring");
    let all = format!("-{}", proof.id());
    let stop = || Command::new("kill").args(["-TERM", "--", &all]).status();
    until("it fetches", || left.join("log").exists());
    stop().unwrap();
    proof.wait().unwrap();
    until("it removes", || server.0.path().join("removing").exists());
    assert!(stop().unwrap().success(), "somebody is at work still");
    until("nothing is left", || !left.exists());
}

/// Seen within half a minute.
#[track_caller]
fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not seen");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_key_is_tried_until_it_works() {
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    let key = |key: &str| server.write("settings/conf.d/secrets.conf", key);
    server.write("settings/pgbackrest.conf", "[global]\n");
    key("one");
    assert!(!server.asked("begun_so").0);
    let (well, said) = server.asked("begin");
    assert!(well, "{said}");
    assert!(server.asked("begun_so").0);
    let kept = fs::read_to_string(server.0.path().join("state/begun")).unwrap();
    assert!(!kept.contains("one"), "{kept}");
    key("two");
    assert!(!server.asked("begun_so").0);
    server.write("bin/pgbackrest", "#!/bin/sh\necho 'ERROR: no'; exit 1\n");
    assert!(!server.asked("begin").0);
    assert!(!server.asked("begun_so").0);
}

#[test]
fn what_somebody_set_in_the_cluster_takes_no_memory_when_it_is_restored() {
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    let words = server.started("prove");
    for small in ["shared_buffers=128MB", "huge_pages=off"] {
        assert!(words.contains(small), "{words}");
    }
}

#[test]
fn a_restore_that_is_not_judged_yet_archives_nothing_and_forgets_nothing() {
    let server = Server::new(&repository(SYSTEM, 1, false));
    let words = server.started("restore");
    assert!(
        words.contains("archive_mode=on -c archive_command=/bin/false"),
        "{words}"
    );
}

#[test]
fn a_time_is_looked_for_on_the_timeline_that_was_the_cluster_then() {
    let server = Server::new(&repository(SYSTEM, 1, false));
    let home = server.0.path().display().to_string();
    // Restored at 12:00 and at 13:00 of that day; what is no timeline counts for none.
    let at = |hour: u32| 1_796_040_000 + (hour - 12) * 3600;
    let histories = json!({
        "00000002.history": { "type": "file", "size": 80, "time": at(12) },
        "00000003.history": { "type": "file", "size": 80, "time": at(13) },
        "0000000300000000": { "type": "path" },
    });
    server.write("histories.json", &histories.to_string());
    let pgbackrest = format!(
        "#!/bin/sh\ncase \" $* \" in
*' repo-ls archive/eu/15-1 '*) cat {home}/histories.json ;;
*' restore '*) echo \"$*\" > {home}/words; echo 'ERROR: no'; exit 1 ;;
*) cat {home}/info.json ;;
esac\n"
    );
    server.write("bin/pgbackrest", &pgbackrest);
    server.write("bin/systemctl", "#!/bin/sh\nexit 3\n");
    let chosen = |words: &[&str]| {
        let (well, said) = server.asked_for(&[&["restore"], words].concat());
        assert!(!well && said.contains("cannot restore from"), "{said}");
        let words = fs::read_to_string(server.0.path().join("words")).unwrap();
        let (_, timeline) = words.split_once("--target-timeline=").unwrap();
        timeline.trim_end().to_owned()
    };
    assert_eq!(chosen(&["2026-11-30 11:59:59+00"]), "current");
    assert_eq!(chosen(&["2026-11-30 12:00:00+00"]), "2");
    assert_eq!(chosen(&["2026-11-30 14:30:00+01"]), "3");
    assert_eq!(chosen(&["2026-11-30 12:00:00+00", "1"]), "1");
    let ageless = json!({ "00000002.history": { "type": "file", "size": 80 } });
    server.write("histories.json", &ageless.to_string());
    let (well, said) = server.asked_for(&["restore", "2026-11-30 12:00:00+00"]);
    assert!(!well && said.contains("it does not say of when"), "{said}");
    let (well, said) = server.asked_for(&["restore", "yesteryear"]);
    assert!(!well && said.contains("cannot read the time"), "{said}");
}

#[test]
fn wal_that_was_dropped_is_said_until_no_backup_is_older() {
    let server = Server::new(&repository(SYSTEM, 99, false)).with_data();
    let log = "log/postgresql-15-regionwise.log";
    let dropped = |segment: &str| {
        format!(
            "2026-11-30 21:20:00.123 P00   WARN: dropped WAL file '0000000100000000000000{segment}' because archive queue exceeded 64MB\n"
        )
    };
    // The backup that is there begins at 02.
    let text = ["01", "05", "06", "0B"].map(dropped).concat();
    server.write(log, &format!("2026-11-30 LOG:  ready\n{text}"));
    let (_, said) = server.asked("notes");
    let gap = |end: &str| {
        format!(
            "no point in time between WAL 0000000100000000000000{end} comes back: WAL was dropped at 2026-11-30 21:20:00"
        )
    };
    assert!(said.contains(&gap("05 and the next backup")), "{said}");
    assert_eq!(said.matches("was dropped").count(), 1, "{said}");
    // The log is gone, and a newer backup there.
    server.write(log, "");
    let mut info = repository(SYSTEM, 99, false);
    let mut newer = info[0]["backup"][0].clone();
    newer["archive"]["start"] = json!("00000001000000000000000A");
    newer["timestamp"]["stop"] = json!(1_796_040_000);
    info[0]["backup"]
        .as_array_mut()
        .unwrap()
        .push(newer.clone());
    server.write("info.json", &info.to_string());
    let (_, said) = server.asked("notes");
    let closed = gap("05 and the backup of 2026-11-30 12:00 UTC");
    assert!(said.contains(&closed), "{said}");
    assert!(said.contains(&gap("0B and the next backup")), "{said}");
    // The older backup has expired, and the bucket is gone later.
    info[0]["backup"] = json!([newer]);
    server.write("info.json", &info.to_string());
    let (_, said) = server.asked("notes");
    assert_eq!(said.matches("was dropped").count(), 1, "{said}");
    server.write("info.json", &nothing(99, "down").to_string());
    assert!(server.asked("notes").1.contains("was dropped"));
}

#[test]
fn a_cluster_that_is_older_than_its_backups_is_said_to_need_a_restart() {
    let server = Server::new(&nothing(1, "missing stanza path")).with_data();
    let off = POSTGRES.replace("echo on", "echo off");
    server.write("bin/psql", &off);
    let (well, said) = server.asked("notes");
    assert!(
        well && said.contains("archive_mode is off")
            && said.contains("systemctl restart postgresql@15-regionwise.service"),
        "{said}"
    );
}

#[test]
fn a_disk_that_a_lost_bucket_would_fill_is_said() {
    let server = Server::new(&nothing(99, "down")).with_data();
    server.disk(40_000, 10_000);
    assert!(!server.asked("notes").1.contains("MB of WAL wait"));
    server.disk(40_000, 9999);
    let (_, said) = server.asked("notes");
    assert!(
        said.contains("top has 9999 MB left") && said.contains("up to 10000 MB of WAL wait"),
        "{said}"
    );
}

#[test]
fn a_proof_is_tried_again_soon_only_where_it_has_fetched_nothing() {
    let server = Server::new(&nothing(99, "down")).with_data();
    assert_eq!(server.code(&["prove"]).0, 75);
    let lock = fs::File::create(server.0.path().join("run.lock")).unwrap();
    lock.lock().unwrap();
    server.write("bin/flock", "#!/bin/sh\nexec /usr/bin/flock -n 9\n");
    let (code, said) = server.code(&["prove"]);
    assert!(code == 75 && said.contains("is under way"), "{said}");
    drop(lock);
    let server = Server::new(&repository(42, 1, false)).with_data();
    assert_eq!(server.code(&["prove"]).0, 1);
    let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
    server.started("prove");
    assert_eq!(server.code(&["prove"]).0, 1);
}

#[test]
fn whoever_asks_for_a_backup_or_a_proof_the_cluster_comes_first() {
    for verb in ["begin", "run", "prove"] {
        let server = Server::new(&repository(SYSTEM, 1, false)).with_data();
        let home = server.0.path().display().to_string();
        let pgbackrest =
            format!("#!/bin/sh\n{{ nice; ionice; }} > {home}/rank\ncat {home}/info.json\n");
        server.write("bin/pgbackrest", &pgbackrest);
        server.asked(verb);
        let rank = fs::read_to_string(server.0.path().join("rank")).unwrap();
        let (nice, io) = rank.split_once('\n').unwrap();
        assert!(nice.parse::<u32>().unwrap() >= 15, "{verb}: {rank}");
        assert_eq!(io, "idle\n", "{verb}");
    }
}

#[test]
fn nothing_is_restored_for_another_postgres() {
    let mut info = repository(SYSTEM, 1, false);
    info[0]["db"][0]["version"] = json!("14");
    let server = Server::new(&info);
    server.write("bin/systemctl", "#!/bin/sh\nexit 3\n");
    let (well, said) = server.asked("restore");
    assert!(
        !well && said.contains("are of Postgres 14, and this server has 15"),
        "{said}"
    );
}
