//! A worker that sends prompts to an LLM API, and reads streaming answers.
//!
//! The program shows:
//!
//! - a circuit for each model: while it is open, the worker of the model waits, and then goes on;
//! - a POST that may be sent again, and a budget for the retries;
//! - error codes in JSON bodies: a quota that is used up stops the worker, an overloaded model
//!   opens its circuit, and a code of this API has a row of its own;
//! - a stream that stalls or breaks before its first event, which is sent again;
//! - a stream that fails later, which is reported, and counted by the circuit;
//! - the codes in the result file of a batch.
//!
//! ```text
//! cargo run --example llm_worker
//! ```

mod server;

use std::fmt;
use std::time::Duration;

use reqwest::{Client, Request, Response};
use serde_json::{Value, json};
use tokio::time::sleep;
use tower::timeout::TimeoutLayer;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_breaker::keyed::{KeyedBreakerLayer, KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, BreakerError, Rejection};
use tower_fault_classify::body::{ErrorBodies, LlmErrors, llm_fault};
use tower_fault_classify::{
    CarriedVerdict, ClassifiedError, ErrorChain, Fault, FaultClassifyLayer, Health, Kind, Retryable,
    classify_error,
};
use tower_jitter_retry::budget::Budget;
use tower_jitter_retry::request::RequestExt;
use tower_jitter_retry::{JitterRetryLayer, Retried, RetryPolicy, RetrySafety};

/// A real program uses `https`.
const API: &str = "http://llm.example/v1/chat/completions";

/// How long the worker waits if the API refuses a prompt and does not say for how long.
const PAUSE: Duration = Duration::from_millis(100);

/// The key of a circuit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Model(&'static str);

/// The label of the circuit in rejections and notifications.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

struct Answer {
    text: String,
    attempts: u32,
}

enum Failure {
    /// The circuit of the model is open.
    NotSent(Rejection),
    /// The last attempt failed before its first event.
    NoAnswer(Fault),
    /// The stream failed later. It is not sent again, because a part of the answer was read.
    Incomplete { text: String, reason: BoxError },
}

struct Llm {
    client: Client,
    service: BoxCloneSyncService<Request, Response, BreakerError<ClassifiedError>>,
    circuits: KeyedCircuits<Model>,
    errors: LlmErrors,
}

impl Llm {
    fn new(client: Client) -> Result<Self, BoxError> {
        // While this API loads a model, it refuses requests, but it is not failing.
        let loading =
            LlmErrors::row("server_is_overloaded").with_kind(Kind::Unavailable).with_health(Health::Neutral);
        let errors = LlmErrors::new().code("model_loading", loading);

        let each = BreakerConfig::builder()
            .name("llm")
            .consecutive_failures(3)
            .consecutive_failures_span(Duration::ZERO)
            // A worker makes few calls, so each attempt counts.
            .count_failed_retries(true)
            .open_for(Duration::from_millis(500))
            .build()?;
        let config = KeyedConfig::builder(each).build()?;
        let breakers = KeyedBreakerLayer::new(config, |_: &Request| Model("other"))
            // Each request has its model in its extensions.
            .key_from_extension()
            .on_failure(|failure| {
                println!("# {}: failure ({})", failure.key.as_deref().unwrap_or("?"), failure.fault.kind());
            })
            .on_transition(|transition| {
                let key = transition.key.as_deref().unwrap_or("?");
                println!("# {key}: {} -> {}", transition.from, transition.to);
            })
            // A call ends with its stream. An error event is a failure, and so is a stall.
            .track_body()
            .inspect_llm_events(errors.clone())
            .idle_limit(Duration::from_secs(1));

        let circuits = breakers.circuits();

        let policy = RetryPolicy::builder()
            .max_attempts(3)
            .initial_backoff(Duration::from_millis(20))
            // All workers together may retry a tenth of the prompts, and once a second in addition.
            .budget(Budget::window().ratio(0.1).min_per_second(1).build()?)
            .build()?;
        // A real model may need longer for its first event, and pause for longer in a stream.
        let bodies = ErrorBodies::new(errors.clone()).first_event_timeout(Duration::from_secs(1));
        let service = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            .layer(JitterRetryLayer::new(policy))
            .layer(breakers)
            .layer(FaultClassifyLayer::new().read_error_bodies(bodies))
            // The time limit of a response's head.
            .layer(TimeoutLayer::new(Duration::from_secs(10)))
            .service(client.clone());
        Ok(Self { client, service, circuits, errors })
    }

    fn request(&self, model: Model, prompt: &str) -> reqwest::Result<Request> {
        let message = json!({ "role": "user", "content": prompt });
        let body = json!({ "model": model.0, "stream": true, "messages": [message] });
        let request = self.client.post(API).json(&body).build()?;
        // A prompt has no effect but its price, so this POST may be sent again.
        Ok(request.with_extension(RetrySafety::Always).with_extension(model))
    }

