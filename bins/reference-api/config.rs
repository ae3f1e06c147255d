//! What the environment and the release's configuration file say.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::environment::{Environment, WrongValue};
use crate::faults::Faults;

pub(crate) const HELP: &str = "\
Environment of `serve`:
  LISTEN_ADDRESS      ip:port, default 127.0.0.1:3000; port 0 takes a free one
  RELEASE             name of the release, sent as X-Release with every answer; default `dev`
  SLOT, REGION, HOST  where this process runs
  CONFIG_FILE         the release's TOML file; key: greeting
  WRITE_DATABASE_URL  primary, usually through PgBouncer in transaction mode
  READ_DATABASE_URL   node for reads; default WRITE_DATABASE_URL
  READ_REPLICA        name of the standby that reads go to; unset where they go to the primary
  CLUSTER             name under which the heartbeat row is written; default `product`
  OTHER_CLUSTERS      name=url;name=url: writers of the other clusters where users may be at home
  ROUTE_CACHE_TTL     how long a user's home is remembered; default 30s
  REDIS_URL           redis://..
  DEPENDENCIES        name=url;name=url
  FAULT_*             makes a release bad on purpose; faults.rs describes each";

pub(crate) const VARIABLES: [&str; 14] = [
    "LISTEN_ADDRESS",
    "RELEASE",
    "SLOT",
    "REGION",
    "HOST",
    "CONFIG_FILE",
    "WRITE_DATABASE_URL",
    "READ_DATABASE_URL",
    "READ_REPLICA",
    "CLUSTER",
    "OTHER_CLUSTERS",
    "ROUTE_CACHE_TTL",
    "REDIS_URL",
    "DEPENDENCIES",
];

/// A release's configuration file is a few lines; more is not one.
const CONFIG_FILE_LIMIT: u64 = 64 * 1024;

/// A move keeps its old copy for longer than this, see `route_cache_ttl` in regions.toml.
const ROUTE_CACHE_TTL: Duration = Duration::from_secs(30);

pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) identity: Identity,
    pub(crate) greeting: String,
    /// `None` in a lab of hosts only.
    pub(crate) databases: Option<DatabaseUrls>,
    pub(crate) redis: Option<redis::Client>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) faults: Faults,
}

/// Who answers.
#[derive(Clone, Serialize)]
pub(crate) struct Identity {
    pub(crate) release: String,
    pub(crate) region: String,
    pub(crate) host: String,
    pub(crate) slot: String,
}

pub(crate) struct DatabaseUrls {
    pub(crate) write: tokio_postgres::Config,
    pub(crate) read: tokio_postgres::Config,
    /// Name of the standby that reads go to, `None` where they go to the primary.
    pub(crate) replica: Option<String>,
    pub(crate) cluster: String,
    pub(crate) others: Vec<OtherCluster>,
    pub(crate) route_cache_ttl: Duration,
}

/// A cluster besides this region's own where users may be at home.
pub(crate) struct OtherCluster {
    pub(crate) name: String,
    pub(crate) write: tokio_postgres::Config,
}

/// Another service this product calls.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) url: reqwest::Url,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    #[serde(default = "default_greeting")]
    greeting: String,
}

fn default_greeting() -> String {
    "Hello".to_owned()
}

impl Config {
    pub(crate) fn read(environment: &Environment) -> Result<Self, WrongValue> {
        let listen = environment
            .parsed("LISTEN_ADDRESS", "ip:port", |value| value.parse().ok())?
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 3000)));
        let release = environment.parsed(
            "RELEASE",
            "1 to 100 printable ASCII characters",
            release_name,
        )?;
        let faults = Faults::read(environment)?;
        let identity = Identity {
            release: faults.claimed_release(release.unwrap_or_else(|| "dev".to_owned())),
            region: environment.or("REGION", "").to_owned(),
            host: environment.or("HOST", "").to_owned(),
            slot: environment.or("SLOT", "").to_owned(),
        };
        Ok(Self {
            listen,
            identity,
            greeting: read_config_file(environment)?.greeting,
            databases: read_databases(environment)?,
            redis: read_redis(environment)?,
            dependencies: faults.failing(read_dependencies(environment)?)?,
            faults,
        })
    }
}

/// The name travels in a header, so it must be fit for one.
fn release_name(value: &str) -> Option<String> {
    let fit = value.len() <= 100 && value.bytes().all(|byte| byte.is_ascii_graphic());
    fit.then(|| value.to_owned())
}

