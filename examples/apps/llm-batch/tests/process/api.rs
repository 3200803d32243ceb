//! Settings that reach the API, and an API that is down.

use std::time::Duration;

use serde_json::{Value, json};
use test_servers::{Action, Http, Tls};

use crate::machine::{events, names};
use crate::support::{Setup, error, reply, run};

fn body(setup: &Setup, number: usize) -> Value {
    serde_json::from_slice(&setup.api.requests()[number].body).unwrap()
}

#[tokio::test]
async fn items_wait_while_the_api_is_down_and_then_go_on() {
    let setup = Setup::new(30).await;
    setup.api.set_default(error(503, "overloaded", "The server is overloaded"));
    let flags = ["--json", "--max-retries", "1000", "--retry-delay", "0"];
    let mut program = setup.start(&setup.process(&flags));
    program.wait_for("\"model_circuit\"").await;
    setup.api.set_default(reply("{\"answer\": 42}"));
    let program = program.finish().await;
    let events = events(program.expect_code(0));
    let states: Vec<_> = events.iter().filter(|event| event["event"] == "model_circuit").collect();
    assert_eq!(
        states[0],
        &json!({ "event": "model_circuit", "model": "gpt-4o-mini", "from": "closed", "to": "open" })
    );
    assert_eq!(states.last().unwrap()["to"], "closed");
    assert!(!names(&events).contains(&"tripped"), "the job's circuit ignores an API that is down");
    assert!(setup.lines("out.jsonl").iter().all(|result| result["answer"] == 42));
    assert_eq!(setup.lines(".checkpoints/job.results.jsonl").len(), 30);
}

#[tokio::test]
async fn max_retries_is_the_number_of_requests() {
    let setup = Setup::new(1).await;
    setup.api.set_default(error(500, "internal", "The server failed"));
    setup.write("agents.json", "{\"processing\": {\"max_retries\": 7}}");
    let flags = ["--config", "agents.json", "--max-retries", "2", "--retry-delay", "0"];
    setup.run(&setup.process(&flags), "").await.expect_code(1);
    assert_eq!(setup.api.requests().len(), 2);
    let error = setup.lines("out.jsonl")[0]["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("InternalServerError: ") && error.contains("The server failed"), "{error}");
}

#[tokio::test]
async fn anthropic_style_has_its_own_path_key_and_reply() {
    let setup = Setup::new(1).await;
    let text = json!({ "content": [{ "type": "text", "text": "{\"answer\": 42}" }] });
    setup.api.set_default(Action::status(200).body(text.to_string()));
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--api", "anthropic", "--base-url"];
    let mut command = setup.command(&words.map(str::to_owned));
    command.arg(setup.api.url().trim_end_matches('/')).env("ANTHROPIC_API_KEY", "sk-ant");
    run(command, "").await.expect_code(0);
    let request = &setup.api.requests()[0];
    assert!(request.path.ends_with("/messages"), "{}", request.path);
    assert_eq!(request.headers["x-api-key"], "sk-ant");
    assert_eq!(setup.lines("out.jsonl")[0]["answer"], 42);
}

#[tokio::test]
async fn items_name_their_model_in_a_field() {
    let setup = Setup::new(0).await;
    setup.write("in.jsonl", "{\"name\":\"a\",\"llm\":\"large\"}\n{\"name\":\"b\"}\n");
    let flags = ["--model-field", "llm", "--model", "small", "--mode", "sequential"];
    setup.run(&setup.process(&flags), "").await.expect_code(0);
    assert_eq!(body(&setup, 0)["model"], "large");
    assert_eq!(body(&setup, 1)["model"], "small");
}

#[tokio::test]
async fn replies_are_merged_kept_apart_or_kept_as_text() {
    let setup = Setup::new(1).await;
    let mut results = Vec::new();
    for flags in [&["--include-raw"][..], &["--no-merge"], &["--no-post-process"]] {
        let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p"];
        setup.run(&setup.arguments(&words, flags), "").await.expect_code(0);
        results.push(setup.lines("out.jsonl").remove(0));
    }
    assert_eq!(results[0]["answer"], 42);
    assert!(results[0].to_string().contains("{\\\"answer\\\": 42}"), "{}", results[0]);
    for result in &results[1..] {
        assert!(result.get("answer").is_none(), "{result}");
        assert!(result.to_string().contains("42"), "{result}");
    }
}

#[tokio::test]
async fn streamed_replies_are_joined() {
    let setup = Setup::new(1).await;
    let event =
        |text: &str| format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": text } }] }));
    let stream = [event("{\"answer\""), event(": 42}"), "data: [DONE]\n\n".to_owned()].concat();
    let stream = Action::status(200).header("content-type", "text/event-stream").body(stream);
    setup.api.set_default(stream);
    setup.run(&setup.process(&["--stream"]), "").await.expect_code(0);
    assert_eq!(body(&setup, 0)["stream"], true);
    assert_eq!(setup.lines("out.jsonl")[0]["answer"], 42);
}

#[tokio::test]
async fn quota_used_up_stops_calls_that_wait_for_their_retry() {
    let setup = Setup::new(3).await;
    // The first call would wait longer than the test.
    let later = error(429, "rate_limit_exceeded", "slow down").header("retry-after", "300");
    let quota = error(429, "insufficient_quota", "no quota").delay(Duration::from_millis(200));
    setup.api.script([later, quota]);
    let program = setup.run(&setup.process(&["--batch-size", "2"]), "").await;
    program.expect_code(4).expect_stdout("The quota is used up");
    assert_eq!(setup.read(".checkpoints/job.results.jsonl"), "");
    setup.run(&setup.resume(&[]), "").await.expect_code(0);
    assert_eq!(setup.lines("out.jsonl").len(), 3);
}

#[tokio::test]
async fn progress_shows_why_a_model_is_down() {
    let setup = Setup::new(100).await;
    setup.api.set_default(error(503, "server_error", "closed for repairs"));
    let mut program = setup.start(&setup.process(&["--json", "--max-retries", "1", "--batch-size", "2"]));
    program.wait_for("\"to\":\"open\"").await;
    program.signal(rustix::process::Signal::INT);
    let program = program.finish().await;
    program.expect_code(130).expect_stderr("gpt-4o-mini: open").expect_stderr("closed for repairs");
}

#[tokio::test]
async fn certificate_that_is_not_trusted_is_named_and_can_be_trusted() {
    let setup = Setup::new(1).await;
    let tls = Tls::new();
    let api = Http::start_tls(&tls).await;
    api.set_default(reply("{\"answer\": 42}"));
    setup.write("authority.pem", &tls.ca_pem());
    let url = api.url();
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--api-key", "k", "--base-url", &url];
    let words = words.map(str::to_owned);

    run(setup.command(&words), "").await.expect_code(1);
    let error = setup.lines("out.jsonl")[0]["error"].to_string();
    assert!(error.contains("APIConnectionError") && error.contains("invalid peer certificate"), "{error}");
    assert_eq!(api.requests().len(), 0);

    let mut command = setup.command(&words);
    command.env("SSL_CERT_FILE", "authority.pem");
    run(command, "").await.expect_code(0);
    assert_eq!(setup.lines("out.jsonl")[0]["answer"], 42);
}
