//! The README.

use std::fs;
use std::path::{Path, PathBuf};

use shared_llm_breaker::config::Options;

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read_readme() -> String {
    fs::read_to_string(package().join("README.md")).unwrap()
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
    read_sources(&package().join("tests"), &mut sources);
    let readme = read_readme();
    let (_, table) = readme.split_once("| number | requirement | test |").unwrap();
    let mut all_numbers = Vec::new();
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, numbers, _, tests, _] = cells[..] else { panic!("{row}") };
        all_numbers.extend(numbers.split(", ").map(|number| number.parse::<u32>().unwrap()));
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}(")), "there is no test {name}");
        }
    }
    assert_eq!(all_numbers, (1..=51).collect::<Vec<_>>());
}

#[test]
fn documented_configuration_has_the_defaults() {
    let readme = read_readme();
    let (_, text) = readme.split_once("```toml\n").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    fs::write(&file, text).unwrap();
    let documented = Options::default().resolve(Some(&file)).unwrap();
    let default = Options::default().resolve(None).unwrap();
    assert_eq!(documented, default);
    // Each setting is in the file, at least in a comment.
    let options = fs::read_to_string(package().join("src/config.rs")).unwrap();
    let fields = options.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": Option<"));
    for (field, _) in fields.filter(|(field, _)| !field.contains(' ') && *field != "api_key") {
        assert!(text.contains(&format!("{field} = ")), "{field}");
    }
}
