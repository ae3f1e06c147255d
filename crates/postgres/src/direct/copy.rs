//! The two directions of COPY. A copy that is dropped before its end takes the session with it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_postgres::{CopyInSink, CopyOutStream};

use super::{Direct, Unfinished, ends_session};
use crate::error::{Error, Kind};

/// Bytes that come.
pub struct CopyOut<'a> {
    direct: &'a Direct,
    stream: Pin<Box<CopyOutStream>>,
    unfinished: Option<Unfinished<'a>>,
}

impl<'a> CopyOut<'a> {
    pub(super) fn new(direct: &'a Direct, stream: CopyOutStream) -> Self {
        Self {
            direct,
            stream: Box::pin(stream),
            unfinished: Some(Unfinished(Some(direct))),
        }
    }

    /// The next piece, usually one row; `None` at the end. Each comes within the session's `answer_within`.
    ///
    /// # Errors
    /// By kind. The copy is over then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.unfinished.is_none() {
            return Ok(None);
        }
        // Without the cost of a timer for what is already there.
        let first = poll_fn(|context| Poll::Ready(self.stream.poll_next_unpin(context))).await;
        let piece = match first {
            Poll::Ready(piece) => Ok(piece),
            Poll::Pending => timeout(self.direct.answer_within, self.stream.next()).await,
        };
        let error = match piece {
            Ok(Some(Ok(bytes))) => return Ok(Some(bytes)),
            Ok(None) => None,
            Ok(Some(Err(error))) => Some(self.direct.failed(&error)),
            Err(_) => Some(Error::timeout(
                &self.direct.place,
                self.direct.answer_within,
            )),
        };
        end(self.unfinished.take(), error.as_ref());
        error.map_or(Ok(None), Err)
    }
}

/// Bytes that go.
pub struct CopyIn<'a> {
    direct: &'a Direct,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    unfinished: Option<Unfinished<'a>>,
}

impl<'a> CopyIn<'a> {
    pub(super) fn new(direct: &'a Direct, sink: CopyInSink<Bytes>) -> Self {
        Self {
            direct,
            sink: Box::pin(sink),
            unfinished: Some(Unfinished(Some(direct))),
        }
    }

    /// Waits for the network, at most the session's `answer_within`. What the server thinks of the bytes is known after
    /// [`CopyIn::finish`].
    ///
    /// # Errors
    /// By kind. The copy and the session are over then.
    pub async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        let limit = self.direct.answer_within;
        let error = match timeout(limit, self.sink.feed(bytes.into())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => self.direct.failed(&error),
            Err(_) => Error::timeout(&self.direct.place, limit),
        };
        end(self.unfinished.take(), Some(&error));
        Err(error)
    }

    /// How many rows the server took.
    ///
    /// # Errors
    /// By kind, within the session's `answer_within`: also what was wrong with the bytes.
    pub async fn finish(mut self) -> Result<u64, Error> {
        if self.unfinished.is_none() {
            let why = "an earlier piece ended the copy";
            return Err(Error::new(Kind::Lost, &self.direct.place, why));
        }
        let limit = self.direct.answer_within;
        let answer = match timeout(limit, self.sink.as_mut().finish()).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(self.direct.failed(&error)),
            Err(_) => Err(Error::timeout(&self.direct.place, limit)),
        };
        end(self.unfinished.take(), answer.as_ref().err());
        answer
    }
}

/// The session lives on unless the error says that nothing can be known about it.
fn end(unfinished: Option<Unfinished<'_>>, error: Option<&Error>) {
    if let Some(unfinished) = unfinished
        && !error.is_some_and(ends_session)
    {
        unfinished.finished();
    }
}
