//! Two clients, one upstream that goes down and comes back, and what the layers change.
//!
//! ```text
//! cargo run --release --example quickstart [-- --json]
//! ```
//!
//! Two servers on loopback ports play the same script at the same time: healthy, an outage (503
//! with `Retry-After`, connections reset, answers that hang), a shaky recovery, healthy. Each is
//! asked 200 times a second, whatever becomes of the calls: one by a naive client, one by the same
//! client behind the layers. Every figure is counted from what happened, by the clients and by the
//! servers, on one monotonic clock. Both share this machine, so that the times are those of a small
//! and busy one.
//!
//! The layers are put together in `clients.rs`; start reading there.

mod clients;
mod load;
mod progress;
mod report;
mod screen;
mod script;
mod upstream;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::Naive;
use crate::load::{Log, drive};
use crate::progress::{Progress, Side, tell_transition};
use crate::report::Figures;
use crate::screen::Screen;
use crate::script::Script;
use crate::upstream::Upstream;

const USAGE: &str = "usage: quickstart [--json]";

#[tokio::main]
async fn main() -> ExitCode {
    let mut json = false;
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--json") => json = true,
            Some("--help" | "-h") => {
                println!("{USAGE}\n\n  --json  print the figures as one JSON object, and nothing else");
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

/// Plays the script and prints what came of it.
async fn run(json: bool) -> Result<(), Box<dyn Error>> {
    let screen = Arc::new(if json { Screen::dark() } else { Screen::new() });
    // Time for both servers to start, so that neither client is early.
    let script = Script::new(Instant::now() + Duration::from_millis(100));
    let (naive_upstream, naive_url) = Upstream::start(script).await?;
    let (stack_upstream, stack_url) = Upstream::start(script).await?;

    let naive = Side { name: "naive", log: Log::default(), upstream: naive_upstream };
    let stack = Side { name: "stack", log: Log::default(), upstream: stack_upstream };
    let observer = Arc::clone(&screen);
    let layered =
        clients::stack(stack_url, move |transition| tell_transition(&observer, script, transition))?;

    let mut progress = Progress::new(Arc::clone(&screen), script, [naive.clone(), stack.clone()]);
    let load = async {
        tokio::join!(
            drive(Naive::new(naive_url)?, script, naive.log.clone()),
            drive(layered, script, stack.log.clone()),
        );
        reqwest::Result::Ok(())
    };
    tokio::select! {
        ended = load => ended?,
        () = progress.follow() => {}
    }
    progress.tell_second();
    screen.settle();

    let [naive, stack] = [naive, stack].map(|side| Figures::of(&side, script));
    if json {
        writeln!(io::stdout(), "{}", report::json(&naive, &stack))?;
    } else {
        screen.say(&report::table(&screen, &naive, &stack));
        screen.say("\nRead next: README.md, which says what each layer does and how to put them around your own client.");
    }
    Ok(())
}
