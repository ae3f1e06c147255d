//! What `install` was told about this host, and the env that every release on it gets.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use regionwise_protocol::Denial;
use regionwise_rollout::slot::Slot;
use serde::{Deserialize, Serialize};

use crate::deny::{OrDeny, corrupt, host};
use crate::durable;
use crate::layout::Layout;

/// `host.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) app: String,
    /// Where HAProxy listens.
    pub(crate) listen: SocketAddr,
    pub(crate) blue: SocketAddr,
    pub(crate) green: SocketAddr,
    /// Answers 2xx when the process can serve.
    pub(crate) health_path: String,
}

impl Settings {
    /// Where requests of this host itself reach its HAProxy.
    pub(crate) fn front(&self) -> SocketAddr {
        if self.listen.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.listen.port())
        } else {
            self.listen
        }
    }

    /// The address of the slots: never one that others can reach past HAProxy.
    pub(crate) fn slot_ip(listen: SocketAddr) -> IpAddr {
        if listen.ip().is_loopback() {
            listen.ip()
        } else {
            Ipv4Addr::LOCALHOST.into()
        }
    }

    pub(crate) fn load(layout: &Layout) -> Result<Self, Denial> {
        durable::read(&layout.settings())?.ok_or_else(|| {
            host(format!(
                "`{}` is no host: `host.json` is missing",
                layout.root().display()
            ))
            .with_hint("region-host install --help")
        })
    }

    pub(crate) fn address(&self, slot: Slot) -> SocketAddr {
        match slot {
            Slot::Blue => self.blue,
            Slot::Green => self.green,
        }
    }
}

/// Parses `NAME=value` lines; a value in double quotes is a JSON string.
pub(crate) fn parse_env(text: &str, what: &str) -> Result<BTreeMap<String, String>, Denial> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| {
            let bad = || corrupt(format!("{what}, line {}, is not NAME=value", number + 1));
            let (name, value) = line.split_once('=').ok_or_else(bad)?;
            let value = if value.starts_with('"') {
                serde_json::from_str(value).map_err(|_| bad())?
            } else {
                value.to_owned()
            };
            Ok((name.trim().to_owned(), value))
        })
        .collect()
}

/// The host's own env file.
pub(crate) fn host_env(layout: &Layout) -> Result<BTreeMap<String, String>, Denial> {
    let path = layout.host_env();
    let text = fs::read_to_string(&path).or_host(|| format!("cannot read `{}`", path.display()))?;
    parse_env(&text, "the host's env file")
}

#[cfg(test)]
mod tests {
    use super::{Settings, parse_env};

    #[test]
    fn slots_are_never_reachable_past_the_proxy() {
        let ip = |listen: &str| Settings::slot_ip(listen.parse().unwrap()).to_string();
        assert_eq!(ip("203.0.113.7:80"), "127.0.0.1");
        assert_eq!(ip("0.0.0.0:80"), "127.0.0.1");
        assert_eq!(ip("127.9.9.9:8080"), "127.9.9.9");
    }

    #[test]
    fn env_values_may_be_plain_or_json_and_an_error_never_shows_the_value() {
        let env = parse_env("# c\nA=b c=d\nB=\"x\\ny\"\n\n", "env").unwrap();
        assert_eq!((env["A"].as_str(), env["B"].as_str()), ("b c=d", "x\ny"));
        let denial = parse_env("A=1\nhunter2\n", "env").unwrap_err();
        assert_eq!(denial.text, "env, line 2, is not NAME=value");
    }
}
