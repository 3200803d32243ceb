//! Runs scenarios, and writes a table and a figure of each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use indicatif::{ProgressBar, ProgressStyle};
use simulator::cli::{Command, USAGE, parse};
use simulator::scenarios::{ALL, Scenario};

fn main() -> ExitCode {
    let command = match parse(env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match command {
        Command::Help => print!("{USAGE}"),
        Command::List => list(),
        Command::Run { scenarios, seeds, out } => {
            for scenario in scenarios {
                if let Err((path, error)) = run(&scenario, seeds, &out) {
                    eprintln!("error: `{}` cannot be written: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn list() {
    for scenario in ALL {
        println!("{:<18}  {}", scenario.name, scenario.about);
    }
}

/// Runs a scenario and writes its files.
///
/// # Errors
///
/// Returns the path that cannot be written, with the reason.
fn run(scenario: &Scenario, seeds: u64, out: &Path) -> Result<(), (PathBuf, io::Error)> {
    // A folder that cannot be created shows before the run.
    fs::create_dir_all(out).map_err(|error| (out.to_owned(), error))?;
    let cases = (scenario.cases)();
    let progress = progress(scenario.name, cases.len() as u64 * seeds);
    let table = scenario.run(&cases, seeds, || progress.inc(1));
    progress.finish_and_clear();
    for (extension, content) in [("csv", table.csv()), ("svg", (scenario.figure)(&table).svg())] {
        let path = out.join(scenario.name).with_extension(extension);
        fs::write(&path, content).map_err(|error| (path.clone(), error))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Returns a progress bar. It is shown only if the output of errors is a terminal.
fn progress(name: &'static str, runs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}  {wide_bar}  {pos}/{len} runs, {eta} left");
    let style = style.expect("the template is valid");
    ProgressBar::new(runs).with_style(style).with_message(name)
}
