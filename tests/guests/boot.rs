//! The guests themselves: they are gone afterwards, however a test ends.

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use regionwise_lab::guests::{Guests, Machine, System};
use regionwise_lab::processes::marked;

use crate::world;

fn namespaces() -> String {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// For the end of a test that has shown everything else.
pub(crate) fn nothing_of_them_outlives_a_panic(guests: Guests) {
    let (directory, namespace) = (guests.directory().to_owned(), guests.namespace().to_owned());
    assert!(!guests.all()[0].console().is_empty());
    assert!(!marked(&directory).is_empty());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _held = guests;
        panic!("as a test that fails");
    }));
    assert!(panicked.is_err());
    assert!(
        marked(&directory).is_empty(),
        "a guest has outlived its test"
    );
    assert!(!namespaces().contains(&namespace), "{}", namespaces());
}

/// Tells the test below, run again as a process of its own, to leave a guest behind.
const LEAVE: &str = "REGIONWISE_TEST_LEAVE_GUEST";

#[test]
#[ignore = "guests: scripts/test runs them as root"]
fn what_a_killed_test_leaves_ends_when_the_next_one_starts() {
    let machines = [Machine::bare("web-1")];
    if std::env::var_os(LEAVE).is_some() {
        let _guests = world::start(System::Debian12, "killed", &machines);
        println!("\nbooted");
        // Until the other side kills this process.
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    let mut left = Command::new(std::env::current_exe().unwrap());
    left.args([
        "--ignored",
        "--exact",
        "--nocapture",
        "boot::what_a_killed_test_leaves_ends_when_the_next_one_starts",
    ]);
    let mut left = left
        .env(LEAVE, "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(left.stdout.take().unwrap()).lines();
    let said: Vec<String> = said
        .map(Result::unwrap)
        .take_while(|line| line != "booted")
        .collect();
    left.kill().unwrap();
    left.wait().unwrap();
    if said.iter().any(|line| line.starts_with("skipped: ")) {
        println!("{}", said.join("\n"));
        return;
    }
    let directory = world::directory("killed");
    let before = marked(&directory);
    assert_eq!(before.len(), 1, "the guest of the killed test runs on");
    let guests = world::start(System::Debian12, "killed", &machines).unwrap();
    let now = marked(guests.directory());
    assert_eq!(now.len(), 1);
    assert_ne!(now, before, "its guest was ended, and this is another");
}
