//! The demo's API, which follows a script.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_stream::StreamExt;

/// The prompts say what the server does with them.
pub(crate) const SMALL_MODEL_PROMPTS: &[&str] = &[
    "answer",
    "stall, break, answer",
    "break later",
    "load, answer",
    "too long",
    "error later",
    "stall later",
];
pub(crate) const LARGE_MODEL_PROMPTS: &[&str] = &["overloaded three times", "answer", "no quota", "not sent"];

pub(crate) const BATCH_RESULTS: &str = r#"{"custom_id":"prompt-1","response":{"status_code":200,"body":{}}}
{"custom_id":"prompt-2","response":{"status_code":503,"body":{"error":{"code":"server_is_overloaded"}}}}
{"custom_id":"prompt-3","response":{"status_code":400,"body":{"error":{"code":"context_length_exceeded"}}}}
{"custom_id":"prompt-4","response":{"status_code":404,"body":{"error":{"code":"model_not_found"}}}}"#;

/// The response to one request.
#[derive(Clone, Copy)]
enum Reply {
    Refuse(StatusCode, &'static str),
    Stream(&'static [Step]),
}

/// A part of an event stream.
#[derive(Clone, Copy)]
enum Step {
    Text(&'static str),
    Error(&'static str),
    /// Waits for a number of milliseconds, then sends a comment.
    Pause(u64),
    Break,
}

use Reply::{Refuse, Stream};
use Step::{Break, Error, Pause, Text};

const ANSWER: Reply = Stream(&[Text("Once upon"), Text(" a time")]);
const OVERLOADED: Reply = Refuse(StatusCode::SERVICE_UNAVAILABLE, "server_is_overloaded");

/// Returns the responses to the requests with a prompt, in their order. The last one is repeated.
fn script(prompt: &str) -> &'static [Reply] {
    match prompt {
        "stall, break, answer" => &[Stream(&[Pause(60_000)]), Stream(&[Break]), ANSWER],
        "break later" => &[Stream(&[Text("Once upon"), Pause(20), Break]), ANSWER],
        "error later" => &[Stream(&[Text("Once upon"), Error("server_is_overloaded")]), ANSWER],
        "stall later" => &[Stream(&[Text("Once upon"), Pause(2_000), Text(" a time")])],
        "load, answer" => &[Refuse(StatusCode::CONFLICT, "model_loading"), ANSWER],
        "too long" => &[Refuse(StatusCode::BAD_REQUEST, "context_length_exceeded"), ANSWER],
        "overloaded three times" => &[OVERLOADED, OVERLOADED, OVERLOADED, ANSWER],
        "no quota" => &[Refuse(StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"), ANSWER],
        _ => &[ANSWER],
    }
}

/// The number of requests with each prompt.
type Requests = Arc<Mutex<HashMap<String, usize>>>;

/// Starts the API on a loopback port.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let router = Router::new().route("/v1/chat/completions", post(complete)).with_state(Requests::default());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

async fn complete(State(requests): State<Requests>, Json(body): Json<Value>) -> Response {
    let prompt = body["messages"][0]["content"].as_str().unwrap_or_default();
    let replies = script(prompt);
    match replies[count(&requests, prompt).min(replies.len()) - 1] {
        Refuse(status, code) => (status, Json(error(code))).into_response(),
        Stream(steps) => {
            let events = tokio_stream::iter(steps).then(event);
            let done = tokio_stream::once(Ok("data: [DONE]\n\n".to_owned()));
            ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(events.chain(done))).into_response()
        }
    }
}

/// Counts a request, and returns how many requests had its prompt.
fn count(requests: &Requests, prompt: &str) -> usize {
    let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
    let count = requests.entry(prompt.to_owned()).or_default();
    *count += 1;
    *count
}

fn error(code: &str) -> Value {
    json!({ "error": { "code": code, "message": "the script says so" } })
}

async fn event(step: &Step) -> io::Result<String> {
    match *step {
        Text(text) => Ok(format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }))),
        Error(code) => Ok(format!("data: {}\n\n", error(code))),
        Pause(millis) => {
            sleep(Duration::from_millis(millis)).await;
            Ok(":\n\n".to_owned())
        }
        Break => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
