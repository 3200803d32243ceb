//! What each file may use, held against the files.

#[path = "../../examples/support/imports.rs"]
mod imports;

use std::path::Path;

use imports::{PURE, Row, violations};

const TOWER: &[&str] = &["tower_layer", "tower_service", "pin_project_lite"];
const FUTURES: &[&str] = &["std::future", "std::pin", "std::task"];
/// Atomics and locks come through the switch between std and loom, and with them the clock and the counters.
const SHARED: &[&str] = &["tower_fault_classify::__internals"];
const CLOCK: &[&str] =
    &["tower_fault_classify::__internals::Clock", "tower_fault_classify::__internals::ConfigError"];
const VOCABULARY: &[&str] = &[
    "tower_fault_classify::Fault",
    "tower_fault_classify::Health",
    "tower_fault_classify::Judged",
    "tower_fault_classify::Kind",
    "tower_fault_classify::Origin",
    "tower_fault_classify::Retryable",
    "tower_fault_classify::Verdict",
];
const JUDGES: &[&str] = &[
    "tower_fault_classify::AsError",
    "tower_fault_classify::Auto",
    "tower_fault_classify::Boxed",
    "tower_fault_classify::Classify",
    "tower_fault_classify::ErrorsOnly",
    "tower_fault_classify::NestedErrors",
    "tower_fault_classify::Outcome",
    "tower_fault_classify::RuleFirst",
    "tower_fault_classify::Typed",
];

