//! The program `circuit-manager`.

mod cli;
mod demo;
mod logs;
mod output;
mod serve;
mod signals;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use circuit_manager::openapi;
use tokio::runtime::Runtime;
use utoipa::OpenApi;

use crate::cli::{Cli, Command, DemoArgs, ServeArgs};
use crate::output::{print, print_error};

/// The server cannot start, or has failed.
const FAILED: u8 = 1;
/// The command line, the configuration or the token file is invalid. `clap` exits with this code,
/// too.
const INVALID: u8 = 2;

const NO_THREADS: &str = "the threads cannot be started; check the limits of the system";

fn main() -> ExitCode {
    let (cli, matches) = Cli::parse_args();
    let result = match cli.command {
        Command::Serve(args) => return run_server(args, &matches),
        Command::Demo(args) => run_demo(&args),
        Command::Openapi => print_document(),
    };
    exit_code(result)
}

fn run_server(args: ServeArgs, matches: &clap::ArgMatches) -> ExitCode {
    let (_, matches) = matches.subcommand().expect("`serve` is a subcommand");
    let prepared = args.resolve(matches).map_err(anyhow::Error::from).and_then(serve::prepare);
    match prepared {
        Ok(server) => exit_code(serve::run(server)),
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(INVALID)
        }
    }
}

fn run_demo(args: &DemoArgs) -> Result<()> {
    let runtime = Runtime::new().context(NO_THREADS)?;
    runtime.block_on(async {
        tokio::select! {
            result = demo::run(args.json) => result,
            // The server of the demo is killed when its handle is dropped.
            _ = tokio::signal::ctrl_c() => bail!("the demo was interrupted"),
        }
    })
}

fn print_document() -> Result<()> {
    print(openapi::Document::openapi().to_pretty_json()?)
}

fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(FAILED)
        }
    }
}
