//! Accounts and passwords of databases, Redis and backups, from the secrets that regions.toml names.

use std::collections::BTreeMap;
use std::path::Path;

use regionwise_cli::{Because, Common, Context, Failure, Hint};
use regionwise_postgres::Dsn;
use regionwise_provision::host::{Account, AccountKind, Backup, Migration, Redis, Server};
use regionwise_provision::recipes::Logins;
use regionwise_remote::root::Part;
use regionwise_topology::{Cluster, Roles, Secret, Sides, Topology};

use crate::uploads::part;

/// Who logs in, and with what. Has no `Debug`.
pub(super) struct Secrets {
    /// By cluster.
    pub(super) logins: BTreeMap<String, Logins>,
    /// By cluster and the name of the file.
    passwords: BTreeMap<(String, String), Vec<u8>>,
    /// By cluster.
    pub(super) backups: BTreeMap<String, Backup>,
    /// By cluster: the file with the secrets of its backup.
    backup_files: BTreeMap<String, Vec<u8>>,
    /// Account and password.
    redis: Option<(String, Vec<u8>)>,
}

/// A passphrase that somebody could guess keeps nobody out of the backups.
const PASSPHRASE_LENGTH: usize = 16;

impl Secrets {
    /// Those of these clusters, by reference.
    pub(super) fn named<'t>(
        topology: &'t Topology,
        clusters: &'t [&Cluster],
    ) -> impl Iterator<Item = &'t Secret> {
        let provision = topology.provision.as_ref();
        let database = provision.and_then(|provision| provision.database.as_ref());
        let ours = clusters.iter().filter(move |_| database.is_some());
        let nodes = ours
            .clone()
            .flat_map(|cluster| std::iter::once(&cluster.primary).chain(&cluster.standbys));
        let backups = ours.filter_map(move |cluster| provision?.backups.get(&cluster.name));
        let app = database.and_then(|database| database.app.as_ref());
        let redis = provision.and_then(|provision| provision.redis.as_ref()?.password.as_ref());
        let migration = topology.migration.as_ref().filter(|_| app.is_some());
        let roles = clusters.iter().flat_map(move |cluster| {
            let sides = migration.map(|migration| {
                let Roles {
                    install,
                    mover,
                    verify,
                } = &migration.roles;
                let from = cluster.name == migration.from;
                let to = cluster.name == migration.to;
                let each = [install, mover, verify].into_iter();
                each.filter_map(move |sides| match (from, to) {
                    (true, _) => Some(&sides.from),
                    (_, true) => Some(&sides.to),
                    _ => None,
                })
            });
            sides.into_iter().flatten()
        });
        nodes
            .map(|node| &node.dsn)
            .chain(backups.flat_map(|backup| [&backup.key, &backup.secret, &backup.passphrase]))
            .chain(app)
            .chain(roles)
            .chain(redis)
    }

    /// Reads those of these clusters.
    pub(super) fn read(
        common: &Common,
        context: &Context,
        topology: &Topology,
        clusters: &[&Cluster],
    ) -> Result<Self, Failure> {
        let directory = common.directory();
        let read = |what: &str, secret: &Secret| -> Result<Dsn, Failure> {
            let text = context.secret(what, secret, directory)?;
            Dsn::parse(text.expose()).invalid(|| format!("cannot use {what}, `{secret}`"))
        };
        let mut secrets = Self {
            logins: BTreeMap::new(),
            passwords: BTreeMap::new(),
            backups: BTreeMap::new(),
            backup_files: BTreeMap::new(),
            redis: None,
        };
        let provision = topology.provision.as_ref();
        let database = provision.and_then(|provision| provision.database.as_ref());
        for cluster in clusters.iter().filter(|_| database.is_some()) {
            let mut logins = Logins {
                database: String::new(),
                accounts: Vec::new(),
                migration: None,
            };
            for node in std::iter::once(&cluster.primary).chain(&cluster.standbys) {
                let what = format!("the connection string of node `{}`", node.name);
                let dsn = read(&what, &node.dsn)?;
                if logins.database.is_empty() {
                    dsn.database().clone_into(&mut logins.database);
                }
                secrets.add(cluster, &mut logins, &dsn, AccountKind::Monitor, &what)?;
            }
            if let Some(app) = database.and_then(|database| database.app.as_ref()) {
                let what = "the connection string of `provision.database.app`";
                let dsn = read(what, app)?;
                // The product's own account knows the product's own database best.
                dsn.database().clone_into(&mut logins.database);
                secrets.add(cluster, &mut logins, &dsn, AccountKind::App, what)?;
            }
            secrets.add_migration(topology, cluster, &mut logins, read)?;
            if !is_plain(&logins.database) {
                let text = format!("`{}` is no name for a database", logins.database);
                return Err(Failure::invalid(text).with_hint("use a-z, 0-9 and `_`"));
            }
            secrets.logins.insert(cluster.name.clone(), logins);
            let wanted = provision.and_then(|provision| provision.backups.get(&cluster.name));
            if let Some(wanted) = wanted {
                secrets.back_up(common, context, topology, &cluster.name, wanted)?;
            }
        }
        let redis = provision.and_then(|provision| provision.redis.as_ref()?.password.as_ref());
        if let Some(password) = redis {
            let text = context.secret("the password of Redis", password, directory)?;
            let line = one_line(text.expose().trim().as_bytes(), "the password of Redis")?;
            secrets.redis = Some((topology.product.name.clone(), line));
        }
        Ok(secrets)
    }

    /// The accounts of `[migration.roles]`, where the cluster is one of the two and has an account that owns the tables.
    fn add_migration(
        &mut self,
        topology: &Topology,
        cluster: &Cluster,
        logins: &mut Logins,
        read: impl Fn(&str, &Secret) -> Result<Dsn, Failure>,
    ) -> Result<(), Failure> {
        let (Some(migration), Some(owner)) = (&topology.migration, owner(logins)) else {
            return Ok(());
        };
        let owner = owner.to_owned();
        let roles = &migration.roles;
        let side = match &cluster.name {
            name if *name == migration.from => |sides: &Sides| sides.from.clone(),
            name if *name == migration.to => |sides: &Sides| sides.to.clone(),
            _ => return Ok(()),
        };
        let role = |name: &str, sides: &Sides| {
            let what = format!(
                "the connection string of `migration.roles.{name}` at {}",
                cluster.name
            );
            let dsn = read(&what, &side(sides))?;
            Ok::<_, Failure>((what, dsn))
        };
        let (what, install) = role("install", &roles.install)?;
        if side(&roles.install) == cluster.primary.dsn {
            return Ok(());
        }
        if install.user() != owner {
            let text = format!(
                "{what} has the account `{}`, and `{owner}` owns the tables",
                install.user()
            );
            return Err(
                Failure::invalid(text).with_hint("give it the account of `provision.database.app`")
            );
        }
        let mut names = Vec::new();
        for (name, sides, kind) in [
            ("install", &roles.install, AccountKind::App),
            ("move", &roles.mover, AccountKind::Mover),
            ("verify", &roles.verify, AccountKind::Verifier),
        ] {
            let (what, dsn) = role(name, sides)?;
            let known = logins
                .accounts
                .iter()
                .find(|known| known.name == dsn.user());
            let kind = known.map_or(kind, |known| known.kind);
            self.add(cluster, logins, &dsn, kind, &what)?;
            names.push(dsn.user().to_owned());
        }
        logins.migration = Some(Migration {
            movers: vec![names[1].clone()],
            verifiers: vec![names[2].clone()],
        });
        Ok(())
    }

    fn back_up(
        &mut self,
        common: &Common,
        context: &Context,
        topology: &Topology,
        cluster: &str,
        wanted: &regionwise_topology::Backup,
    ) -> Result<(), Failure> {
        let directory = common.directory();
        let read = |name: &str, secret: &Secret| {
            let what = format!("`provision.backup.{cluster}.{name}`");
            let text = context.secret(&what, secret, directory)?;
            let line = text.expose().trim();
            match !line.is_empty() && line.bytes().all(|b| b.is_ascii_graphic()) {
                true => Ok(line.to_owned()),
                false => Err(Failure::invalid(format!(
                    "{what} is not printable ASCII without spaces"
                ))
                .with_hint("it stands on one line of a file that pgBackRest reads")),
            }
        };
        let key = read("key", &wanted.key)?;
        let secret = read("secret", &wanted.secret)?;
        let passphrase = read("passphrase", &wanted.passphrase)?;
        if passphrase.len() < PASSPHRASE_LENGTH {
            let text = format!(
                "`provision.backup.{cluster}.passphrase` is shorter than {PASSPHRASE_LENGTH} characters"
            );
            return Err(Failure::invalid(text).with_hint("make one: openssl rand -hex 32"));
        }
        let authority = wanted.ca.as_deref();
        let authority = authority
            .map(|path| certificate(&context.expand(path, directory)))
            .transpose()?;
        let backup = Backup {
            product: topology.product.name.clone(),
            host: wanted.endpoint.host_str().unwrap_or_default().to_owned(),
            port: wanted.endpoint.port_or_known_default().unwrap_or(443),
            bucket: wanted.bucket.clone(),
            region: wanted.region.clone(),
            keep_days: wanted.keep_days,
            authority,
        };
        let file = Backup::secrets(&key, &secret, &passphrase).into_bytes();
        self.backup_files.insert(cluster.to_owned(), file);
        self.backups.insert(cluster.to_owned(), backup);
        Ok(())
    }

    fn add(
        &mut self,
        cluster: &Cluster,
        logins: &mut Logins,
        dsn: &Dsn,
        kind: AccountKind,
        what: &str,
    ) -> Result<(), Failure> {
        let name = dsn.user();
        if !is_plain(name) {
            let text = format!("{what} names an account that cannot be made");
            return Err(Failure::invalid(text).with_hint("use a-z, 0-9 and `_`, a letter first"));
        }
        let Some(password) = dsn.password() else {
            return Err(
                Failure::invalid(format!("{what} has no password")).with_hint(
                    "the account is made on the server with the password of its connection string",
                ),
            );
        };
        let password = one_line(password, what)?;
        let account = Account {
            name: name.to_owned(),
            kind,
        };
        let key = (cluster.name.clone(), account.password());
        match self.passwords.get(&key) {
            None => {}
            Some(known) if *known == password && logins.accounts.contains(&account) => {
                return Ok(());
            }
            Some(known) if *known == password => {
                let text = format!("{what} has the account that watches, `{name}`");
                return Err(Failure::invalid(text).with_hint("give each its own account"));
            }
            Some(_) => {
                let text =
                    format!("{what} has another password for `{name}` than a node before it");
                return Err(Failure::invalid(text)
                    .with_hint("an account is the same on all nodes of a cluster"));
            }
        }
        let watches = |known: &&Account| known.kind == kind;
        if let Some(other) = logins.accounts.iter().find(watches) {
            let text = format!(
                "{what} has the account `{name}`, and a node before it `{}`",
                other.name
            );
            return Err(Failure::invalid(text).with_hint(
                "one account watches all nodes of a cluster: it is made on the primary",
            ));
        }
        self.passwords.insert(key, password);
        logins.accounts.push(account);
        Ok(())
    }

    pub(super) fn redis_account(&self) -> Option<&str> {
        self.redis.as_ref().map(|(account, _)| account.as_str())
    }

    /// The files that a server needs beside its script.
    pub(super) fn parts(&self, server: &Server) -> Vec<Part> {
        let mut parts = Vec::new();
        if let Some(database) = &server.database {
            for account in &database.accounts {
                let name = account.password();
                let key = (database.cluster.clone(), name.clone());
                if let Some(password) = self.passwords.get(&key) {
                    parts.push(part(name, password.clone()));
                }
            }
            let file = self.backup_files.get(&database.cluster);
            if let (Some(_), Some(file)) = (&database.backup, file) {
                parts.push(part(Backup::SECRETS, file.clone()));
            }
        }
        if let Some(bouncer) = &server.bouncer {
            let name = bouncer.password();
            // A node on the same host has brought it.
            let there = parts.iter().any(|part: &Part| part.name == name);
            let key = (bouncer.cluster.clone(), name.clone());
            if let (false, Some(password)) = (there, self.passwords.get(&key)) {
                parts.push(part(name, password.clone()));
            }
        }
        if let (Some(_), Some((_, password))) = (&server.redis, &self.redis) {
            parts.push(part(Redis::PASSWORD, password.clone()));
        }
        parts
    }
}

