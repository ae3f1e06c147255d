//! Rules of `[provision.backup]`: a backup is a copy of every row, and may be where the rows may be.

use url::Url;

use crate::file::{BackupFile, File, Name, ProvisionFile};
use crate::problem::{Finding, Key, quoted, ticked};

use super::{names, outside, unknown};

/// Hetzner's object storage; the place stands in front.
const HETZNER: &str = ".your-objectstorage.com";

pub(crate) fn cluster_unknown(key: &Key, cluster: &Name, file: &File) -> Option<Finding> {
    (!file.clusters.contains_key(cluster))
        .then(|| unknown(key, cluster, "cluster", names(&file.clusters)))
}

/// Nobody but `provision-region` makes backups, and only of the Postgres that it sets up.
pub(crate) fn without_databases(key: &Key, provision: &ProvisionFile) -> Option<Finding> {
    (provision.database.is_none() && !provision.backup.is_empty()).then(|| {
        Finding::new(
            key,
            "there without `provision.database`",
            "no backup, or `provision.database` beside it",
        )
    })
}

pub(crate) fn outside_residency(
    key: &Key,
    cluster: &Name,
    backup: &BackupFile,
    file: &File,
) -> Option<Finding> {
    let residency = file.clusters.get(cluster)?.residency.as_ref()?;
    let allowed = &file.residency.get(residency)?.locations;
    (!allowed.contains(&backup.location)).then(|| {
        outside(
            &key.name("location"),
            &backup.location,
            &residency.0,
            allowed,
        )
        .hint(format!(
            "the bucket would hold a copy of every row of residency {}",
            ticked(&residency.0)
        ))
    })
}

/// What the file says of the place must be what the name of the store says of it.
pub(crate) fn elsewhere(key: &Key, backup: &BackupFile, endpoint: &Url) -> Option<Finding> {
    let host = endpoint.host_str()?;
    let hetzner = host.ends_with(HETZNER);
    let wanted = format!("{}{HETZNER}", backup.location.0);
    (hetzner && host != wanted).then(|| {
        let accepted = format!(
            "`https://{wanted}`, because `location` is {}",
            quoted(&backup.location.0)
        );
        Finding::new(&key.name("endpoint"), quoted(&backup.endpoint.0), accepted)
    })
}

/// Whoever may read the backups of one cluster could read those of the other.
pub(crate) fn shared_by_residencies(
    key: &Key,
    provision: &ProvisionFile,
    file: &File,
) -> Vec<Finding> {
    let residency = |cluster: &Name| file.clusters.get(cluster).map(|found| &found.residency);
    // However they are written. What is no URL is refused elsewhere.
    let store = |backup: &BackupFile| {
        let endpoint = Url::parse(&backup.endpoint.0).ok();
        let place = endpoint
            .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default())));
        (place, backup.bucket.clone())
    };
    let mut findings = Vec::new();
    for (at, (cluster, backup)) in provision.backup.iter().enumerate() {
        let mut before = provision.backup.iter().take(at);
        let other = before.find(|(other, known)| {
            store(known) == store(backup) && residency(other) != residency(cluster)
        });
        if let Some((other, _)) = other {
            let found = format!(
                "{}, as is `{}`",
                quoted(&backup.bucket.0),
                key.name(&other.0).name("bucket")
            );
            let key = key.name(&cluster.0).name("bucket");
            findings.push(Finding::new(&key, found, "a bucket for each residency"));
        }
    }
    findings
}
