//! Four linters over every workflow, action and script; each is shown to bite, on a fault that only it is asked about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regionwise_provision::host::{
    Api, Backup, Bouncer, Database, Mesh, Opening, Part, Redis, Server, System, Upstream, identity,
    steps,
};
use regionwise_provision::script::render;
use regionwise_provision::step::{Action, File};

use crate::act::root;
use crate::compat;
use crate::tools;

/// What the linters read, as paths below the repository.
struct Sources {
    workflows: Vec<String>,
    actions: Vec<String>,
    scripts: Vec<String>,
}

fn sources(repository: &Path) -> Sources {
    let output = Command::new("git")
        .current_dir(repository)
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let files: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|file| repository.join(file).is_file())
        .map(str::to_owned)
        .collect();
    let is_yaml = |file: &&String| file.ends_with(".yml") || file.ends_with(".yaml");
    let pick = |wanted: &dyn Fn(&&String) -> bool| -> Vec<String> {
        files.iter().filter(wanted).cloned().collect()
    };
    Sources {
        workflows: pick(&|file| is_yaml(file) && file.contains(".github/workflows/")),
        actions: pick(&|file| file.ends_with("action.yml")),
        scripts: pick(&|file| {
            let text = fs::read(repository.join(file)).unwrap();
            let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let first = String::from_utf8_lossy(first);
            first.starts_with("#!") && (first.ends_with("sh") || first.ends_with("bash"))
        }),
    }
}

fn run(repository: &Path, tool: &str, words: &[&str], files: &[String]) -> Output {
    Command::new(tools::tools().join(tool))
        .current_dir(repository)
        .env_clear()
        .env("PATH", tools::path())
        .env("HOME", repository)
        .args(words)
        .args(files)
        .output()
        .unwrap()
}

/// Its exit code and what it said.
fn judged(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}

fn actionlint(repository: &Path) -> (i32, String) {
    // shellcheck is on the PATH, so it reads every `run:` as well.
    judged(&run(
        repository,
        "actionlint",
        &["-oneline"],
        &sources(repository).workflows,
    ))
}

fn zizmor(repository: &Path) -> (i32, String) {
    judged(&run(
        repository,
        "zizmor",
        &["--offline", "--no-progress", "."],
        &[],
    ))
}

fn schema(repository: &Path) -> (i32, String) {
    let Sources {
        workflows, actions, ..
    } = sources(repository);
    let (code, said) = judged(&run(
        repository,
        "check-jsonschema",
        &["--builtin-schema", "vendor.github-workflows"],
        &workflows,
    ));
    if code != 0 || actions.is_empty() {
        return (code, said);
    }
    judged(&run(
        repository,
        "check-jsonschema",
        &["--builtin-schema", "vendor.github-actions"],
        &actions,
    ))
}

fn shellcheck(repository: &Path) -> (i32, String) {
    let mut scripts = sources(repository).scripts;
    // `run:` of a workflow is actionlint's; nobody else reads that of an action.
    let work = tempfile::tempdir().unwrap();
    for action in sources(repository).actions {
        let text = fs::read_to_string(repository.join(&action)).unwrap();
        for (index, run) in runs(&text).into_iter().enumerate() {
            let path = work
                .path()
                .join(format!("{}-{index}.sh", action.replace('/', "-")));
            fs::write(&path, format!("#!/usr/bin/env bash\n{run}\n")).unwrap();
            scripts.push(path.display().to_string());
        }
    }
    judged(&run(
        repository,
        "shellcheck",
        &["--severity", "style"],
        &scripts,
    ))
}

