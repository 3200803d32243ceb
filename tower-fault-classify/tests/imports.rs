//! What each file may use, held against the files.

#[path = "../../examples/support/imports.rs"]
mod imports;

use std::path::Path;

use imports::{PURE, Row, paths, violations};

const HTTP: &[&str] = &["http"];
const CLIENTS: &[&str] = &[
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "reqwest_middleware",
    "tokio::time::error",
    "tonic",
    "tower::buffer",
    "tower::load_shed",
    "tower::timeout",
    "tower_http::timeout",
];
const TOWER: &[&str] = &["tower_layer", "tower_service", "pin_project_lite"];
const FUTURES: &[&str] = &["std::future", "std::pin", "std::task"];
/// What is said, by whoever judges.
const VOCABULARY: &[&str] = &["crate::fault"];
/// Who judges.
const JUDGES: &[&str] = &[
    "crate::body",
    "crate::chain",
    "crate::classify",
    "crate::error",
    "crate::grpc",
    "crate::hint",
    "crate::outcome",
    "crate::table",
    "crate::wall",
];
const SHARED: &[&str] = &["crate::__internals"];
const LOCKS: &[&str] =
    &["std::sync::Mutex", "std::sync::MutexGuard", "std::sync::OnceLock", "std::sync::PoisonError"];

/// "What a file may use" of the design, down to this crate's files. `lib.rs` has modules, re-exports and docs only.
const TABLE: &[Row] = &[
    // Pure: no clock, atomic, lock, async, runtime, tower, tracing.
    Row { files: &["delay.rs"], may_use: &[PURE] },
    Row { files: &["fault.rs"], may_use: &[PURE, &["crate::delay::Readable"]] },
    Row { files: &["tables.rs"], may_use: &[] },
    Row {
        files: &["hint/"],
        may_use: &[PURE, HTTP, &["base64", "httpdate", "std::cell::LazyCell", "std::time::SystemTime"]],
    },
    Row { files: &["table/"], may_use: &[PURE, HTTP, VOCABULARY, &["std::io"]] },
    // Who judges knows the tables and the clients, and neither time nor tower's traits.
    // A rejection is a status for who asks for one.
    Row {
        files: &["error.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            &["std::any", "std::sync::OnceLock", "crate::chain"],
            // Of a note that is left on an error that is not owned.
            &["std::sync::Mutex", "std::sync::PoisonError"],
            &["crate::delay::Readable", "crate::grpc::pushback", "tonic::Status"],
        ],
    },
    Row {
        files: &["outcome.rs"],
        may_use: &[
            PURE,
            HTTP,
            VOCABULARY,
            JUDGES,
            &["crate::wall", "crate::upload", "reqwest", "tower_http::follow_redirect"],
        ],
    },
    Row { files: &["grpc.rs"], may_use: &[PURE, HTTP, VOCABULARY, JUDGES] },
    Row {
        files: &["chain/"],
        may_use: &[PURE, VOCABULARY, JUDGES, CLIENTS, &["std::io", "http", "crate::upload"]],
    },
    Row { files: &["upload/error.rs", "upload/mod.rs"], may_use: &[PURE, JUDGES] },
    // A note on this thread, and the progress that a body shares with its call.
    Row {
        files: &["upload/waiting.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            JUDGES,
            &["std::cell", "std::mem", "std::thread_local", "crate::upload"],
        ],
    },
    Row {
        files: &["upload/body.rs"],
        may_use: &[
            PURE,
            HTTP,
            TOWER,
            FUTURES,
            JUDGES,
            &["http_body", "reqwest", "std::sync", "crate::upload"],
        ],
    },
    Row { files: &["upload/layer.rs"], may_use: &[PURE, TOWER, FUTURES, &["crate::upload"]] },
    Row { files: &["rules.rs"], may_use: &[PURE, HTTP, VOCABULARY, JUDGES, &["std::sync::Arc"]] },
    Row { files: &["classify.rs"], may_use: &[PURE, VOCABULARY, JUDGES, &["std::sync::Arc"]] },
    // The wall clock, read in one place.
    Row { files: &["wall.rs"], may_use: &[&["std::time::SystemTime"]] },
    // What stands around a body. Only who reads on in it waits, by tokio's timer; who knows the APIs of LLMs reads JSON.
    Row {
        files: &["body/"],
        may_use: &[
            PURE,
            HTTP,
            TOWER,
            FUTURES,
            VOCABULARY,
            JUDGES,
            &["crate::observe", "crate::upload", "http_body", "reqwest", "bytes"],
        ],
    },
    Row {
        files: &["body/peek/"],
        may_use: &[PURE, HTTP, TOWER, FUTURES, VOCABULARY, JUDGES, &["http_body", "bytes", "tokio::time"]],
    },
    Row {
        files: &["body/llm/"],
        may_use: &[PURE, HTTP, VOCABULARY, JUDGES, &["bytes", "memchr", "serde", "serde_json"]],
    },
    // Glue.
    Row {
        files: &["layer.rs", "service.rs", "future.rs"],
        may_use: &[PURE, HTTP, TOWER, FUTURES, VOCABULARY, JUDGES, &["crate::observe"]],
    },
    Row {
        files: &["observe.rs"],
        may_use: &[HTTP, VOCABULARY, &["metrics", "tracing", "std::cell", "std::collections", "std::rc"]],
    },
    Row { files: &["tower_http.rs"], may_use: &[PURE, HTTP, VOCABULARY, JUDGES, &["tower_http::classify"]] },
    Row {
        files: &["middleware.rs"],
        may_use: &[PURE, HTTP, TOWER, FUTURES, CLIENTS, JUDGES, LOCKS, &["async_trait"]],
    },
    // What the breaker and the retry share. Atomics come through `sync.rs`; a plain lock may be std's where no model looks.
    Row { files: &["shared/"], may_use: &[PURE] },
    Row {
        files: &["shared/mod.rs"],
        may_use: &[
            SHARED,
            &[
                "crate::delay::Readable",
                "crate::error::text_of",
                "crate::grpc::pushback",
                "crate::upload::Waiting",
                "crate::wall::now",
            ],
        ],
    },
    Row { files: &["shared/cause.rs"], may_use: &[PURE, JUDGES, CLIENTS, &["std::any", "std::io"]] },
    Row { files: &["shared/file.rs"], may_use: &[PURE, SHARED, &["serde"]] },
    Row { files: &["shared/sync.rs"], may_use: &[&["std::sync", "loom::sync"]] },
    Row { files: &["shared/recycle.rs"], may_use: &[PURE, SHARED, LOCKS, &["std::collections"]] },
    Row { files: &["shared/slot.rs"], may_use: &[PURE, SHARED, LOCKS, &["std::cell", "std::thread"]] },
    Row {
        files: &["shared/clock.rs"],
        may_use: &[PURE, SHARED, &["std::sync", "std::time", "rustix::time", "tokio::time"]],
    },
];

