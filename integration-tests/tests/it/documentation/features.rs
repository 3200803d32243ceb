//! The tables of cargo features name the public features of the manifests.

use std::collections::BTreeSet;
use std::fs;

const CRATES: [&str; 5] = [
    "tower-breaker",
    "tower-breaker-admin",
    "tower-breaker-fleet",
    "tower-fault-classify",
    "tower-jitter-retry",
];

type Features = BTreeSet<String>;

fn read(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    fs::read_to_string(format!("{root}/{path}")).unwrap()
}

/// Returns the features of a crate that users may enable.
fn declared(package: &str) -> Features {
    let manifest: toml::Table = read(&format!("{package}/Cargo.toml")).parse().unwrap();
    let features = manifest["features"].as_table().unwrap().keys();
    features.filter(|name| *name != "default" && !name.starts_with("__")).cloned().collect()
}

/// Returns the names in backticks in one column of the tables below a heading.
fn listed(page: &str, heading: &str, column: usize) -> Features {
    let page = page.replace("//! ", "");
    let section = page.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading).skip(1);
    let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    rows.flat_map(|row| names(row, column)).collect()
}

/// Returns the names in backticks in one column of a row.
fn names(row: &str, column: usize) -> Vec<String> {
    row.split('|').nth(column).unwrap().split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

#[test]
fn feature_tables_of_crates_name_all_features() {
    for package in CRATES {
        for page in ["README.md", "src/lib.rs"] {
            let path = format!("{package}/{page}");
            assert_eq!(listed(&read(&path), "Features", 1), declared(package), "{path}");
        }
    }
}

#[test]
fn getting_started_names_all_features() {
    let page = read("docs/getting-started.md");
    let all: Features = CRATES.into_iter().flat_map(declared).collect();
    assert_eq!(listed(&page, "Add the dependencies", 2), all);
    // The third column names the crates that have the feature.
    for package in CRATES {
        let of_crate = |row: &&str| {
            let crates = row.split('|').nth(3).unwrap_or_default();
            crates.contains("all three crates") || crates.contains(&format!("`{package}`"))
        };
        let rows = page.lines().filter(|line| line.starts_with('|')).filter(of_crate);
        let named: Features = rows.flat_map(|row| names(row, 2)).collect();
        let missing: Vec<_> = declared(package).difference(&named).cloned().collect();
        assert!(missing.is_empty(), "{package}: {missing:?}");
    }
}
