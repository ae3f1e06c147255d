//! Moves there and back with random faults at random moments, for as long as somebody wants: `scripts/torture migrate`.
//!
//! In `scripts/test` it is a few runs with a new seed each time.

#![expect(
    clippy::print_stdout,
    clippy::use_debug,
    reason = "what a failing run says is what repeats it"
)]

use std::time::{Duration, Instant};

use regionwise_mover::Point;
use tokio::task::LocalSet;

use crate::crash::{Fault, Verb, arrived, brittle, strike};
use crate::dice::{self, Dice};
use crate::ledger::Ledger;
use crate::world::{Running, World};

/// Moves of one world: there, back, there; then back, or the purge.
const LEGS: u64 = 4;

/// One world of so many, and the first one, has servers of its own that are crashed too. They take turns.
const WORLDS_PER_BRITTLE_ONE: u64 = 8;

/// Of 95 % confidence, when nothing failed.
const RULE_OF_THREE: f64 = 3.0;

/// Points that a mover can be held at without help.
const POINTS: [Point; 12] = [
    Point::Prepared,
    Point::Claimed,
    Point::Staged,
    Point::Copying,
    Point::Copied,
    Point::Shipped,
    Point::Releasing,
    Point::Released,
    Point::Activated,
    Point::Mending,
    Point::Mended,
    Point::Recorded,
];

const PURGE_POINTS: [Point; 2] = [Point::Purging, Point::Purged];

/// Where other worlds share the servers.
const FAULTS: [Fault; 5] = [
    Fault::Kill,
    Fault::Term,
    Fault::Zombie,
    Fault::Cut,
    Fault::Mute,
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test]
async fn random_faults_lose_nothing() {
    let (runs, at_once) = (number("RUNS", 8), number("AT_ONCE", 2));
    let seed = dice::seed();
    let worlds = runs.div_ceil(LEGS);
    let only = std::env::var("WORLD")
        .ok()
        .map(|world| world.parse::<u64>().expect("a number"));
    let chosen: Vec<u64> = (0..worlds)
        .filter(|world| only.is_none_or(|only| only == *world))
        .collect();
    let next = std::rc::Rc::new(std::cell::RefCell::new(chosen.into_iter()));
    let clean = std::rc::Rc::new(std::cell::Cell::new(0_u64));
    let failed = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let began = Instant::now();
    let here = LocalSet::new();
    for _ in 0..at_once {
        let (next, clean, failed) = (next.clone(), clean.clone(), failed.clone());
        here.spawn_local(async move {
            loop {
                let Some(world) = next.borrow_mut().next() else {
                    return;
                };
                match tokio::task::spawn_local(tortured(seed, world)).await {
                    Ok(()) => clean.set(clean.get() + LEGS),
                    Err(_) => failed.borrow_mut().push(world),
                }
                let seconds = began.elapsed().as_secs_f64();
                println!(
                    "{} of {runs} runs clean after {seconds:.0} s, SEED={seed}",
                    clean.get()
                );
            }
        });
    }
    here.await;
    let failed = failed.take();
    let again: Vec<String> = failed
        .iter()
        .map(|world| format!("scripts/torture migrate --runs {runs} --seed {seed} --world {world}"))
        .collect();
    assert!(failed.is_empty(), "failed; again: {again:#?}");
    #[expect(clippy::cast_precision_loss, reason = "a percentage of a few thousand")]
    let bound = RULE_OF_THREE / clean.get() as f64 * 100.0;
    println!(
        "{} runs, none failed: with 95 % confidence fewer than {bound:.2} % do",
        clean.get()
    );
}

async fn tortured(seed: u64, number: u64) {
    let dice = Dice::new(seed).fork(number);
    if number.is_multiple_of(WORLDS_PER_BRITTLE_ONE) {
        let (_turn, world) = brittle().await;
        legs(number, &world, &Fault::ALL, dice).await;
    } else {
        legs(number, &World::ready().await, &FAULTS, dice).await;
    }
}

async fn legs(number: u64, world: &World, faults: &[Fault], mut dice: Dice) {
    let plan = world.plan().await;
    for leg in 0..LEGS {
        let verb = match leg {
            3 if dice.percent(50) => Verb::Purge,
            1 | 3 => Verb::Revert,
            _ => Verb::Run,
        };
        let began = Instant::now();
        let pace = Duration::from_millis(2 + dice.below(20));
        let ledger =
            Ledger::volume(world, &dice.fork(leg), pace, i64::try_from(leg).unwrap()).await;
        ledger.goes_on(1).await;
        for _ in 0..=dice.below(3) {
            let fault = *dice.one(faults);
            struck(number, world, verb, fault, &plan, &mut dice).await;
        }
        let struck = began.elapsed();
        begin(world, verb, &plan, &mut dice, None)
            .finish()
            .await
            .expect(0);
        ledger.goes_on(1).await;
        let moved = began.elapsed();
        let checked = ledger.close(world).await;
        arrived(world, verb).await;
        println!(
            "world {number}, leg {leg}: {checked}; faults until {struck:.1?}, moved until {moved:.1?}, checked until {:.1?}",
            began.elapsed()
        );
    }
}

/// A runner with random settings.
fn begin(world: &World, verb: Verb, plan: &str, dice: &mut Dice, hold: Option<String>) -> Running {
    let (lanes, size) = (
        (1 + dice.below(4)).to_string(),
        (1 + dice.below(12)).to_string(),
    );
    let word = verb.to_string();
    let mut words = vec![word.as_str(), "--plan", plan];
    if verb != Verb::Purge {
        words.extend(["--batch-size", &size, "--lanes", &lanes]);
    }
    let call = world.tool(&words);
    match hold {
        Some(point) => call.hold(&point).start(),
        None => call.start(),
    }
}

/// One runner, perhaps beside another, meets one fault.
async fn struck(number: u64, world: &World, verb: Verb, fault: Fault, plan: &str, dice: &mut Dice) {
    let point = match verb {
        Verb::Run | Verb::Revert => dice.one(&POINTS),
        Verb::Purge => dice.one(&PURGE_POINTS),
    };
    let at = format!("{point}#{}", 1 + dice.below(2));
    let at = dice.percent(60).then_some(at);
    // A crash takes the other one's connections too, and two purges wait for each other's quiet.
    let beside = dice.percent(25) && !fault.breaks_a_server() && verb != Verb::Purge;
    println!("world {number}, {verb}: {fault:?} at {at:?}, another beside it: {beside}");
    let beside = beside.then(|| begin(world, verb, plan, dice, None));
    let mut runner = begin(world, verb, plan, dice, at.clone());
    match at {
        Some(_) => {
            // It may have been through before.
            if !runner.is_held().await {
                runner.finish().await.expect(0);
                if let Some(beside) = beside {
                    beside.finish().await.expect(0);
                }
                return;
            }
        }
        None => tokio::time::sleep(Duration::from_millis(dice.below(1500))).await,
    }
    let mut another = dice.fork(1);
    strike(world, fault, runner, || {
        begin(world, verb, plan, &mut another.clone(), None)
    })
    .await;
    another.next();
    if let Some(beside) = beside {
        beside.finish().await.expect(0);
    }
}
