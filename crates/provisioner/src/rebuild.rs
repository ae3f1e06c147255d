//! A server is installed anew: its address and its volume stay, its disk goes, and it is born with a host key of its own again.

use regionwise_provision::cloud_config::TooLarge;
use regionwise_provision::{HOST_KEY, Kind, REBUILD, ServerSpec, Spec, Wanted};

use crate::apply::Done;
use crate::birth::Birth;
use crate::session::relabel;
use crate::stopped::{Stopped, Why};
use crate::{Narrator, Project};

/// Rebuilds a server that is there from the image that is wanted, with fresh user data, and waits until it runs.
///
/// The label of the new host key comes first. Until it is shown, that of the final key stands beside it: a run that is killed in
/// between leaves a server that shows the one or the other, and both are vouched for.
///
/// # Errors
/// [`Stopped`]; with [`Done::unsure`] nobody knows whether it was rebuilt.
pub async fn rebuild(
    project: &mut Project<'_>,
    wanted: &Wanted,
    user_data: &dyn Fn(&ServerSpec, &Birth) -> Result<String, TooLarge>,
    stop: &dyn Fn() -> bool,
    say: Narrator<'_>,
    done: &mut Done,
) -> Result<(), Stopped> {
    let what = format!("server `{}`", wanted.name);
    let id = project.inventory.id(Kind::Server, &wanted.name);
    let (Spec::Server(spec), Some(id)) = (&wanted.spec, id) else {
        return Err(Stopped::new(Why::Order, format!("{what} is not there")));
    };
    if stop() {
        return Err(Stopped::new(Why::Signal, "stopped before the rebuild"));
    }
    let birth = Birth::make().await;
    let birth = birth.map_err(|error| Stopped::new(Why::Order, error.to_string()))?;
    let user_data = user_data(spec, &birth);
    let user_data = user_data.map_err(|error| Stopped::new(Why::Order, error.to_string()))?;
    say(&format!("rebuilds {what} from {}.", spec.image));
    relabel(&project.hetzner, &wanted.name, |labels| {
        labels.insert(HOST_KEY.to_owned(), birth.label);
        labels.insert(REBUILD.to_owned(), "begun".to_owned());
    })
    .await?;
    let actions = match project.hetzner.rebuild(id, &spec.image, &user_data).await {
        Ok(actions) => actions,
        Err(error) => {
            done.unsure = Some(format!("the rebuild of {what}"));
            if !error.may_be_done() {
                // It stays as it was, and so do its labels.
                relabel(&project.hetzner, &wanted.name, |labels| {
                    labels.remove(HOST_KEY);
                    labels.remove(REBUILD);
                })
                .await?;
                done.unsure = None;
            }
            return Err(Stopped::by(&what, &error));
        }
    };
    done.rebuilt.push(wanted.name.clone());
    let settled = project.hetzner.settle(actions, stop).await;
    settled.map_err(|error| Stopped::by(&what, &error))?;
    let servers = project.hetzner.servers(stop).await;
    for server in servers.map_err(|error| Stopped::by(&what, &error))? {
        project.inventory.take(server);
    }
    Ok(())
}
