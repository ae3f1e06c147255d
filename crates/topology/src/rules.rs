//! What the values of `regions.toml` must keep: one function for each reason to refuse a file.
//!
//! The first half reads one value each (`Err` is why it is none), the second half looks at the file as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use crate::file::{
    Account, Address, ClusterFile, Condition, Country, DurationText, File, FilePath, Identifier,
    LagFile, Location, MigrationFile, Name, NodeFile, Origin, OwnerFile, RegionFile, RolloutFile,
    SecretReference, TableFile, TableText, UrlPath,
};
use crate::model::{HealthRule, Host, LagRule, RolloutRule, Secret, Sides};
use crate::problem::{Finding, Key, listed, quoted, ticked};

// One value.

pub(crate) fn not_a_name(key: &Key, name: &Name) -> Option<Finding> {
    let found = quoted(&name.0);
    (!is_name(&name.0)).then(|| Finding::new(key, found, Name::ACCEPTED))
}

/// As [`not_a_name`], for a name that is itself the key of a table.
pub(crate) fn key_not_a_name(key: &Key, name: &Name) -> Option<Finding> {
    (!is_name(&name.0)).then(|| Finding::new(key, "not a name", Name::ACCEPTED))
}

/// Any place is welcome, not only Hetzner's; upper case is a slip, and would compare as another place.
pub(crate) fn not_a_location(key: &Key, location: &Location) -> Option<Finding> {
    (!is_name(&location.0)).then(|| Finding::new(key, quoted(&location.0), Location::ACCEPTED))
}

/// `UK` or `EL` would leave users without the rule that was written for them.
pub(crate) fn not_a_country(key: &Key, country: &Country) -> Option<Finding> {
    let known = COUNTRIES
        .split_ascii_whitespace()
        .any(|code| code == country.0);
    (!known).then(|| {
        let finding = Finding::new(key, quoted(&country.0), Country::ACCEPTED);
        match country.0.as_str() {
            "UK" => finding.hint("the United Kingdom is `GB`"),
            "EL" => finding.hint("Greece is `GR`"),
            "EU" => finding.hint("list the member states"),
            _ => finding,
        }
    })
}

/// The account stands in the arguments of ssh: nothing that reads as an option or a host gets there.
pub(crate) fn not_an_account(key: &Key, account: &Account) -> Option<Finding> {
    let first = |c: char| c.is_ascii_lowercase() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit() || c == '-';
    let fits = account.0.len() <= 32 && account.0.starts_with(first) && account.0.chars().all(rest);
    (!fits).then(|| Finding::new(key, quoted(&account.0), Account::ACCEPTED))
}

pub(crate) fn not_a_path(key: &Key, path: &FilePath) -> Option<Finding> {
    (!is_path(&path.0)).then(|| Finding::new(key, quoted(&path.0), FilePath::ACCEPTED))
}

/// Behind an origin it is the whole request: a query or a space would ask for something else.
pub(crate) fn not_a_url_path(key: &Key, path: &UrlPath) -> Option<Finding> {
    let other = |c: char| c.is_whitespace() || c.is_control() || "?#".contains(c);
    let fits = path.0.starts_with('/') && !path.0.contains(other);
    (!fits).then(|| Finding::new(key, quoted(&path.0), UrlPath::ACCEPTED))
}

pub(crate) fn not_a_table(key: &Key, table: &TableText) -> Option<Finding> {
    (!is_table(&table.0)).then(|| Finding::new(key, quoted(&table.0), TableText::ACCEPTED))
}

pub(crate) fn key_not_a_table(key: &Key, table: &TableText) -> Option<Finding> {
    (!is_table(&table.0)).then(|| Finding::new(key, "not a table", TableText::ACCEPTED))
}

pub(crate) fn not_identifiers(key: &Key, names: &[Identifier]) -> Vec<Finding> {
    let wrong = names
        .iter()
        .enumerate()
        .filter(|(_, name)| !is_identifier(&name.0));
    wrong
        .map(|(at, name)| Finding::new(&key.index(at), quoted(&name.0), Identifier::ACCEPTED))
        .collect()
}

