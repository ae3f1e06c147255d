//! README and scripts against the code: a table that a test does not read would rot.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{MetadataCommand, TargetKind};
use regionwise_rollout::Verdict;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The rows of the Markdown table whose first header cell is `first`, as trimmed cells.
fn table(text: &str, first: &str) -> Vec<Vec<String>> {
    text.lines()
        .skip_while(|line| !line.starts_with(&format!("| {first} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn the_readme_lists_every_verdict_with_its_code_and_meaning() {
    let said = table(&read("README.md"), "exit");
    let wanted: Vec<Vec<String>> = Verdict::ALL
        .iter()
        .map(|v| {
            vec![
                v.exit_code().to_string(),
                format!("`{}`", v.word()),
                v.meaning().to_owned(),
            ]
        })
        .collect();
    assert_eq!(
        said.iter().map(|row| row[..3].to_vec()).collect::<Vec<_>>(),
        wanted
    );
}

#[test]
fn the_readme_lists_every_binary() {
    let manifest = root().join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap();
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == "regionwise")
        .unwrap();
    let bins = package
        .targets
        .iter()
        .filter(|target| target.kind.contains(&TargetKind::Bin));
    let mut wanted: Vec<String> = bins.map(|target| format!("`{}`", target.name)).collect();
    let mut said: Vec<String> = table(&read("README.md"), "binary")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    wanted.sort();
    said.sort();
    assert_eq!(said, wanted);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = target.split('#').next().unwrap();
            if !document.parent().unwrap().join(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

fn documents() -> Vec<PathBuf> {
    let of = |directory: PathBuf| {
        fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    of(root().to_owned())
        .chain(of(root().join("docs")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

#[test]
fn the_architecture_fits_on_150_lines() {
    assert!(read("ARCHITECTURE.md").lines().count() <= 150);
}

#[test]
fn every_flag_of_the_readme_exists() {
    // `binary --flag ..` lines of README and scripts/rollout, asked of the binary's own help.
    let text = read("README.md") + &read("scripts/rollout").replace("\\\n", " ");
    let mut asked = 0;
    for line in text.lines().map(str::trim) {
        for (name, help) in helps() {
            let Some(at) = line.find(&format!("{name} ")) else {
                continue;
            };
            let rest = &line[at..];
            let flags = rest
                .split_whitespace()
                .filter(|word| word.starts_with("--") && word.len() > 2);
            for flag in
                flags.map(|flag| flag.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()))
            {
                asked += 1;
                assert!(help.contains(flag), "`{name}` has no `{flag}`: {line}");
            }
        }
    }
    assert!(
        asked > 10,
        "only {asked} flags were found: the test reads nothing"
    );
}

fn helps() -> Vec<(&'static str, String)> {
    let help = |program: &str, words: &[&str]| {
        let output = std::process::Command::new(program)
            .args(words)
            .arg("--help")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let deploy = env!("CARGO_BIN_EXE_deploy-region");
    vec![
        (
            "deploy-region",
            help(deploy, &[]) + &help(deploy, &["close"]) + &help(deploy, &["status"]),
        ),
        (
            "rollback-region",
            help(env!("CARGO_BIN_EXE_rollback-region"), &[]),
        ),
        ("smoke-test", help(env!("CARGO_BIN_EXE_smoke-test"), &[])),
        (
            "check-replication-lag",
            help(env!("CARGO_BIN_EXE_check-replication-lag"), &[]),
        ),
        ("preflight", help(env!("CARGO_BIN_EXE_preflight"), &[])),
    ]
}
