//! Compares the layers of this workspace with other crates, in one interleaved run.
//!
//! `cargo bench --manifest-path benches/Cargo.toml -- --help` prints the options.

mod measure;
mod options;
mod statistics;
mod table;

use std::process::ExitCode;

use tower_resilience_benchmarks::{BARE, LOCK, OURS, Variant, variants};

use options::{Options, USAGE};

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let variants: Vec<Variant> =
        variants().into_iter().filter(|variant| is_reference(variant) || options.selects(variant)).collect();
    if options.list {
        for variant in &variants {
            println!("{}", variant.label());
        }
        return ExitCode::SUCCESS;
    }
    table::print(&measure::interleaved(&variants, options.effort));
    ExitCode::SUCCESS
}

/// Returns whether the variant is one that the others are compared with, so that each run has it.
fn is_reference(variant: &Variant) -> bool {
    matches!(variant.row, BARE | LOCK)
}

impl Options {
    fn selects(&self, variant: &Variant) -> bool {
        let label = variant.label();
        (!self.ours || variant.subject == OURS) && self.words.iter().all(|word| label.contains(word))
    }
}
