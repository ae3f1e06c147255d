//! The hosts of one region, connected: one request to all of them at once, and every answer kept.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use regionwise_protocol::{Denial, DenialKind, HostFacts, Reply, Request};
use regionwise_remote::jump::Jump;
use regionwise_remote::ssh::{AskError, OpenError, Session, Target};
use regionwise_rollout::lease::{Holder, OperationKind};
use regionwise_rollout::region::Outcome;
use regionwise_rollout::release::Manifest;
use regionwise_topology::{Host, Region};

use crate::ending::HostEnding;

/// An answer that needs no waiting on the host: files, locks, the admin socket.
pub(crate) const QUICK: Duration = Duration::from_secs(15);

/// How the controller gets to a host.
#[derive(Clone, Debug)]
pub struct Access {
    pub app: String,
    pub user: String,
    pub known_hosts: PathBuf,
    pub identity: PathBuf,
    /// `None`: hosts are reached directly.
    pub jump: Option<Jump>,
}

/// Who does what, as the hosts' locks and histories will say.
#[derive(Clone, Debug)]
pub struct Operation {
    pub id: String,
    /// A CI run's URL, or user and machine.
    pub who: String,
    /// A lock that is not renewed ends after this.
    pub lock_ttl: Duration,
}

/// Open connections to hosts of one region.
pub struct Hosts {
    pub(crate) open: Vec<Connected>,
}

/// One host and its connection.
pub(crate) struct Connected {
    pub(crate) host: Host,
    pub(crate) session: Session,
}

/// A host that could not be connected to; nothing was changed there.
#[derive(Debug)]
pub struct NotOpened {
    pub host: String,
    pub address: String,
    pub error: OpenError,
}

/// What `lock_where_possible` got.
pub(crate) struct Locked {
    /// What had to be settled first, a sentence each.
    pub(crate) settled: Vec<String>,
    /// The hosts that gave no lock.
    pub(crate) failed: Vec<(String, AskError)>,
}

/// One answer per open host, in the order of the hosts.
pub(crate) type Answers<T> = Vec<(String, Result<T, AskError>)>;

impl Hosts {
    /// Connects to every host of the region at once.
    ///
    /// The hosts that could not be reached come back beside those that could: the caller decides what that means.
    pub async fn open(region: &Region, access: &Access) -> (Self, Vec<NotOpened>) {
        let opening = region.hosts.iter().map(async |host| {
            (
                host,
                Session::open(&target(host, access), &access.app).await,
            )
        });
        let (mut open, mut failed) = (Vec::new(), Vec::new());
        for (host, result) in join_all(opening).await {
            match result {
                Ok(session) => open.push(Connected {
                    host: host.clone(),
                    session,
                }),
                Err(error) => failed.push(NotOpened {
                    host: host.name.clone(),
                    address: format!("{}:{}", host.address, host.ssh_port),
                    error,
                }),
            }
        }
        (Self { open }, failed)
    }

    pub fn names(&self) -> Vec<String> {
        self.open
            .iter()
            .map(|connected| connected.host.name.clone())
            .collect()
    }

    /// Asks every host the same and takes the reply apart with `take`.
    pub(crate) async fn ask<T>(
        &mut self,
        request: &Request,
        limit: Duration,
        take: impl Fn(Reply) -> Option<T>,
    ) -> Answers<T> {
        let asking = self.open.iter_mut().map(async |connected| {
            let answer = connected.session.ask(request, limit).await;
            (connected.host.name.clone(), answer)
        });
        let answers = join_all(asking).await;
        answers
            .into_iter()
            .map(|(name, answer)| (name, answer.and_then(|reply| expect(request, reply, &take))))
            .collect()
    }

    /// What every host says about itself.
    pub async fn status(&mut self) -> Vec<(String, Result<HostFacts, AskError>)> {
        self.ask(&Request::Status, QUICK, |reply| match reply {
            Reply::Status(facts) => Some(*facts),
            _ => None,
        })
        .await
    }

    /// Whether the artefact, and the whole release, are already on every host.
    pub async fn has(
        &mut self,
        manifest: &Manifest,
    ) -> Vec<(String, Result<(bool, bool), AskError>)> {
        let request = Request::Has {
            manifest: manifest.clone(),
        };
        self.ask(&request, QUICK, |reply| match reply {
            Reply::Has { artifact, release } => Some((artifact, release)),
            _ => None,
        })
        .await
    }

    /// Takes the lock everywhere, in the order of the names so that two controllers cannot hold half each.
    ///
    /// On the first refusal the locks taken so far are given back.
    pub(crate) async fn lock(
        &mut self,
        operation: &Operation,
        kind: OperationKind,
    ) -> Result<Vec<String>, (String, AskError)> {
        let Locked { settled, failed } = self.lock_each(operation, kind, None, |_| false).await?;
        debug_assert!(failed.is_empty(), "no failure was to be tolerated");
        Ok(settled)
    }

    /// Takes the lock on every host that can give it; the others are closed and come back beside it.
    ///
    /// Somebody else's lock still refuses all: what was taken so far is given back. A rollback that `undoes` one
    /// operation takes no other one's.
    pub(crate) async fn lock_where_possible(
        &mut self,
        operation: &Operation,
        kind: OperationKind,
        undoes: Option<&str>,
    ) -> Result<Locked, (String, AskError)> {
        let tolerated = |error: &AskError| {
            matches!(
                outcome_of(error),
                Outcome::Lost | Outcome::Host | Outcome::Corrupt | Outcome::Unhealthy
            )
        };
        self.lock_each(operation, kind, undoes, tolerated).await
    }

