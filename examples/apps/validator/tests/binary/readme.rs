//! The README.

use std::fs;
use std::path::Path;
use std::time::Duration;

use validator::config::Config;
use validator::timeouts::{TIMEOUTS, get_timeout};

/// The requirements without a test.
const WITHOUT_TEST: [u32; 3] = [30, 31, 56];

fn read_readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Appends the sources of a folder.
fn read_sources(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, sources);
        } else {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_requirement_names_an_existing_test() {
    let mut sources = String::new();
    read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut sources);
    let readme = read_readme();
    let (_, table) = readme.split_once("| number | requirement | test |").unwrap();
    let mut all_numbers = Vec::new();
    for row in table.lines().skip(2) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, numbers, _, tests, _] = cells[..] else { panic!("{row}") };
        let numbers: Vec<u32> = numbers.split(", ").map(|number| number.parse().unwrap()).collect();
        if tests == "–" {
            assert!(numbers.iter().all(|number| WITHOUT_TEST.contains(number)), "{row}");
        } else {
            for test in tests.split(", ") {
                let name = test.trim_matches('`');
                assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
            }
        }
        all_numbers.extend(numbers);
    }
    assert_eq!(all_numbers, (1..=56).collect::<Vec<_>>());
}

#[test]
fn documented_configuration_has_the_defaults() {
    let readme = read_readme();
    let (_, text) = readme.split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let config: Config = toml::from_str(text).unwrap();
    config.external.check().unwrap();
    assert_eq!(config.validators.len(), 2);
    for (dimension, timeout) in TIMEOUTS {
        assert_eq!(get_timeout(dimension, &config.timeouts), timeout, "{dimension}");
    }
    assert_eq!(config.timeouts.len(), TIMEOUTS.len());
    assert_eq!(get_timeout("other", &config.timeouts), Duration::from_secs(60));

    let defaults = Config::default();
    assert_eq!(config.concurrency, defaults.concurrency);
    assert_eq!(config.resilience, defaults.resilience);
    assert_eq!(config.external.timeout, defaults.external.timeout);
    assert_eq!(config.external.max_attempts, defaults.external.max_attempts);
}
