//! Rules of one value: `Err` is why it is none.

use std::net::IpAddr;
use std::time::Duration;

use url::Url;

use crate::file::{
    Account, Address, Bucket, Country, DurationText, Endpoint, EnvironmentPrefix, FilePath,
    Identifier, Location, Name, Origin, SecretReference, TableText, UrlPath, Word,
};
use crate::model::Secret;
use crate::problem::{Finding, Key, quoted};

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

/// GitHub takes nearly anything as the name of an environment; this much is the same in a URL, a log and a shell.
pub(crate) fn not_an_environment_prefix(key: &Key, prefix: &EnvironmentPrefix) -> Option<Finding> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    (prefix.0.len() > 100 || !prefix.0.chars().all(fits))
        .then(|| Finding::new(key, quoted(&prefix.0), EnvironmentPrefix::ACCEPTED))
}

pub(crate) fn not_a_word(key: &Key, word: &Word) -> Option<Finding> {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let fits = (2..=63).contains(&word.0.len())
        && word.0.starts_with(|c: char| c.is_ascii_lowercase())
        && word.0.chars().all(rest);
    (!fits).then(|| Finding::new(key, quoted(&word.0), Word::ACCEPTED))
}

pub(crate) fn not_a_bucket(key: &Key, bucket: &Bucket) -> Option<Finding> {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = (3..=63).contains(&bucket.0.len())
        && bucket.0.starts_with(end)
        && bucket.0.ends_with(end)
        && bucket.0.chars().all(|c| end(c) || ".-".contains(c));
    (!fits).then(|| Finding::new(key, quoted(&bucket.0), Bucket::ACCEPTED))
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
    host_alone(key, &text.0, &["http", "https"], Origin::ACCEPTED)
}

/// Every row goes there.
pub(crate) fn endpoint(key: &Key, text: &Endpoint) -> Result<Url, Finding> {
    host_alone(key, &text.0, &["https"], Endpoint::ACCEPTED)
}

fn host_alone(key: &Key, text: &str, schemes: &[&str], accepted: &str) -> Result<Url, Finding> {
    let finding = |found: String| Err(Finding::new(key, found, accepted));
    // On the text, not on the parsed URL: what does not parse may hold a secret all the same.
    if text.contains('@') {
        return finding("a URL with credentials".to_owned());
    }
    if text.contains(['?', '#']) {
        return finding("a URL with a query or fragment".to_owned());
    }
    let Ok(url) = Url::parse(text) else {
        return finding(quoted(text));
    };
    if !schemes.contains(&url.scheme()) || !is_origin(text) || url.port() == Some(0) {
        return finding(quoted(text));
    }
    Ok(url)
}

/// `SCHEME://AUTHORITY` as it is written: `Url` also reads `https:x`, `https:///x` and `https://x/.` as `https://x/`.
fn is_origin(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    // A byte order mark is space to the schema's pattern.
    let space = |c: char| c.is_whitespace() || c == '\u{feff}';
    let other = |c: char| space(c) || c.is_control() || "/\\?#@".contains(c);
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

pub(super) fn is_name(text: &str) -> bool {
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

pub(super) fn is_condition(text: &str) -> bool {
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
pub(super) fn spelled(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    let (unit, word) = whole.unwrap_or((1_000, "s"));
    format!("{}{word}", millis / unit)
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
