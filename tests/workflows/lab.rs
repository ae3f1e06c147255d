//! The workflow with the real binaries against the lab: a good release, one that is bad in the EU, a held standby, and a
//! rollout that is cancelled midway. Only report-rollout has a stand-in: there is no GitHub to report to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regionwise_lab::{Lab, Options};
use regionwise_topology::{Toolkit, Topology};
use serde_json::Value;

use crate::act::{BINARIES, Ran, Site};
use crate::compat::{PIN, TOOLKIT};

const DEPLOY: &str = env!("CARGO_BIN_EXE_deploy-region");
const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];

/// A rollout takes a quarter of a minute; a busy machine more.
const LIMIT: Duration = Duration::from_secs(240);

struct World {
    lab: Lab,
    site: Site,
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
        site.secrets(secrets, LIMIT);
        let world = Self { lab, site };
        world.real(&BINARIES[..5]);
        world.site.stand_ins(&BINARIES[5..]);
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

    let bad = world.roll_out("v3", &[]);
    assert_eq!(bad.code, Some(1), "{}", bad.log);
    world.serves(["v2", "v2", "v3", "v2", "v2"]);
    assert_eq!(world.verdict("ap-singapore"), "proceed");
    assert_eq!(world.verdict("eu-central"), "rolled-back");
    assert_eq!(world.site.needs()["us-east"]["result"], "skipped");

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

    world.lab.standby("us-dr").release().unwrap();
    let resumed = world.roll_out("v2", &[("start-at", "eu-central")]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.log);
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