    async fn lock_each(
        &mut self,
        operation: &Operation,
        kind: OperationKind,
        undoes: Option<&str>,
        tolerated: impl Fn(&AskError) -> bool,
    ) -> Result<Locked, (String, AskError)> {
        let holder = Holder {
            operation: operation.id.clone(),
            kind,
            undoes: undoes.map(str::to_owned),
            who: operation.who.clone(),
        };
        let ttl_ms = u64::try_from(operation.lock_ttl.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Lock { holder, ttl_ms };
        let mut order: Vec<usize> = (0..self.open.len()).collect();
        order.sort_by(|a, b| self.open[*a].host.name.cmp(&self.open[*b].host.name));
        let (mut settled, mut failed) = (Vec::new(), Vec::new());
        for index in order {
            let connected = &mut self.open[index];
            let name = connected.host.name.clone();
            // Settling another operation's switch may have to start a process again.
            let answer = connected.session.ask(&request, QUICK * 4).await;
            let locked = answer.and_then(|reply| {
                expect(&request, reply, |reply| match reply {
                    Reply::Locked { settled, .. } => Some(settled),
                    _ => None,
                })
            });
            match locked {
                Ok(Some(what)) => settled.push(format!("{name}: {what}")),
                Ok(None) => {}
                Err(error) if tolerated(&error) => failed.push((name, error)),
                Err(error) => {
                    self.unlock().await;
                    return Err((name, error));
                }
            }
        }
        self.open.retain(|connected| {
            let name = &connected.host.name;
            !failed.iter().any(|(host, _)| host == name)
        });
        Ok(Locked { settled, failed })
    }

    /// Gives the lock back where we have it. A host that does not answer lets it end by itself.
    pub(crate) async fn unlock(&mut self) {
        self.ask(&Request::Unlock, QUICK, done).await;
    }

    /// Keeps the lock while the controller waits for something else.
    pub(crate) async fn renew(&mut self) -> Answers<()> {
        self.ask(&Request::Renew, QUICK, done).await
    }

    /// Closes every connection in good order.
    pub async fn close(self) {
        join_all(
            self.open
                .into_iter()
                .map(|connected| connected.session.close()),
        )
        .await;
    }
}

fn target(host: &Host, access: &Access) -> Target {
    Target {
        name: host.name.clone(),
        user: access.user.clone(),
        address: host.address,
        port: host.ssh_port,
        known_hosts: access.known_hosts.clone(),
        identity: access.identity.clone(),
        jump: access.jump.clone(),
    }
}

/// A reply of another kind means that controller and host do not understand each other: nothing is known.
pub(crate) fn expect<T>(
    request: &Request,
    reply: Reply,
    take: impl Fn(Reply) -> Option<T>,
) -> Result<T, AskError> {
    take(reply).ok_or_else(|| AskError::Lost {
        verb: request.verb(),
        detail: "another kind of reply".to_owned(),
    })
}

pub(crate) fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}

/// What the decisions need of an answer.
pub fn outcome<T>(answer: &Result<T, AskError>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Done,
        Err(error) => outcome_of(error),
    }
}

pub(crate) fn outcome_of(error: &AskError) -> Outcome {
    match error {
        AskError::Lost { .. } => Outcome::Lost,
        AskError::Denied(Denial { kind, .. }) => match kind {
            DenialKind::Invalid => Outcome::Invalid,
            DenialKind::Refused => Outcome::Refused,
            DenialKind::Locked => Outcome::Locked,
            DenialKind::Unhealthy => Outcome::Unhealthy,
            DenialKind::Host => Outcome::Host,
            DenialKind::Corrupt => Outcome::Corrupt,
        },
    }
}

pub(crate) fn outcomes<T>(answers: &Answers<T>) -> Vec<Outcome> {
    answers.iter().map(|(_, answer)| outcome(answer)).collect()
}

/// Whether another operation has the lock of a host: then the region is not ours to change any more, not even back.
pub(crate) fn taken_over<T>(answers: &Answers<T>) -> bool {
    outcomes(answers).contains(&Outcome::Locked)
}

/// The hints that the hosts gave, each once.
pub(crate) fn hints<T>(answers: &Answers<T>) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for (_, answer) in answers {
        if let Err(AskError::Denied(Denial {
            hint: Some(hint), ..
        })) = answer
            && !hints.contains(hint)
        {
            hints.push(hint.clone());
        }
    }
    hints
}

/// One line per host: what went wrong there.
pub(crate) fn notes<T>(
    answers: &Answers<T>,
    release: impl Fn(&T) -> Option<String>,
) -> Vec<HostEnding> {
    answers
        .iter()
        .map(|(host, answer)| match answer {
            Ok(value) => HostEnding {
                host: host.clone(),
                release: release(value),
                note: String::new(),
            },
            Err(error) => HostEnding {
                host: host.clone(),
                release: None,
                note: error.to_string(),
            },
        })
        .collect()
}

/// The first thing that went wrong, for the summary.
pub(crate) fn first_error<T>(answers: &Answers<T>) -> String {
    let failed = answers
        .iter()
        .find_map(|(host, answer)| Some((host, answer.as_ref().err()?)));
    failed.map_or_else(String::new, |(host, error)| {
        let text = error.to_string();
        format!("{host}: {}", text.lines().next().unwrap_or_default())
    })
}
