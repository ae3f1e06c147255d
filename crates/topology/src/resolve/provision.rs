//! `[provision]`: which servers are ordered.

use std::collections::BTreeMap;

use crate::file::{BackupFile, DatabaseFile, File, Name, ProvisionFile, RedisFile, Word};
use crate::model::{Backup, BalancerServers, DatabaseServers, Provision, RedisServers};
use crate::problem::Key;
use crate::rules::{backup, provision, values};

use super::Found;

pub(super) fn section(
    section: &ProvisionFile,
    file: &File,
    found: &mut Found,
) -> Option<Provision> {
    let key = Key::default().name("provision");
    let token = found.read(values::secret(&key.name("token"), &section.token));
    found.all(values::not_a_word(&key.name("image"), &section.image));
    let ssh_from: Vec<Option<_>> = section
        .ssh_from
        .iter()
        .enumerate()
        .map(|(at, range)| found.read(provision::range(&key.name("ssh_from").index(at), range)))
        .collect();
    for (at, path) in section.root_keys.iter().enumerate() {
        found.all(values::not_a_path(&key.name("root_keys").index(at), path));
    }
    let certificate = section
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.certificate.as_ref());
    found.all(
        certificate.and_then(|name| {
            values::not_a_word(&key.name("load_balancer").name("certificate"), name)
        }),
    );
    found.all(provision::nodes_without_types(file));
    let database = section
        .database
        .as_ref()
        .map(|database| self::database(&key.name("database"), database, found));
    let redis = section
        .redis
        .as_ref()
        .map(|redis| self::redis(&key.name("redis"), redis, found));
    let backups = backups(&key.name("backup"), section, file, found);
    let mut types = |role: &str, types: &[Word]| -> Vec<String> {
        let key = key.name(role).name("types");
        found.all(provision::not_types(&key, types));
        types.iter().map(|word| word.0.clone()).collect()
    };
    Some(Provision {
        api: types("api", &section.api.types),
        database: database.map_or(Some(None), |database| database.map(Some))?,
        redis: redis.map_or(Some(None), |redis| redis.map(Some))?,
        load_balancer: section
            .load_balancer
            .as_ref()
            .map(|balancer| BalancerServers {
                types: types("load_balancer", &balancer.types),
                certificate: balancer.certificate.as_ref().map(|name| name.0.clone()),
            }),
        backups: backups?,
        token: token?,
        image: section.image.0.clone(),
        root_keys: section
            .root_keys
            .iter()
            .map(|path| path.0.clone())
            .collect(),
        ssh_from: ssh_from.into_iter().collect::<Option<_>>()?,
    })
}

fn database(key: &Key, database: &DatabaseFile, found: &mut Found) -> Option<DatabaseServers> {
    let types = database.types.as_deref().unwrap_or_default();
    found.all(provision::not_types(&key.name("types"), types));
    let app = database.app.as_ref();
    let app = app.map(|app| found.read(values::secret(&key.name("app"), app)));
    let clients: Vec<Option<_>> = database
        .clients
        .iter()
        .enumerate()
        .map(|(at, range)| found.read(provision::range(&key.name("clients").index(at), range)))
        .collect();
    Some(DatabaseServers {
        types: types.iter().map(|word| word.0.clone()).collect(),
        volume_gb: database.volume_gb,
        app: app.map_or(Some(None), |app| app.map(Some))?,
        clients: clients.into_iter().collect::<Option<_>>()?,
    })
}

fn redis(key: &Key, redis: &RedisFile, found: &mut Found) -> Option<RedisServers> {
    found.all(provision::not_types(&key.name("types"), &redis.types));
    let password = redis.password.as_ref();
    let password =
        password.map(|password| found.read(values::secret(&key.name("password"), password)));
    Some(RedisServers {
        types: redis.types.iter().map(|word| word.0.clone()).collect(),
        password: password.map_or(Some(None), |password| password.map(Some))?,
    })
}

fn backups(
    key: &Key,
    section: &ProvisionFile,
    file: &File,
    found: &mut Found,
) -> Option<BTreeMap<String, Backup>> {
    found.all(backup::without_databases(key, section));
    let backups: Vec<Option<_>> = section
        .backup
        .iter()
        .map(|(cluster, backup)| self::backup(&key.name(&cluster.0), cluster, backup, file, found))
        .collect();
    found.all(backup::shared_by_residencies(key, section, file));
    backups.into_iter().collect()
}

fn backup(
    key: &Key,
    cluster: &Name,
    backup: &BackupFile,
    file: &File,
    found: &mut Found,
) -> Option<(String, Backup)> {
    found.all(backup::cluster_unknown(key, cluster, file));
    let endpoint = found.read(values::endpoint(&key.name("endpoint"), &backup.endpoint));
    found.all(values::not_a_bucket(&key.name("bucket"), &backup.bucket));
    found.all(values::not_a_location(
        &key.name("location"),
        &backup.location,
    ));
    let region = backup.region.as_ref();
    found.all(region.and_then(|region| values::not_a_location(&key.name("region"), region)));
    found.all(backup::outside_residency(key, cluster, backup, file));
    let elsewhere = |endpoint| backup::elsewhere(key, backup, endpoint);
    found.all(endpoint.as_ref().and_then(elsewhere));
    let mut secret = |name, secret| found.read(values::secret(&key.name(name), secret));
    let access = secret("key", &backup.key);
    let proof = secret("secret", &backup.secret);
    let passphrase = secret("passphrase", &backup.passphrase);
    let ca = backup.ca.as_ref();
    found.all(ca.and_then(|path| values::not_a_path(&key.name("ca"), path)));
    let backup = Backup {
        endpoint: endpoint?,
        bucket: backup.bucket.0.clone(),
        location: backup.location.0.clone(),
        region: backup
            .region
            .as_ref()
            .map_or(&backup.location.0, |region| &region.0)
            .clone(),
        key: access?,
        secret: proof?,
        passphrase: passphrase?,
        keep_days: backup.keep_days,
        ca: ca.map(|path| path.0.clone()),
    };
    Some((cluster.0.clone(), backup))
}
