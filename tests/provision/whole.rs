//! Three regions from an empty account to servers that are set up: what all of it asks of the provider.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::world::{REGIONS, World};

/// Three regions with everything in them, and nothing ordered yet.
fn world() -> World {
    let world = World::new();
    world.change(
        "volume_gb = 200 }",
        "volume_gb = 200, app = \"env:SHOP_DSN\" }",
    );
    world.pack();
    world
}

/// One region in one run, which must go well: its servers boot while it waits for them.
fn made(world: &World, region: &str) {
    let mut command = world.setting_up(&["--region", region]);
    command.env("SHOP_DSN", "postgres://shop:swordfish9@127.0.0.1:6432/shop");
    for (node, name) in [
        "US_PRIMARY",
        "US_SIN",
        "US_DR",
        "EU_PRIMARY",
        "EU_NBG",
        "EU_HEL",
    ]
    .iter()
    .enumerate()
    {
        let address = format!("postgres://lag:hunter2hunter2@[fd00::{}]/shop", node + 1);
        command.env(format!("{name}_DSN"), address);
    }
    let mut run = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while run.try_wait().unwrap().is_none() {
        world.boot();
        thread::sleep(Duration::from_millis(20));
    }
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[test]
fn three_regions_of_fourteen_servers_are_ordered_and_set_up_in_209_requests_and_one_look_at_each_action()
 {
    let world = world();
    for region in REGIONS {
        made(&world, region);
    }
    let seen = world.hetzner.seen();
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for one in &seen {
        let path: Vec<&str> = one
            .path
            .split('/')
            .map(|part| {
                if part.parse::<u64>().is_ok() {
                    "N"
                } else {
                    part
                }
            })
            .collect();
        *asked
            .entry(format!("{} {}", one.method, path.join("/")))
            .or_default() += 1;
    }
    // Orders 127; 82 are the labels of 14 first sessions and of their keys, each read before it is written.
    assert!(seen.len() <= 209, "{} requests: {asked:#?}", seen.len());
    let (_, twice) = world.count();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(world.hetzner.servers().len(), 14);
}
