//! `run` and `revert`: moves the users of a plan, under live writes, one way or the other.

use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use regionwise_cli::{Because as _, Common, Context, Failure, Report, duration, wall_ms};
use regionwise_mover::{Chosen, Ended, Ends, Event, Hold, MOST_USERS, Task, Terms, Throttle};
use regionwise_relocation::closure::plan::Plan;
use regionwise_relocation::sql::refer;
use regionwise_rollout::Verdict;
use regionwise_topology::Migration;
use tokio::sync::{mpsc, watch};

use crate::clusters::{self, Access, Account};
use crate::counts::Counts;
use crate::plan::{self, Counted};
use crate::report;

/// A stall of an hour is as bad as a longer one.
const LONGEST_STALL_US: u64 = 3_600_000_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    access: Access,

    /// The hash that `plan` showed: its first 16 digits, or more. Nothing else is run.
    #[arg(long, env = "REGIONWISE_PLAN", value_name = "HASH")]
    plan: String,

    /// Users per batch.
    #[arg(long, env = "REGIONWISE_BATCH_SIZE", default_value_t = MOST_USERS, value_name = "USERS",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_USERS)))]
    batch_size: u32,

    /// Batches in work at the same time, 1 to 16; left out, 3, and one more for each 20 ms to the target and back, at most 8.
    #[arg(long, env = "REGIONWISE_LANES", value_name = "LANES",
          value_parser = clap::value_parser!(u8).range(1..=16))]
    lanes: Option<u8>,

    /// Begin nothing new after this time, and end at a safe point.
    #[arg(long, env = "REGIONWISE_MAX_RUNTIME", value_name = "DURATION", value_parser = duration)]
    max_runtime: Option<Duration>,

    #[command(flatten)]
    throttle: Throttles,

    /// Copy and prove, switch nobody, leave nothing.
    #[arg(long, env = "REGIONWISE_REHEARSE", conflicts_with = "dry_run")]
    rehearse: bool,

    /// Say what would happen, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    dry_run: bool,
}

#[derive(clap::Args)]
struct Throttles {
    /// Wait while a standby of either cluster lags more than this.
    #[arg(long, env = "REGIONWISE_MAX_LAG", value_name = "DURATION", value_parser = duration)]
    max_lag: Option<Duration>,

    /// Wait while more sessions than this are active on either primary, ours left out.
    #[arg(long, env = "REGIONWISE_MAX_ACTIVE", value_name = "SESSIONS")]
    max_active: Option<u32>,

    /// Wait while this query on the source says true.
    #[arg(long, env = "REGIONWISE_PAUSE_QUERY", value_name = "SQL")]
    pause_query: Option<String>,

    /// Wait while this file exists.
    #[arg(long, env = "REGIONWISE_PAUSE_FILE", value_name = "FILE")]
    pause_file: Option<PathBuf>,

    /// Wait while this shell command fails.
    #[arg(long, env = "REGIONWISE_PAUSE_COMMAND", value_name = "COMMAND")]
    pause_command: Option<String>,
}

/// Which way users go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    There,
    Back,
}

impl Way {
    /// As the journal has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::There => "move",
            Self::Back => "revert",
        }
    }
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
    way: Way,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let migration = clusters::migration(&topology)?;
    let ends = clusters::ends(common, context, migration, Account::Move, &args.access)?;
    let hold = Hold::parse(
        context.variable("REGIONWISE_HOLD_AT"),
        context.variable("REGIONWISE_HOLD_FILE"),
    )
    .invalid(|| "cannot use REGIONWISE_HOLD_AT".to_owned())?;
    let plan = match plan::observe(&ends, migration, Counted::No).await? {
        Ok(observed) => observed.plan,
        Err(refused) => return Ok(plan::refusal(&refused)),
    };
    if let Some(report) = unapproved(&plan, &args.plan) {
        return Ok(report);
    }
    if !plan.refused.is_empty() {
        return Ok(plan::refusal(&plan.refused));
    }
    if args.dry_run {
        return report::dry_run(&plan, &ends, migration, way).await;
    }
    let ends = match way {
        Way::There => ends,
        Way::Back => ends.reversed(),
    };
    let task = task(args, context, migration, &ends, plan, way, hold);
    let (ended, counts) = Box::pin(carry_out(task, context)).await?;
    Ok(report::of(
        &ended,
        &counts,
        &ends,
        way,
        context.signals.now(),
    ))
}

