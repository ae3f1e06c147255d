//! The account a lab runs as: the caller's own, or an unprivileged one when the caller is root.

use std::fs;
use std::io;

use rustix::process::{getgid, getuid};

/// Made by `scripts/setup`. Needs a real shell: sshd runs the forced command through it.
pub const LAB_ACCOUNT: &str = "regionwise-lab";

/// Whose processes and files a lab has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The caller is root and must drop to this account.
    pub drop: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("cannot read `/etc/passwd`")]
    Unreadable(#[source] io::Error),
    #[error(
        "cannot start a lab as root: Postgres refuses root, and the account `{LAB_ACCOUNT}` does not exist"
    )]
    Missing,
    #[error("cannot start a lab as uid {0}: `/etc/passwd` has no such account, so sshd refuses it")]
    Nameless(u32),
}

impl AccountError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing => Some(format!(
                "useradd --system --shell /bin/sh --home-dir /nonexistent {LAB_ACCOUNT}"
            )),
            Self::Unreadable(_) | Self::Nameless(_) => None,
        }
    }
}

/// The account for a lab that the caller starts.
pub fn choose() -> Result<Account, AccountError> {
    let passwd = fs::read_to_string("/etc/passwd").map_err(AccountError::Unreadable)?;
    choose_from(&passwd, getuid().as_raw(), getgid().as_raw())
}

fn choose_from(passwd: &str, uid: u32, gid: u32) -> Result<Account, AccountError> {
    let mut accounts = passwd.lines().filter_map(parse);
    if uid == 0 {
        let found = accounts
            .find(|account| account.name == LAB_ACCOUNT)
            .ok_or(AccountError::Missing)?;
        return Ok(Account {
            drop: true,
            ..found
        });
    }
    let found = accounts
        .find(|account| account.uid == uid)
        .ok_or(AccountError::Nameless(uid))?;
    // The group the caller has now, which `newgrp` may have changed.
    Ok(Account { gid, ..found })
}

/// One line `name:password:uid:gid:gecos:home:shell`.
fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Account {
        name,
        uid,
        gid,
        drop: false,
    })
}

#[cfg(test)]
mod tests {
    use super::{AccountError, choose_from};

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n";

    #[test]
    fn root_drops_to_the_lab_account() {
        let passwd = format!("{PASSWD}regionwise-lab:x:999:995::/nonexistent:/bin/sh\n");
        let account = choose_from(&passwd, 0, 0).expect("an account");
        assert_eq!((account.uid, account.gid, account.drop), (999, 995, true));
    }

    #[test]
    fn root_without_the_lab_account_is_told_how_to_make_it() {
        let error = choose_from(PASSWD, 0, 0).expect_err("no account");
        assert!(matches!(error, AccountError::Missing));
        let hint = "useradd --system --shell /bin/sh --home-dir /nonexistent regionwise-lab";
        assert_eq!(error.hint().as_deref(), Some(hint));
    }

    #[test]
    fn everybody_else_stays_what_they_are() {
        let account = choose_from(PASSWD, 1000, 100).expect("an account");
        assert_eq!(
            (account.name.as_str(), account.gid, account.drop),
            ("ada", 100, false)
        );
        assert!(matches!(
            choose_from(PASSWD, 4242, 1),
            Err(AccountError::Nameless(4242))
        ));
    }
}
