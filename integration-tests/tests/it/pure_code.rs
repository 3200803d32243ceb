//! Checks that the code of decisions is pure: it reads no clock, shares no state between threads,
//! awaits nothing, and does no I/O.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 16] = [
    "tower-breaker-fleet/src/agent/ballot.rs",
    "tower-breaker-fleet/src/agent/circuit.rs",
    "tower-breaker-fleet/src/agent/known.rs",
    "tower-breaker-fleet/src/agent/pace.rs",
    "tower-breaker-fleet/src/agent/probe.rs",
    "tower-breaker-fleet/src/rules",
    "tower-breaker/src/machine",
    "tower-fault-classify/src/body/llm/code.rs",
    "tower-fault-classify/src/body/llm/events.rs",
    "tower-fault-classify/src/grpc.rs",
    "tower-fault-classify/src/hint",
    "tower-fault-classify/src/table",
    "tower-jitter-retry/src/backoff",
    "tower-jitter-retry/src/budget/rules",
    "tower-jitter-retry/src/policy/decide.rs",
    "tower-jitter-retry/src/policy/grpc_methods.rs",
];

/// Code that uses a structure which threads share, but is otherwise pure: it may use any module.
const WITHOUT_IO: [&str; 1] = ["tower-jitter-retry/src/decision.rs"];

/// The modules of their own crate that pure code may use. Of `body` it uses only the trait of
/// inspectors, of `control` only the commands, and of `store` only the messages.
const MODULES: [&str; 10] =
    ["backoff", "body", "control", "fault", "grpc", "hint", "record", "request", "store", "table"];

/// `SystemTime` is a value here: `clippy.toml` bans reading it.
#[rustfmt::skip]
const IMPURE: [&str; 31] = [
    "Clock", "Instant", "system_time",
    "Condvar", "LazyLock", "Mutex", "Once", "OnceLock", "RwLock", "Waker", "atomic", "loom", "mpsc", "thread",
    "Context", "Future", "Poll", "async", "await", "pin_project_lite", "tokio",
    "tower", "tower_layer", "tower_service", "metrics", "tracing",
    "env", "fs", "net", "println", "process",
];

/// Returns every source file in a path, except modules that only tests compile.
fn sources(path: PathBuf) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path];
    }
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.ends_with("tests") && !path.ends_with("tests.rs")).flat_map(sources).collect()
}

/// Returns the code of a source, without comments, attributes and unit tests.
fn code(source: &str) -> String {
    let tests = source.find("mod tests {").unwrap_or(source.len());
    let lines = source[..tests].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// Returns the words of a code that pure code must not use.
fn impure_words(code: &str) -> Vec<String> {
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let used = words.filter(|word| IMPURE.contains(word) || word.starts_with("Atomic")).map(str::to_owned);
    used.collect()
}

/// Returns what a source uses although pure code must not.
fn impure(source: &str) -> Vec<String> {
    let code = code(source);
    let modules = code.match_indices("crate::").filter_map(|(at, root)| {
        let path = &code[at + root.len()..];
        let is_listed = MODULES.iter().any(|module| path.starts_with(module));
        let is_visibility = code[..at].ends_with("in ");
        (!is_listed && !is_visibility).then(|| format!("crate::{}", path.lines().next().unwrap_or_default()))
    });
    impure_words(&code).into_iter().chain(modules).collect()
}

#[test]
fn pure_code_uses_nothing_impure() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in PURE.iter().flat_map(|path| sources(workspace.join(path))) {
        let found = impure(&fs::read_to_string(&file).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

#[test]
fn decision_without_io_uses_no_clock_and_no_runtime() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for file in WITHOUT_IO.iter().flat_map(|path| sources(workspace.join(path))) {
        let found = impure_words(&code(&fs::read_to_string(&file).unwrap()));
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
}

#[test]
fn impure_words_and_modules_are_found() {
    let source = "//! A Mutex.\nuse crate::fault::Fault; // Clock\nuse crate::upload::f;\npub(in crate::budget) fn f();\nlet now = Clock::new();\nmod tests {\nasync";
    assert_eq!(impure(source), ["Clock", "crate::upload::f;"]);
}
