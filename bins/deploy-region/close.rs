//! `close`: after the gates and the soak, what the operation brought is verified.

use regionwise_cli::{Common, Context, Failure, Report, operation_id, report};
use regionwise_controller::{Operation, close};

use crate::CloseArgs;

pub(crate) async fn run(
    common: &Common,
    args: &CloseArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let region = common.region(&topology, &args.region)?;
    let id = operation_id(Some(&args.operation), &region.name, context)?;
    let reach = context.reach(common, &topology)?;
    let operation = Operation {
        id: id.clone(),
        who: context.holder(),
        lock_ttl: topology.rollout.lock_ttl,
    };
    let say = |line: &str| context.progress.say(format!("{}: {line}", region.name));
    let ending = close(region, &reach.access, &operation, &say).await;
    Ok(report(&ending, &region.name, &id))
}
