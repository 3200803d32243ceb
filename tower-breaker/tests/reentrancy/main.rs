//! User code that calls back into the breaker: no lock is held while it runs.
//!
//! Every operation of the public interface runs while every kind of user code is armed. When a hook
//! runs, it calls every operation on the same circuits. If an operation runs user code under a
//! lock, it then never returns.
//!
//! A new operation needs a row in [`OPERATIONS`], which a test checks. A new kind of user code
//! needs a variant of [`Hook`].
//!
//! A waker's `clone` has no hook: it cannot be written without unsafe code.
#![cfg(all(feature = "keyed", feature = "metrics", feature = "stream", feature = "tokio"))]

mod hooks;
mod operations;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hooks::{Hook, HostileRecorder};
use operations::{OPERATIONS, Target};

/// An operation that takes longer than this is deadlocked.
const BOUND: Duration = Duration::from_secs(120);

thread_local! {
    /// The target into which the hooks of this thread call back.
    static ARMED: RefCell<Option<Target>> = const { RefCell::new(None) };
    /// The hooks that have run on this thread.
    static RAN: RefCell<BTreeSet<Hook>> = const { RefCell::new(BTreeSet::new()) };
}

/// Runs an operation with all hooks armed, and returns the hooks that have run.
fn run_armed(operation: fn(&Target)) -> BTreeSet<Hook> {
    let target = Target::new();
    let own = target.clone();
    ARMED.set(Some(target));
    operation(&own);
    // The circuits end with their last handle, while the hooks are still armed.
    let last = ARMED.replace(None);
    ARMED.set(Some(Target::new()));
    drop((own, last));
    let last = ARMED.replace(None);
    drop(last);
    RAN.take()
}

/// Finds the public functions of the handles in their source files.
#[test]
fn every_handle_function_is_an_operation() {
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let operations = read("tests/reentrancy/operations.rs");
    let called: BTreeSet<&str> = operations.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let mut missing = Vec::new();
    let files = [
        "call/guard.rs",
        "circuit/command.rs",
        "circuit/mod.rs",
        "circuit/permit.rs",
        "circuit/snapshot.rs",
        "circuit/wait.rs",
        "circuit/weak.rs",
        "keyed/creation.rs",
        "keyed/listeners.rs",
        "keyed/map.rs",
        "keyed/reconfigure.rs",
        "keyed/snapshot.rs",
        "keyed/weak.rs",
        "registry.rs",
        "registry/snapshots.rs",
    ];
    for file in files.map(|file| format!("src/{file}")) {
        let source = read(&file);
        let functions = source.lines().filter_map(|line| {
            let line = line.trim_start().strip_prefix("pub ")?;
            line.strip_prefix("const ").unwrap_or(line).strip_prefix("fn ")
        });
        let names = functions.filter_map(|function| function.split(['(', '<']).next());
        missing.extend(names.filter(|name| !called.contains(name)).map(|name| format!("{file}: {name}")));
    }
    assert!(missing.is_empty(), "add a row to `OPERATIONS` for each: {missing:?}");
}

#[test]
fn callback_from_any_hook_does_not_deadlock() {
    metrics::set_global_recorder(HostileRecorder).expect("this is the only recorder of the process");
    let mut ran = BTreeSet::new();
    for (name, operation) in OPERATIONS {
        let (done, is_done) = mpsc::channel();
        let thread = thread::spawn(move || {
            let hooks = run_armed(*operation);
            done.send(hooks).expect("the test must wait for the result");
        });
        match is_done.recv_timeout(BOUND) {
            Ok(hooks) => ran.extend(hooks),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("`{name}` is deadlocked"),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("`{name}` panicked: {:?}", thread.join()),
        }
    }
    assert_eq!(ran, Hook::ALL.iter().copied().collect(), "each hook has run");
}