    async fn ask(&self, request: Request) -> Result<Answer, Failure> {
        let mut response = match self.service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(BreakerError::Rejected(rejection)) => return Err(Failure::NotSent(rejection)),
            Err(error) => return Err(Failure::NoAnswer(classify_error(&error))),
        };
        // The verdict on the status, the error body or the first event.
        if let Some(fault) = CarriedVerdict::get(&response).as_ref().and_then(|verdict| verdict.fault()) {
            return Err(Failure::NoAnswer(*fault));
        }
        let attempts = response.extensions().get::<Retried>().map_or(1, |retried| retried.attempts);
        let mut text = String::new();
        match self.read_stream(&mut response, &mut text).await {
            Ok(()) => Ok(Answer { text, attempts }),
            Err(reason) => Err(Failure::Incomplete { text, reason }),
        }
    }

    /// Appends the text of the events to `text`.
    async fn read_stream(&self, response: &mut Response, text: &mut String) -> Result<(), BoxError> {
        let mut unread = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            unread.extend_from_slice(&chunk);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                // The other lines are empty, or comments.
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                if data.trim_ascii() == b"[DONE]" {
                    return Ok(());
                }
                let event: Value = serde_json::from_slice(data)?;
                if let Some(code) = event["error"]["code"].as_str() {
                    let fault = self.errors.fault(code);
                    return Err(fault.map_or_else(|| code.to_owned(), |fault| fault.to_string()).into());
                }
                text.push_str(event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
            }
        }
        Err("the stream ended before [DONE]".into())
    }

    /// Sends the prompts in order, until none is left or the quota is used up.
    async fn work(&self, model: Model, prompts: &[&str]) -> reqwest::Result<()> {
        let mut left = prompts;
        while let [prompt, others @ ..] = left {
            match self.ask(self.request(model, prompt)?).await {
                Ok(answer) => {
                    println!("{model:?}: {prompt}: {:?}, {} attempt(s)", answer.text, answer.attempts);
                }
                Err(Failure::Incomplete { text, reason }) => {
                    println!("{model:?}: {prompt}: {text:?}, then: {}", ErrorChain(&*reason));
                }
                Err(Failure::NotSent(rejection)) => {
                    println!("{model:?}: {prompt}: {rejection}");
                    self.circuits.circuit(&model).ready().await;
                    continue;
                }
                Err(Failure::NoAnswer(fault)) if fault.kind() == Kind::Quota => {
                    println!("{model:?}: {prompt}: {fault}, {} prompt(s) left", left.len());
                    return Ok(());
                }
                // The retries were refused too. The API has not processed the prompt.
                Err(Failure::NoAnswer(fault)) if fault.retryable() == Retryable::Refused => {
                    println!("{model:?}: {prompt}: {fault}, will be sent later");
                    sleep(fault.retry_after().unwrap_or(PAUSE)).await;
                    continue;
                }
                Err(Failure::NoAnswer(fault)) => println!("{model:?}: {prompt}: {fault}, set aside"),
            }
            left = others;
        }
        Ok(())
    }
}

/// Decides which prompts of a batch are sent again. Each line of the result file is a JSON object.
fn read_batch(results: &str) -> serde_json::Result<()> {
    for line in results.lines() {
        let result: Value = serde_json::from_str(line)?;
        let id = result["custom_id"].as_str().unwrap_or("?");
        match result["response"]["body"]["error"]["code"].as_str() {
            None => println!("{id}: answered"),
            Some(code) => match llm_fault(code) {
                Some(fault) if fault.retryable() != Retryable::Never => println!("{id}: {fault}, next batch"),
                _ => println!("{id}: {code}, set aside"),
            },
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // `ring` does the cryptography, because it needs only a C compiler. With the default features
    // of reqwest, this line is not needed.
    rustls::crypto::ring::default_provider().install_default().expect("no other provider is installed");
    let client = Client::builder()
        // The stack retries, so reqwest does not need its own retries of refused HTTP/2 requests.
        .retry(reqwest::retry::never())
        // Ends a stream that stalls for longer.
        .read_timeout(Duration::from_secs(10))
        // The demo's server is on loopback. Leave these two lines out of your program.
        .no_proxy()
        .resolve("llm.example", server::start().await?)
        .build()?;
    let llm = Llm::new(client)?;

    // Each model has a worker, so that an open circuit delays only the prompts of its model.
    let small = llm.work(Model("small"), server::SMALL_MODEL_PROMPTS);
    let large = llm.work(Model("large"), server::LARGE_MODEL_PROMPTS);
    tokio::try_join!(small, large)?;

    read_batch(server::BATCH_RESULTS)?;
    Ok(())
}
