//! The first session with a server: from the host key that it was born with to one that never left it.
//!
//! Every login insists on a key that a label, or else known_hosts, names (`regionwise_provision::trust`). What is to be shown
//! next is announced by a label before it is shown. So a run that was killed between any two requests is gone on with from any
//! machine, also from one without known_hosts.

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use regionwise_provision::host::identity;
use regionwise_provision::trust::{Stage, Stranger, Vouched};
use regionwise_provision::{FINAL_KEY, HOST_KEY, Kind, Labels, REBUILD, label_of, said};
use regionwise_remote::host_key::{self, HostKey};
use regionwise_remote::jump::Jump;
use regionwise_remote::root::{RootError, RootLogin};
use regionwise_remote::ssh::OpenError;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::Narrator;
use crate::stopped::{Stopped, Why};
use regionwise_hetzner::Hetzner;

/// cloud-init installs packages before it ends; a slow mirror may take minutes for them.
const CLOUD_INIT: Duration = Duration::from_secs(30 * 60);
/// For what a server does at once.
const SHORT: Duration = Duration::from_secs(60);
/// Between two looks at a server that does not answer yet.
const POLL: Duration = Duration::from_secs(2);

/// A server, and the way to it.
pub struct Seat<'a> {
    /// The provider's.
    pub server: &'a str,
    pub address: IpAddr,
    pub port: u16,
    /// That of regions.toml.
    pub known_hosts: &'a Path,
    /// `None`: the keys that ssh finds by itself.
    pub identity: Option<&'a Path>,
    /// `None`: it is reached directly.
    pub jump: Option<Jump>,
    /// How long a server may take until it answers ssh.
    pub boot_within: Duration,
}

/// What became of a first session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// A login that knows only the one-time key was refused, in this run.
    pub birth_refused: bool,
    /// The file has another line now.
    pub pinned: bool,
}

