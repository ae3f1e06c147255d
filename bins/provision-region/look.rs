//! What there is and what is wanted, in every project that holds something of the region.

use std::path::Path;
use std::time::{Duration, SystemTime};

use regionwise_cli::{Because, Common, Context, Failure, Hint, SecretText, duration};
use regionwise_hetzner::{ENDPOINT, Hetzner, Kind, Settings};
use regionwise_provision::recipes::clusters_without_backup;
use regionwise_provision::{
    Catalogue, Change, Cost, Detail, Inventory, Known, Line, Plan, Reaction, Role, Spec, Wanted,
    plan, settle_across, wanted,
};
use regionwise_provisioner::Project;
use regionwise_rollout::Verdict;
use regionwise_topology::{Provision, Region, Topology};

/// Flags of everything that talks to the API.
#[derive(clap::Args, Clone)]
pub(crate) struct Api {
    /// Where the API is.
    #[arg(long, env = "REGIONWISE_HCLOUD_ENDPOINT", value_name = "URL", default_value = ENDPOINT, hide_default_value = true)]
    endpoint: String,

    /// How long to wait, all in all, for limits, locks and trouble that may pass.
    #[arg(long, env = "REGIONWISE_PATIENCE", value_name = "DURATION", value_parser = duration, default_value = "5m")]
    patience: Duration,

    /// Time between two looks at what the provider is still doing.
    #[arg(long, env = "REGIONWISE_TICK", value_name = "DURATION", value_parser = duration, default_value = "2s")]
    pub(crate) tick: Duration,

    /// How long one order may take.
    #[arg(long, env = "REGIONWISE_ACTIONS_WITHIN", value_name = "DURATION", value_parser = duration, default_value = "10m")]
    actions_within: Duration,
}

/// The file, with the parts that provisioning needs.
pub(crate) struct World {
    pub(crate) topology: Topology,
    pub(crate) provision: Provision,
    tokens: Vec<(regionwise_topology::Secret, SecretText)>,
    /// Type and base64 of the keys that open root's account.
    pub(crate) root_keys: Vec<String>,
}

/// The region's projects as they stand, with a plan for each.
pub(crate) struct Seen<'a> {
    pub(crate) projects: Vec<Project<'a>>,
    /// One for each project.
    pub(crate) plans: Vec<Plan>,
    /// Of the projects' tokens.
    pub(crate) references: Vec<String>,
    pub(crate) catalogue: Catalogue,
    /// Clusters that the region serves from, or has a node of, and whose rows nobody backs up.
    pub(crate) without_backup: Vec<&'a str>,
}

impl World {
    /// Reads the file, the tokens and the key; contacts nobody.
    pub(crate) async fn load(common: &Common, context: &Context) -> Result<Self, Failure> {
        let topology = common.unprovisioned()?;
        let Some(provision) = topology.provision.clone() else {
            let text = format!("`{}` has no section [provision]", common.config.display());
            return Err(Failure::invalid(text)
                .with_hint("it says which servers may be ordered: docs/provision-region.md"));
        };
        let directory = common.directory();
        let mut tokens = Vec::new();
        for reference in regionwise_provision::tokens(&topology, &provision) {
            let token = context.secret("the token of the Hetzner project", reference, directory)?;
            tokens.push((reference.clone(), token));
        }
        for (at, (reference, token)) in tokens.iter().enumerate() {
            let same = tokens[..at]
                .iter()
                .find(|(_, other)| other.expose().trim() == token.expose().trim());
            if let Some((other, _)) = same {
                let text = format!("`{other}` and `{reference}` are the same token");
                return Err(Failure::invalid(text)
                    .with_hint("a residency's token is that of a project of its own; leave it out where the rows share one"));
            }
        }
        let mut root_keys = Vec::new();
        for path in &provision.root_keys {
            root_keys.extend(public_keys(&context.expand(path, directory))?);
        }
        Ok(Self {
            topology,
            provision,
            tokens,
            root_keys,
        })
    }

