//! What a run is doing, on stderr: moving bars on a terminal, sparse lines elsewhere.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// In CI a line appears after this time or after [`LINE_SHARE`] of the work, whichever comes first.
const LINE_EVERY: Duration = Duration::from_secs(10);
const LINE_SHARE: f64 = 0.05;
/// Not even a short wait prints more often than this.
const LINE_AT_MOST_EVERY: Duration = Duration::from_secs(2);

/// Writes progress for people. Nothing it writes is a result.
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    pub(crate) fn new(terminal: bool) -> Self {
        Self {
            bars: terminal.then(MultiProgress::new),
        }
    }

    /// One status line: present tense, with a period.
    pub fn say(&self, line: impl AsRef<str>) {
        let line = printable(line.as_ref());
        match &self.bars {
            Some(bars) => {
                // A terminal that is gone is no reason to stop.
                let _ = bars.println(line);
            }
            None => write_line(&line),
        }
    }

    /// A wait of known length.
    pub fn watch(&self, label: &str, total: Duration) -> Watch {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(millis(total)));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{bar:30}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        let now = Instant::now();
        Watch {
            label: label.to_owned(),
            total,
            bar,
            last_line: Cell::new(now),
            last_share: Cell::new(0.0),
        }
    }

    /// Work of known size: `total` things to do.
    pub fn work(&self, label: &str, total: u64) -> Work {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} [{bar:30}] {pos}/{len} {wide_msg}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Work {
            label: label.to_owned(),
            total: Cell::new(total),
            bar,
            rows: RefCell::default(),
            bars: self.bars.clone(),
            last_line: Cell::new(Instant::now()),
            last_share: Cell::new(0.0),
        }
    }

    /// A workflow command of GitHub Actions. The runner reads them from stderr too, so stdout stays one result.
    pub(crate) fn command(&self, name: &str, value: &str) {
        write_line(&format!("::{name}::{}", escape_command(value)));
    }
}

/// The progress of one wait.
pub struct Watch {
    label: String,
    total: Duration,
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
    last_share: Cell<f64>,
}

impl Watch {
    /// `elapsed` of the total has passed; `note` says what is seen now.
    pub fn set(&self, elapsed: Duration, note: &str) {
        let left = self.total.saturating_sub(elapsed);
        let text = format!(
            "{} left, {}",
            humantime::format_duration(whole_seconds(left)),
            printable(note)
        );
        if let Some(bar) = &self.bar {
            bar.set_position(millis(elapsed.min(self.total)));
            bar.set_message(text);
            return;
        }
        let share = elapsed.as_secs_f64() / self.total.as_secs_f64().max(0.001);
        let since = self.last_line.get().elapsed();
        if since >= LINE_EVERY
            || (share - self.last_share.get() >= LINE_SHARE && since >= LINE_AT_MOST_EVERY)
        {
            self.last_line.set(Instant::now());
            self.last_share.set(share);
            write_line(&format!("{}: {text}", self.label));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The progress of [`Progress::work`], with a row beneath for each of several workers on a terminal.
pub struct Work {
    label: String,
    total: Cell<u64>,
    bar: Option<ProgressBar>,
    rows: RefCell<Vec<ProgressBar>>,
    bars: Option<MultiProgress>,
    last_line: Cell<Instant>,
    last_share: Cell<f64>,
}

impl Work {
    /// There is more, or less, to do than it was thought.
    pub fn set_total(&self, total: u64) {
        self.total.set(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// `done` of the total are done; `note` says what is seen now.
    pub fn set(&self, done: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(printable(note));
            return;
        }
        let total = self.total.get();
        let share = fraction(done, total);
        let since = self.last_line.get().elapsed();
        if since >= LINE_EVERY
            || (share - self.last_share.get() >= LINE_SHARE && since >= LINE_AT_MOST_EVERY)
        {
            self.last_line.set(Instant::now());
            self.last_share.set(share);
            let note = printable(note);
            write_line(&format!("{}: {done} of {total}, {note}", self.label));
        }
    }

    /// What worker `number` does; on a terminal only.
    pub fn worker(&self, number: usize, note: &str) {
        let Some(bars) = &self.bars else {
            return;
        };
        let mut rows = self.rows.borrow_mut();
        while rows.len() <= number {
            let row = bars.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg}") {
                row.set_style(style);
            }
            row.enable_steady_tick(Duration::from_millis(100));
            rows.push(row);
        }
        rows[number].set_message(printable(note));
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for bar in self.rows.borrow().iter().chain(&self.bar) {
            bar.finish_and_clear();
        }
    }
}

fn fraction(done: u64, total: u64) -> f64 {
    // A share for people: 53 bits are enough.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let (done, total) = (done as f64, total.max(1) as f64);
    done / total
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

pub(crate) fn write_line(line: &str) {
    // A closed stderr is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Foreign text made safe to print: no control characters, and no line that a CI would read as a command.
pub(crate) fn printable(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if clean
        .lines()
        .any(|line| line.trim_start().starts_with("::") || line.contains("##["))
    {
        clean.replace("::", ": :").replace("##[", "# #[")
    } else {
        clean
    }
}

/// Escapes the value of a workflow command (toolkit `command.ts`: `%`, CR and LF).
pub(crate) fn escape_command(value: &str) -> String {
    value
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::{escape_command, printable};

    #[test]
    fn foreign_text_cannot_speak_to_the_runner() {
        assert_eq!(printable("::error::x"), ": :error: :x");
        assert_eq!(
            printable("a\n  ::set-output name=v::1"),
            "a\n  : :set-output name=v: :1"
        );
        assert_eq!(printable("a\u{1b}[31mred"), "a\u{fffd}[31mred");
        assert_eq!(printable("std::io"), "std::io");
    }

    #[test]
    fn command_values_are_escaped() {
        assert_eq!(escape_command("50%\r\nnext"), "50%25%0D%0Anext");
    }
}
