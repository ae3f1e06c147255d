//! The deploy itself: load, hand over to the controller, report.

use regionwise_cli::{
    Because, Common, Context, Failure, Hint, Report, operation_id, report, wall_ms,
};
use regionwise_controller::{Deploy, Operation, Release, deploy};

use crate::DeployArgs;

pub(crate) async fn run(
    common: &Common,
    args: &DeployArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let missing = |flag: &str| {
        Failure::invalid(format!("--{flag} is missing")).with_hint("deploy-region --help")
    };
    let region = common.region(
        &topology,
        args.region.as_deref().ok_or_else(|| missing("region"))?,
    )?;
    let path = args.release.as_deref().ok_or_else(|| missing("release"))?;
    let release = Release::load(path)
        .invalid(|| "cannot load the release".to_owned())
        .hint(
            "a release file names `name`, `artifact`, and where needed `sha256`, `config`, `[env]`",
        )?;
    let id = operation_id(args.operation.as_deref(), &region.name, context)?;
    let reach = context.reach(common, &topology)?;
    let ending = deploy(
        &Deploy {
            region,
            access: &reach.access,
            operation: Operation {
                id: id.clone(),
                who: context.holder(),
                lock_ttl: topology.rollout.lock_ttl,
            },
            release: &release,
            rule: &topology.rollout,
            health: &topology.health,
            lock_wait: args.lock_wait,
            accept_drift: args.accept_drift,
            accept_unhealthy: args.accept_unhealthy,
            dry_run: args.dry_run,
            clock_ms: wall_ms,
            stop: context.signals.watch(),
        },
        &|line| context.progress.say(format!("{}: {line}", region.name)),
    )
    .await;
    Ok(report(&ending, &region.name, &id))
}
