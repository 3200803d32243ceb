//! The commands that read and change the store: `status` and `reset`.

use std::time::Duration;

use serde::Serialize;
use tower_breaker_fleet::{CircuitRecord, Fleet, FleetAction, FleetOperation, FleetState};

use super::{CommandError, SUCCESS};
use crate::breaker::open_store;
use crate::cli::{ResetArgs, StatusArgs};
use crate::config::StoreOptions;
use crate::output::{Console, json_line, line, printable};
use crate::settings::BreakerSettings;
use crate::state::CircuitState;

/// The breakers in one message of the store.
const PAGE: usize = 100;

/// A breaker in the store.
#[derive(Debug, Serialize)]
struct Breaker {
    name: String,
    state: CircuitState,
    /// How long it stays open.
    remaining_seconds: f64,
    reason: String,
    /// The worker or the person that caused the decision.
    by: String,
}

impl Breaker {
    /// The store forgets a breaker that is closed.
    fn unknown(name: String) -> Self {
        let state = CircuitState::Closed;
        Self { name, state, remaining_seconds: 0.0, reason: String::new(), by: String::new() }
    }
}

impl From<CircuitRecord> for Breaker {
    fn from(record: CircuitRecord) -> Self {
        let state = match record.state {
            FleetState::Open => CircuitState::Open,
            FleetState::HalfOpen => CircuitState::HalfOpen,
            _ => CircuitState::Closed,
        };
        let remaining = record.remaining.unwrap_or(Duration::ZERO);
        Self {
            name: record.circuit,
            state,
            remaining_seconds: if state == CircuitState::Open { remaining.as_secs_f64() } else { 0.0 },
            reason: record.reason,
            by: record.by,
        }
    }
}

/// Prints the breakers in the store.
pub(super) async fn status(arguments: StatusArgs, console: Console) -> Result<u8, CommandError> {
    let StatusArgs { common, store, name } = arguments;
    let fleet = connect(&store.with_file(common.config.as_deref()).map_err(CommandError::usage)?)?;
    let mut breakers: Vec<Breaker> = records(&fleet).await?.into_iter().map(Breaker::from).collect();
    if let Some(name) = name {
        breakers.retain(|breaker| breaker.name == name);
        if breakers.is_empty() {
            breakers.push(Breaker::unknown(name));
        }
    }
    fleet.leave().await;
    if console.is_json() {
        json_line(&breakers);
    } else if breakers.is_empty() {
        line("no breaker has opened");
    } else {
        print_table(&breakers);
    }
    Ok(SUCCESS)
}

/// Closes one breaker, or all.
pub(super) async fn reset(arguments: ResetArgs, console: Console) -> Result<u8, CommandError> {
    let ResetArgs { common, store, name, all: _ } = arguments;
    let fleet = connect(&store.with_file(common.config.as_deref()).map_err(CommandError::usage)?)?;
    let names = match name {
        Some(name) => vec![name],
        None => records(&fleet).await?.into_iter().map(|record| record.circuit).collect(),
    };
    for name in &names {
        let operation = FleetOperation::new(FleetAction::Reset).by("worker reset").reason("reset");
        fleet.operate(name, operation).await.map_err(CommandError::store)?;
    }
    fleet.leave().await;
    if console.is_json() {
        json_line(&names);
    } else {
        for name in names {
            line(format_args!("{name} is closed"));
        }
    }
    Ok(SUCCESS)
}

/// Starts the task that exchanges messages with the store. It ends with the program.
fn connect(store: &StoreOptions) -> Result<Fleet, CommandError> {
    let settings = BreakerSettings { namespace: store.namespace(), ..BreakerSettings::default() };
    let builder = open_store(&store.redis_url(), &settings).map_err(CommandError::usage)?;
    let (fleet, agent) = builder.build().map_err(CommandError::usage)?;
    tokio::spawn(agent);
    Ok(fleet)
}

/// Returns all records of the namespace.
async fn records(fleet: &Fleet) -> Result<Vec<CircuitRecord>, CommandError> {
    let mut records: Vec<CircuitRecord> = Vec::new();
    loop {
        let after = records.last().map(|record| record.circuit.clone());
        let page = fleet.list(after.as_deref(), PAGE).await.map_err(CommandError::store)?;
        if page.is_empty() {
            return Ok(records);
        }
        records.extend(page);
    }
}

fn print_table(breakers: &[Breaker]) {
    let width = breakers.iter().map(|breaker| breaker.name.chars().count()).max().unwrap_or_default();
    for Breaker { name, state, remaining_seconds, reason, by } in breakers {
        let left = match state {
            CircuitState::Open => format!(" for {remaining_seconds:.1} s"),
            CircuitState::Closed | CircuitState::HalfOpen => String::new(),
        };
        let cause = if reason.is_empty() { String::new() } else { format!(" ({reason}, by {by})") };
        let (name, cause) = (printable(name), printable(&cause));
        line(format_args!("{name:width$}  {}{left}{cause}", state.as_str()));
    }
}
