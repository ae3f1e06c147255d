//! `history.jsonl`: what happened here, line by line, each line carrying the hash of the one before.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};

use regionwise_protocol::Denial;
use regionwise_rollout::history::{Event, EventKind};
use regionwise_rollout::release::Digest;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::deny::{OrDeny, corrupt, host};
use crate::layout::Layout;

#[derive(Serialize, Deserialize)]
struct Line {
    prev: Option<Digest>,
    event: Event,
}

/// The history as read.
pub(crate) struct Past {
    pub(crate) events: Vec<Event>,
    /// The first line, from 1, whose hash does not fit the line before.
    pub(crate) broken_at: Option<u64>,
    last: Option<Digest>,
}

/// Reads all of it. A line that does not parse is damage; a line whose hash does not fit is reported in the result.
pub(crate) fn read(layout: &Layout) -> Result<Past, Denial> {
    let path = layout.history();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).or_host(|| format!("cannot read `{}`", path.display())),
    };
    let mut past = Past {
        events: Vec::new(),
        broken_at: None,
        last: None,
    };
    for (number, text) in (1..).zip(complete_lines(&text)) {
        let line: Line = serde_json::from_str(text).map_err(|error| {
            corrupt(format!(
                "`{}`, line {number}, is damaged: {error}",
                path.display()
            ))
        })?;
        if line.prev != past.last && past.broken_at.is_none() {
            past.broken_at = Some(number);
        }
        past.last = Some(Digest::of(text.as_bytes()));
        past.events.push(line.event);
    }
    Ok(past)
}

/// A crash can leave half a last line: it was never acknowledged, so it does not count.
fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
}

/// What to write down, besides time and hash.
pub(crate) struct Entry<'a> {
    pub(crate) operation: &'a str,
    pub(crate) kind: EventKind,
    pub(crate) release: &'a str,
    pub(crate) digest: &'a Digest,
    pub(crate) from: Option<&'a str>,
    pub(crate) note: Option<String>,
}

/// Appends one event and syncs it.
pub(crate) fn append(layout: &Layout, entry: Entry<'_>) -> Result<(), Denial> {
    let past = read(layout)?;
    let event = Event {
        at: clock::stamp(),
        operation: entry.operation.to_owned(),
        kind: entry.kind,
        release: entry.release.to_owned(),
        digest: entry.digest.clone(),
        from: entry.from.map(ToOwned::to_owned),
        note: entry.note,
    };
    let mut text = serde_json::to_string(&Line {
        prev: past.last,
        event,
    })
    .map_err(|error| host(format!("cannot encode an event: {error}")))?;
    text.push('\n');
    let path = layout.history();
    let action = || format!("cannot append to `{}`", path.display());
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(&path)
        .or_host(action)?;
    drop_half_line(&path, &file).or_host(action)?;
    let written = file.write_all(text.as_bytes());
    match written {
        Err(error)
            if error.kind() == ErrorKind::StorageFull
                && fs::remove_file(layout.ballast()).is_ok() =>
        {
            drop_half_line(&path, &file).or_host(action)?;
            file.write_all(text.as_bytes()).or_host(action)?;
        }
        other => other.or_host(action)?,
    }
    file.sync_all().or_host(action)
}

fn drop_half_line(path: &std::path::Path, file: &fs::File) -> std::io::Result<()> {
    let text = fs::read(path)?;
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if whole < text.len() {
        file.set_len(whole as u64)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use regionwise_rollout::history::EventKind;
    use regionwise_rollout::release::Digest;

    use super::{Entry, append, read};
    use crate::layout::Layout;

    fn append_release(layout: &Layout, release: &str) {
        let digest = Digest::of(release.as_bytes());
        let entry = Entry {
            operation: "op",
            kind: EventKind::Switched,
            release,
            digest: &digest,
            from: None,
            note: None,
        };
        append(layout, entry).unwrap();
    }

    #[test]
    fn a_changed_line_is_found_by_the_hash_of_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        for release in ["v1", "v2", "v3"] {
            append_release(&layout, release);
        }
        assert_eq!(read(&layout).unwrap().broken_at, None);
        let text = fs::read_to_string(layout.history()).unwrap();
        fs::write(
            layout.history(),
            text.replacen("\"release\":\"v1\"", "\"release\":\"vX\"", 1),
        )
        .unwrap();
        assert_eq!(read(&layout).unwrap().broken_at, Some(2));
    }

    #[test]
    fn half_a_last_line_does_not_count_and_is_dropped_by_the_next_append() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        append_release(&layout, "v1");
        let mut text = fs::read_to_string(layout.history()).unwrap();
        text.push_str("{\"prev\":");
        fs::write(layout.history(), text).unwrap();
        assert_eq!(read(&layout).unwrap().events.len(), 1);
        append_release(&layout, "v2");
        let past = read(&layout).unwrap();
        assert_eq!((past.events.len(), past.broken_at), (2, None));
    }

    #[test]
    fn a_damaged_line_is_never_an_empty_history() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().to_owned());
        fs::write(layout.history(), "{\"prev\":null}\n").unwrap();
        assert!(read(&layout).is_err());
    }
}
