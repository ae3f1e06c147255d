//! Arrows between crates point downwards only (ARCHITECTURE.md, code map).

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// From top to bottom. A crate may use those of lower layers only: adapters never use each other.
const LAYERS: &[&[&str]] = &[
    &["regionwise"],
    &["cli"],
    &["controller", "mover", "provisioner"],
    &["postgres", "remote", "host", "github", "hetzner", "lab"],
    &["protocol", "provision"],
    &["rollout", "relocation", "topology"],
];

/// Crates that decide: no I/O may be within their reach.
const PURE: &[&str] = &["rollout", "relocation", "topology", "protocol", "provision"];

const FORBIDDEN_IN_PURE: &[&str] = &[
    "tokio",
    "reqwest",
    "rustix",
    "tokio-postgres",
    "tempfile",
    "indicatif",
    "axum",
];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .unwrap()
}

fn short(name: &str) -> &str {
    name.strip_prefix("regionwise-").unwrap_or(name)
}

fn layer(name: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&short(name)))
        .unwrap_or_else(|| {
            panic!("`{name}` stands in no layer: add it to LAYERS and to ARCHITECTURE.md")
        })
}

/// What a package needs to be built; what only its tests use does not count.
fn needs(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|d| d.kind != DependencyKind::Development)
        .map(|d| d.name.as_str())
}

#[test]
fn arrows_between_crates_point_downwards_only() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        for needed in needs(package).filter(|name| name.starts_with("regionwise")) {
            if layer(needed) <= layer(&package.name) {
                wrong.push(format!("{} -> {needed}", package.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that do not point downwards: {wrong:?}"
    );
}

#[test]
fn every_crate_stands_in_the_layers_once() {
    let named: Vec<&str> = LAYERS
        .iter()
        .flat_map(|layer| layer.iter().copied())
        .collect();
    let there: BTreeSet<String> = metadata()
        .packages
        .iter()
        .map(|package| short(&package.name).to_owned())
        .collect();
    assert_eq!(
        named
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>(),
        there
    );
    assert_eq!(named.len(), there.len());
}

#[test]
fn pure_crates_have_no_io_within_reach() {
    for package in metadata()
        .packages
        .iter()
        .filter(|package| PURE.contains(&short(&package.name)))
    {
        let found: Vec<&str> = needs(package)
            .filter(|name| FORBIDDEN_IN_PURE.contains(name))
            .collect();
        assert!(found.is_empty(), "`{}` uses {found:?}", package.name);
    }
}

#[test]
fn only_lab_and_tests_use_the_lab() {
    for package in metadata()
        .packages
        .iter()
        .filter(|package| package.name.as_str() != "regionwise")
    {
        assert!(
            needs(package).all(|name| name != "regionwise-lab"),
            "`{}` uses the lab",
            package.name
        );
    }
}