pub(crate) fn key_not_an_identifier(key: &Key, name: &Identifier) -> Option<Finding> {
    (!is_identifier(&name.0)).then(|| Finding::new(key, "not a name", Identifier::ACCEPTED))
}

pub(crate) fn address(key: &Key, address: &Address) -> Result<IpAddr, Finding> {
    let parsed: Option<IpAddr> = address.0.parse().ok();
    // `::ffff:10.0.0.1` is the server 10.0.0.1: two spellings must not pass as two servers.
    let parsed = parsed.map(|address| address.to_canonical());
    parsed
        .filter(|address| {
            !address.is_unspecified() && !address.is_multicast() && !is_broadcast(*address)
        })
        .ok_or_else(|| Finding::new(key, quoted(&address.0), Address::ACCEPTED))
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

/// Probes put their own path behind the URL, and its text appears in logs: it holds a host and nothing else.
pub(crate) fn origin(key: &Key, text: &Origin) -> Result<Url, Finding> {
    let finding = |found: String| Err(Finding::new(key, found, Origin::ACCEPTED));
    // On the text, not on the parsed URL: what does not parse may hold a secret all the same.
    if text.0.contains('@') {
        return finding("a URL with credentials".to_owned());
    }
    if text.0.contains(['?', '#']) {
        return finding("a URL with a query or fragment".to_owned());
    }
    let Ok(url) = Url::parse(&text.0) else {
        return finding(quoted(&text.0));
    };
    if !matches!(url.scheme(), "http" | "https") || !is_origin(&text.0) || url.port() == Some(0) {
        return finding(quoted(&text.0));
    }
    Ok(url)
}

/// `SCHEME://AUTHORITY` as it is written: `Url` also reads `https:x`, `https:///x` and `https://x/.` as `https://x/`.
fn is_origin(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let other = |c: char| c.is_whitespace() || c.is_control() || "/\\?#@".contains(c);
    !authority.is_empty() && !authority.contains(other)
}

/// Anything that is not a reference may be the secret itself, so none of it is shown.
pub(crate) fn secret(key: &Key, text: &SecretReference) -> Result<Secret, Finding> {
    match text.0.split_once(':') {
        Some(("env", name)) if is_variable(name) => Ok(Secret::Env(name.to_owned())),
        Some(("file", path)) if is_path(path) => Ok(Secret::File(path.to_owned())),
        _ => Err(
            Finding::new(key, "a literal value", SecretReference::ACCEPTED)
                .hint("put the value into an environment variable or a file, and name that here"),
        ),
    }
}

pub(crate) fn duration(
    key: &Key,
    text: &DurationText,
    limits: Limits,
) -> Result<Duration, Finding> {
    let Some(duration) = parse_duration(&text.0) else {
        return Err(Finding::new(key, quoted(&text.0), DurationText::ACCEPTED));
    };
    let (least, most) = (limits.least, limits.most);
    if duration < least || duration > most {
        let accepted = format!(
            "a duration from \"{}\" to \"{}\"",
            spelled(least),
            spelled(most)
        );
        return Err(Finding::new(key, quoted(&text.0), accepted));
    }
    Ok(duration)
}

/// The range of a duration, both ends included.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    least: Duration,
    most: Duration,
}

impl Limits {
    const fn up_to(most: Duration) -> Self {
        Self {
            least: Duration::from_millis(1),
            most,
        }
    }

