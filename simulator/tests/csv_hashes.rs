//! The tables of the quick set have the same bytes on every machine.
//!
//! A change of the layers, of their defaults or of the simulation may change a hash. Look at the
//! figures then, and write the new hashes with `UPDATE_CSV_HASHES=1 cargo test -p simulator`.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use simulator::scenarios::{ALL, Scenario};

/// How many cases of a scenario the quick set has at most.
const CASES: usize = 8;

#[test]
fn csv_of_quick_set_has_the_recorded_hashes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/csv_hashes.txt");
    let mut hashes = String::new();
    for scenario in ALL {
        writeln!(hashes, "{:016x} {}", fnv_1a(quick_csv(&scenario).as_bytes()), scenario.name).unwrap();
    }
    if env::var_os("UPDATE_CSV_HASHES").is_some() {
        fs::write(&path, &hashes).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap();
    assert_eq!(hashes, recorded, "the tables have changed: see the head of this test");
}

/// Runs some cases of a scenario, evenly taken from all of them, with one seed.
fn quick_csv(scenario: &Scenario) -> String {
    let cases = (scenario.cases)();
    let step = cases.len().div_ceil(CASES);
    let quick: Vec<_> = cases.into_iter().step_by(step).collect();
    scenario.run(&quick, 1, || ()).csv()
}

/// Returns the FNV-1a hash, whose parameters are those of its authors.
fn fnv_1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[test]
fn fnv_1a_has_the_published_values() {
    assert_eq!(fnv_1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv_1a(b"foobar"), 0x8594_4171_f739_67e8);
}