#[test]
fn shellcheck_finds_nothing_in_the_script_that_sets_a_server_up() {
    let api = Api {
        app: "shop".to_owned(),
        account: "regionwise".to_owned(),
        address: [203, 0, 113, 7].into(),
        http_port: 80,
        health_path: "/health/basic".to_owned(),
        region_host_sha256: "0".repeat(64),
    };
    let system = System {
        ssh_port: 22,
        open: [80, 443].map(Opening::anywhere).to_vec(),
    };
    let mesh = Mesh {
        product: "shop".to_owned(),
        name: "eu-1".to_owned(),
        port: 51820,
        peers: Vec::new(),
    };
    let database = Database {
        cluster: "eu".to_owned(),
        node: "eu-1".to_owned(),
        part: Part::Primary {
            first: true,
            standbys: Vec::new(),
            known: Vec::new(),
            sync: 0,
            complete: true,
            last: true,
        },
        volume: Some(4711),
        database: "shop".to_owned(),
        accounts: Vec::new(),
        migration: None,
        clients: Vec::new(),
        listen: Vec::new(),
        backup: Some(Backup {
            product: "shop".to_owned(),
            host: "s3.example".to_owned(),
            port: 443,
            bucket: "shop-eu-backup".to_owned(),
            region: "hel1".to_owned(),
            keep_days: 14,
            authority: None,
        }),
    };
    let upstream = Upstream {
        node: "eu-1".to_owned(),
        address: [127, 0, 0, 1].into(),
        port: 5432,
        certificate: "TUlJ".to_owned(),
    };
    let steps = steps(&Server {
        mesh: Some(mesh),
        database: Some(database),
        bouncer: Some(Bouncer {
            cluster: "eu".to_owned(),
            database: "shop".to_owned(),
            account: "shop".to_owned(),
            write: upstream.clone(),
            read: upstream,
        }),
        redis: Some(Redis {
            listen: Vec::new(),
            account: "shop".to_owned(),
        }),
        api: Some(api),
        ..Server::bare(system)
    });
    let script = render(&steps);
    let (code, said) = shellcheck_of(&script);
    assert_eq!(code, 0, "{said}");
    // The programs in it are words of a document for the shell that reads the script.
    let programs = steps.iter().filter_map(|step| match &step.action {
        Action::File(File { text, .. }) => text.starts_with("#!/bin/sh").then_some(text),
        _ => None,
    });
    let mut seen = 0;
    for program in programs {
        let (code, said) = shellcheck_of(program);
        assert_eq!(code, 0, "{said}");
        seen += 1;
    }
    assert!(seen >= 6, "{seen} programs");
    let (code, said) = shellcheck_of(&script.replace("cmp -s \"$1\"", "cmp -s $1"));
    assert_ne!(code, 0, "it reads the script: {said}");
}

#[test]
fn shellcheck_finds_nothing_in_the_scripts_of_a_first_session() {
    for script in [
        identity::prepare(Some("SHA256:abc")),
        identity::exchange("SHA256:abc"),
        identity::forget(),
    ] {
        let (code, said) = shellcheck_of(&format!("#!/bin/sh\n{script}"));
        assert_eq!(code, 0, "{said}");
    }
}

fn shellcheck_of(script: &str) -> (i32, String) {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("script");
    fs::write(&path, script).unwrap();
    let scripts = [path.display().to_string()];
    judged(&run(
        root(),
        "shellcheck",
        &["--severity", "style"],
        &scripts,
    ))
}

/// The scripts of an action's steps.
fn runs(action: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = action.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((before, script)) = line.split_once("run: ") else {
            continue;
        };
        if script.trim() != "|" {
            found.push(script.to_owned());
            continue;
        }
        let mut block = String::new();
        while let Some(next) = lines.next_if(|next| {
            next.trim().is_empty() || next.len() - next.trim_start().len() > before.len()
        }) {
            block.push_str(next.trim_start());
            block.push('\n');
        }
        found.push(block);
    }
    found
}

#[test]
fn no_linter_finds_anything_in_our_workflows_actions_and_scripts() {
    let there = sources(root());
    assert!(there.workflows.len() >= 3 && there.actions.len() >= 9 && there.scripts.len() >= 8);
    for (name, (code, said)) in [
        ("actionlint", actionlint(root())),
        ("zizmor", zizmor(root())),
        ("check-jsonschema", schema(root())),
        ("shellcheck", shellcheck(root())),
    ] {
        assert_eq!(code, 0, "{name}: {said}");
    }
}