    /// One probe, or the time between two: longer, and a region could be down for minutes unseen.
    pub(crate) const PROBE: Self = Self::up_to(Duration::from_mins(1));
    /// A lag that is still a lag: further behind is a broken standby.
    pub(crate) const LAG: Self = Self::up_to(Duration::from_mins(10));
    /// A window of observation, a switch, a drain: a CI job ends after six hours and holds several of them.
    pub(crate) const STEP: Self = Self::up_to(Duration::from_hours(1));
    /// Covers the longest commit window and the longest verify.
    pub(crate) const CONFIRM: Self = Self::up_to(Duration::from_hours(3));
    /// The one wait that may be left out.
    pub(crate) const SOAK: Self = Self {
        least: Duration::ZERO,
        most: Duration::from_hours(24),
    };
    /// Shorter, and the lock could end between two renewals of a busy holder.
    pub(crate) const LOCK: Self = Self {
        least: Duration::from_secs(1),
        most: Duration::from_hours(1),
    };
}

fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (2..=31).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(rest)
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_ascii_control())
}

/// Without quotes: what is written here is compared with the catalog, and quoted where it goes into SQL.
fn is_identifier(text: &str) -> bool {
    let other = |c: char| c == '"' || c.is_ascii_control();
    (1..=63).contains(&text.len()) && !text.contains(other)
}

fn is_table(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 2 && parts.iter().all(|part| is_identifier(part))
}

fn is_condition(text: &str) -> bool {
    let other = |c: char| c == ';' || c.is_ascii_control();
    !text.contains(other) && !text.trim().is_empty()
}

fn is_variable(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(rest)
}

/// Whole numbers with `ms`, `s`, `m` or `h`. humantime knows more units, some of them ambiguous (`M` is a month), and
/// takes a bare `0`.
fn parse_duration(text: &str) -> Option<Duration> {
    let digit = |c: char| c.is_ascii_digit();
    let complete = text.starts_with(digit) && !text.ends_with(digit);
    let mut units = text.split(digit).filter(|unit| !unit.is_empty());
    let known = units.all(|unit| matches!(unit, "ms" | "s" | "m" | "h"));
    (complete && known).then(|| humantime::parse_duration(text).ok())?
}

/// The duration in the largest unit that leaves a whole number, as the file would have it.
fn spelled(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    let (unit, word) = whole.unwrap_or((1_000, "s"));
    format!("{}{word}", millis / unit)
}

// Regions and hosts.

pub(crate) fn cluster_unknown(key: &Key, region: &RegionFile, file: &File) -> Option<Finding> {
    (!file.clusters.contains_key(&region.cluster)).then(|| {
        unknown(
            &key.name("cluster"),
            &region.cluster,
            "cluster",
            names(&file.clusters),
        )
    })
}

/// Hosts of a region hold the rows of its cluster in memory: that is processing them there.
pub(crate) fn region_outside_residency(
    key: &Key,
    region: &RegionFile,
    file: &File,
) -> Option<Finding> {
    let cluster = file.clusters.get(&region.cluster)?;
    let residency = cluster.residency.as_ref()?;
    let allowed = &file.residency.get(residency)?.locations;
    (!allowed.contains(&region.location)).then(|| {
        let (cluster, residency) = (&region.cluster.0, &residency.0);
        outside(&key.name("location"), &region.location, residency, allowed).hint(format!(
            "this region serves cluster {}, whose rows residency {} binds",
            ticked(cluster),
            ticked(residency)
        ))
    })
}

pub(crate) fn hosts_with_one_name(file: &File) -> Vec<Finding> {
    let names = hosts(file).map(|(key, name)| (name.0.clone(), key));
    twice(names)
        .map(|(first, key, _)| {
            Finding::new(&key, format!("a name that `{first}` has too"), OWN_NAME)
        })
        .collect()
}

/// One server under two names would be switched twice and counted twice.
pub(crate) fn hosts_with_one_address(hosts: &[(Key, Host)]) -> Vec<Finding> {
    let mut findings = hosts_with_one_port(hosts, "ssh_port", |host| host.ssh_port);
    let same_proxy = hosts_with_one_port(hosts, "http_port", |host| host.http_port);
    for finding in same_proxy {
        if findings.iter().all(|known| known.key != finding.key) {
            findings.push(finding);
        }
    }
    findings
}