/// The account that owns the product's tables.
fn owner(logins: &Logins) -> Option<&str> {
    let mut accounts = logins.accounts.iter();
    let owner = accounts.find(|account| account.kind == AccountKind::App)?;
    Some(&owner.name)
}

/// A name that needs no quotes anywhere, neither in SQL nor in a shell.
fn is_plain(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// One that goes to servers as it is, so nothing else may be in the file.
fn certificate(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .invalid(|| format!("cannot read the certificate `{shown}`"))
        .hint("`ca` names the authority of a store of your own; leave it out for any other")?;
    if !text.starts_with("-----BEGIN CERTIFICATE-----") || text.contains("PRIVATE") {
        return Err(
            Failure::invalid(format!("`{shown}` is not a certificate in PEM"))
                .with_hint("it begins with -----BEGIN CERTIFICATE-----"),
        );
    }
    Ok(text)
}

fn one_line(password: &[u8], what: &str) -> Result<Vec<u8>, Failure> {
    if password.is_empty() || !password.iter().all(u8::is_ascii_graphic) {
        return Err(
            Failure::invalid(format!("{what}: its password is not printable ASCII"))
                .with_hint("make one of letters and digits"),
        );
    }
    Ok([password, b"\n"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of these connection strings, one after the other, in one cluster.
    fn added(dsns: &[(&str, AccountKind)]) -> Result<(Secrets, Logins), String> {
        let text = include_str!("../../../examples/three-regions.toml");
        let topology = Topology::parse("regions.toml", text).unwrap();
        let cluster = topology.clusters.values().next().unwrap();
        let mut secrets = Secrets {
            logins: BTreeMap::new(),
            passwords: BTreeMap::new(),
            backups: BTreeMap::new(),
            backup_files: BTreeMap::new(),
            redis: None,
        };
        let mut logins = Logins {
            database: String::new(),
            accounts: Vec::new(),
            migration: None,
        };
        for (dsn, kind) in dsns {
            let dsn = Dsn::parse(dsn).unwrap();
            secrets
                .add(cluster, &mut logins, &dsn, *kind, "a node")
                .map_err(|failure| failure.error.to_string())?;
        }
        Ok((secrets, logins))
    }

    /// What becomes of the accounts of the example's migration in its cluster `eu`, whose tables `shop` owns; the connection strings
    /// of `install`, `move` and `verify`.
    fn migrating(dsns: [&str; 3]) -> Result<Logins, String> {
        let text = include_str!("../../../examples/three-regions.toml");
        let topology = Topology::parse("regions.toml", text).unwrap();
        let owned = (
            "postgres://shop:swordfish9@127.0.0.1:6432/shop",
            AccountKind::App,
        );
        let (mut secrets, mut logins) = added(&[LAG, owned])?;
        let cluster = &topology.clusters["eu"];
        let eu = cluster.name.clone();
        secrets.passwords = std::mem::take(&mut secrets.passwords)
            .into_iter()
            .map(|((_, name), password)| ((eu.clone(), name), password))
            .collect();
        let read = |_: &str, secret: &Secret| {
            let names = ["env:EU_INSTALL_DSN", "env:EU_MOVE_DSN", "env:EU_VERIFY_DSN"];
            let at = names.iter().position(|name| *name == secret.to_string());
            Ok(Dsn::parse(dsns[at.unwrap()]).unwrap())
        };
        secrets
            .add_migration(&topology, cluster, &mut logins, read)
            .map_err(|failure| failure.error.to_string())?;
        Ok(logins)
    }

    #[test]
    fn who_moves_and_who_verifies_is_made_and_the_owner_installs() {
        let owner = "postgres://shop:swordfish9@[fd00::1]/shop";
        let mover = "postgres://mover:hunter2hunter3@[fd00::1]/shop";
        let verifier = "postgres://auditor:hunter2hunter4@[fd00::1]/shop";
        let logins = migrating([owner, mover, verifier]).unwrap();
        let kinds: Vec<_> = logins
            .accounts
            .iter()
            .map(|known| (known.name.as_str(), known.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                ("lag", AccountKind::Monitor),
                ("shop", AccountKind::App),
                ("mover", AccountKind::Mover),
                ("auditor", AccountKind::Verifier),
            ]
        );
        let migration = logins.migration.unwrap();
        assert_eq!(
            (migration.movers, migration.verifiers),
            (vec!["mover".to_owned()], vec!["auditor".to_owned()])
        );

        // One account may do all of it.
        let logins = migrating([owner, owner, owner]).unwrap();
        assert_eq!(logins.accounts.len(), 2);
        assert_eq!(logins.migration.unwrap().verifiers, ["shop"]);

        let other = migrating([mover, mover, verifier]).unwrap_err();
        assert!(
            other.contains("`mover`, and `shop` owns the tables"),
            "{other}"
        );
        let password = "postgres://shop:swordfish1@[fd00::1]/shop";
        let other = migrating([password, mover, verifier]).unwrap_err();
        assert!(other.contains("another password for `shop`"), "{other}");
    }

    const LAG: (&str, AccountKind) = (
        "postgres://lag:hunter2hunter2@[fd00::1]/shop",
        AccountKind::Monitor,
    );

    #[test]
    fn an_account_of_all_nodes_is_made_once_with_its_password() {
        let again = (
            "postgres://lag:hunter2hunter2@[fd00::2]/shop",
            AccountKind::Monitor,
        );
        let app = (
            "postgres://shop:swordfish9@[fd00::1]/shop",
            AccountKind::App,
        );
        let (secrets, logins) = added(&[LAG, again, app]).unwrap();
        let names: Vec<&str> = logins
            .accounts
            .iter()
            .map(|account| account.name.as_str())
            .collect();
        assert_eq!(names, ["lag", "shop"]);
        let passwords: Vec<&[u8]> = secrets.passwords.values().map(Vec::as_slice).collect();
        assert_eq!(passwords, [b"hunter2hunter2\n".as_slice(), b"swordfish9\n"]);
    }

    #[test]
    fn what_cannot_be_an_account_is_refused_and_no_text_has_the_password() {
        for (second, why) in [
            (
                "postgres://lag:another-one@[fd00::2]/shop",
                "another password",
            ),
            ("postgres://other@[fd00::2]/shop", "has no password"),
            (
                "postgres://Other-One:hunter2hunter2@[fd00::2]/shop",
                "cannot be made",
            ),
            (
                "postgres://other:hunter2hunter2@[fd00::2]/shop",
                "a node before it `lag`",
            ),
            (
                "postgres://other:hun%20ter2@[fd00::2]/shop",
                "printable ASCII",
            ),
        ] {
            let refused = added(&[LAG, (second, AccountKind::Monitor)]).err().unwrap();
            assert!(refused.contains(why), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
        let both = added(&[LAG, (LAG.0, AccountKind::App)]).err().unwrap();
        assert!(both.contains("the account that watches"), "{both}");
    }
}
