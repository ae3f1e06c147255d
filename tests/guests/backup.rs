//! A primary whose cluster is backed up into a store of the lab: it is lost, and comes back by what `docs/restore.md` says.

use std::time::Instant;

use regionwise_lab::guests::{Guest, Machine};
use regionwise_provision::host::{Account, AccountKind, Database, Part, Server, System, steps};

use crate::database::{PASSPHRASE, run, set_up, sql, wait_for};
use crate::store::Store;
use crate::world;

const TOOL: &str = "/usr/local/lib/regionwise/backup";

fn server(store: &Store) -> Server {
    let account = |name: &str, kind| Account {
        name: name.to_owned(),
        kind,
    };
    Server {
        database: Some(Database {
            cluster: "eu".to_owned(),
            node: "eu-primary".to_owned(),
            part: Part::Primary {
                first: true,
                standbys: Vec::new(),
                known: Vec::new(),
                sync: 0,
                complete: true,
                last: true,
            },
            volume: None,
            database: "shop".to_owned(),
            accounts: vec![
                account("regionwise_lag", AccountKind::Monitor),
                account("shop", AccountKind::App),
            ],
            migration: None,
            clients: Vec::new(),
            listen: Vec::new(),
            backup: Some(store.backup()),
        }),
        ..Server::bare(System {
            ssh_port: 22,
            open: Vec::new(),
        })
    }
}

/// The commands below that heading of `docs/restore.md`, for the Postgres of the guest.
fn documented(heading: &str) -> String {
    let text = include_str!("../../docs/restore.md");
    let (_, after) = text.split_once(&format!("## {heading}\n")).unwrap();
    let (_, after) = after.split_once("```sh\n").unwrap();
    after.split_once("```").unwrap().0.to_owned()
}

/// What the tool says, and whether it succeeded.
fn tool(guest: &Guest, words: &str) -> (bool, String) {
    let said = guest
        .ssh(&format!("{TOOL} {words} && echo WELL || true"))
        .unwrap();
    match said.trim_end().strip_suffix("WELL") {
        Some(said) => (true, said.to_owned()),
        None => (false, said),
    }
}

fn identifier(guest: &Guest) -> String {
    sql(guest, "SELECT system_identifier FROM pg_control_system()")
}

/// A row, and how long it took until it was in the store.
fn archived(guest: &Guest, id: u32) -> f64 {
    let segment = sql(
        guest,
        &format!(
            "INSERT INTO kept VALUES ({id}) RETURNING pg_walfile_name(pg_current_wal_insert_lsn())"
        ),
    );
    let segment = segment.lines().next().unwrap();
    wait_for(
        guest,
        &format!("SELECT left(last_archived_wal, 24) >= '{segment}' FROM pg_stat_archiver"),
    )
}

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn a_lost_cluster_comes_back_from_its_bucket_and_a_broken_bucket_is_never_ok() {
    let Some(guests) = world::boot_installed("backup", &[Machine::bare("db-a")]) else {
        return;
    };
    let store = Store::start(&guests);
    let guest = &guests.all()[0];
    let server = server(&store);

    let started = Instant::now();
    let made = set_up(guest, &server);
    println!("set up in {:.0} s", started.elapsed().as_secs_f64());
    for step in ["backup-begun", "backup-proven"] {
        assert!(made.changed.iter().any(|changed| changed == step), "{step}");
    }
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    let proof = guest.ssh("cat /var/lib/regionwise-backup/proof").unwrap();
    println!("{proof}");
    let again = set_up(guest, &server);
    assert!(again.changed.is_empty(), "{:?}", again.changed);
    assert!(again.notes.is_empty(), "{:?}", again.notes);
    no_secret_is_where_others_read(guest);

    sql(guest, "CREATE TABLE kept AS SELECT 1 AS id");
    guest.ssh("systemctl start regionwise-backup").unwrap();
    let before_the_mistake = archived(guest, 2);
    let time = sql(guest, "SELECT clock_timestamp()");
    let after = archived(guest, 3);
    println!("a row was in the bucket after {before_the_mistake:.0} and {after:.0} s");
    let system = identifier(guest);

    everything_is_gone(guest, &server, &system);
    as_it_was_before_a_mistake(guest, &server, &system, &time);
    a_proof_that_is_stopped_leaves_nothing(guest);
    another_passphrase_is_no_proof(guest, &server);
    a_store_that_is_gone_is_no_proof(guest, &server, store);
}