fn hosts_with_one_port(
    hosts: &[(Key, Host)],
    name: &str,
    port: impl Fn(&Host) -> u16,
) -> Vec<Finding> {
    let ports = hosts
        .iter()
        .map(|(key, host)| ((host.address, port(host)), key.clone()));
    twice(ports)
        .map(|(first, key, (address, port))| {
            let found = format!("{address} with {name} {port}, as is `{first}`");
            Finding::new(
                &key.name("address"),
                found,
                format!("an address and {name} of its own"),
            )
        })
        .collect()
}

// Clusters and residencies.

pub(crate) fn residency_unknown(key: &Key, cluster: &ClusterFile, file: &File) -> Option<Finding> {
    let residency = cluster.residency.as_ref()?;
    (!file.residency.contains_key(residency)).then(|| {
        unknown(
            &key.name("residency"),
            residency,
            "residency",
            names(&file.residency),
        )
    })
}

/// A standby holds every row of its cluster, so each node must stand where the rows may be.
pub(crate) fn nodes_outside_residency(
    key: &Key,
    cluster: &ClusterFile,
    file: &File,
) -> Vec<Finding> {
    let Some(residency) = &cluster.residency else {
        return Vec::new();
    };
    let Some(rule) = file.residency.get(residency) else {
        return Vec::new();
    };
    nodes(key, cluster)
        .filter(|(_, node)| !rule.locations.contains(&node.location))
        .map(|(key, node)| {
            let residency = &residency.0;
            outside(
                &key.name("location"),
                &node.location,
                residency,
                &rule.locations,
            )
            .hint(format!(
                "node {} would hold a copy of every row of residency {}",
                ticked(&node.name.0),
                ticked(residency)
            ))
        })
        .collect()
}

/// A commit would wait for a standby that is not there.
pub(crate) fn sync_exceeds_standbys(key: &Key, cluster: &ClusterFile) -> Option<Finding> {
    let standbys = cluster.standbys.len();
    (cluster.sync as usize > standbys).then(|| {
        let accepted = format!("at most the number of standbys, which is {standbys}");
        Finding::new(&key.name("sync"), cluster.sync.to_string(), accepted)
    })
}

pub(crate) fn nodes_with_one_name(file: &File) -> Vec<Finding> {
    let names = all_nodes(file).map(|(key, node)| (node.name.0.clone(), key));
    twice(names)
        .map(|(first, key, name)| {
            let found = format!("{}, as is `{first}.name`", quoted(&name));
            Finding::new(&key.name("name"), found, OWN_NAME)
        })
        .collect()
}

/// Two nodes with one connection string: the lag of a standby would be read from the primary, and always be 0.
pub(crate) fn nodes_with_one_dsn(file: &File) -> Vec<Finding> {
    let references = all_nodes(file).filter_map(|(key, node)| {
        Some((secret(&key, &node.dsn).ok()?.to_string(), key.name("dsn")))
    });
    twice(references)
        .map(|(first, key, reference)| {
            let found = format!("{}, as is `{first}`", quoted(&reference));
            Finding::new(&key, found, "a connection string of its own")
        })
        .collect()
}

/// A rule that binds no cluster protects nobody; most likely the cluster forgot to name it.
pub(crate) fn residency_unused(file: &File) -> Vec<Finding> {
    let named = || {
        file.clusters
            .values()
            .filter_map(|cluster| cluster.residency.as_ref())
    };
    if named().any(|name| !file.residency.contains_key(name)) {
        // One of these names was meant: `residency_unknown` says so.
        return Vec::new();
    }
    let used = |name: &Name| named().any(|other| other == name);
    file.residency
        .keys()
        .filter(|name| !used(name))
        .map(|name| {
            Finding::new(
                &residencies().name(&name.0),
                "a residency that no cluster has",
                "a residency of a cluster",
            )
            .hint(format!(
                "write `residency = {}` into the cluster that holds these rows",
                quoted(&name.0)
            ))
        })
        .collect()
}