/// Only what somebody has approved is run: another schema, other rules or other servers make another plan.
pub(crate) fn unapproved(plan: &Plan, meant: &str) -> Option<Report> {
    if plan.hash.is_meant_by(meant) {
        return None;
    }
    let text = format!(
        "The plan is {} now, not {meant}: schema, rules, users or servers are others than those that were approved.",
        plan.hash
    );
    Some(
        Report::new(Verdict::Refused, text)
            .because("plan-changed")
            .with_hint("migrate-eu-users plan"),
    )
}

fn task(
    args: &Args,
    context: &Context,
    migration: &Migration,
    ends: &Ends,
    plan: Plan,
    way: Way,
    hold: Hold,
) -> Task {
    let throttle = &args.throttle;
    Task {
        ends: ends.clone(),
        plan: journal_name(&plan, way, args.rehearse),
        shape: plan.source.as_str().to_owned(),
        // The plan has seen which tables of the old home stay there and refer to rows that moved.
        incoming: match way {
            Way::There => refer::incoming_of_users(&plan.found.closure),
            Way::Back => refer::incoming(&plan.found),
        },
        closure: plan.found.closure,
        direction: if args.rehearse {
            "rehearsal"
        } else {
            way.word()
        },
        chosen: chosen(migration, way),
        terms: Terms {
            lanes: args.lanes.map(usize::from),
            batch_size: args.batch_size,
            max_runtime: args.max_runtime,
            throttle: Throttle {
                max_lag: throttle.max_lag,
                max_active: throttle.max_active,
                query: throttle.pause_query.clone(),
                file: throttle.pause_file.clone(),
                command: throttle.pause_command.clone(),
            },
            rehearse: args.rehearse,
        },
        holder: context.holder(),
        hold,
    }
}

/// What the journal knows the run by: runners with the same name share it, and a rehearsal shares it with nobody.
fn journal_name(plan: &Plan, way: Way, rehearse: bool) -> String {
    let hash = plan.hash.as_str();
    match (way, rehearse) {
        (Way::There, false) => hash.to_owned(),
        (Way::Back, false) => format!("{hash}-back"),
        (Way::There | Way::Back, true) => {
            format!("{hash}-rehearsal-{}", wall_ms())
        }
    }
}

/// On the way back everybody who came, whatever country they are in by now.
pub(crate) fn chosen(migration: &Migration, way: Way) -> Chosen {
    match way {
        Way::There => Chosen {
            users: migration.users.clone(),
            came_by_a_run: false,
        },
        Way::Back => Chosen {
            users: "true".to_owned(),
            came_by_a_run: true,
        },
    }
}

/// Runs the task, shows how it goes, and passes a signal on.
async fn carry_out(task: Task, context: &Context) -> Result<(Ended, Counts), Failure> {
    let stalls = Histogram::new_with_bounds(1, LONGEST_STALL_US, 3)
        .because(Verdict::Failed, || "cannot make a histogram".to_owned())?;
    let mut counts = Counts::new(stalls);
    let (events, mut happens) = mpsc::unbounded_channel();
    let (stop, stopping) = watch::channel(false);
    let work = context.progress.work("migration", 0);
    let mut running = std::pin::pin!(regionwise_mover::run(task, events, stopping));
    let mut signalled = std::pin::pin!(context.signals.received());
    let mut asked = false;
    let mut total = 0;
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            Some(event) = happens.recv() => {
                if let Event::Placed { users } = event {
                    total = users;
                    work.set_total(users);
                } else {
                    counts.take(event, total, &work);
                }
            }
            _ = &mut signalled, if !asked => {
                asked = true;
                context.progress.say("Stops at the next safe point.");
                stop.send_replace(true);
            }
        }
    };
    while let Ok(event) = happens.try_recv() {
        counts.take(event, total, &work);
    }
    drop(work);
    match ended {
        Ok(ended) => Ok((ended, counts)),
        Err(error) => Err(report::lost(error)),
    }
}
