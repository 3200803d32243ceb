//! Code that decides is pure: it reads no clock, shares nothing between threads, awaits nothing, and does no I/O.

use std::fs;
use std::path::{Path, PathBuf};

/// Files and folders of pure code, each with the words of [`IMPURE`] that it may use.
const PURE: [(&str, &[&str]); 12] = [
    ("tower-breaker/src/machine", &[]),
    ("tower-fault-classify/src/body/llm/code.rs", &[]),
    ("tower-fault-classify/src/body/llm/events.rs", &[]),
    ("tower-fault-classify/src/classify.rs", &[]),
    // It names the error types of tokio and of tower.
    ("tower-fault-classify/src/error_chain", &["tokio", "tower"]),
    ("tower-fault-classify/src/grpc.rs", &[]),
    ("tower-fault-classify/src/hint", &[]),
    ("tower-fault-classify/src/rules.rs", &[]),
    ("tower-fault-classify/src/table", &[]),
    ("tower-jitter-retry/src/backoff", &[]),
    ("tower-jitter-retry/src/budget/rules", &[]),
    // Its builder takes the clock, and has that of tokio as its default.
    ("tower-jitter-retry/src/policy", &["Clock", "tokio"]),
];

/// Clocks, shared state, async code, runtimes, middleware, telemetry and I/O. `SystemTime` is a value
/// here: `clippy.toml` bans reading it.
#[rustfmt::skip]
const IMPURE: [&str; 32] = [
    "Clock", "Instant", "system_time",
    "Condvar", "LazyLock", "Mutex", "Once", "OnceLock", "RwLock", "atomic", "loom", "mpsc", "thread",
    "Context", "Future", "Poll", "Waker", "async", "await",
    "pin_project_lite", "tokio", "tower", "tower_layer", "tower_service",
    "metrics", "println", "tracing",
    "env", "fs", "net", "process", "rustix",
];

/// Every source file below a path, except modules that only tests compile.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("models.rs"))
        .flat_map(|path| sources(&path))
        .collect()
}

/// The words of the code above the unit tests, without comments and attributes.
fn words(source: &str) -> impl Iterator<Item = &str> {
    let code = source.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    let code = code.filter(|line| !line.trim_start().starts_with("#["));
    let code = code.map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

#[test]
fn pure_code_uses_nothing_impure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut violations = Vec::new();
    for (path, allowed) in PURE {
        for file in sources(&root.join(path)) {
            let source = fs::read_to_string(&file).unwrap();
            let is_wrong = |word: &&str| {
                (IMPURE.contains(word) || word.starts_with("Atomic")) && !allowed.contains(word)
            };
            violations
                .extend(words(&source).filter(is_wrong).map(|word| format!("{}: {word}", file.display())));
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}