/// The home of a user would not be decided.
pub(crate) fn country_twice(file: &File) -> Vec<Finding> {
    let countries = file.residency.iter().flat_map(|(name, residency)| {
        let list = residencies().name(&name.0).name("countries");
        residency
            .countries
            .iter()
            .enumerate()
            .map(move |(at, country)| (country.0.clone(), list.index(at)))
    });
    twice(countries)
        .map(|(first, key, country)| {
            let found = format!("{}, as is `{first}`", quoted(&country));
            Finding::new(&key, found, "each country once")
        })
        .collect()
}

// Gates and rollout.

/// The clean end of an observation could hold no probe at all, and no probe is not a clean one.
pub(crate) fn clear_for_holds_no_probe(
    key: &Key,
    rule: &LagRule,
    file: &LagFile,
) -> Option<Finding> {
    (rule.clear_for < rule.interval).then(|| {
        let accepted = format!("at least the interval, which is {}", spelled(rule.interval));
        Finding::new(&key.name("clear_for"), quoted(&file.clear_for.0), accepted)
    })
}

/// A breach could begin and end between two probes.
pub(crate) fn sustained_holds_no_probe(
    key: &Key,
    rule: &LagRule,
    file: &LagFile,
) -> Option<Finding> {
    (rule.sustained < rule.interval).then(|| {
        let accepted = format!("at least the interval, which is {}", spelled(rule.interval));
        Finding::new(&key.name("sustained"), quoted(&file.sustained.0), accepted)
    })
}

/// Hosts would switch back while `deploy-region` still looks at them: it gives an endpoint that changes its mind the time
/// for one more streak of each kind, and the last probe its whole timeout.
pub(crate) fn confirm_too_early(
    key: &Key,
    rule: &RolloutRule,
    health: &HealthRule,
    file: &RolloutFile,
) -> Option<Finding> {
    let streaks = health.interval * (health.failures + health.successes);
    let needed = rule.commit_window + rule.verify + streaks + health.timeout;
    (rule.confirm_within <= needed).then(|| {
        let accepted = format!(
            "longer than commit_window, verify, and of gates.health interval * (failures + successes) and timeout \
             together, which are {}",
            spelled(needed)
        );
        Finding::new(
            &key.name("confirm_within"),
            quoted(&file.confirm_within.0),
            accepted,
        )
    })
}

pub(crate) fn wave_of_unknown_region(key: &Key, waves: &[Vec<Name>], file: &File) -> Vec<Finding> {
    members(key, waves)
        .filter(|(_, name)| !file.regions.contains_key(name))
        .map(|(key, name)| unknown(&key, name, "region", names(&file.regions)))
        .collect()
}

pub(crate) fn region_in_two_waves(key: &Key, waves: &[Vec<Name>]) -> Vec<Finding> {
    twice(members(key, waves).map(|(key, name)| (name.0.clone(), key)))
        .map(|(first, key, name)| {
            let found = format!("{}, as is `{first}`", quoted(&name));
            Finding::new(&key, found, "each region once")
        })
        .collect()
}

pub(crate) fn region_in_no_wave(key: &Key, waves: &[Vec<Name>], file: &File) -> Option<Finding> {
    let missing = file
        .regions
        .keys()
        .filter(|name| !waves.iter().flatten().any(|member| member == *name));
    let missing = listed(missing.map(|name| name.0.as_str()));
    (!missing.is_empty()).then(|| {
        Finding::new(key, format!("without {missing}"), "each region once")
            .hint("without `waves` the regions go one by one in ascending traffic")
    })
}

pub(crate) fn wave_empty(key: &Key, waves: &[Vec<Name>]) -> Vec<Finding> {
    let empty = waves.iter().enumerate().filter(|(_, wave)| wave.is_empty());
    empty
        .map(|(at, _)| Finding::new(&key.index(at), "empty", "at least one region"))
        .collect()
}

// Migration.

pub(crate) fn migration_cluster_unknown(key: &Key, cluster: &Name, file: &File) -> Option<Finding> {
    (!file.clusters.contains_key(cluster))
        .then(|| unknown(key, cluster, "cluster", names(&file.clusters)))
}

