//! The README.

use std::fs;
use std::path::Path;

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    read_sources(&folder.join("src"), &mut sources);
    read_sources(&folder.join("tests"), &mut sources);
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();

    let mut numbers = Vec::new();
    let (_, table) = readme.split_once("| number | requirement | test |").unwrap();
    for row in table.lines().skip(2) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, number, _, tests, _] = cells[..] else { panic!("{row}") };
        for test in tests.split(", ") {
            let name = test.trim_matches('`');
            assert!(sources.contains(&format!("fn {name}(")), "row {number}: there is no test {name}");
        }
        numbers.push(number.parse::<u32>().unwrap());
    }
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
}