/// Why a server has not got so far.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// Nothing was sent to it.
    #[error(transparent)]
    Stranger(#[from] Stranger),
    #[error("no ssh server answers at {0}")]
    Silent(String),
    #[error(transparent)]
    Login(RootError),
    /// It said itself what is wrong.
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Provider(Stopped),
    #[error("cannot use the OpenSSH programs or a file here")]
    Here(#[from] io::Error),
    /// Somebody asked the run to stop.
    #[error("stopped by a signal")]
    Signal,
}

/// Brings a server to where it shows its final key, known_hosts pins it, and the one-time key is refused; does nothing where
/// that is so already. `seen` are its labels as a look had them: they are asked for anew only where they vouch for nothing.
///
/// # Errors
/// [`Unmet`]; the same call goes on where it stopped.
pub async fn first_session(
    seat: &Seat<'_>,
    seen: &Labels,
    hetzner: &Hetzner<'_>,
    stop: &(dyn Fn() -> bool + Sync),
    say: Narrator<'_>,
) -> Result<Settled, Unmet> {
    let session = Session {
        seat,
        hetzner,
        stop,
        say,
    };
    match settle(&session, seen).await {
        // Another run may have been here since the look. Or one that was killed has left its script at work there, which has put
        // the announced key in the place of the other one by now. What the labels do not name is refused again.
        Err(Unmet::Stranger(_) | Unmet::Login(RootError::Open(OpenError::HostKey { .. }))) => {
            let now = labels(hetzner, seat.server).await;
            let (_, now) = now.map_err(Unmet::Provider)?;
            settle(&session, &now).await
        }
        met => met,
    }
}

async fn settle(session: &Session<'_, '_>, labels: &Labels) -> Result<Settled, Unmet> {
    let Session { seat, .. } = session;
    let shown = session.shown().await?;
    let pinned = host_key::pinned(seat.known_hosts, seat.address, seat.port).await?;
    let vouched = Vouched::of(labels, pinned);
    let mut settled = Settled::default();
    let key = match vouched.stage(&shown.fingerprint)? {
        Stage::Settled | Stage::Kept => shown,
        Stage::Born => {
            let last = session.announce(labels, &shown, &vouched).await?;
            session.exchange(&shown, &last).await?;
            settled.birth_refused = session.forget(&last, Some(&shown), &vouched).await?;
            last
        }
        Stage::Exchanged => {
            settled.birth_refused = session.forget(&shown, None, &vouched).await?;
            shown
        }
        Stage::Pinned => {
            session.announce(labels, &shown, &vouched).await?;
            if vouched.birth.is_some() {
                settled.birth_refused = session.forget(&shown, None, &vouched).await?;
            }
            shown
        }
    };
    settled.pinned = host_key::pin(seat.known_hosts, &key, &[seat.address], seat.port).await?;
    if settled.pinned {
        session.say(&format!("known_hosts pins {}.", key.fingerprint));
    }
    if vouched.birth.is_some() {
        session
            .label(|labels| {
                labels.remove(HOST_KEY);
                labels.remove(REBUILD);
                // Another run may have announced the key of a server that this one has not seen.
                labels
                    .extend(label_of(&key.fingerprint).map(|label| (FINAL_KEY.to_owned(), label)));
            })
            .await?;
    }
    Ok(settled)
}

/// Changes labels of a server, from what they are now; nothing is sent where that changes nothing.
///
/// # Errors
/// [`Stopped`]
pub async fn relabel(
    hetzner: &Hetzner<'_>,
    server: &str,
    change: impl FnOnce(&mut Labels),
) -> Result<(), Stopped> {
    let (id, before) = labels(hetzner, server).await?;
    let mut labels = before.clone();
    change(&mut labels);
    if labels == before {
        return Ok(());
    }
    let written = hetzner.label(id, &labels).await;
    written.map_err(|error| Stopped::by(&format!("labels of server `{server}`"), &error))
}

/// As they are now: another run may be at it.
async fn labels(hetzner: &Hetzner<'_>, server: &str) -> Result<(i64, Labels), Stopped> {
    let found = hetzner.named(Kind::Server, server).await;
    let found =
        found.map_err(|error| Stopped::by(&format!("labels of server `{server}`"), &error))?;
    let found = found.into_iter().next();
    let found =
        found.ok_or_else(|| Stopped::new(Why::Action, format!("server `{server}` is gone")))?;
    Ok((found.id, found.labels))
}

struct Session<'s, 'p> {
    seat: &'s Seat<'s>,
    hetzner: &'s Hetzner<'p>,
    stop: &'s (dyn Fn() -> bool + Sync),
    say: Narrator<'s>,
}

impl Session<'_, '_> {
    fn say(&self, text: &str) {
        (self.say)(&format!("{}: {text}", self.seat.server));
    }

    async fn label(&self, change: impl FnOnce(&mut Labels)) -> Result<(), Unmet> {
        self.may_go_on()?;
        let written = relabel(self.hetzner, self.seat.server, change).await;
        written.map_err(Unmet::Provider)
    }

    fn may_go_on(&self) -> Result<(), Unmet> {
        match (self.stop)() {
            true => Err(Unmet::Signal),
            false => Ok(()),
        }
    }

    /// The key that it shows, once it shows one. sshd starts after cloud-init has put the one-time key in its place.
    async fn shown(&self) -> Result<HostKey, Unmet> {
        let Seat {
            address,
            port,
            identity,
            jump,
            boot_within,
            ..
        } = self.seat;
        let give_up = Instant::now() + *boot_within;
        let mut said = false;
        loop {
            self.may_go_on()?;
            let shown = host_key::shown(*address, *port, jump.as_ref(), *identity).await;
            match shown {
                Ok(Some(key)) => return Ok(key),
                Ok(None) => {}
                Err(error) => return Err(Unmet::Login(RootError::Open(error))),
            }
            if Instant::now() > give_up {
                let within = boot_within.as_secs();
                let text = format!("{address}, port {port}, within {within} s");
                return Err(Unmet::Silent(text));
            }
            if !said {
                self.say(&format!("waits for ssh at {address}."));
                said = true;
            }
            sleep(POLL).await;
        }
    }

    /// The server makes the key that it is to show, and its label says so before it does. Returns that key.
    async fn announce(
        &self,
        labels: &Labels,
        shown: &HostKey,
        vouched: &Vouched,
    ) -> Result<HostKey, Unmet> {
        self.say("the first login is pinned; waits for the end of cloud-init.");
        let prepare = identity::prepare(vouched.birth.as_deref());
        let facts = self.run(shown, &prepare, CLOUD_INIT).await?;
        let last = self.fact(&facts, identity::SSH).await?;
        let label = label_of(&last.fingerprint)
            .ok_or_else(|| Unmet::Failed(format!("{} is no fingerprint", last.fingerprint)))?;
        if labels.get(FINAL_KEY) != Some(&label) {
            self.say(&format!("its final host key is {}.", last.fingerprint));
            self.label(|labels| {
                labels.insert(FINAL_KEY.to_owned(), label);
                labels.remove(REBUILD);
            })
            .await?;
        }
        Ok(last)
    }

    async fn exchange(&self, shown: &HostKey, last: &HostKey) -> Result<(), Unmet> {
        self.may_go_on()?;
        self.say("shows its final host key from now on.");
        let exchange = identity::exchange(&last.fingerprint);
        match self.run(shown, &exchange, SHORT).await {
            // sshd may take the connection with it; the next login sees what is true.
            Ok(_) | Err(Unmet::Login(RootError::Lost(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A fresh login that knows only the final key takes the copies of the other one away, and one that knows only that other
    /// one must be refused. `birth` is read from the server where this run has not seen it. Returns whether that was tried: where
    /// a person replaced the key before anybody logged in, its public half is nowhere any more, and that the server shows another
    /// one is all that can be seen.
    async fn forget(
        &self,
        last: &HostKey,
        birth: Option<&HostKey>,
        vouched: &Vouched,
    ) -> Result<bool, Unmet> {
        self.may_go_on()?;
        let facts = self.run(last, &identity::forget(), SHORT).await?;
        let now = self.fact(&facts, identity::SSH).await?;
        if now.fingerprint != last.fingerprint {
            let text = format!("{} is in its files, and it shows another", now.fingerprint);
            return Err(Unmet::Failed(text));
        }
        let read;
        let birth = match birth {
            Some(birth) => birth,
            None if facts.iter().all(|(name, _)| name != identity::BIRTH) => return Ok(false),
            None => {
                read = self.fact(&facts, identity::BIRTH).await?;
                if Some(&read.fingerprint) != vouched.birth.as_ref() {
                    let text = "it says another one-time key than its label: nobody can try whether that is refused";
                    return Err(Unmet::Failed(text.to_owned()));
                }
                &read
            }
        };
        match self.run(birth, "true", SHORT).await {
            Err(Unmet::Login(RootError::Open(OpenError::HostKey { .. }))) => {
                self.say("a login with its final host key works; one that knows only the one-time key is refused.");
                Ok(true)
            }
            Ok(_) => {
                let text = "it still answers with the one-time host key that it was born with";
                Err(Unmet::Failed(text.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// One script in a login of its own that insists on this key. Returns the facts that it said.
    async fn run(
        &self,
        key: &HostKey,
        script: &str,
        limit: Duration,
    ) -> Result<Vec<(String, String)>, Unmet> {
        let Seat { address, port, .. } = self.seat;
        let mut only = NamedTempFile::new()?;
        writeln!(only, "{}", key.line(&[*address], *port))?;
        let login = RootLogin {
            address: *address,
            port: *port,
            known_hosts: only.path().to_owned(),
            identity: self.seat.identity.map(Path::to_owned),
            jump: self.seat.jump.clone(),
        };
        let give_up = Instant::now() + SHORT;
        loop {
            let (mut facts, mut failed) = (Vec::new(), None);
            let ran = login
                .run(
                    script,
                    &[],
                    limit,
                    &mut |line| match said::Line::parse(line) {
                        Some(said::Line::Fact { name, value }) => facts.push((name, value)),
                        _ => {
                            let said = line.strip_prefix("fail\t").map(str::to_owned);
                            failed = said.or(failed.take());
                        }
                    },
                )
                .await;
            match ran {
                Ok(0) => return Ok(facts),
                Ok(code) => {
                    let text = format!("a script of the first session ended with status {code}");
                    return Err(Unmet::Failed(failed.unwrap_or(text)));
                }
                // sshd starts again meanwhile, and nothing was run.
                Err(RootError::Open(OpenError::Unreachable { .. })) if Instant::now() < give_up => {
                    self.may_go_on()?;
                    sleep(POLL).await;
                }
                Err(error) => return Err(Unmet::Login(error)),
            }
        }
    }

    async fn fact(&self, facts: &[(String, String)], wanted: &str) -> Result<HostKey, Unmet> {
        let found = facts.iter().find(|(name, _)| name == wanted);
        let Some((_, public)) = found else {
            return Err(Unmet::Failed(format!(
                "it did not say its public key `{wanted}`"
            )));
        };
        Ok(host_key::read(public).await?)
    }
}
