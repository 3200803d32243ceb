//! An outage, seen by a naive client and by the same client with the layers.
//!
//! ```text
//! cargo run --release --example quickstart [-- --json]
//! ```
//!
//! Two servers on loopback ports follow the same script: healthy, an outage, a shaky recovery,
//! healthy. Each client calls its own server 200 times a second, and does not wait for earlier
//! calls. All figures are counted by the clients and the servers, on one monotonic clock. The
//! program takes 11 s. Both sides share this machine, so their latencies depend on its load.
//!
//! | client | behaviour |
//! |---|---|
//! | `naive` | up to 3 requests for a call, immediately one after the other; timeout 250 ms each |
//! | `stack` | the same limits, with the layers `JitterRetry`, `Breaker`, `FaultClassify` and `Timeout` |
//!
//! The stack has the default settings, except one:
//!
//! | setting | demo | default |
//! |---|---|---|
//! | breaker: `open_for` | 200 ms | 3 s |
//!
//! The outage lasts only 3 s, and a probe in the shaky phase can fail. With the default, the
//! circuit is open during most of the shaky phase, or longer. The share of answered calls:
//!
//! | client | runs | lowest | median | highest |
//! |---|---|---|---|---|
//! | naive | 24 | 61.7 % | 61.9 % | 62.2 % |
//! | stack | 24 | 59.2 % | 69.6 % | 71.3 % |
//! | stack with the default `open_for` | 5 | 27.3 % | 30.4 % | 61.9 % |
//!
//! `clients.rs` builds both clients. Start reading there.

mod clients;
mod intro;
mod load;
mod progress;
mod report;
mod screen;
mod script;
mod server;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower::BoxError;

use crate::clients::{Naive, Stack};
use crate::load::{SharedLog, generate_load};
use crate::progress::{Progress, Side, show_transition};
use crate::report::Figures;
use crate::screen::Screen;
use crate::script::Script;
use crate::server::Server;

const USAGE: &str = "usage: quickstart [--json]";

#[tokio::main]
async fn main() -> ExitCode {
    let mut json = false;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--json") => json = true,
            Some("--help" | "-h") => {
                println!("{USAGE}\n\n  --json  print only the figures, as one JSON object");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprintln!("unknown argument `{}`\n{USAGE}", argument.display());
                return ExitCode::from(2);
            }
        }
    }
    match run(json).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the script and prints the figures.
async fn run(json: bool) -> Result<(), BoxError> {
    // reqwest is built with TLS for the other examples, and needs a provider of cryptography.
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed");

    let screen = Arc::new(if json { Screen::silent() } else { Screen::new() });
    screen.print(&intro::text()?);

    // The script starts a little later, when both servers are running.
    let script = Script::new(Instant::now() + Duration::from_millis(100));
    let (naive_server, naive_url) = Server::start(script).await?;
    let (stack_server, stack_url) = Server::start(script).await?;

    let naive = Side { name: "naive", log: SharedLog::default(), server: naive_server };
    let stack = Side { name: "stack", log: SharedLog::default(), server: stack_server };
    let naive_client = Naive::new(naive_url)?;
    let transition_screen = Arc::clone(&screen);
    let stack_client = Stack::new(stack_url, move |transition| {
        show_transition(&transition_screen, script, transition);
    })?;

    let mut progress = Progress::new(Arc::clone(&screen), script, [naive.clone(), stack.clone()]);
    let load = async {
        tokio::join!(
            generate_load(naive_client, script, naive.log.clone()),
            generate_load(stack_client, script, stack.log.clone()),
        )
    };
    tokio::select! {
        _ = load => {}
        () = progress.run() => {}
    }
    progress.show_second();
    screen.finish_progress();

    let naive = Figures::of(&naive, script);
    let stack = Figures::of(&stack, script);
    if json {
        writeln!(io::stdout(), "{}", report::json(&naive, &stack))?;
    } else {
        screen.print(&report::table(&screen, &naive, &stack));
        screen.print("\nNext: README.md explains the layers, and shows how to add them to your own client.");
    }
    Ok(())
}