    pub(crate) fn region(&self, name: &str) -> Result<&Region, Failure> {
        self.topology.region(name).ok_or_else(|| {
            let names: Vec<&str> = self
                .topology
                .regions
                .iter()
                .map(|of| of.name.as_str())
                .collect();
            Failure::invalid(format!("`{name}` is not a region of the configuration"))
                .with_hint(format!("regions: {}", names.join(", ")))
        })
    }

    /// One connection for every token.
    pub(crate) fn connections<'a>(
        &'a self,
        api: &'a Api,
        say: &'a dyn Fn(&str),
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Vec<Hetzner<'a>>, Failure> {
        self.tokens
            .iter()
            .map(|(_, token)| connect(api, token, &self.topology.product.name, say, stop))
            .collect()
    }

    /// What is in every project, in the order of the connections.
    pub(crate) async fn inventories(
        &self,
        hetzners: &[Hetzner<'_>],
    ) -> Result<Vec<Inventory>, Failure> {
        let mut inventories = Vec::new();
        for (hetzner, (token, _)) in hetzners.iter().zip(&self.tokens) {
            let looked = hetzner.inventory().await;
            inventories.push(looked.map_err(|error| unseen_with(&error, token))?);
        }
        Ok(inventories)
    }

    /// Looks at the catalogue and at every project, and plans.
    ///
    /// Also at projects that hold nothing of this region: they cost, too, and may hold what was meant for another one.
    pub(crate) async fn look<'a>(
        &'a self,
        region: &'a Region,
        api: &'a Api,
        say: &'a dyn Fn(&str),
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Seen<'a>, Failure> {
        let hetzners = self.connections(api, say, stop)?;
        // The first token is `provision.token`'s; every project has the same catalogue.
        let shop = &hetzners[0];
        let catalogue = shop
            .catalogue(SystemTime::now())
            .await
            .map_err(|error| unseen_with(&error, &self.provision.token))?;
        let inventories = self.inventories(&hetzners).await?;
        let tokens = self.tokens.iter().map(|(token, _)| token);
        let networks: Vec<Known<'_>> = tokens
            .zip(&inventories)
            .flat_map(|(token, inventory)| networks(token, inventory))
            .collect();
        let mut parts = wanted(
            &self.topology,
            &self.provision,
            region,
            &catalogue,
            &self.root_keys,
            &networks,
        )
        .map_err(|undecided| Failure::invalid(undecided.to_string()).with_hint(undecided.hint()))?;
        let servers: Vec<(Role, &str)> = parts
            .iter()
            .flat_map(|part| servers(&part.wanted))
            .collect();
        let without_backup = clusters_without_backup(&self.topology, region, &servers);
        let mut seen = Seen {
            projects: Vec::new(),
            plans: Vec::new(),
            references: Vec::new(),
            catalogue,
            without_backup,
        };
        for ((hetzner, inventory), (token, _)) in
            hetzners.into_iter().zip(inventories).zip(&self.tokens)
        {
            let part = parts.iter().position(|part| part.token == token);
            let wanted = part
                .map(|at| parts.swap_remove(at).wanted)
                .unwrap_or_default();
            let certificate = certificate(&hetzner, &wanted).await?;
            let (region, catalogue) = (&region.name, &seen.catalogue);
            let plan = plan(region, &wanted, &inventory, catalogue, certificate);
            seen.plans.push(plan);
            seen.references.push(token.to_string());
            seen.projects.push(Project {
                hetzner,
                wanted,
                inventory,
                certificate,
            });
        }
        let inventories: Vec<&Inventory> = seen
            .projects
            .iter()
            .map(|project| &project.inventory)
            .collect();
        settle_across(&mut seen.plans, &inventories);
        Ok(seen)
    }
}

/// What each server is for, and its name in regions.toml.
pub(crate) fn servers(wanted: &[Wanted]) -> impl Iterator<Item = (Role, &str)> {
    wanted.iter().filter_map(|wanted| match &wanted.spec {
        Spec::Server(server) => Some((server.role, server.host.as_str())),
        _ => None,
    })
}

