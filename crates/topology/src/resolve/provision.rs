//! `[provision]`: which servers are ordered.

use crate::file::{DatabaseFile, File, ProvisionFile, RedisFile, Word};
use crate::model::{BalancerServers, DatabaseServers, Provision, RedisServers};
use crate::problem::Key;
use crate::rules::provision;
use crate::rules::values;

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