fn no_secret_is_where_others_read(guest: &Guest) {
    let found = guest
        .ssh(&format!(
            "grep -rlE '{PASSPHRASE}|secret-of-backup' /etc /var/lib/regionwise* /usr/local /run/regionwise* 2> /dev/null || true
             stat -c '%a %U:%G' /etc/regionwise/backup/conf.d/secrets.conf"
        ))
        .unwrap();
    assert_eq!(
        found,
        "/etc/regionwise/backup/conf.d/secrets.conf\n640 root:postgres\n"
    );
}

fn everything_is_gone(guest: &Guest, server: &Server, system: &str) {
    guest
        .ssh(
            "systemctl kill -s KILL postgresql@15-regionwise; systemctl stop 'postgresql@*'
             rm -rf /var/lib/postgresql/regionwise /etc/postgresql/15/regionwise /var/lib/regionwise-backup /etc/regionwise",
        )
        .unwrap();
    let (step, why) = run(guest, &steps(server)).failed.unwrap();
    assert_eq!(step, "backup-place");
    assert!(why.contains(&format!("{TOOL} restore")), "{why}");
    let started = Instant::now();
    let said = guest.ssh(&documented("Everything is gone")).unwrap();
    println!(
        "restored in {:.0} s: {said}",
        started.elapsed().as_secs_f64()
    );
    let made = set_up(guest, server);
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    assert_eq!(identifier(guest), system);
    let rows = sql(
        guest,
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM kept",
    );
    assert_eq!(rows, "1 2 3");
    let left = guest.ssh("ls /var/lib/postgresql/regionwise").unwrap();
    assert_eq!(left, "15\n");
}

fn as_it_was_before_a_mistake(guest: &Guest, server: &Server, system: &str, time: &str) {
    let (well, said) = tool(guest, "restore");
    assert!(!well && said.contains("a Postgres runs here"), "{said}");
    let commands = documented("As it was before a mistake");
    let commands = commands.replace("2026-11-30 12:00:00+00", time);
    assert!(commands.contains(time), "{commands}");
    let started = Instant::now();
    let said = guest.ssh(&commands).unwrap();
    println!(
        "as of {time} in {:.0} s: {said}",
        started.elapsed().as_secs_f64()
    );
    let made = set_up(guest, server);
    assert!(made.notes.is_empty(), "{:?}", made.notes);
    assert_eq!(identifier(guest), system);
    let rows = sql(
        guest,
        "SELECT string_agg(id::text, ' ' ORDER BY id) FROM kept",
    );
    assert_eq!(rows, "1 2");
}

fn a_proof_that_is_stopped_leaves_nothing(guest: &Guest) {
    let left = guest
        .ssh(
            "systemctl start --no-block regionwise-backup-proof
             for _ in $(seq 600); do [ ! -e /var/lib/postgresql/regionwise/restoring/socket/.s.PGSQL.5432 ] || break; sleep 0.1; done
             [ -e /var/lib/postgresql/regionwise/restoring ] || exit 1
             systemctl stop regionwise-backup-proof
             ls /var/lib/postgresql/regionwise; pgrep -u postgres -c -f restoring || true",
        )
        .unwrap();
    assert_eq!(left, "15\nbefore\n0\n");
    guest
        .ssh("systemctl start regionwise-backup-proof")
        .unwrap();
}

fn another_passphrase_is_no_proof(guest: &Guest, server: &Server) {
    guest
        .ssh("sed -i s/passphrase-of/another-of/ /etc/regionwise/backup/conf.d/secrets.conf")
        .unwrap();
    let (well, said) = tool(guest, "prove");
    assert!(!well && said.contains("passphrase"), "{said}");
    let (_, notes) = tool(guest, "notes");
    for words in ["cannot look into", "the last proof failed"] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    // A run brings back the one that it began with; the failed proof stays said until there is a good one.
    let ran = set_up(guest, server);
    assert_eq!(ran.changed, ["backup-secrets"]);
    assert_eq!(ran.notes.len(), 1, "{:?}", ran.notes);
    assert!(ran.notes[0].starts_with("the last proof failed"));
    let (well, said) = tool(guest, "prove");
    assert!(well, "{said}");
    println!("{said}");
    assert_eq!(tool(guest, "notes"), (true, String::new()));
}

fn a_store_that_is_gone_is_no_proof(guest: &Guest, server: &Server, store: Store) {
    drop(store);
    let (well, said) = tool(guest, "prove");
    assert!(!well && said.contains("cannot look into"), "{said}");
    // What the server serves does not wait for it, and it is said.
    let ran = set_up(guest, server);
    assert!(ran.changed.is_empty(), "{:?}", ran.changed);
    for words in ["cannot look into", "the last proof failed"] {
        let said = ran.notes.iter().any(|note| note.starts_with(words));
        assert!(said, "{words}: {:?}", ran.notes);
    }
    sql(guest, "INSERT INTO kept VALUES (4)");
}
