//! The workflow with the real binaries against the lab: a good release, one that is bad in the EU, a held standby, and a
//! rollout that is cancelled midway; and what a GitHub of the lab has heard of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regionwise_lab::github::Github;
use regionwise_lab::{Lab, Options};
use regionwise_topology::{Toolkit, Topology};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::act::{BINARIES, Ran, Site};
use crate::compat::{PIN, TOOLKIT};

const DEPLOY: &str = env!("CARGO_BIN_EXE_deploy-region");
const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];

/// A rollout takes a quarter of a minute; a busy machine more.
const LIMIT: Duration = Duration::from_secs(240);

const TOKEN: &str = "ghs_hunter2hunter2hunter2";

struct World {
    lab: Lab,
    site: Site,
    github: Github,
    // After what runs on it.
    _runtime: Runtime,
}

impl World {
    /// A full lab where v1 serves and is closed, and a product whose repository holds everything but the secrets.
    fn with_v1() -> Self {
        let lab = Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")))
            .unwrap_or_else(|error| panic!("no lab: {error}"));
        let beside =
            |name: &str| fs::read_to_string(lab.regions_toml().with_file_name(name)).unwrap();
        // As a team has it: the key in a secret, the pinned host keys in another.
        let regions = fs::read_to_string(lab.regions_toml())
            .unwrap()
            .replace("file:deploy_key", "env:REGIONWISE_SSH_KEY");
        let workflow = Topology::parse("regions.toml", &regions)
            .unwrap()
            .workflow(&Toolkit::parse(&format!("{TOOLKIT}@{PIN}")).unwrap())
            .unwrap();
        let release = |name: &str, env: &str| {
            let artifact = env!("CARGO_BIN_EXE_reference-api");
            format!("name = \"{name}\"\nartifact = \"{artifact}\"\n[env]\nNAME = \"{name}\"\n{env}")
        };
        let bad = "FAULT_REGIONS = \"eu-central\"\nFAULT_FAILING_DEPENDENCIES = \"3\"\nFAULT_WRONG_ANSWERS = \"0.2\"\n";
        let files = [
            ("regions.toml", regions.clone()),
            ("releases/v1.toml", release("v1", "")),
            ("releases/v2.toml", release("v2", "")),
            ("releases/v3.toml", release("v3", bad)),
            ("releases/v4.toml", release("v4", "")),
        ];
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (*path, text.as_str()))
            .collect();
        let mut site = Site::with_files(&workflow, &files);
        let mut secrets = vec![
            ("REGIONWISE_SSH_KEY".to_owned(), beside("deploy_key")),
            ("REGIONWISE_KNOWN_HOSTS".to_owned(), beside("known_hosts")),
        ];
        let dsns = lab
            .env()
            .iter()
            .filter(|(name, _)| regions.contains(&format!("env:{name}\"")));
        secrets.extend(dsns.map(|(name, value)| (name.clone(), value.clone())));
        // act makes it `github.token`.
        secrets.push(("GITHUB_TOKEN".to_owned(), TOKEN.to_owned()));
        site.secrets(secrets, LIMIT);
        let runtime = Runtime::new().unwrap();
        let github = runtime.block_on(Github::start(TOKEN)).unwrap();
        let world = Self {
            lab,
            site,
            github,
            _runtime: runtime,
        };
        world.real(&BINARIES[..5]);
        // act knows neither another GitHub nor a repository without a remote.
        let shim = format!(
            "#!/bin/sh\nexport GITHUB_API_URL='{}' GITHUB_REPOSITORY=our-org/regionwise\n\
             if [ \"$1\" = finish ]; then\n  printf '%s\\n' \"$REGIONWISE_NEEDS\" > \"$STAND_IN/needs\"\n  \
             export REGIONWISE_OUTPUTS=\"$STAND_IN/finish\"\nfi\nexec '{}' \"$@\"\n",
            world.github.url(),
            env!("CARGO_BIN_EXE_report-rollout")
        );
        world.site.binary("report-rollout", &shim);
        world.site.sums();
        let v1 = world.site.product().join("releases/v1.toml");
        let deploys = REGIONS.map(|region| {
            let operation = format!("v1-{region}");
            let mut deploy =
                world.deploy_region(&["--region", region, "--operation", &operation, "--release"]);
            deploy.arg(&v1).stdout(Stdio::null()).spawn().unwrap()
        });
        for mut deploy in deploys {
            assert!(deploy.wait().unwrap().success());
        }
        for region in REGIONS {
            let close = world
                .deploy_region(&[
                    "close",
                    "--region",
                    region,
                    "--operation",
                    &format!("v1-{region}"),
                ])
                .output();
            assert!(close.unwrap().status.success());
        }
        world
    }

    fn real(&self, names: &[&str]) {
        let built = Path::new(DEPLOY).parent().unwrap();
        for name in names {
            let path = self.site.path("bin").join(name);
            let _ = fs::remove_file(&path);
            symlink(built.join(name), path).unwrap();
        }
    }

    fn deploy_region(&self, words: &[&str]) -> Command {
        let mut command = Command::new(DEPLOY);
        command
            .env_clear()
            .envs(self.lab.env())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("REGIONWISE_CONFIG", self.lab.regions_toml())
            .stdin(Stdio::null())
            .args(words);
        command
    }

    /// Facts of every host, by name.
    fn hosts(&self) -> BTreeMap<String, Value> {
        let output = self
            .deploy_region(&["status", "--format", "json"])
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let regions = status["result"]["regions"].as_array().unwrap();
        let hosts = regions
            .iter()
            .flat_map(|region| region["hosts"].as_array().unwrap());
        hosts
            .map(|host| {
                (
                    host["host"].as_str().unwrap().to_owned(),
                    host["facts"].clone(),
                )
            })
            .collect()
    }

    /// The releases of eu-1, eu-2, sin-1, us-1, us-2, seen through their proxies; nothing is left unsettled.
    #[track_caller]
    fn serves(&self, wanted: [&str; 5]) {
        let hosts = self.hosts();
        let serving: Vec<&str> = hosts
            .values()
            .map(|facts| facts["observed"].as_str().unwrap_or("-"))
            .collect();
        assert_eq!(serving, wanted, "{:?}", hosts.keys());
        for (host, facts) in &hosts {
            assert!(
                facts["intent"].is_null(),
                "{host} has an unsettled switch: {facts}"
            );
        }
    }

    fn roll_out(&self, release: &str, more: &[(&str, &str)]) -> Ran {
        let file = format!("releases/{release}.toml");
        // Each run of act has the id 1, so each rollout needs a name of its own.
        let mut inputs = vec![("release", file.as_str()), ("rollout", release)];
        inputs.extend(more);
        self.site.run(&inputs)
    }

    /// What report-rollout put out at the end.
    #[track_caller]
    fn ended(&self, wanted: [&str; 3]) {
        let lines = self.site.lines("finish");
        let names = ["verdict", "failed-region", "done-regions"];
        for (name, wanted) in names.iter().zip(wanted) {
            let line = format!("{name}={wanted}");
            assert!(lines.contains(&line), "no {line} in {lines:?}");
        }
    }

    /// The states of the last deployment to a region that GitHub knows, oldest first.
    fn deployment(&self, region: &str) -> Vec<String> {
        self.github.repository(|repository| {
            let mut all = repository.deployments.iter().rev();
            let last = all.find(|one| one.environment == region).unwrap();
            last.states().into_iter().map(str::to_owned).collect()
        })
    }

    fn verdict(&self, region: &str) -> String {
        self.site.needs()[region]["outputs"]["verdict"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

#[test]
fn real_binaries_bring_a_good_release_everywhere_and_take_a_bad_one_back_in_the_eu_only() {
    let world = World::with_v1();
    let good = world.roll_out("v2", &[]);
    assert_eq!(good.code, Some(0), "{}", good.log);
    world.serves(["v2"; 5]);
    assert!(
        world
            .hosts()
            .values()
            .all(|facts| facts["serving"]["verified"] == true)
    );
    let outputs = fs::read_to_string(world.site.path("stand-in/regionwise-us-east.env")).unwrap();
    assert!(
        outputs.contains("serves=v2\n") && outputs.ends_with("\n"),
        "{outputs}"
    );
    assert!(!world.site.product().join("known_hosts").exists());
    world.ended(["proceed", "", "ap-singapore eu-central us-east"]);
    assert_eq!(world.deployment("us-east"), ["in_progress", "success"]);

    let bad = world.roll_out("v3", &[]);
    assert_eq!(bad.code, Some(1), "{}", bad.log);
    world.serves(["v2", "v2", "v3", "v2", "v2"]);
    assert_eq!(world.verdict("ap-singapore"), "proceed");
    assert_eq!(world.verdict("eu-central"), "rolled-back");
    assert_eq!(world.site.needs()["us-east"]["result"], "skipped");
    world.ended(["rolled-back", "eu-central", "ap-singapore"]);
    assert_eq!(world.deployment("eu-central"), ["in_progress", "failure"]);
    assert_eq!(world.deployment("us-east"), ["in_progress", "success"]);

    // Run again under its name, as re-run jobs are, it finds the same.
    let again = world.roll_out("v3", &[("start-at", "eu-central")]);
    assert_eq!(again.code, Some(1), "{}", again.log);
    world.serves(["v2", "v2", "v3", "v2", "v2"]);
}

#[test]
fn real_binaries_hold_for_a_standby_go_on_when_it_is_back_and_survive_a_cancel() {
    let world = World::with_v1();
    world.lab.standby("us-dr").hold().unwrap();
    let held = world.roll_out("v2", &[]);
    assert_eq!(held.code, Some(1), "{}", held.log);
    world.serves(["v2", "v2", "v2", "v1", "v1"]);
    assert_eq!(world.verdict("eu-central"), "pause");
    assert_eq!(world.site.needs()["eu-central"]["outputs"]["step"], "lag");
    world.ended(["pause", "eu-central", "ap-singapore"]);
    assert_eq!(world.deployment("eu-central"), ["in_progress", "pending"]);
    let issues = |world: &World| {
        world
            .github
            .repository(|repository| repository.issues.clone())
    };
    let told = issues(&world);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].open
            && told[0]
                .body
                .contains("-f rollout=v2 -f start-at=eu-central"),
        "{}",
        told[0].body
    );

    world.lab.standby("us-dr").release().unwrap();
    let resumed = world.roll_out("v2", &[("start-at", "eu-central")]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.log);
    world.ended(["proceed", "", "eu-central us-east"]);
    // The same operation, so the same deployment.
    let states = world.deployment("eu-central");
    assert_eq!(
        states.last().map(String::as_str),
        Some("success"),
        "{states:?}"
    );
    assert!(states.contains(&"pending".to_owned()), "{states:?}");
    let told = issues(&world);
    assert!(told.len() == 1 && !told[0].open);
    world.serves(["v2"; 5]);
    assert!(
        world
            .hosts()
            .values()
            .all(|facts| facts["serving"]["verified"] == true)
    );

    // Cancelled once the deploy to the EU has begun; act kills it without a word.
    let shim = format!(
        "#!/bin/sh\ncase \"$*\" in *eu-central*) : > \"$STAND_IN/waiting\" ;; esac\nexec '{DEPLOY}' \"$@\"\n"
    );
    fs::remove_file(world.site.path("bin/deploy-region")).unwrap();
    world.site.binary("deploy-region", &shim);
    world.site.sums();
    let inputs = [("release", "releases/v4.toml"), ("rollout", "v4")];
    let mut running = world.site.start(&inputs);
    running.until_there(&world.site.path("stand-in/waiting"));
    running.interrupt();
    let cancelled = running.wait();
    world.site.keeps_its_secrets(&cancelled);
    assert_eq!(cancelled.code, Some(1), "{}", cancelled.log);
    world.serves(["v2", "v2", "v4", "v2", "v2"]);

    // The next run says the truth and ends the work.
    let after = world.roll_out("v4", &[("start-at", "eu-central")]);
    assert_eq!(after.code, Some(0), "{}", after.log);
    world.serves(["v4"; 5]);
}
