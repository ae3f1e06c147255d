//! One connection of a controller: requests from stdin, replies to stdout, one after the other.

use std::io;
use std::time::Duration;

use regionwise_protocol::{Denial, LINE_LIMIT, OLDEST, Reply, Request, VERSION};
use regionwise_rollout::release::{Digest, Manifest};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::deny::{host, invalid};
use crate::host::{Claim, Host};
use crate::store::Store;
use crate::verbs::Health;

/// Serves one controller until it closes its side.
///
/// # Errors
/// Only when stdin or stdout broke: the controller is gone, and what it began is settled by dead-man or next lock.
pub async fn serve<I, O>(host: &Host, mut input: I, mut output: O) -> io::Result<()>
where
    I: AsyncBufRead + Unpin,
    O: AsyncWrite + Unpin,
{
    let mut session = Session {
        host,
        claim: None,
        greeted: false,
    };
    while let Some(line) = read_line(&mut input).await? {
        let reply = match parse(&line) {
            Err(denial) => Reply::Denied(denial),
            Ok(request) => session
                .answer(request, &mut input)
                .await
                .unwrap_or_else(Reply::Denied),
        };
        write_line(&mut output, &reply).await?;
    }
    write_line(&mut output, &Reply::Bye).await
}

struct Session<'a> {
    host: &'a Host,
    claim: Option<Claim>,
    greeted: bool,
}

impl Session<'_> {
    async fn answer(
        &mut self,
        request: Request,
        input: &mut (impl AsyncBufRead + Unpin),
    ) -> Result<Reply, Denial> {
        if !self.greeted && !matches!(request, Request::Hello { .. }) {
            return Err(invalid(format!("`{}` before `hello`", request.verb())));
        }
        let host = self.host;
        match request {
            Request::Hello { protocol, app, .. } => self.greet(protocol, &app),
            Request::Status => Ok(Reply::Status(Box::new(host.status().await?))),
            Request::Lock { holder, ttl_ms } => {
                let (claim, settled) = host.lock(holder, ttl_ms).await?;
                let fence = claim.fence;
                self.claim = Some(claim);
                Ok(Reply::Locked { fence, settled })
            }
            Request::Renew => {
                let _state = host.lock_state().await?;
                host.renew(self.claim()?)?;
                Ok(Reply::Done)
            }
            Request::Unlock => {
                if let Some(claim) = self.claim.take() {
                    host.unlock(&claim).await?;
                }
                Ok(Reply::Done)
            }
            Request::Has { manifest } => {
                let store = Store::new(&host.layout);
                let artifact = store.has_blob(&manifest.artifact);
                // A release without its artefact cannot start: it is brought again.
                let release = store.has_release(&manifest)? && artifact;
                Ok(Reply::Has { artifact, release })
            }
            Request::PutBlob { digest, size } => self.put_blob(&digest, size, input).await,
            Request::PutRelease {
                manifest,
                env,
                config,
            } => self.put_release(&manifest, &env, &config).await,
            Request::Prepare {
                release,
                start_deadline_ms,
                interval_ms,
                successes,
            } => {
                let health = Health {
                    deadline: Duration::from_millis(start_deadline_ms),
                    interval: Duration::from_millis(interval_ms),
                    successes,
                };
                Ok(Reply::Prepared(
                    host.prepare(self.claim()?, &release, health).await?,
                ))
            }
            Request::Abandon => host.abandon(self.claim()?).await.map(|()| Reply::Done),
            Request::Commit {
                release,
                confirm_within_ms,
            } => {
                let within = Duration::from_millis(confirm_within_ms);
                Ok(Reply::Switched(
                    host.commit(self.claim()?, &release, within).await?,
                ))
            }
            Request::Confirm => host.confirm(self.claim()?).await.map(|()| Reply::Done),
            Request::Revert => Ok(Reply::Switched(host.revert(self.claim()?).await?)),
            Request::Drain { deadline_ms } => {
                let left = host
                    .drain(self.claim()?, Duration::from_millis(deadline_ms))
                    .await?;
                Ok(Reply::Drained { left })
            }
            Request::Target { operation, to } => {
                let (release, serving) = host.target(operation.as_deref(), to.as_deref())?;
                Ok(Reply::Target { release, serving })
            }
            Request::Close { operation } => host
                .close(self.claim()?, &operation)
                .await
                .map(|()| Reply::Done),
        }
    }

    fn greet(&mut self, protocol: u32, app: &str) -> Result<Reply, Denial> {
        let helper = env!("CARGO_PKG_VERSION").to_owned();
        if !(OLDEST..=VERSION).contains(&protocol) {
            return Err(crate::deny::refused(format!(
                "this controller speaks protocol {protocol}, region-host {helper} speaks {OLDEST} to {VERSION}"
            ))
            .with_hint("bring controller and region-host to the same version"));
        }
        let installed = &self.host.settings.app;
        if app != installed {
            return Err(invalid(format!(
                "this host runs `{installed}`, not `{}`",
                app.escape_debug()
            )));
        }
        self.greeted = true;
        Ok(Reply::Hello { protocol, helper })
    }

    fn claim(&self) -> Result<&Claim, Denial> {
        self.claim
            .as_ref()
            .ok_or_else(|| invalid("this verb needs the lock"))
    }

    async fn put_blob(
        &self,
        digest: &Digest,
        size: u64,
        input: &mut (impl AsyncBufRead + Unpin),
    ) -> Result<Reply, Denial> {
        // The bytes come whether or not we may keep them; unread they would be taken for requests.
        let received = Store::new(&self.host.layout)
            .receive(digest, size, input)
            .await;
        self.claim()?;
        received.map(|()| Reply::Done)
    }

    async fn put_release(
        &self,
        manifest: &Manifest,
        env: &str,
        config: &str,
    ) -> Result<Reply, Denial> {
        let _state = self.host.lock_state().await?;
        self.host.renew(self.claim()?)?;
        Store::new(&self.host.layout).put(manifest, env, config)?;
        Ok(Reply::Done)
    }
}

/// The next line, at most [`LINE_LIMIT`] long; `None` at the end of the input.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input
        .take(LINE_LIMIT as u64)
        .read_until(b'\n', &mut line)
        .await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(io::Error::other("a request without its end"));
    }
    Ok(Some(line))
}

fn parse(line: &[u8]) -> Result<Request, Denial> {
    // The request may hold secrets: the error says where, not what.
    serde_json::from_slice(line).map_err(|error| {
        invalid(format!(
            "cannot read the request at column {}",
            error.column()
        ))
    })
}

async fn write_line(output: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_vec(reply).unwrap_or_else(|error| {
        // Our own types encode; should one not, the controller must still get an answer.
        let denial = host(format!("cannot encode the reply: {error}"));
        format!(
            "{{\"reply\":\"denied\",\"kind\":\"host\",\"text\":{}}}",
            serde_json::Value::from(denial.text)
        )
        .into_bytes()
    });
    text.push(b'\n');
    output.write_all(&text).await?;
    output.flush().await
}
