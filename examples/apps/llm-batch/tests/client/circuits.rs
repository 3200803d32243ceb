//! The circuit of each model.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use llm_batch::config::{Api, Mode};
use llm_batch::engine::{Engine, Event};
use llm_batch::errors::LlmError;
use llm_batch::llm::{Ask, Complete, LlmClient, Model};
use llm_batch::prompt::PromptTemplate;
use llm_batch::unit::Unit;
use test_servers::{Action, Http};
use tokio::time::Instant;
use tower_breaker::CircuitState;

use crate::{ask, client, job, reply};

fn of_model(model: &str) -> Ask {
    Ask { model: Some(model.to_owned()), ..ask() }
}

fn state(client: &LlmClient, model: &str) -> CircuitState {
    client.circuits().circuit(&Model::from(model)).status().state
}

/// Fails calls of the configured model until its circuit is open.
async fn open_circuit(client: &LlmClient, server: &Http) {
    server.set_default(Action::status(503));
    while state(client, "gpt-4o-mini") != CircuitState::Open {
        client.complete(&ask()).await.expect_err("the server fails");
    }
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_when_the_api_is_down() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    open_circuit(&client, &server).await;
    let requests = server.requests().len();
    assert!((3..=6).contains(&requests), "{requests} requests");
    match client.complete(&ask()).await {
        Err(LlmError::CircuitOpen(error)) => {
            let expected = "circuit of model `gpt-4o-mini` is open after a failure: InternalServerError: ";
            assert!(error.to_string().starts_with(expected), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.requests().len(), requests, "no request was sent");
}

/// The call has attempts left, so its item was not processed.
#[tokio::test(start_paused = true)]
async fn circuit_that_rejects_a_retry_rejects_the_call() {
    let server = Http::start().await;
    let mut config = job(&server, Api::OpenAi);
    config.processing.max_retries = 100;
    // A delay is at most 5 s, and the second time that the circuit is open is longer.
    config.processing.retry_delay = Duration::ZERO;
    let client = client(&config);
    server.set_default(Action::status(503));
    match client.complete(&ask()).await {
        Err(LlmError::CircuitOpen(error)) => assert_eq!(error.model, "gpt-4o-mini"),
        other => panic!("{other:?}"),
    }
    assert_eq!(state(&client, "gpt-4o-mini"), CircuitState::Open);
    assert!(server.requests().len() < 10);
}

/// Each attempt is a probe of the circuit, so that the attempts of a call are never used up.
#[tokio::test(start_paused = true)]
async fn item_whose_attempts_all_fail_ends_after_max_wait() {
    let server = Http::start().await;
    server.set_default(Action::status(500));
    let mut config = job(&server, Api::OpenAi);
    config.processing.mode = Mode::Sequential;
    config.processing.max_retries = 100;
    config.processing.retry_delay = Duration::ZERO;
    let template = PromptTemplate::new("p").expect("the template is valid");
    let engine = Engine::new(client(&config), template, &config.processing);

    let start = Instant::now();
    let mut events = pin!(engine.process(vec![(0, Unit::new())]));
    let limit = config.processing.max_wait * 2;
    let event = tokio::time::timeout(limit, events.next()).await.expect("the item does not wait forever");
    let Some(Event::Result(result)) = event else { panic!("{event:?}") };
    let error = result["error"].as_str().expect("the item failed");
    assert!(error.starts_with("the item waited 3600 s in all"), "{error}");
    assert!(error.contains("circuit of model `gpt-4o-mini` is open after a failure: Internal"), "{error}");
    assert!(start.elapsed() >= config.processing.max_wait);
}

#[tokio::test(start_paused = true)]
async fn circuit_ready_waits_until_calls_are_admitted() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    client.ready(None).await;
    open_circuit(&client, &server).await;

    let start = Instant::now();
    client.ready(None).await;
    let time = start.elapsed();
    assert!(time > Duration::ZERO && time < Duration::from_secs(10), "{time:?}");
    // The next call is the probe.
    server.set_default(reply(Api::OpenAi, "4"));
    assert_eq!(client.complete(&ask()).await.expect("the server replies again"), "4");
}

#[tokio::test(start_paused = true)]
async fn circuit_half_open_lets_all_waiting_calls_finish() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    open_circuit(&client, &server).await;
    server.set_default(reply(Api::OpenAi, "4"));
    let requests = server.requests().len();
    let until_done = async || loop {
        client.ready(None).await;
        match client.complete(&ask()).await {
            Ok(text) => return text,
            Err(error) => assert!(matches!(error, LlmError::CircuitOpen(_)), "{error:?}"),
        }
    };
    let texts = join_all((0..20).map(|_| until_done())).await;
    assert_eq!(texts, vec!["4"; 20]);
    assert_eq!(server.requests().len(), requests + 20);
    assert_eq!(state(&client, "gpt-4o-mini"), CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn circuit_ready_waits_while_it_is_forced_open() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    let circuit = client.circuits().circuit(&Model::from("gpt-4o-mini"));
    circuit.force_open().expect("the circuit is enabled");
    let waiting = tokio::time::timeout(Duration::from_secs(3600), client.ready(None));
    assert!(waiting.await.is_err());
    circuit.release();
    client.ready(None).await;
}

#[tokio::test(start_paused = true)]
async fn circuit_of_another_model_stays_closed() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    open_circuit(&client, &server).await;
    server.set_default(reply(Api::OpenAi, "4"));
    client.ready(Some("other")).await;
    assert_eq!(client.complete(&of_model("other")).await.expect("its circuit is closed"), "4");
    assert_eq!(state(&client, "gpt-4o-mini"), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn circuit_stays_closed_after_refused_requests() {
    let server = Http::start().await;
    let client = client(&job(&server, Api::OpenAi));
    for status in [400, 401, 403, 404, 422, 429] {
        server.set_default(Action::status(status));
        for _ in 0..10 {
            client.complete(&ask()).await.expect_err("the request is refused");
        }
        assert_eq!(state(&client, "gpt-4o-mini"), CircuitState::Closed, "{status}");
    }
}