#[test]
fn every_file_uses_what_the_design_allows_it() {
    let wrong = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), TABLE);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The paths that the file `a/b.rs` names.
fn named(text: &str) -> Vec<String> {
    let module = ["crate", "a", "b"].map(ToOwned::to_owned);
    paths(&syn::parse_file(text).unwrap(), &module).into_iter().collect()
}

#[test]
fn the_scan_sees_imports() {
    assert_eq!(
        named("use std::time::{Duration, Instant as Now};"),
        ["std::time::Duration", "std::time::Instant"]
    );
    assert_eq!(named("use core::sync::atomic::*;"), ["std::sync::atomic"]);
    assert_eq!(named("use super::c::D; use self::e::F;"), ["crate::a::b::e::F", "crate::a::c::D"]);
    assert_eq!(named("pub(crate) use ::tokio::{self, time};"), ["tokio", "tokio::time"]);
    assert_eq!(named("use tokio;"), ["tokio"]);
}

#[test]
fn the_scan_sees_paths_in_code() {
    assert_eq!(named("fn f() { tokio::spawn(async {}); }"), ["tokio::spawn"]);
    assert_eq!(named("fn f(_: ::tokio::time::Sleep) {}"), ["tokio::time::Sleep"]);
    assert_eq!(named("fn f() -> Vec<std::time::Instant> { Vec::new() }"), ["std::time::Instant"]);
    assert_eq!(named("impl tower::Service<()> for X {}"), ["tower::Service"]);
    assert_eq!(named("fn f() { if let tokio::A::B = c() {} }"), ["tokio::A::B"]);
    assert_eq!(
        named("use std::time; fn f() { time::Instant::now(); }"),
        ["std::time", "std::time::Instant::now"]
    );
    assert_eq!(
        named("use std::time as t; fn f() { t::Instant::now(); }"),
        ["std::time", "std::time::Instant::now"]
    );
    assert_eq!(
        named("fn f() { u64::from(1_u8); Self::g(); X::new(); str::len(\"\"); }"),
        Vec::<String>::new()
    );
    assert_eq!(named("mod c; fn f() { c::g(); }"), ["crate::a::b::c::g"]);
    assert_eq!(
        named("mod c { pub fn g() { tokio::spawn(); } } fn f() { c::g(); }"),
        ["crate::a::b::c::g", "tokio::spawn"]
    );
    assert_eq!(named("#[tokio::main] async fn f() {}"), ["tokio::main"]);
}

#[test]
fn the_scan_sees_into_macros() {
    assert_eq!(named("m! { struct X { s: tokio::time::Sleep } }"), ["tokio::time::Sleep"]);
    assert_eq!(named("fn f() { m!(::tokio::spawn(x), 'a', \"b::c\", '\\'', d) }"), ["tokio::spawn"]);
    assert_eq!(
        named("macro_rules! m { ($t:ty) => { impl std::thread::X<'a> for $t {} }; }"),
        ["std::thread::X"]
    );
    assert_eq!(
        named("use std::time::Instant; m!(Instant::now());"),
        ["std::time::Instant", "std::time::Instant::now"]
    );
    assert_eq!(named("fn f() { tracing::info!(\"x\"); }"), ["tracing::info"]);
}

#[test]
fn the_scan_leaves_out_what_is_compiled_for_tests() {
    assert_eq!(named("#[cfg(test)] mod tests { use tokio::spawn; }"), Vec::<String>::new());
    assert_eq!(
        named("#[cfg(all(test, not(loom_models)))] mod tests { use tokio::spawn; }"),
        Vec::<String>::new()
    );
    assert_eq!(named("#[cfg(test)] use tokio::spawn;"), Vec::<String>::new());
    assert_eq!(named("#[cfg(not(test))] use tokio::spawn;"), ["tokio::spawn"]);
    assert_eq!(named("#[cfg(feature = \"test\")] use tokio::spawn;"), ["tokio::spawn"]);
}