/// "What a file may use" of the design, down to this crate's files. `lib.rs` has modules, re-exports and docs only.
const TABLE: &[Row] = &[
    // Pure: no clock, atomic, lock, async, runtime, tower, tracing.
    Row { files: &["machine/"], may_use: &[PURE, VOCABULARY] },
    // Made concurrent: the machine, no runtime, no tower. A waker is the one thing of async that it keeps.
    Row {
        files: &["circuit/"],
        may_use: &[
            PURE,
            SHARED,
            VOCABULARY,
            &[
                "crate::machine",
                "crate::telemetry",
                "crate::config",
                "crate::error",
                "crate::label",
                "fastrand::f64",
            ],
            &["std::sync::Arc", "std::task::Waker"],
        ],
    },
    // A label that is a user's may panic; what few circuits need is made when it is needed.
    Row {
        files: &["keyed/core.rs"],
        may_use: &[
            PURE,
            SHARED,
            &["crate::circuit", "crate::error", "crate::label", "crate::machine", "crate::telemetry"],
            &["std::panic", "std::sync::Arc", "std::sync::OnceLock"],
        ],
    },
    // A macro's tokens: its `pub(crate)` looks like a path.
    Row { files: &["circuit/controls.rs"], may_use: &[PURE, &["crate"]] },
    // Labels are read by people, never on the way of a successful call.
    Row {
        files: &["label.rs"],
        may_use: &[&[
            "slots",
            "std::sync::Arc",
            "std::sync::Mutex",
            "std::sync::MutexGuard",
            "std::sync::PoisonError",
        ]],
    },
    Row {
        files: &["config/name.rs"],
        may_use: &[&["std::borrow", "std::collections", "std::sync::Mutex", "std::sync::PoisonError"]],
    },
    Row {
        files: &["config/"],
        may_use: &[PURE, CLOCK, &["std::borrow", "crate::circuit", "crate::machine"]],
    },
    Row {
        files: &["serde.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            &[
                "serde",
                "humantime",
                "std::time::SystemTime",
                "crate::circuit",
                "crate::config",
                "crate::machine",
                "tower_fault_classify::__internals::file",
            ],
        ],
    },
    // Many circuits: the map of those by a key is a library's.
    Row {
        files: &["registry.rs", "keyed/map.rs"],
        may_use: &[
            PURE,
            CLOCK,
            &[
                "crate::circuit",
                "crate::config",
                "crate::error",
                "crate::machine",
                "crate::keyed::core",
                "crate::keyed::table",
                "crate::telemetry",
                "foldhash",
                "std::borrow",
                "std::collections",
                "std::hash",
                "std::sync",
            ],
        ],
    },
    // The table of the circuits by a key, which the models run.
    Row {
        files: &["keyed/table.rs"],
        may_use: &[SHARED, &["crate::keyed::core", "hashbrown", "std::thread::available_parallelism"]],
    },
    Row {
        files: &["readiness.rs"],
        may_use: &[PURE, FUTURES, &["crate::circuit", "timed", "tokio::time", "untimed"]],
    },
    Row {
        files: &["error.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            &[
                "crate::label",
                "crate::machine",
                "std::sync::Arc",
                "tower_fault_classify::__internals::Readable",
            ],
        ],
    },
    // Told afterwards, outside every lock.
    Row {
        files: &["telemetry/"],
        may_use: &[
            PURE,
            VOCABULARY,
            &["crate::machine", "std::panic", "std::sync::Arc", "std::sync::Mutex", "std::sync::PoisonError"],
            &["std::time::SystemTime"],
        ],
    },
    Row {
        files: &["telemetry/observers.rs", "telemetry/stream.rs"],
        may_use: &[
            PURE,
            FUTURES,
            &["crate::telemetry", "futures_core", "std::panic", "std::sync", "tokio::sync", "tokio_stream"],
        ],
    },
    Row {
        files: &["telemetry/metrics.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            &[
                "boxcar",
                "crate::machine",
                "crate::telemetry",
                "metrics",
                "std::collections",
                "std::sync",
                "std::thread",
            ],
        ],
    },
    Row {
        files: &["telemetry/tracing.rs"],
        may_use: &[PURE, &["crate::machine", "crate::telemetry", "std::sync::Arc", "tracing"]],
    },
    Row {
        files: &["classifier.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            JUDGES,
            &[
                "crate::circuit::Circuit",
                "crate::circuit::Core",
                "crate::telemetry",
                "std::any",
                "std::borrow",
            ],
            &[
                "tower_fault_classify::BodyEnd",
                "tower_fault_classify::How",
                "tower_fault_classify::__internals::error_chain",
                "tower_fault_classify::__internals::text_of",
                "tower_fault_classify::__internals::type_name_of",
            ],
        ],
    },
    // Glue.
    Row {
        files: &["call/", "keyed/", "layer.rs", "service.rs", "future.rs", "settle.rs"],
        may_use: &[
            PURE,
            TOWER,
            FUTURES,
            VOCABULARY,
            JUDGES,
            &[
                "crate::circuit",
                "crate::config",
                "crate::error",
                "crate::classifier",
                "crate::body",
                "crate::future",
                "crate::telemetry",
                "crate::readiness",
                "crate::registry",
                "crate::fallback",
                "crate::settle",
                "std::borrow",
                "std::hash",
                "tower_fault_classify::BodyEnd",
                "tower_fault_classify::JudgeEnd",
                "tower_fault_classify::Unwatched",
                "tower_fault_classify::LlmEvents",
            ],
        ],
    },
    // The timer is tokio's, and so is the error that is classified.
    Row {
        files: &["call/within.rs"],
        may_use: &[
            FUTURES,
            JUDGES,
            &[
                "crate::call",
                "crate::circuit",
                "crate::error",
                "pin_project_lite",
                "std::fmt",
                "std::time",
                "tokio::time",
                "tower_fault_classify::judge_error",
            ],
        ],
    },
    Row {
        files: &["fallback.rs", "integrations.rs"],
        may_use: &[
            PURE,
            FUTURES,
            JUDGES,
            &[
                "axum_core",
                "crate::error",
                "crate::label",
                "crate::machine",
                "crate::fallback",
                "http",
                "std::sync::Arc",
                "tonic",
                "tower_fault_classify::Carried",
                "tower_fault_classify::__internals::pushback",
            ],
        ],
    },
    Row {
        files: &["body.rs"],
        may_use: &[
            PURE,
            FUTURES,
            CLOCK,
            VOCABULARY,
            JUDGES,
            &[
                "crate::circuit",
                "crate::settle",
                "http",
                "http_body",
                "tower_fault_classify::JudgeEnd",
                "tower_fault_classify::JudgedBody",
                "tower_fault_classify::OnEnd",
                "tower_fault_classify::PutBody",
                "tower_fault_classify::TakeBody",
                "tower_fault_classify::Unwatched",
                "tower_fault_classify::Watch",
                "tower_fault_classify::judge_body",
            ],
        ],
    },
];

#[test]
fn every_file_uses_what_the_design_allows_it() {
    let wrong = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), TABLE);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
