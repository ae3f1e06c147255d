//! Backups, and what comes before the first one.

use super::*;

#[test]
fn a_backup_is_encrypted_goes_to_its_own_store_and_no_secret_is_in_any_step() {
    let secrets = Backup::secrets("AKIA-1", "hunter2-secret", "hunter2-passphrase");
    let steps = steps(&server());
    let config = file(&steps, "backup-config");
    for words in [
        "repo1-cipher-type=aes-256-cbc\n",
        "repo1-s3-endpoint=s3.example\nrepo1-storage-port=9000\nrepo1-s3-bucket=shop-eu-backup\nrepo1-s3-region=hel1\n",
        "repo1-storage-ca-file=/etc/regionwise/backup/authority.pem\n",
        "repo1-retention-full-type=time\nrepo1-retention-full=30\n",
        "\n[eu]\n",
    ] {
        assert!(config.contains(words), "{words}: {config}");
    }
    let script = render(&steps);
    let names = secrets.lines().filter_map(|line| line.split_once('='));
    for (name, value) in names {
        assert!(!config.contains(name), "{name}");
        assert!(!script.contains(value), "{value}");
    }
    assert!(script.contains("secrets_so \"$staged\""));
    let public = Backup {
        port: 443,
        authority: None,
        ..backup()
    };
    let steps = super::steps(&Server {
        database: Some(Database {
            backup: Some(public),
            ..database()
        }),
        ..server()
    });
    assert!(place(&steps, "backup-authority").is_none());
    assert!(!file(&steps, "backup-config").contains("ca-file"));
    assert_eq!(
        file(&steps, "backup-settings"),
        "repository='bucket shop-eu-backup at https://s3.example'\n"
    );
}

#[test]
fn a_lost_cluster_is_looked_for_before_a_new_one_is_made_and_the_first_backup_is_proven() {
    let steps = steps(&server());
    let order = [
        "backup-secrets",
        "database-volume",
        "backup-sizes",
        "backup-place",
        "database-cluster",
        "database-accounts",
        "backup-timers",
        "backup-begun",
        "backup-proven",
        "backup-notes",
    ];
    let places: Vec<Option<usize>> = order.iter().map(|name| place(&steps, name)).collect();
    assert!(places.iter().all(Option::is_some), "{places:?}");
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_backup_is_tried_again_and_a_proof_only_where_it_could_not_begin() {
    let steps = steps(&server());
    let again = "RestartPreventExitStatus=1\n";
    assert!(!file(&steps, "backup-unit").contains(again));
    assert!(file(&steps, "backup-proof-unit").contains(again));
}

#[test]
fn a_standby_has_all_that_a_primary_needs_and_makes_no_backup() {
    let primary = steps(&server());
    let standby = steps(&Server {
        database: Some(standby()),
        ..server()
    });
    for shared in ["backup-config", "backup-settings", "backup-tool"] {
        assert_eq!(file(&standby, shared), file(&primary, shared), "{shared}");
    }
    for shared in ["backup-timers", "backup-notes"] {
        assert!(place(&standby, shared).is_some(), "{shared}");
    }
    for absent in ["backup-place", "backup-begun", "backup-proven"] {
        assert!(place(&standby, absent).is_none(), "{absent}");
    }
}

#[test]
fn of_a_primary_whose_backups_begin_later_nothing_is_said_yet() {
    let Part::Primary {
        standbys,
        known,
        first,
        sync,
        complete,
        ..
    } = database().part
    else {
        panic!("it is the primary");
    };
    let part = Part::Primary {
        first,
        standbys,
        known,
        sync,
        complete,
        last: false,
    };
    let later = steps(&Server {
        database: Some(Database { part, ..database() }),
        ..server()
    });
    assert!(place(&later, "backup-timers").is_some());
    for absent in ["backup-begun", "backup-proven", "backup-notes"] {
        assert!(place(&later, absent).is_none(), "{absent}");
    }
}

#[test]
fn a_cluster_archives_from_its_birth_and_without_a_backup_to_nowhere() {
    let with = steps(&server());
    let config = file(&with, "database-config");
    assert!(
        config.contains("archive_mode = on\narchive_command = 'pgbackrest --config="),
        "{config}"
    );
    assert!(config.contains("--stanza=eu archive-push %p'\narchive_timeout = '60s'\n"));
    let without = steps(&Server {
        database: Some(Database {
            backup: None,
            ..database()
        }),
        ..server()
    });
    let config = file(&without, "database-config");
    assert!(
        config
            .contains("archive_mode = on\narchive_command = '/bin/true'\narchive_timeout = '0s'\n"),
        "{config}"
    );
    let backup: Vec<&str> = without
        .iter()
        .map(|step| step.name)
        .filter(|name| name.starts_with("backup-"))
        .collect();
    assert_eq!(backup, ["backup-off"]);
}
