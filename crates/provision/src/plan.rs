//! The difference between what is wanted and what there is.

use rust_decimal::Decimal;

use crate::catalogue::Catalogue;
use crate::compare::Compare;
use crate::inventory::{Inventory, Resource};
use crate::ownership::REGION;
use crate::wanted::{Kind, Wanted};

const UNWANTED: &str = "ours, and not in regions.toml any more";
const TWIN: &str = "ours, and another one of this name is used: delete it when nothing is in it";

/// What is to be done in one project for one region, in the order in which it is done.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub changes: Vec<Change>,
    /// What the project costs in a month when the plan is carried out, other regions of the product included.
    pub lines: Vec<Line>,
}

/// One resource and what becomes of it.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is not there.
    Create(Wanted),
    /// It is there. What differs is mended where it can be while it serves, and else said and left.
    There {
        wanted: Wanted,
        id: i64,
        mend: Vec<Remedy>,
        differs: Vec<Difference>,
    },
    /// Somebody else's has that name.
    Foreign(Wanted, i64),
    /// It cannot be ordered, because of this.
    Blocked(Wanted, String),
    /// No type of the list can be ordered at any of the locations.
    SoldOut(Wanted),
    /// It is ours, of this region, and not wanted, for this reason: it is left as it is.
    Stray(Resource, &'static str),
}

/// What only a person may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub what: String,
    /// Whether the region is not what it should be because of it. Another type of server is a matter of taste.
    pub grave: bool,
}

/// A difference that is mended without stopping anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Name and labels; an address also stays when its server goes.
    Labels,
    /// The rules of a firewall.
    Rules,
    /// A server gets its firewall.
    Protect,
    /// A server or load balancer gets its private network.
    Join,
    /// A volume belongs to its server.
    Attach,
    /// A volume grows, to this many GB from that many.
    Grow { from: u32, to: u32 },
    /// A network gets its subnet.
    Subnet,
    /// A load balancer gets its targets.
    Target,
    /// A load balancer gets a service.
    Service,
    /// A service of a load balancer gets its settings.
    Settings,
}

impl Remedy {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Rules => "rules",
            Self::Protect => "firewall",
            Self::Join => "network",
            Self::Attach => "attachment",
            Self::Grow { .. } => "size",
            Self::Subnet => "subnet",
            Self::Target => "targets",
            Self::Service => "service",
            Self::Settings => "settings",
        }
    }
}

/// What one resource costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    /// For example `cpx42 in fsn1`.
    pub what: String,
    /// Net, a month. `None`: the catalogue does not say.
    pub price: Option<Decimal>,
    /// Whether the plan orders it.
    pub new: bool,
}

impl Change {
    pub const fn writes(&self) -> bool {
        match self {
            Self::Create(_) => true,
            Self::There { mend, .. } => !mend.is_empty(),
            _ => false,
        }
    }

    /// Whether the plan may not be carried out because of it.
    pub const fn blocks(&self) -> bool {
        matches!(
            self,
            Self::Foreign(..) | Self::Blocked(..) | Self::SoldOut(_)
        )
    }

    /// Whether it costs more than before.
    pub fn orders(&self) -> bool {
        match self {
            Self::Create(wanted) => !matches!(
                wanted.kind(),
                Kind::SshKey | Kind::PlacementGroup | Kind::Network | Kind::Firewall
            ),
            Self::There { mend, .. } => mend
                .iter()
                .any(|remedy| matches!(remedy, Remedy::Grow { .. })),
            _ => false,
        }
    }

    /// Whether nothing is to be said about it.
    pub fn is_as_wanted(&self) -> bool {
        matches!(self, Self::There { mend, differs, .. } if mend.is_empty() && differs.is_empty())
    }

    /// Whether the region is not what it should be, and will not be by itself.
    pub fn is_grave(&self) -> bool {
        matches!(self, Self::There { differs, .. } if differs.iter().any(|difference| difference.grave))
    }

    pub const fn wanted(&self) -> Option<&Wanted> {
        match self {
            Self::Create(wanted)
            | Self::There { wanted, .. }
            | Self::Foreign(wanted, _)
            | Self::Blocked(wanted, _)
            | Self::SoldOut(wanted) => Some(wanted),
            Self::Stray(..) => None,
        }
    }

