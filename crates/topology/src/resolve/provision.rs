//! `[provision]`: which servers are ordered.

use crate::file::{ProvisionFile, Word};
use crate::model::{BalancerServers, DatabaseServers, Provision};
use crate::problem::Key;
use crate::rules::provision;
use crate::rules::values;

use super::Found;

pub(super) fn section(section: &ProvisionFile, found: &mut Found) -> Option<Provision> {
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
    let mut types = |role: &str, types: &[Word]| -> Vec<String> {
        let key = key.name(role).name("types");
        found.all(provision::not_types(&key, types));
        types.iter().map(|word| word.0.clone()).collect()
    };
    Some(Provision {
        api: types("api", &section.api.types),
        database: section.database.as_ref().map(|database| DatabaseServers {
            types: types("database", &database.types),
            volume_gb: database.volume_gb,
        }),
        redis: section
            .redis
            .as_ref()
            .map(|redis| types("redis", &redis.types)),
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
