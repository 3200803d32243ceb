//! Two processes that share a circuit.
//!
//! Start it in two shells, with the same store:
//!
//! ```sh
//! cargo run --release -p fleet-example -- --file /tmp/fleet
//! ```
//!
//! Each process calls a simulated backend ten times per second. Then type `down` in one shell: the
//! backend fails for both processes, and the circuit opens in both within milliseconds. `up`
//! repairs the backend. `README.md` describes what else to try.

mod backend;
mod options;
mod shell;

use std::error::Error;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tower_breaker::{BreakerConfig, BreakerError, Circuit};
use tower_breaker_fleet::{CircuitRecord, Fleet, Quorum};

use crate::backend::Backend;
use crate::options::Options;
use crate::shell::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::from_arguments();
    if let Err(error) = run(&options).await {
        eprintln!("fleet-example: {}", with_causes(&*error));
        std::process::exit(1);
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let circuit = Circuit::new(
        BreakerConfig::builder()
            .name("search")
            .consecutive_failures(5)
            .consecutive_failures_span(Duration::ZERO) // also within the same millisecond
            .open_for(Duration::from_secs(10))
            .open_jitter(0.0)
            .build()?,
    );
    circuit.on_transition(|change| {
        println!("* {} is {}: {}", change.circuit, change.to, change.reason);
    });

    let (fleet, agent) = options
        .fleet()
        .await?
        .namespace("fleet-example")
        .instance(&options.instance)
        // The first process that opens its circuit opens it for all.
        .quorum(Quorum::at_least(1))
        .build()?;
    let agent = tokio::spawn(agent);
    fleet.share(&circuit)?;
    // Before the first call: the fleet may have opened the circuit before this process started.
    if !fleet.ready(Duration::from_secs(2)).await {
        println!("* the store does not answer; this process decides for itself");
    }

    println!("commands: {}", Command::HELP);
    work(&circuit, &fleet, &Backend::new(&options.backend)).await;

    fleet.leave().await;
    agent.await?;
    Ok(())
}

/// Calls the backend and runs the commands of the user, until the user ends the program.
async fn work(circuit: &Circuit, fleet: &Fleet, backend: &Backend) {
    let mut commands = shell::commands();
    let mut next_call = interval(Duration::from_millis(100));
    next_call.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_report = interval(Duration::from_secs(1));
    let mut answers = Answers::default();
    loop {
        tokio::select! {
            _ = next_call.tick() => answers.add(&circuit.call(backend.request()).await),
            _ = next_report.tick() => {
                println!("{}", report(circuit, fleet, &answers));
                answers = Answers::default();
            }
            Some(command) = commands.recv() => match command {
                Command::Down => backend.set_down(true),
                Command::Up => backend.set_down(false),
                Command::Operate(operation) => match fleet.operate(circuit.name(), operation).await {
                    Ok(record) => println!("* epoch {}: done", record.epoch),
                    Err(error) => println!("* {}", with_causes(&error)),
                },
                Command::Quit => return,
            },
            // An error: there is no signal to wait for, so the command `quit` ends the program.
            Ok(()) = tokio::signal::ctrl_c() => return,
        }
    }
}

/// The outcomes of the calls since the last report.
#[derive(Default)]
struct Answers {
    succeeded: u32,
    failed: u32,
    rejected: u32,
}

impl Answers {
    fn add<T, E>(&mut self, result: &Result<T, BreakerError<E>>) {
        match result {
            Ok(_) => self.succeeded += 1,
            Err(BreakerError::Rejected(_)) => self.rejected += 1,
            Err(_) => self.failed += 1,
        }
    }
}

/// Returns one line: the circuit, the calls, and the fleet's view of the circuit.
fn report(circuit: &Circuit, fleet: &Fleet, answers: &Answers) -> String {
    let status = circuit.status();
    let Answers { succeeded, failed, rejected } = answers;
    let left =
        status.retry_after.map_or_else(String::new, |left| format!(" for {:.1} s", left.as_secs_f64()));
    let calls = format!("calls: {succeeded} ok, {failed} failed, {rejected} rejected");
    format!("{}{left}  {calls}  {}", status.state, view(circuit, fleet))
}

/// Returns the fleet's view of the circuit.
fn view(circuit: &Circuit, fleet: &Fleet) -> String {
    if !fleet.status().attached {
        return "the store does not answer; this process decides for itself".to_owned();
    }
    let Some(view) = fleet.circuit_status(circuit.name()) else { return String::new() };
    let decision = view.record.map_or_else(String::new, |record| {
        let CircuitRecord { state, manual, by, reason, .. } = record;
        let state = manual.map_or(state.as_str(), |manual| manual.as_str());
        format!("  fleet: {state}, by {by}: {reason}")
    });
    format!("processes: {}{decision}", view.members)
}

/// Returns an error and its causes in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