    pub const fn kind(&self) -> Kind {
        match self {
            Self::Create(wanted)
            | Self::There { wanted, .. }
            | Self::Foreign(wanted, _)
            | Self::Blocked(wanted, _)
            | Self::SoldOut(wanted) => wanted.kind(),
            Self::Stray(resource, _) => resource.kind(),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Create(wanted)
            | Self::There { wanted, .. }
            | Self::Foreign(wanted, _)
            | Self::Blocked(wanted, _)
            | Self::SoldOut(wanted) => &wanted.name,
            Self::Stray(resource, _) => &resource.name,
        }
    }

    /// One word for tables and JSON.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::There { mend, differs, .. } => match (mend.is_empty(), differs.is_empty()) {
                (false, _) => "mend",
                (true, false) => "differs",
                (true, true) => "keep",
            },
            Self::Foreign(..) => "foreign",
            Self::Blocked(..) => "blocked",
            Self::SoldOut(_) => "sold-out",
            Self::Stray(..) => "stray",
        }
    }

    /// What a person wants to know beside the word.
    pub fn note(&self) -> String {
        match self {
            Self::Create(_) => String::new(),
            Self::There { mend, differs, .. } => {
                let mend = mend.iter().map(|remedy| remedy.word().to_owned());
                let differs = differs.iter().map(|difference| difference.what.clone());
                mend.chain(differs).collect::<Vec<_>>().join("; ")
            }
            Self::Foreign(..) => "has this name and not our label".to_owned(),
            Self::Blocked(_, why) => why.clone(),
            Self::SoldOut(_) => "no type of the list can be ordered".to_owned(),
            Self::Stray(_, why) => (*why).to_owned(),
        }
    }
}

/// A server, volume or load balancer that another project has already is not ordered a second time: its token was changed in
/// regions.toml, and only a person can move what is on it.
pub fn settle_across(plans: &mut [Plan], inventories: &[&Inventory]) {
    for (at, plan) in plans.iter_mut().enumerate() {
        for change in &mut plan.changes {
            let Change::Create(wanted) = change else {
                continue;
            };
            if !matches!(wanted.kind(), Kind::Server | Kind::Volume | Kind::Balancer) {
                continue;
            }
            let elsewhere = inventories.iter().enumerate().any(|(of, inventory)| {
                let found = inventory.named(wanted.kind(), &wanted.name);
                of != at && found.is_some_and(|found| found.is_ours(&inventory.product))
            });
            if elsewhere {
                let why = "another project of ours has it".to_owned();
                *change = Change::Blocked(wanted.clone(), why);
            }
        }
    }
}

/// Compares `wanted` with `inventory`. `region` says what may be a stray; `certificate` is the id of the load balancer's.
pub fn plan(
    region: &str,
    wanted: &[Wanted],
    inventory: &Inventory,
    catalogue: &Catalogue,
    certificate: Option<i64>,
) -> Plan {
    let product = inventory.product.as_str();
    let compare = Compare {
        product,
        inventory,
        catalogue,
        certificate,
    };
    let mut changes: Vec<Change> = wanted.iter().map(|wanted| compare.change(wanted)).collect();
    let is_wanted = |resource: &Resource| {
        wanted
            .iter()
            .any(|wanted| wanted.kind() == resource.kind() && wanted.name == resource.name)
    };
    let ours = |resource: &&Resource| resource.is_ours(product);
    let of_region =
        |resource: &Resource| resource.labels.get(REGION).is_some_and(|of| of == region);
    // A run that was killed while it made a network, and one whose lock was taken away, may leave two of one name.
    let twin = |resource: &Resource| {
        is_wanted(resource) && inventory.id(resource.kind(), &resource.name) != Some(resource.id)
    };
    for resource in inventory.resources.iter().filter(ours) {
        if of_region(resource) && !is_wanted(resource) {
            changes.push(Change::Stray(resource.clone(), UNWANTED));
        } else if twin(resource) {
            changes.push(Change::Stray(resource.clone(), TWIN));
        }
    }
    let mut lines: Vec<Line> = inventory
        .resources
        .iter()
        .filter(ours)
        .filter_map(|resource| compare.existing(resource))
        .collect();
    lines.extend(changes.iter().filter_map(|change| match change {
        Change::Create(wanted) => compare.ordered(wanted),
        Change::There { wanted, mend, .. } => mend.iter().find_map(|remedy| match remedy {
            Remedy::Grow { from, to } => {
                let (what, price) = compare.of_volume(to - from);
                let what = format!("{what} more");
                let name = wanted.name.clone();
                Some(Line {
                    name,
                    what,
                    price,
                    new: true,
                })
            }
            _ => None,
        }),
        _ => None,
    }));
    Plan { changes, lines }
}
