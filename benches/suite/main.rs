//! Compares the layers of this workspace with other crates, in one interleaved run.
//!
//! `cargo bench --manifest-path benches/Cargo.toml -- --help` prints the options.

mod figure;
mod measure;
mod memory;
mod options;
mod record;
mod report;
mod statistics;
mod table;
mod threads;

use std::error::Error;
use std::process::ExitCode;

use tower_resilience_benchmarks::{BARE, LOCK, Variant, is_ours, variants};

use options::{Action, Options, USAGE};
use record::{Record, merge};

fn main() -> ExitCode {
    let options = match Options::from_arguments() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.action == Action::Help {
        println!("{USAGE}");
        return Ok(());
    }
    let variants = selected(options)?;
    if options.action == Action::List {
        for variant in &variants {
            println!("{}", variant.label());
        }
        return Ok(());
    }
    let mut runs = Vec::new();
    for _ in 0..options.runs {
        runs.push(measure_once(&variants, options)?);
    }
    let records = merge(&runs);
    table::print(&records);
    if options.action == Action::Report {
        report::write(&records, runs.len())?;
    }
    Ok(())
}

/// Returns the selected variants, and those that they are compared with.
fn selected(options: &Options) -> Result<Vec<Variant>, String> {
    let is_selected = |variant: &Variant| {
        let label = variant.label();
        (!options.ours || is_ours(variant.subject)) && options.words.iter().all(|word| label.contains(word))
    };
    let all = variants();
    let mut references = vec![BARE, LOCK];
    references.extend(all.iter().filter(|variant| is_selected(variant)).map(|variant| variant.bare));
    if !all.iter().any(is_selected) {
        return Err("no variant is selected; `--list` without words prints all labels".to_owned());
    }
    Ok(all.into_iter().filter(|variant| references.contains(&variant.row) || is_selected(variant)).collect())
}

fn measure_once(variants: &[Variant], options: &Options) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut records = Vec::new();
    if options.includes("time") {
        records.extend(measure::interleaved(variants, options.effort));
    }
    if options.includes("threads") {
        records.extend(threads::scaling(variants, options.effort));
    }
    if options.includes("memory") {
        records.extend(memory::records()?.into_iter().filter(|record| {
            let is_measured =
                |variant: &Variant| variant.row == record.row && variant.subject == record.subject;
            match record.kind {
                record::Kind::Allocations => variants.iter().any(is_measured),
                _ => options.words.is_empty() && (!options.ours || is_ours(&record.subject)),
            }
        }));
    }
    Ok(records)
}