/// Our networks in one project.
fn networks<'a>(token: &'a regionwise_topology::Secret, inventory: &Inventory) -> Vec<Known<'a>> {
    let ours = inventory
        .resources
        .iter()
        .filter(|resource| resource.is_ours(&inventory.product));
    ours.filter_map(|resource| match &resource.detail {
        Detail::Network(network) => Some(Known {
            token,
            name: resource.name.clone(),
            range: network.range?,
        }),
        _ => None,
    })
    .collect()
}

/// The keys of a file in OpenSSH's form: type and base64, without comments.
fn public_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .invalid(|| format!("cannot read the public key `{shown}`"))
        .hint("provision.root_keys names the public keys of who may log in as root: `ssh-keygen -t ed25519` makes one")?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Option<Vec<String>> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let (kind, key) = (words.next()?, words.next()?);
            let is_key =
                kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-");
            (is_key && !line.contains("PRIVATE")).then(|| format!("{kind} {key}"))
        })
        .collect();
    match keys {
        Some(keys) if !keys.is_empty() => Ok(keys),
        _ => Err(
            Failure::invalid(format!("`{shown}` holds no public key in OpenSSH's form"))
                .with_hint("give the `.pub` file, never the private key"),
        ),
    }
}

impl Seen<'_> {
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.plans
            .iter()
            .flat_map(|plan| plan.lines.clone())
            .collect()
    }

    pub(crate) fn cost(&self, world: &World) -> Cost {
        Cost::of(
            &self.lines(),
            &self.catalogue.prices,
            world.topology.budget.as_ref(),
        )
    }

    pub(crate) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.plans.iter().flat_map(|plan| &plan.changes)
    }

    pub(crate) fn requests(&self) -> u32 {
        self.projects
            .iter()
            .map(|project| project.hetzner.requests())
            .sum()
    }
}

fn connect<'a>(
    api: &'a Api,
    token: &'a SecretText,
    product: &'a str,
    say: &'a dyn Fn(&str),
    stop: &'a dyn Fn() -> bool,
) -> Result<Hetzner<'a>, Failure> {
    let settings = Settings {
        endpoint: &api.endpoint,
        token: token.expose().trim(),
        product,
        patience: api.patience,
        tick: api.tick,
        actions_within: api.actions_within,
    };
    Hetzner::new(&settings, say, stop).invalid(|| "cannot use --endpoint".to_owned())
}

/// The load balancer's certificate must be there before anything is ordered.
async fn certificate(hetzner: &Hetzner<'_>, wanted: &[Wanted]) -> Result<Option<i64>, Failure> {
    let name = wanted.iter().find_map(|wanted| match &wanted.spec {
        Spec::Balancer(balancer) => balancer.certificate.as_deref(),
        _ => None,
    });
    let Some(name) = name else {
        return Ok(None);
    };
    let found = hetzner
        .certificate(name)
        .await
        .map_err(|error| unseen(&error))?;
    found.map(Some).ok_or_else(|| {
        Failure::new(
            Verdict::Refused,
            format!("there is no certificate `{name}` in the project; nothing was changed"),
        )
        .with_hint("make it in the project (a managed one renews itself), or name another: provision.load_balancer.certificate")
    })
}

/// As [`unseen`], and whose token it was.
fn unseen_with(error: &regionwise_hetzner::Error, token: &regionwise_topology::Secret) -> Failure {
    let failure = unseen(error);
    match error.kind {
        Kind::Answered(Reaction::Token) => {
            failure.with_hint(format!("the token that it refuses is `{token}`"))
        }
        _ => failure,
    }
}

/// A look that failed: nothing was changed so far.
fn unseen(error: &regionwise_hetzner::Error) -> Failure {
    let (verdict, hint) = match error.kind {
        Kind::Answered(Reaction::Token) => (
            Verdict::Invalid,
            "make a token with the right to read and write in the Hetzner project, and give it as provision.token says",
        ),
        Kind::Answered(Reaction::Limit) => (
            Verdict::Refused,
            "look into the Hetzner console: the account or the project may not do that",
        ),
        _ => (Verdict::Unreachable, "run it again"),
    };
    let text = format!("cannot see what is there; nothing was changed: {error}");
    Failure::new(verdict, text).with_hint(hint)
}