#[test]
fn no_finding_is_ignored_for_a_whole_file_or_rule() {
    for config in [
        "zizmor.yml",
        ".github/zizmor.yml",
        ".github/actionlint.yaml",
        ".github/actionlint.yml",
        ".shellcheckrc",
    ] {
        assert!(!root().join(config).exists(), "{config} ignores wholesale");
    }
    let there = sources(root());
    for file in there.workflows.iter().chain(&there.actions) {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for line in text.lines().filter(|line| line.contains("zizmor: ignore")) {
            let reason = line.split_once(']').map_or("", |(_, reason)| reason.trim());
            assert!(
                reason.len() > 10,
                "{file}: an ignore without a reason: {line}"
            );
        }
    }
}

/// A repository with our workflows, actions and scripts, and one fault.
fn with_fault(file: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let copy = work.path().join("copy");
    for part in there_is() {
        let target = copy.join(&part);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(root().join(&part), target).unwrap();
    }
    let path = copy.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    fs::write(&path, text.replacen(from, to, 1)).unwrap();
    compat::commit(&copy);
    (work, copy)
}

fn there_is() -> Vec<String> {
    let Sources {
        workflows,
        actions,
        scripts,
    } = sources(root());
    workflows
        .into_iter()
        .chain(actions)
        .chain(scripts)
        .collect()
}

#[test]
fn every_linter_bites_on_a_planted_fault() {
    let rollout = ".github/workflows/rollout.yml";
    type Linter = fn(&Path) -> (i32, String);
    let faults: [(&str, Linter, &str, &str, &str, &str); 9] = [
        (
            "actionlint: a job that is not there",
            actionlint,
            rollout,
            "needs: [preflight]",
            "needs: [prefight]",
            "prefight",
        ),
        (
            "actionlint: an output of a step that is not there",
            actionlint,
            rollout,
            "steps.preflight.outputs.regions",
            "steps.prefight.outputs.regions",
            "prefight",
        ),
        (
            "actionlint: shellcheck over a run",
            actionlint,
            rollout,
            "rm -f -- \"$list\"",
            "rm -f -- $list",
            "SC2086",
        ),
        (
            "zizmor: an input inside a script",
            zizmor,
            rollout,
            "run: exec preflight",
            "run: exec preflight --release ${{ inputs.release }}",
            "template-injection",
        ),
        (
            "zizmor: an action that is not pinned",
            zizmor,
            rollout,
            "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2",
            "actions/checkout@v6",
            "unpinned-uses",
        ),
        (
            "zizmor: credentials that stay in the checkout",
            zizmor,
            rollout,
            "        with:\n          persist-credentials: false\n",
            "",
            "artipacked",
        ),
        (
            "check-jsonschema: a key that GitHub does not know",
            schema,
            rollout,
            "    timeout-minutes: 20",
            "    timeout-minute: 20",
            "timeout-minute",
        ),
        (
            "check-jsonschema: an action without a shell",
            schema,
            "action.yml",
            "      shell: bash\n",
            "",
            "action.yml",
        ),
        (
            "shellcheck: a word that is split",
            shellcheck,
            "setup/install.sh",
            "mkdir \"$work/bin\"",
            "mkdir $work/bin",
            "SC2086",
        ),
    ];
    for (name, linter, file, from, to, finds) in faults {
        let (_work, copy) = with_fault(file, from, to);
        let (code, said) = linter(&copy);
        assert_ne!(code, 0, "{name}: nothing found");
        assert!(said.contains(finds), "{name}: {said}");
    }
    // In an action's own script, too.
    let (_work, copy) = with_fault(
        "actions/deploy-region/action.yml",
        "${VERB:+\"$VERB\"}",
        "$VERB",
    );
    assert!(shellcheck(&copy).1.contains("SC2086"));
}
