//! Code that decides is pure: it reads no clock, shares nothing between threads, awaits nothing, and does no I/O.
//! Code that is only concurrent needs no runtime and no middleware.

use std::fs;
use std::path::{Path, PathBuf};

/// What a file or folder may use.
struct Row {
    path: &'static str,
    /// The words of [`RUNTIME`] and [`SHARED`].
    words: &'static [&'static str],
    /// The modules of its crate outside the row, as the code names them.
    modules: &'static [&'static str],
}

/// Pure code.
#[rustfmt::skip]
const PURE: [Row; 13] = [
    Row { path: "tower-breaker/src/machine", words: &[], modules: &[] },
    Row { path: "tower-fault-classify/src/body/llm/code.rs", words: &[], modules: &["fault", "table"] },
    // Only the trait is used of `tracked`.
    Row { path: "tower-fault-classify/src/body/llm/events.rs", words: &[], modules: &["body::tracked", "code", "fault", "table"] },
    // `body::end` reads whether this thread's upload waits, by way of `upload`.
    Row { path: "tower-fault-classify/src/classify.rs", words: &[], modules: &["body::end", "fault", "outcome"] },
    // It names the error types of tokio and of tower. `upload` reads whether this thread's upload waits.
    Row {
        path: "tower-fault-classify/src/error_chain",
        words: &["tokio", "tower"],
        modules: &["error", "fault", "grpc", "hint", "table", "upload"],
    },
    Row { path: "tower-fault-classify/src/grpc.rs", words: &[], modules: &["fault", "hint", "table"] },
    Row { path: "tower-fault-classify/src/hint", words: &[], modules: &[] },
    // `outcome` reads the system's time for a `Retry-After` date without a `Date`.
    Row {
        path: "tower-fault-classify/src/rules.rs",
        words: &[],
        modules: &[
            "body::BodyEnd", "classify", "error", "error_chain", "fault", "grpc", "outcome", "table", "tower_http",
        ],
    },
    Row { path: "tower-fault-classify/src/table", words: &[], modules: &["fault", "table"] },
    Row { path: "tower-jitter-retry/src/backoff", words: &[], modules: &[] },
    Row { path: "tower-jitter-retry/src/budget/rules", words: &[], modules: &[] },
    Row { path: "tower-jitter-retry/src/policy/decide.rs", words: &[], modules: &["backoff", "request"] },
    Row { path: "tower-jitter-retry/src/policy/grpc_methods.rs", words: &[], modules: &[] },
];

/// Concurrent code without a runtime and without middleware.
const CONCURRENT: [&str; 8] = [
    "tower-breaker/src/circuit",
    "tower-breaker/src/keyed/core.rs",
    "tower-breaker/src/keyed/map.rs",
    "tower-breaker/src/keyed/table.rs",
    "tower-breaker/src/registry.rs",
    "tower-fault-classify/src/internals/pool.rs",
    "tower-fault-classify/src/internals/striped.rs",
    "tower-jitter-retry/src/budget",
];

/// Async code, runtimes, middleware and I/O.
#[rustfmt::skip]
const RUNTIME: [&str; 17] = [
    "Context", "Future", "Instant", "Poll", "async", "await",
    "pin_project_lite", "tokio", "tower", "tower_layer", "tower_service",
    "println", "env", "fs", "net", "process", "rustix",
];

/// Clocks, shared state and telemetry. `SystemTime` is a value here: `clippy.toml` bans reading it.
#[rustfmt::skip]
const SHARED: [&str; 15] = [
    "Clock", "system_time",
    "Condvar", "LazyLock", "Mutex", "Once", "OnceLock", "RwLock", "Waker", "atomic", "loom", "mpsc", "thread",
    "metrics", "tracing",
];

fn workspace_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Every source file below a path, except modules that only tests compile.
fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let tests = ["tests", "tests.rs", "models.rs"];
    paths
        .filter(|path| !tests.iter().any(|name| path.ends_with(name)))
        .flat_map(|path| sources(&path))
        .collect()
}

