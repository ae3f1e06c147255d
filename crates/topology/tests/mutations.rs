//! Damaged files: the parser never panics, and never accepts what the schema of editors refuses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use regionwise_topology::{Problem, Topology};

const EXAMPLES: [&str; 3] = [
    include_str!("../../../examples/one-server.toml"),
    include_str!("../../../examples/three-regions.toml"),
    include_str!("../../../examples/from-nothing.toml"),
];

/// Pieces that a file is made of, and some that it should not hold.
const PIECES: [&str; 28] = [
    "\"",
    "'",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\n",
    "#",
    "0",
    "-1",
    "nan",
    "1e999",
    "true",
    "\"\"",
    "[]",
    "{}",
    "\"env:X\"",
    "\"60s\"",
    "2026-01-01",
    "traffic",
    "\u{feff}",
    "\\u0000",
    "é",
    "\u{1f5fa}",
];

#[derive(Clone, Debug)]
enum Damage {
    Byte(u8),
    Delete(usize),
    Insert(&'static str),
    /// Copies a part of the file to another place of it.
    Copy(prop::sample::Index, usize),
    /// Puts another line in the place of a line.
    SwapLine(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<u8>().prop_map(Damage::Byte),
        (1..40_usize).prop_map(Damage::Delete),
        prop::sample::select(PIECES.as_slice()).prop_map(Damage::Insert),
        (any::<prop::sample::Index>(), 1..60_usize)
            .prop_map(|(from, length)| Damage::Copy(from, length)),
        any::<prop::sample::Index>().prop_map(Damage::SwapLine),
    ]
}

/// A value of the first example, and what texts that nearly fit it are made of.
const VALUES: [(&str, &[&str]); 9] = [
    ("shop", &["a", "b", "Z", "-", "0", "_", " "]),
    (
        "https://shop.example",
        &[
            "http", "HTTPS", "s", "ftp", ":", "/", "//", "\\\\", "x", "[::1]", "80", ".", "?", "#",
            "@", " ", "%20", "\\t",
        ],
    ),
    (
        "203.0.113.7",
        &[
            "1", "10", "255", ".", "::", ":", "ffff", "%", "/8", "x", "0",
        ],
    ),
    (
        "env:MAIN_DSN",
        &[
            "env", "file", ":", "A", "_", "0", "-", "/", "~", " ", "\\u0000",
        ],
    ),
    (
        "file:~/.ssh/regionwise",
        &["env", "file", ":", "A", "/", "~", "\\n", "é"],
    ),
    (
        "known_hosts",
        &["/", ".", "known_hosts", " ", "\\u007f", "\\n"],
    ),
    ("regionwise", &["a", "_", "-", "0", "R", "$", " "]),
    (
        "60s",
        &["0", "1", "30", "s", "m", "ms", "h", "d", "M", " ", ".", "-"],
    ),
    (
        "0s",
        &["0", "1", "30", "s", "m", "ms", "h", "d", "M", " ", ".", "-"],
    ),
];

fn apply(bytes: &mut Vec<u8>, at: prop::sample::Index, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    let start = at.index(bytes.len());
    match damage {
        Damage::Byte(byte) => bytes[start] = *byte,
        Damage::Delete(length) => drop(bytes.drain(start..(start + length).min(bytes.len()))),
        Damage::Insert(text) => drop(bytes.splice(start..start, text.bytes())),
        Damage::Copy(from, length) => {
            let from = from.index(bytes.len());
            let part = bytes[from..(from + length).min(bytes.len())].to_vec();
            bytes.splice(start..start, part);
        }
        Damage::SwapLine(other) => {
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            let (first, second) = (at.index(lines.len()), other.index(lines.len()));
            lines.swap(first, second);
            *bytes = lines.join(&b'\n');
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        rng_seed: RngSeed::Fixed(2026),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_text_is_accepted_only_if_the_pattern_of_the_schema_accepts_it(
        (value, pieces) in prop::sample::select(VALUES.as_slice()).prop_flat_map(|(value, pieces)| {
            (Just(value), prop::collection::vec(prop::sample::select(pieces), 0..7))
        }),
    ) {
        let example = format!("{}\n[gates.lag]\nsustained = \"60s\"\n\n[rollout]\nsoak = \"0s\"\n", EXAMPLES[0]);
        let quoted = format!("\"{value}\"");
        prop_assert!(example.contains(&quoted));
        let text = example.replacen(&quoted, &format!("\"{}\"", pieces.concat()), 1);
        if Topology::parse("regions.toml", &text).is_ok() {
            let value: serde_json::Value = toml::from_str(&text).unwrap();
            prop_assert!(SCHEMA.is_valid(&value), "accepted, but not by the schema: {}", pieces.concat());
        }
    }

    #[test]
    fn a_damaged_example_is_read_or_refused_with_a_place_in_it(
        example in prop::sample::select(EXAMPLES.as_slice()),
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..5),
    ) {
        let mut bytes = example.as_bytes().to_vec();
        for (at, damage) in &damages {
            apply(&mut bytes, *at, damage);
        }
        match Topology::parse_bytes("regions.toml", &bytes) {
            Ok(_) => {
                let value: serde_json::Value = toml::from_slice(&bytes).unwrap();
                prop_assert!(SCHEMA.is_valid(&value), "accepted, but not by the schema: {}", value);
            }
            Err(problems) => {
                let lines = bytes.split(|byte| *byte == b'\n').count();
                let problems: Vec<&Problem> = problems.iter().collect();
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!((1..=lines).contains(&problem.line), "{}", problem);
                    // The words for a document that the schema accepts and serde does not: there must be none.
                    prop_assert!(!problem.found.contains("not as the schema describes"), "{}", problem);
                }
            }
        }
    }
}

static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft7::new(&Topology::json_schema()).unwrap());
