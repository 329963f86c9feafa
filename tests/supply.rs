//! What the binary is made of: whose code, under which licences, and how much of it twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what went wrong by failing there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use spdx::{Expression, Licensee, ParseMode};

/// None of them asks more of those who pass the binary on than to keep its notices.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    // Data only: the roots that Mozilla trusts.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// What is there in two versions, and who holds the older one.
const TWICE: &[(&str, &str)] = &[
    ("base64", "ureq has the older one"),
    ("block-buffer", "sha2 0.10"),
    ("cpufeatures", "sha2 0.10"),
    ("crypto-common", "sha2 0.10"),
    ("digest", "sha2 0.10"),
    ("fallible-iterator", "tokio-postgres has the older one"),
    ("getrandom", "ring and tempfile have the older ones"),
    ("sha2", "mysql_common has 0.10"),
    ("shlex", "bindgen has the older one, at build time; not in the binary"),
    ("syn", "macros at build time; not in the binary"),
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The packages that the program is built from, for this kind of machine: itself, and what it needs to run or to be built.
fn packages() -> Vec<Package> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), target])
        .exec()
        .expect("cargo metadata");
    let own = metadata.packages.iter().find(|package| package.name.as_str() == "unstuck").unwrap().id.clone();
    let mut found = BTreeSet::new();
    collect(&metadata, &own, &mut found);
    metadata.packages.into_iter().filter(|package| found.contains(&package.id)).collect()
}

fn collect(metadata: &Metadata, id: &PackageId, found: &mut BTreeSet<PackageId>) {
    if !found.insert(id.clone()) {
        return;
    }
    let node = &metadata.resolve.as_ref().unwrap()[id];
    for dependency in &node.deps {
        if dependency.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development) {
            collect(metadata, &dependency.pkg, found);
        }
    }
}

#[test]
fn every_licence_is_one_that_we_may_pass_on() {
    let allowed: Vec<Licensee> = LICENCES.iter().map(|licence| Licensee::parse(licence).unwrap()).collect();
    for package in packages() {
        let licence = package.license.as_deref().unwrap_or_default();
        let expression = Expression::parse_mode(licence, ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{} has no licence that can be read: {error}", package.name));
        let met = expression.evaluate(|asked| allowed.iter().any(|licence| licence.satisfies(asked)));
        assert!(met, "{} is under {licence}", package.name);
        let source = package.source.as_ref().map(ToString::to_string);
        assert!(source.is_none_or(|source| source == REGISTRY), "{} is not from the registry", package.name);
    }
}

#[test]
fn nothing_is_there_twice_without_a_reason() {
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    for package in packages() {
        *versions.entry(package.name.to_string()).or_default() += 1;
    }
    let twice: Vec<&str> = versions.iter().filter(|(_, count)| **count > 1).map(|(name, _)| name.as_str()).collect();
    let explained: Vec<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, explained, "see `cargo tree --duplicates`");
}

#[test]
fn the_documents_state_how_many_there_are() {
    let stated = format!("{} crates", packages().len() - 1);
    let architecture = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.contains(&stated), "ARCHITECTURE.md does not say: {stated}");
}