pub(crate) fn migration_to_itself(key: &Key, section: &MigrationFile) -> Option<Finding> {
    (section.from == section.to).then(|| {
        let found = format!("{}, as is `migration.from`", quoted(&section.to.0));
        Finding::new(&key.name("to"), found, "another cluster")
    })
}

/// The condition of the file, else the countries of the residency of the cluster that the rows move to.
pub(crate) fn migrating_users(
    key: &Key,
    section: &MigrationFile,
    file: &File,
) -> Result<String, Finding> {
    if let Some(condition) = &section.users {
        let fits = is_condition(&condition.0);
        return match fits {
            true => Ok(condition.0.clone()),
            false => Err(Finding::new(key, quoted(&condition.0), Condition::ACCEPTED)),
        };
    }
    let cluster = file.clusters.get(&section.to);
    let residency = cluster
        .and_then(|cluster| cluster.residency.as_ref())
        .and_then(|residency| file.residency.get(residency));
    let Some(residency) = residency else {
        let finding = Finding::new(key, "missing", Condition::ACCEPTED);
        return Err(finding.hint(format!(
            "it can be left out only if cluster {} has a residency, whose countries it then means",
            ticked(&section.to.0)
        )));
    };
    // A country that is none is found where it stands.
    let countries: Vec<String> = residency
        .countries
        .iter()
        .map(|country| format!("'{}'", country.0))
        .collect();
    Ok(format!("billing_country IN ({})", countries.join(", ")))
}

/// Source and target would be one server under two names.
pub(crate) fn sides_with_one_dsn(key: &Key, sides: &Sides) -> Option<Finding> {
    (sides.from == sides.to).then(|| {
        let reference = quoted(&sides.to.to_string());
        let found = format!("{reference}, as is `{}`", key.name("from"));
        Finding::new(&key.name("to"), found, "a connection string of its own")
    })
}

/// What a root row refers to may need a word; who owns it does not.
pub(crate) fn rule_for_the_root(
    key: &Key,
    table: &TableText,
    section: &MigrationFile,
) -> Option<Finding> {
    let rule = section.tables.get(table)?;
    let owned = rule.owner.is_some()
        || !rule.owner_by.is_empty()
        || rule.stays
        || rule.unowned.is_some()
        || rule.shared.is_some();
    (qualified(table) == qualified(&section.root) && owned).then(|| {
        Finding::new(
            key,
            "the table of `migration.root`, whose rows own themselves",
            "only `columns` for this table",
        )
    })
}

pub(crate) fn table_twice(key: &Key, section: &MigrationFile) -> Vec<Finding> {
    let tables = section.tables.keys();
    twice(tables.map(|table| (qualified(table), key.name(&table.0))))
        .map(|(first, key, _)| {
            let found = format!("the table of `{first}`");
            Finding::new(&key, found, "each table once")
        })
        .collect()
}

pub(crate) fn table_rule_says_nothing(key: &Key, table: &TableFile) -> Option<Finding> {
    let says = !answers(table).is_empty() || table.unowned.is_some() || !table.columns.is_empty();
    (!says).then(|| {
        Finding::new(
            key,
            "empty",
            "`columns`, `owner`, `owner_by`, `shared`, `stays` or `unowned`",
        )
    })
}

pub(crate) fn table_rules_contradict(key: &Key, table: &TableFile) -> Option<Finding> {
    let answers = answers(table);
    let stays = table.stays || table.shared.is_some();
    let found = match (answers.as_slice(), table.unowned) {
        ([_, _, ..], _) => listed(answers.iter().copied()),
        ([one], Some(_)) if stays => listed([*one, "unowned"]),
        _ => return None,
    };
    let accepted =
        "one of `owner`, `owner_by`, `shared` and `stays`; `unowned` only for a table that moves";
    Some(Finding::new(key, format!("a table with {found}"), accepted))
}

