//! The README, and the files for Docker.

use std::fs;
use std::path::Path;
use std::time::Duration;

use circuit_manager::config::Config;
use circuit_manager::health::HealthSettings;
use circuit_manager::settings::CircuitSettings;
use circuit_manager::store::WriterSettings;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
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
    for folder in ["src", "tests"] {
        read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut sources);
    }
    let readme = read("README.md");
    let (_, table) = readme.split_once("| number | requirement | test |").unwrap();
    let mut all_numbers = Vec::new();
    for row in table.lines().skip(2) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, numbers, _, tests, _] = cells[..] else { panic!("{row}") };
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
        all_numbers.extend(numbers.split(", ").map(|number| number.parse::<u32>().unwrap()));
    }
    all_numbers.sort_unstable();
    assert_eq!(all_numbers, (1..=78).collect::<Vec<_>>());
}

#[test]
fn documented_configuration_has_the_defaults() {
    let readme = read("README.md");
    let (_, text) = readme.split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let config: Config = toml::from_str(text).unwrap();
    assert_eq!(config.listen, Some("127.0.0.1:8080".parse().unwrap()));
    assert_eq!(config.simulate, Some(0));
    assert_eq!(config.health, HealthSettings::default());
    assert_eq!(config.ping().unwrap(), Config::default().ping().unwrap());
    assert_eq!(config.writer().unwrap().counts_interval, WriterSettings::default().counts_interval);
    let agents = config.agents().unwrap();
    assert_eq!(agents.default, CircuitSettings::default());
    let only_names: Config = toml::from_str("[agents.search]").unwrap();
    let default = &only_names.agents().unwrap().by_name["search"];
    let documented = &agents.by_name["search"];
    assert_eq!((documented.interval, documented.timeout), (default.interval, default.timeout));
    assert_eq!(documented.circuit.to_config().unwrap().open_for(), Duration::from_secs(10));
}

/// The files cannot be run without Docker. The commands in them are those of the program.
#[test]
fn docker_files_use_existing_settings() {
    let cli = read("src/cli.rs");
    let files = read("compose.yaml") + &read("Dockerfile");
    let mut variables: Vec<_> = files
        .split(|end: char| !end.is_ascii_uppercase() && end != '_')
        .filter(|word| word.starts_with("CIRCUIT_MANAGER_"))
        .collect();
    variables.dedup();
    assert!(variables.contains(&"CIRCUIT_MANAGER_DATABASE"), "{variables:?}");
    for variable in variables {
        assert!(cli.contains(&format!("env = \"{variable}\"")), "the program does not read {variable}");
    }
}