/// The lines above the unit tests, without comments and attributes. `mod tests;` is not the tests.
fn code(source: &str) -> Vec<&str> {
    let lines: Vec<_> = source.lines().collect();
    let begins_tests = |pair: &[&str]| {
        let for_tests = pair[0].starts_with("#[cfg(test)]") || pair[0].starts_with("#[cfg(all(test");
        for_tests && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    };
    let end = lines.windows(2).position(begins_tests).unwrap_or(lines.len());
    let code = lines[..end].iter().filter(|line| !line.trim_start().starts_with("#["));
    code.map(|line| line.split_once("//").map_or(*line, |(code, _)| code)).collect()
}

fn words<'a>(line: &&'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The paths that begin with `root`, which is left out, except those of a visibility.
fn paths<'a>(line: &'a str, root: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(root).filter(|(at, _)| !line[..*at].ends_with("in ")).map(|(at, _)| {
        let path = &line[at + root.len()..];
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        path[..end.unwrap_or(path.len())].trim_end_matches(':')
    })
}

fn is_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What a source uses of `banned`, and the paths that lead out of the row.
fn violations(row: &Row, is_root: bool, banned: &dyn Fn(&str) -> bool, source: &str) -> Vec<String> {
    let code = code(source);
    let words = code.iter().flat_map(words).filter(|word| banned(word) && !row.words.contains(word));
    let modules = code.iter().flat_map(|line| paths(line, "crate::"));
    // From the root of a row, `super` leads out of it.
    let parents = code.iter().filter(|_| is_root).flat_map(|line| paths(line, "super::"));
    let is_listed = |path: &str| row.modules.iter().any(|module| is_below(path, module));
    let outside = modules.chain(parents).filter(|path| !is_listed(path));
    words.chain(outside).map(ToOwned::to_owned).collect()
}

#[test]
fn pure_code_uses_nothing_impure() {
    let banned = |word: &str| RUNTIME.contains(&word) || SHARED.contains(&word) || word.starts_with("Atomic");
    let mut found = Vec::new();
    for row in PURE {
        let root = workspace_path(row.path);
        for file in sources(&root) {
            let is_root = file == root || file == root.join("mod.rs");
            let source = fs::read_to_string(&file).unwrap();
            let wrong = violations(&row, is_root, &banned, &source).into_iter();
            found.extend(wrong.map(|what| format!("{}: {what}", file.display())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn concurrent_code_uses_no_runtime() {
    let mut found = Vec::new();
    for file in CONCURRENT.iter().flat_map(|path| sources(&workspace_path(path))) {
        let source = fs::read_to_string(&file).unwrap();
        let code = code(&source);
        let wrong = code.iter().flat_map(words).filter(|word| RUNTIME.contains(word));
        found.extend(wrong.map(|word| format!("{}: {word}", file.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

const SOURCE: &str = "//! A Mutex.
#[cfg(test)]
mod tests;
use crate::upload::{self, Progress}; // Clock
#[derive(Future)]
pub(in crate::budget) async fn wait(clock: Clock) { crate::fault::now_async(super::f()) }
#[cfg(all(test, not(loom_models)))]
mod tests {
    use crate::layer::Instant;
}";

#[test]
fn words_exclude_comments_attributes_and_tests() {
    let code = code(SOURCE);
    let found: Vec<_> = code.iter().flat_map(words).collect();
    let expected = "mod tests use crate upload self Progress pub in crate budget async fn wait clock Clock \
                    crate fault now_async super f";
    assert_eq!(found.join(" "), expected);
}

#[test]
fn violations_are_words_modules_and_parents() {
    let banned = |word: &str| RUNTIME.contains(&word) || SHARED.contains(&word);
    let row = |words, modules| Row { path: "", words, modules };
    let none = row(&[], &[]);
    let all = ["async", "Clock", "upload", "fault::now_async"];
    assert_eq!(violations(&none, false, &banned, SOURCE), all);
    assert_eq!(violations(&none, true, &banned, SOURCE), [&all[..], &["f"]].concat());
    assert_eq!(violations(&row(&["async", "Clock"], &["fault", "up"]), false, &banned, SOURCE), ["upload"]);
}
