//! A connection string of libpq's two forms, and what its `sslmode` means here.
//!
//! `sslmode` and `sslrootcert` are ours because tokio-postgres knows neither `verify-full` nor root files. The meaning is
//! stricter than libpq's: encryption is always checked encryption. `require` and `verify-ca` verify like `verify-full`,
//! and a connection without TLS needs a loopback address, a unix socket or [`crate::Options::allow_plaintext`].

use std::net::IpAddr;
use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::tls::Roots;

/// Where a server is and how to log in. Has no `Debug` and no `Display`.
#[derive(Clone)]
pub struct Dsn {
    pub(crate) config: Config,
    pub(crate) server: Server,
    pub(crate) encryption: Encryption,
}

/// One server: a list of hosts would leave open which of them a measurement was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Tcp {
        host: String,
        address: Option<IpAddr>,
        port: u16,
    },
    Unix {
        socket: PathBuf,
    },
}

/// What the connection string asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// `sslmode` is not there: plaintext to this machine, else TLS.
    Unsaid,
    Plaintext,
    Verified(Roots),
}

/// Why a text is not a usable connection string. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnProblem {
    #[error("the connection string cannot be read: {0}")]
    Unreadable(String),
    #[error("the connection string names no host")]
    NoHost,
    #[error("the connection string names {0} hosts; a node is one server")]
    SeveralHosts(usize),
    #[error("the connection string names no user")]
    NoUser,
    #[error(
        "the connection string has an unknown `sslmode`; accepted: disable, prefer, require, verify-ca, verify-full"
    )]
    UnknownSslMode,
}

impl Dsn {
    /// Parses `postgres://user@host/db?sslmode=..` or `host=.. user=.. sslmode=..`.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of its values.
    pub fn parse(text: &str) -> Result<Self, DsnProblem> {
        let (rest, ssl) = take_ssl_settings(text.trim())?;
        let config: Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            DsnProblem::Unreadable(cause.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err(DsnProblem::NoUser);
        }
        Ok(Self {
            server: server(&config)?,
            encryption: ssl.encryption()?,
            config: without_ssl(config),
        })
    }

    /// `10.0.0.2:5432` or the socket's path: what messages call the server.
    pub fn place(&self) -> String {
        match &self.server {
            Server::Tcp {
                host,
                address,
                port,
            } => match address.or_else(|| host.parse().ok()) {
                Some(IpAddr::V6(address)) => format!("[{address}]:{port}"),
                Some(IpAddr::V4(address)) => format!("{address}:{port}"),
                None => format!("{host}:{port}"),
            },
            Server::Unix { socket } => socket.display().to_string(),
        }
    }

    /// The role's password, where the connection string has one.
    pub fn password(&self) -> Option<&[u8]> {
        self.config.get_password()
    }

    /// The database, as libpq has it: named like the role where the connection string names none.
    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or_else(|| self.user())
    }

    /// The role that logs in.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

/// The TLS handshake is decided before tokio-postgres sees the stream, so its own mode is only a yes or no.
fn without_ssl(mut config: Config) -> Config {
    config.ssl_mode(SslMode::Disable);
    config
}

fn server(config: &Config) -> Result<Server, DsnProblem> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let named = config.get_hosts().len().max(config.get_hostaddrs().len());
    let address = config.get_hostaddrs().first().copied();
    match (named, config.get_hosts().first(), address) {
        (0, ..) | (_, None, None) => Err(DsnProblem::NoHost),
        (1, Some(Host::Unix(directory)), _) => Ok(Server::Unix {
            socket: directory.join(format!(".s.PGSQL.{port}")),
        }),
        (1, Some(Host::Tcp(host)), address) => Ok(Server::Tcp {
            host: host.clone(),
            address,
            port,
        }),
        (1, None, Some(address)) => Ok(Server::Tcp {
            host: address.to_string(),
            address: Some(address),
            port,
        }),
        (several, ..) => Err(DsnProblem::SeveralHosts(several)),
    }
}

#[derive(Default)]
struct SslSettings {
    mode: Option<String>,
    root_file: Option<String>,
}

impl SslSettings {
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root_file = Some(value.to_owned()),
            _ => return false,
        }
        true
    }

    fn encryption(self) -> Result<Encryption, DsnProblem> {
        let roots = match self.root_file.as_deref() {
            // libpq's word for "what the system trusts"; the bundled Mozilla roots are that here.
            None | Some("" | "system") => Roots::Public,
            Some(path) => Roots::File(PathBuf::from(path)),
        };
        match self.mode.as_deref() {
            None if roots == Roots::Public => Ok(Encryption::Unsaid),
            None => Ok(Encryption::Verified(roots)),
            Some("disable" | "allow" | "prefer") => Ok(Encryption::Plaintext),
            Some("require" | "verify-ca" | "verify-full") => Ok(Encryption::Verified(roots)),
            Some(_) => Err(DsnProblem::UnknownSslMode),
        }
    }
}

