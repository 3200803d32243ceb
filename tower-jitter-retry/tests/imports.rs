//! What each file may use, held against the files.

#[path = "../../examples/support/imports.rs"]
mod imports;

use std::path::Path;

use imports::{PURE, Row, violations};

const TOWER: &[&str] = &["tower_layer", "tower_service", "pin_project_lite"];
const FUTURES: &[&str] = &["std::future", "std::pin", "std::task"];
/// Atomics and locks come through the switch between std and loom, and with them the counters.
const SHARED: &[&str] = &["tower_fault_classify::__internals"];
const CLOCK: &[&str] =
    &["tower_fault_classify::__internals::Clock", "tower_fault_classify::__internals::ConfigError"];
const VOCABULARY: &[&str] = &[
    "tower_fault_classify::Fault",
    "tower_fault_classify::Health",
    "tower_fault_classify::Kind",
    "tower_fault_classify::ResponseCoverage",
    "tower_fault_classify::Origin",
    "tower_fault_classify::Retryable",
    "tower_fault_classify::Verdict",
];
const JUDGES: &[&str] = &[
    "tower_fault_classify::Auto",
    "tower_fault_classify::Classify",
    "tower_fault_classify::ErrorsOnly",
    "tower_fault_classify::RuleFirst",
    "tower_fault_classify::Typed",
];
const BODIES: &[&str] = &["bytes", "http", "http_body", "http_body_util", "axum_core", "tonic"];

/// The errors of request bodies, and what is known of a body while it is sent.
const UPLOADS: &[&str] = &["tower_fault_classify::upload"];

/// "What a file may use" of the design, down to this crate's files. `lib.rs` has modules, re-exports and docs only.
const TABLE: &[Row] = &[
    // Pure: no clock, atomic, lock, async, runtime, tower, tracing.
    Row { files: &["backoff/"], may_use: &[PURE] },
    Row {
        files: &["budget/window/rules.rs", "budget/tokens/rules.rs"],
        may_use: &[PURE, VOCABULARY, &["crate::budget::Settings"]],
    },
    // Made concurrent: no runtime, no tower. The `Arc` holds a budget of the user's own.
    Row {
        files: &["budget/"],
        may_use: &[PURE, SHARED, VOCABULARY, &["std::panic", "std::sync::Arc", "serde::Serialize"]],
    },
    Row { files: &["rng.rs"], may_use: &[&["std", "fastrand"]] },
    // What is kept of a request, and what is retried: decisions, without time, locks or tower.
    // It takes the data of a body in memory, and knows the types whose clones share it.
    Row {
        files: &["replay/mod.rs"],
        may_use: &[PURE, BODIES, FUTURES, &["crate::replay", "reqwest", "std::any::TypeId"]],
    },
    Row {
        files: &["replay/prefix.rs", "replay/error.rs"],
        may_use: &[PURE, &["bytes", "crate::ReplayBody"], UPLOADS],
    },
    // A body that attempts take from each other is shared between them.
    Row {
        files: &["replay/body.rs", "replay/tape.rs"],
        may_use: &[PURE, BODIES, SHARED, FUTURES, &["std::sync::Arc", "crate::replay"]],
    },
    Row {
        files: &["request/safety.rs", "request/attempt.rs"],
        may_use: &[PURE, VOCABULARY, &["crate::request::safety"]],
    },
    Row {
        files: &["request/redirect.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            &["tower_fault_classify::Classify", "tower_fault_classify::judge_error", "reqwest::Url"],
        ],
    },
    Row { files: &["request/"], may_use: &[PURE, BODIES, &["crate::deadline", "crate::replay", "reqwest"]] },
    // It reads tokio's clock, for a moment that was given in its time.
    Row { files: &["deadline.rs"], may_use: &[PURE, &["std::time::Instant", "tokio::time::Instant"]] },
    // The decision.
    Row { files: &["policy/limits.rs"], may_use: &[PURE, VOCABULARY, &["crate::backoff", "crate::request"]] },
    Row { files: &["policy/methods.rs"], may_use: &[PURE, CLOCK] },
    // The configuration: what every part of a call is made from.
    Row {
        files: &["policy/mod.rs", "policy/builder.rs"],
        may_use: &[
            PURE,
            CLOCK,
            VOCABULARY,
            &[
                "crate::backoff",
                "crate::budget",
                "crate::observe",
                "crate::policy",
                "crate::request",
                "crate::rng",
            ],
            &["std::sync::Arc", "http::HeaderName"],
        ],
    },
    // Tells, and changes nothing.
    Row {
        files: &["observe/"],
        may_use: &[
            PURE,
            VOCABULARY,
            &["crate::policy::GiveUp", "tower_fault_classify::Judged", "metrics", "tracing"],
            &[
                "std::cell",
                "std::collections",
                "std::panic",
                "std::rc",
                "std::sync::Arc",
                "std::thread_local",
            ],
        ],
    },
    Row {
        files: &["serde.rs"],
        may_use: &[
            PURE,
            SHARED,
            &["crate::backoff", "crate::budget", "crate::policy", "crate::request"],
            &["serde", "http::HeaderName"],
        ],
    },
    Row {
        files: &["pause.rs"],
        may_use: &[
            PURE,
            FUTURES,
            &["pin_project_lite", "tokio::task::coop", "tokio::time::Sleep", "tokio::time::sleep"],
            // A visibility within a macro.
            &["crate"],
        ],
    },
    Row { files: &["last.rs"], may_use: &[PURE, VOCABULARY, &["crate::policy::is_rejection"]] },
    // What a call knows of itself: it asks the decision and the budget, and tells.
    Row {
        files: &["call.rs"],
        may_use: &[
            PURE,
            VOCABULARY,
            JUDGES,
            CLOCK,
            &[
                "crate::backoff::Position",
                "crate::budget",
                "crate::last",
                "crate::observe",
                "crate::policy",
                "crate::request",
            ],
            &["crate::rng", "std::sync::Arc", "tower_fault_classify::Judged"],
        ],
    },
    // Glue.
    Row {
        files: &["layer.rs", "service.rs", "future.rs", "retrier.rs", "tower_policy.rs"],
        may_use: &[
            PURE,
            TOWER,
            FUTURES,
            VOCABULARY,
            JUDGES,
            &[
                "crate::call",
                "crate::deadline",
                "crate::last",
                "crate::pause",
                "crate::policy",
                "crate::request",
                "tokio::runtime::Handle",
                "tokio::time::Sleep",
                "tokio::time::sleep",
                "tower_fault_classify::grpc_has_begun",
                "tower_fault_classify::__internals::Waiting",
                "std::thread",
                "tower::retry::Policy",
            ],
        ],
    },
];

#[test]
fn every_file_uses_what_the_design_allows_it() {
    let wrong = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), TABLE);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