/// The keys that say whose the rows of a table are.
fn answers(table: &TableFile) -> Vec<&'static str> {
    let answers = [
        ("owner", table.owner.is_some()),
        ("owner_by", !table.owner_by.is_empty()),
        ("shared", table.shared.is_some()),
        ("stays", table.stays),
    ];
    answers
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
}

pub(crate) fn owner_columns_do_not_pair(key: &Key, owner: &OwnerFile) -> Option<Finding> {
    let (columns, referenced) = (owner.columns.len(), owner.referenced.len());
    (referenced != 0 && referenced != columns).then(|| {
        let found = format!("a list of {referenced}");
        let accepted = format!("one column for each of `columns`, which are {columns}");
        Finding::new(&key.name("referenced"), found, accepted)
    })
}

fn qualified(table: &TableText) -> String {
    match table.0.contains('.') {
        true => table.0.clone(),
        false => format!("public.{}", table.0),
    }
}

const OWN_NAME: &str = "a name of its own";

fn unknown<'a>(
    key: &Key,
    name: &Name,
    of: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Finding {
    let accepted = match listed(known.clone()) {
        none if none.is_empty() => format!("a {of} of this file"),
        some => format!("a {of} of this file: {some}"),
    };
    Finding::new(key, quoted(&name.0), accepted).meant(&name.0, known)
}

fn outside(key: &Key, location: &Location, residency: &str, allowed: &[Location]) -> Finding {
    let allowed = listed(allowed.iter().map(|location| location.0.as_str()));
    Finding::new(
        key,
        quoted(&location.0),
        format!("a location of residency {}: {allowed}", ticked(residency)),
    )
}

/// Only what is a name: anything else has its own finding, and could be a secret in the wrong place.
fn names<T>(table: &BTreeMap<Name, T>) -> impl Iterator<Item = &str> + Clone {
    table
        .keys()
        .map(|name| name.0.as_str())
        .filter(|name| is_name(name))
}

fn hosts(file: &File) -> impl Iterator<Item = (Key, &Name)> {
    file.regions.iter().flat_map(|(name, region)| {
        let hosts = Key::default().name("regions").name(&name.0).name("hosts");
        region
            .hosts
            .keys()
            .map(move |host| (hosts.name(&host.0), host))
    })
}

fn all_nodes(file: &File) -> impl Iterator<Item = (Key, &NodeFile)> {
    let clusters = Key::default().name("clusters");
    file.clusters
        .iter()
        .flat_map(move |(name, cluster)| nodes(&clusters.name(&name.0), cluster))
}

fn nodes<'a>(
    key: &Key,
    cluster: &'a ClusterFile,
) -> impl Iterator<Item = (Key, &'a NodeFile)> + use<'a> {
    let standbys = key.name("standbys");
    let primary = std::iter::once((key.name("primary"), &cluster.primary));
    primary.chain(
        cluster
            .standbys
            .iter()
            .enumerate()
            .map(move |(at, node)| (standbys.index(at), node)),
    )
}

fn members<'a>(key: &Key, waves: &'a [Vec<Name>]) -> impl Iterator<Item = (Key, &'a Name)> {
    waves.iter().enumerate().flat_map(move |(at, wave)| {
        let wave_key = key.index(at);
        wave.iter()
            .enumerate()
            .map(move |(at, name)| (wave_key.index(at), name))
    })
}

fn residencies() -> Key {
    Key::default().name("residency")
}

/// Every item that came before under the same mark: (where first, where again, the mark).
fn twice<M: Ord + Clone>(
    items: impl Iterator<Item = (M, Key)>,
) -> impl Iterator<Item = (Key, Key, M)> {
    let mut seen: BTreeMap<M, Key> = BTreeMap::new();
    items.filter_map(move |(mark, key)| {
        if let Some(first) = seen.get(&mark) {
            return Some((first.clone(), key, mark));
        }
        seen.insert(mark, key);
        None
    })
}

/// ISO 3166-1 alpha-2, as of 2026.
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY \
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK \
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR \
    IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK \
    ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM \
    PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF \
    TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";
