//! `workflow`: the rollout workflow as a file, or whether a file still is that workflow.

use std::fs;
use std::path::{Path, PathBuf};

use regionwise_cli::{Because, Common, Failure, Hint, Report};
use regionwise_rollout::Verdict;
use regionwise_topology::Toolkit;
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the workflow finds the actions of regionwise: `OWNER/regionwise@SHA`, or `$/` in the toolkit's own repository.
    #[arg(long, env = "REGIONWISE_TOOLKIT", value_name = "REPOSITORY@SHA", value_parser = toolkit)]
    toolkit: Toolkit,

    /// Write it to this file; without it and without --check it is shown.
    #[arg(
        long,
        env = "REGIONWISE_OUTPUT",
        value_name = "FILE",
        conflicts_with = "check"
    )]
    output: Option<PathBuf>,

    /// Write nothing; end 12 when this file is not what regions.toml says now.
    #[arg(long, env = "REGIONWISE_CHECK", value_name = "FILE")]
    check: Option<PathBuf>,
}

/// What `--check` advises.
const WRITE_IT: &str = "the same command with --output instead of --check writes it";

fn toolkit(text: &str) -> Result<Toolkit, String> {
    Toolkit::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn run(common: &Common, args: &Args) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let text = topology
        .workflow(&args.toolkit)
        .invalid(|| format!("cannot write a workflow for `{}`", common.config.display()))?;
    let mut report = match (&args.check, &args.output) {
        (Some(path), _) => compared(path, &text)?,
        (None, Some(path)) => written(path, &text)?,
        (None, None) => Report::new(Verdict::Proceed, text.clone()).because("shown"),
    };
    let regions: Vec<&str> = topology.regions.iter().map(|r| r.name.as_str()).collect();
    report.outputs.push(("regions", regions.join(" ")));
    report.result = json!({ "regions": regions, "workflow": text });
    Ok(report)
}

/// Leaves a file alone that is right already, so that nothing looks changed which is not.
fn written(path: &Path, text: &str) -> Result<Report, Failure> {
    let shown = path.display();
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(
            Report::new(Verdict::Proceed, format!("`{shown}` is up to date")).because("unchanged"),
        );
    }
    fs::write(path, text)
        .invalid(|| format!("cannot write `{shown}`"))
        .hint("--output names a file in a directory that is there")?;
    Ok(Report::new(Verdict::Proceed, format!("wrote `{shown}`")).because("written"))
}

fn compared(path: &Path, text: &str) -> Result<Report, Failure> {
    let shown = path.display();
    let there = fs::read_to_string(path)
        .invalid(|| format!("cannot read `{shown}`"))
        .hint(WRITE_IT)?;
    let Some((line, is, should)) = first_difference(&there, text) else {
        return Ok(
            Report::new(Verdict::Proceed, format!("`{shown}` is up to date")).because("unchanged"),
        );
    };
    let summary = format!(
        "`{shown}` is not what regions.toml says now, from line {line} on: it has `{is}` where `{should}` should be"
    );
    Ok(Report::new(Verdict::Refused, summary)
        .because("differs")
        .with_hint(WRITE_IT))
}

/// The first line that differs, as its number and both texts.
fn first_difference(is: &str, should: &str) -> Option<(usize, String, String)> {
    if is == should {
        return None;
    }
    // `split` keeps what `lines` forgives: a missing last line break, a carriage return.
    let (mut is, mut should) = (is.split('\n'), should.split('\n'));
    for line in 1.. {
        let (found, wanted) = (is.next(), should.next());
        if found != wanted {
            let shown = |text: Option<&str>| {
                text.map_or("the end".to_owned(), |text| {
                    text.trim_start().escape_debug().to_string()
                })
            };
            return Some((line, shown(found), shown(wanted)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn the_first_line_that_differs_is_named_with_both_texts() {
        let of =
            |is, should| first_difference(is, should).map(|(line, is, _)| format!("{line} {is}"));
        assert_eq!(of("a\nb\n", "a\nb\n"), None);
        assert_eq!(of("a\nb\n", "a\nc\n"), Some("2 b".to_owned()));
        assert_eq!(of("a\r\nb\n", "a\nb\n"), Some("1 a\\r".to_owned()));
        assert_eq!(of("a\n", "a\nb\n"), Some("2 ".to_owned()));
        assert_eq!(of("a\nb", "a\nb\n"), Some("3 the end".to_owned()));
    }
}
