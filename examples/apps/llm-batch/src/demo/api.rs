//! The API and the items of the demo.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;
use test_servers::{Llm, LlmFault};

pub(super) const MODEL: &str = "small";
pub(super) const PROMPT: &str = "Is this review positive or negative? {review}";

/// How long the API works on a reply.
const REPLY_TIME: Duration = Duration::from_millis(300);

const PRODUCTS: [&str; 10] =
    ["lamp", "kettle", "tent", "desk", "phone", "bicycle", "clock", "jacket", "camera", "printer"];
const OPINIONS: [&str; 6] = [
    "works well.",
    "is a great gift.",
    "is better than I expected.",
    "broke after a day.",
    "is too expensive.",
    "never arrived.",
];

/// The number of items.
pub(super) const ITEMS: usize = PRODUCTS.len() * OPINIONS.len();

/// Returns the items as JSON Lines.
pub(super) fn items() -> String {
    let mut items = String::new();
    for opinion in OPINIONS {
        for product in PRODUCTS {
            let item = json!({ "review": format!("The {product} {opinion}") });
            let _ = writeln!(items, "{item}");
        }
    }
    items
}

/// Starts the API. It accepts only this key.
pub(super) async fn start(key: &str) -> Llm {
    let llm = Llm::start().await;
    llm.set_keys([key]);
    llm.set_models([MODEL]);
    llm.set_reply(|prompt| {
        let is_positive = OPINIONS[..3].iter().any(|opinion| prompt.ends_with(opinion));
        json!({ "sentiment": if is_positive { "positive" } else { "negative" } }).to_string()
    });
    work(&llm);
    llm
}

/// Lets the API answer requests.
pub(super) fn work(llm: &Llm) {
    llm.set_faults(|_, _| Some(LlmFault::Delay(REPLY_TIME)));
}

/// Lets the API fail five of the next ten requests, each in another way.
pub(super) fn fail_some_requests(llm: &Llm) {
    let faults = [
        LlmFault::ServerError,
        LlmFault::RateLimit { retry_after: 1 },
        LlmFault::TruncatedBody,
        LlmFault::Reset,
        LlmFault::ReplyWithoutJson,
    ];
    llm.script(faults.into_iter().flat_map(|fault| [Some(fault), Some(LlmFault::Delay(REPLY_TIME))]));
}

/// Lets the API fail all requests.
pub(super) fn fail_all_requests(llm: &Llm) {
    llm.set_faults(|_, _| Some(LlmFault::Unavailable));
}