/// Separates the settings that tokio-postgres does not know from those that it does.
fn take_ssl_settings(text: &str) -> Result<(String, SslSettings), DsnProblem> {
    let mut ssl = SslSettings::default();
    if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
        let others = key_values(text)?
            .into_iter()
            .filter(|(key, value)| !ssl.take(key, value));
        let rest: Vec<String> = others
            .map(|(key, value)| format!("{key}={}", quoted(&value)))
            .collect();
        return Ok((rest.join(" "), ssl));
    }
    let Some((base, query)) = text.split_once('?') else {
        return Ok((text.to_owned(), ssl));
    };
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !ssl.take(key, &percent_decoded(value)?) {
            rest.push(pair);
        }
    }
    let query = if rest.is_empty() {
        String::new()
    } else {
        format!("?{}", rest.join("&"))
    };
    Ok((format!("{base}{query}"), ssl))
}

/// `key = 'a value' key=value`, with `\` escaping the next character.
fn key_values(text: &str) -> Result<Vec<(String, String)>, DsnProblem> {
    let broken = |what: &str| DsnProblem::Unreadable(what.to_owned());
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| broken("a key has no `=` after it"))?;
        let (value, after) =
            value_of(after.trim_start()).ok_or_else(|| broken("a quote is not closed"))?;
        pairs.push((key.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let body = text.strip_prefix('\'').unwrap_or(text);
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, &body[at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((value, &body[at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn percent_decoded(text: &str) -> Result<String, DsnProblem> {
    let broken =
        || DsnProblem::Unreadable("a `%` is not followed by two hexadecimal digits".to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|digit| char::from(digit).to_digit(16))
                .ok_or_else(broken)
        };
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).map_err(|_| broken())?);
    }
    String::from_utf8(bytes)
        .map_err(|_| DsnProblem::Unreadable("a setting is not UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Dsn, DsnProblem, Encryption, Server};
    use crate::tls::Roots;

    fn parsed(text: &str) -> Dsn {
        Dsn::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    fn problem(text: &str) -> DsnProblem {
        match Dsn::parse(text) {
            Ok(_) => panic!("{text} is accepted"),
            Err(problem) => problem,
        }
    }

    #[test]
    fn both_forms_of_libpq_mean_the_same() {
        for text in [
            "postgres://lag:s3cret@10.0.0.2:6432/shop?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
            "postgresql://lag:s3cret@10.0.0.2:6432/shop?sslrootcert=/etc/ca.pem&sslmode=require\n",
            "host=10.0.0.2 port = 6432 user='lag' password='s3cret' dbname=shop sslmode=verify-ca sslrootcert=/etc/ca.pem",
        ] {
            let dsn = parsed(text);
            assert_eq!(dsn.place(), "10.0.0.2:6432");
            assert_eq!(dsn.user(), "lag");
            assert_eq!(dsn.config.get_password(), Some(&b"s3cret"[..]));
            assert_eq!(dsn.config.get_dbname(), Some("shop"));
            assert_eq!(
                dsn.encryption,
                Encryption::Verified(Roots::File("/etc/ca.pem".into())),
                "{text}"
            );
        }
    }

    #[test]
    fn quoting_in_the_key_value_form_is_libpqs() {
        let dsn = parsed(r"host=/run/pg user=lag password='it\'s a \\ secret'");
        assert_eq!(dsn.config.get_password(), Some(&br"it's a \ secret"[..]));
        assert_eq!(
            dsn.server,
            Server::Unix {
                socket: "/run/pg/.s.PGSQL.5432".into()
            }
        );
        assert!(matches!(
            problem("host=a user='b"),
            DsnProblem::Unreadable(_)
        ));
        assert!(matches!(problem("host"), DsnProblem::Unreadable(_)));
    }

    #[test]
    fn what_is_not_said_about_tls_stays_unsaid() {
        assert_eq!(
            parsed("postgres://lag@db.example/shop").encryption,
            Encryption::Unsaid
        );
        assert_eq!(
            parsed("postgres://lag@db.example/shop?sslmode=prefer").encryption,
            Encryption::Plaintext
        );
        let system =
            parsed("postgres://lag@db.example/shop?sslmode=verify-full&sslrootcert=system");
        assert_eq!(system.encryption, Encryption::Verified(Roots::Public));
        assert_eq!(
            problem("postgres://lag@db.example/shop?sslmode=verify"),
            DsnProblem::UnknownSslMode
        );
    }

    #[test]
    fn a_node_is_exactly_one_server() {
        assert_eq!(
            problem("postgres://lag@a,b/shop"),
            DsnProblem::SeveralHosts(2)
        );
        assert_eq!(problem("user=lag"), DsnProblem::NoHost);
        assert_eq!(problem("host=a"), DsnProblem::NoUser);
        assert_eq!(
            parsed("hostaddr=10.0.0.2 user=lag").place(),
            "10.0.0.2:5432"
        );
        assert_eq!(
            parsed("host=db.example hostaddr=fd00::2 user=lag").place(),
            "[fd00::2]:5432"
        );
    }

    #[test]
    fn a_problem_never_repeats_a_value() {
        for text in [
            "postgres://lag:s3cret@db.example:port/shop",
            "postgres://lag:s3cret@db.example/shop?sslmode=s3cret",
            "postgres://lag:s3cret@db.example/shop?s=%zz&sslmode=%s3cret",
            "host=db.example user=lag password='s3cret",
            "host=db.example user=lag password=s3cret port=s3cret",
            "s3cret",
        ] {
            let text = problem(text).to_string();
            assert!(
                !text.contains("s3cret") && !text.contains("db.example"),
                "{text}"
            );
        }
    }
}