fn read_config_file(environment: &Environment) -> Result<ConfigFile, WrongValue> {
    let Some(path) = environment.get("CONFIG_FILE") else {
        return Ok(ConfigFile {
            greeting: default_greeting(),
        });
    };
    let wrong = |problem: String| WrongValue {
        name: "CONFIG_FILE".to_owned(),
        problem: format!("`{path}`: {problem}"),
        accepted: "path of a TOML file of at most 64 KiB with the key `greeting`",
    };
    let size = fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if size > CONFIG_FILE_LIMIT {
        return Err(wrong(format!("{size} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
}

fn read_databases(environment: &Environment) -> Result<Option<DatabaseUrls>, WrongValue> {
    let Some(write) = read_database(environment, "WRITE_DATABASE_URL")? else {
        // Half a configuration is a mistake, not a smaller one.
        return match ["READ_DATABASE_URL", "READ_REPLICA", "OTHER_CLUSTERS"]
            .into_iter()
            .find(|name| environment.get(name).is_some())
        {
            Some(name) => Err(WrongValue {
                name: name.to_owned(),
                problem: "set without WRITE_DATABASE_URL".to_owned(),
                accepted: "both or none",
            }),
            None => Ok(None),
        };
    };
    let read = read_database(environment, "READ_DATABASE_URL")?;
    let replica = environment.get("READ_REPLICA").map(str::to_owned);
    if replica.is_some() && read.is_none() {
        return Err(WrongValue {
            name: "READ_REPLICA".to_owned(),
            problem: "set without READ_DATABASE_URL".to_owned(),
            accepted: "the name of the standby behind READ_DATABASE_URL",
        });
    }
    let cluster = environment.parsed("CLUSTER", "letters, digits and hyphens", |value| {
        value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            .then(|| value.to_owned())
    })?;
    let route_cache_ttl =
        environment.parsed("ROUTE_CACHE_TTL", "a duration such as 30s", |value| {
            humantime::parse_duration(value).ok()
        })?;
    Ok(Some(DatabaseUrls {
        others: read_other_clusters(environment)?,
        route_cache_ttl: route_cache_ttl.unwrap_or(ROUTE_CACHE_TTL),
        read: read.unwrap_or_else(|| write.clone()),
        write,
        replica,
        cluster: cluster.unwrap_or_else(|| "product".to_owned()),
    }))
}

fn read_database(
    environment: &Environment,
    name: &str,
) -> Result<Option<tokio_postgres::Config>, WrongValue> {
    environment
        .get(name)
        .map(|url| parse_database(name, url))
        .transpose()
}

fn read_other_clusters(environment: &Environment) -> Result<Vec<OtherCluster>, WrongValue> {
    const NAME: &str = "OTHER_CLUSTERS";
    let wrong = |problem: &str| WrongValue {
        name: NAME.to_owned(),
        problem: problem.to_owned(),
        accepted: "name=url;name=url with Postgres URLs and names that differ",
    };
    let mut clusters: Vec<OtherCluster> = Vec::new();
    let parts = environment.or(NAME, "").split(';').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        // A name that holds half of a URL would be repeated with its password.
        let (name, url) = part
            .split_once('=')
            .filter(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            .ok_or_else(|| wrong("an entry is not name=url"))?;
        if name.is_empty() || clusters.iter().any(|known| known.name == name) {
            return Err(wrong("an empty name, or one that stands there twice"));
        }
        clusters.push(OtherCluster {
            name: name.to_owned(),
            write: parse_database(NAME, url.trim())?,
        });
    }
    Ok(clusters)
}

/// The database that a URL names. The error never repeats the URL: it holds a password.
pub(crate) fn parse_database(name: &str, url: &str) -> Result<tokio_postgres::Config, WrongValue> {
    let wrong = |problem: &str| WrongValue {
        name: name.to_owned(),
        problem: problem.to_owned(),
        accepted: "postgresql://user:password@host:port/database, without TLS on loopback or a private network",
    };
    let config: tokio_postgres::Config = url.parse().map_err(|_| wrong("not a Postgres URL"))?;
    if config.get_hosts().is_empty() {
        return Err(wrong("no host in it"));
    }
    if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
        return Err(wrong("sslmode=require"));
    }
    Ok(config)
}

fn read_redis(environment: &Environment) -> Result<Option<redis::Client>, WrongValue> {
    let Some(url) = environment.get("REDIS_URL") else {
        return Ok(None);
    };
    let client = redis::Client::open(url).map_err(|_| WrongValue {
        name: "REDIS_URL".to_owned(),
        problem: "not a Redis URL".to_owned(),
        accepted: "redis://host:port",
    })?;
    Ok(Some(client))
}

fn read_dependencies(environment: &Environment) -> Result<Vec<Dependency>, WrongValue> {
    let accepted = "name=url;name=url with http or https URLs and names that differ";
    let dependencies = environment.parsed("DEPENDENCIES", accepted, |value| {
        let parts = value
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let dependencies = parts.map(parse_dependency).collect::<Option<Vec<_>>>()?;
        let mut names: Vec<&str> = dependencies
            .iter()
            .map(|dependency| dependency.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        (names.len() == dependencies.len()).then_some(dependencies)
    })?;
    Ok(dependencies.unwrap_or_default())
}

fn parse_dependency(part: &str) -> Option<Dependency> {
    let (name, url) = part.split_once('=')?;
    let url: reqwest::Url = url.trim().parse().ok()?;
    let usable = !name.trim().is_empty() && matches!(url.scheme(), "http" | "https");
    usable.then(|| Dependency {
        name: name.trim().to_owned(),
        url,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Config;
    use crate::environment::{Environment, WrongValue};

    const WRITE: (&str, &str) = ("WRITE_DATABASE_URL", "postgresql://shop@10.0.0.1/shop");

    fn problem(pairs: &[(&str, &str)]) -> WrongValue {
        match Config::read(&Environment::of(pairs)) {
            Ok(_) => panic!("{pairs:?} was accepted"),
            Err(wrong) => wrong,
        }
    }

    #[test]
    fn an_empty_environment_is_a_product_without_a_database() {
        let config = Config::read(&Environment::of(&[])).unwrap();
        assert!(config.databases.is_none());
        assert!(config.dependencies.is_empty());
        assert_eq!(config.identity.release, "dev");
        assert_eq!(config.greeting, "Hello");
    }

    #[test]
    fn a_wrong_value_is_named_and_never_becomes_the_default() {
        for (name, value) in [
            ("LISTEN_ADDRESS", "localhost"),
            ("RELEASE", "two words"),
            ("DEPENDENCIES", "payments"),
            ("DEPENDENCIES", "payments=ftp://127.0.0.1"),
            (
                "DEPENDENCIES",
                "mail=http://127.0.0.1;mail=http://127.0.0.2",
            ),
            ("REDIS_URL", "127.0.0.1"),
            ("WRITE_DATABASE_URL", "postgresql://"),
            ("READ_REPLICA", "us-sin"),
            ("OTHER_CLUSTERS", "eu=postgresql://shop@10.0.0.3/shop"),
            ("CONFIG_FILE", "/nonexistent/config.toml"),
        ] {
            assert_eq!(problem(&[(name, value)]).name, name, "{value}");
        }
    }

    #[test]
    fn a_wrong_database_url_is_not_repeated_because_it_holds_a_password() {
        let wrong = problem(&[(
            "WRITE_DATABASE_URL",
            "postgresql://shop:s3cret@db:notaport/shop",
        )]);
        assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
        for other in [
            "eu=postgresql://shop:s3cret@db:notaport/shop",
            "postgresql://shop:s3cret@db/shop?sslmode=disable",
            "eu=postgresql://shop:s3cret@db/shop;eu=postgresql://shop:s3cret@db/shop",
        ] {
            let wrong = problem(&[WRITE, ("OTHER_CLUSTERS", other)]);
            assert_eq!(wrong.name, "OTHER_CLUSTERS");
            assert!(!wrong.to_string().contains("s3cret"), "{wrong}");
        }
    }

    #[test]
    fn other_clusters_have_names_and_homes_are_remembered_for_a_time() {
        let others = "eu=postgresql://shop@10.0.0.3/shop;ap=postgresql://shop@10.0.0.4/shop";
        let config = Config::read(&Environment::of(&[
            WRITE,
            ("OTHER_CLUSTERS", others),
            ("ROUTE_CACHE_TTL", "500ms"),
        ]));
        let databases = config.unwrap().databases.unwrap();
        let names: Vec<&str> = databases
            .others
            .iter()
            .map(|other| other.name.as_str())
            .collect();
        assert_eq!(names, ["eu", "ap"]);
        assert_eq!(databases.route_cache_ttl.as_millis(), 500);
        assert_eq!(
            problem(&[WRITE, ("ROUTE_CACHE_TTL", "soon")]).name,
            "ROUTE_CACHE_TTL"
        );
    }

    #[test]
    fn reads_go_to_the_writer_unless_another_node_is_named() {
        let alone = Config::read(&Environment::of(&[WRITE]))
            .unwrap()
            .databases
            .unwrap();
        assert_eq!(alone.read.get_hosts(), alone.write.get_hosts());
        assert_eq!(alone.replica, None);

        let read = ("READ_DATABASE_URL", "postgresql://shop@10.0.0.2/shop");
        let apart =
            Config::read(&Environment::of(&[WRITE, read, ("READ_REPLICA", "us-sin")])).unwrap();
        let apart = apart.databases.unwrap();
        assert_ne!(apart.read.get_hosts(), apart.write.get_hosts());
        assert_eq!(apart.replica.as_deref(), Some("us-sin"));
    }

    #[test]
    fn the_config_file_of_the_release_sets_the_greeting_and_a_wrong_key_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "greeting = \"Guten Tag\"").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let config = Config::read(&Environment::of(&[("CONFIG_FILE", &path)])).unwrap();
        assert_eq!(config.greeting, "Guten Tag");

        writeln!(file, "greating = \"Hi\"").unwrap();
        let wrong = problem(&[("CONFIG_FILE", &path)]);
        assert!(wrong.to_string().contains("greating"), "{wrong}");
    }
}
