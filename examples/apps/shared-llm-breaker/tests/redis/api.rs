//! Calls to an API through the client: which outcomes count in the circuit.

use std::time::Duration;

use shared_llm_breaker::llm::{LlmClient, LlmConfig, LlmError};
use shared_llm_breaker::{CircuitBreaker, CircuitState};
use test_servers::{Action, Llm, LlmFault, Redis};
use tokio::time::{Instant, timeout};

use super::support::{PATIENCE, fail_times, settings, start};

/// An API that replies to each prompt with `reply`, and a client whose breaker is in Redis.
struct Setup {
    llm: Llm,
    breaker: CircuitBreaker,
    client: LlmClient,
    _redis: Redis,
}

impl Setup {
    async fn new(change: impl FnOnce(&mut LlmConfig)) -> Self {
        let redis = Redis::start();
        let breaker = start(&redis.url(), "api", settings("a")).await;
        let llm = Llm::start().await;
        llm.set_reply(|_| "reply".to_owned());
        let mut config = LlmConfig {
            base_url: format!("{}/v1", llm.url()),
            key: "sk-secret".parse().unwrap(),
            model: "small".to_owned(),
            stream: true,
            timeout: Duration::from_secs(60),
            max_attempts: 1,
            max_retry_after: Duration::from_secs(60),
        };
        change(&mut config);
        let client = LlmClient::new(config, breaker.clone()).unwrap();
        Self { llm, breaker, client, _redis: redis }
    }

    /// Makes a call that fails in this way.
    async fn fail(&self, fault: LlmFault) -> LlmError {
        self.llm.script([Some(fault)]);
        self.client.complete("Hello").await.expect_err("the API fails")
    }

    fn requests(&self) -> u32 {
        self.llm.counts("Hello").requests
    }
}

#[tokio::test]
async fn reply_is_returned_streamed_or_not() {
    for stream in [true, false] {
        let setup = Setup::new(|config| config.stream = stream).await;
        setup.llm.set_keys(["sk-secret"]);
        assert_eq!(setup.client.complete("Hello").await.unwrap(), "reply");
        let body: serde_json::Value = serde_json::from_slice(&setup.llm.http().requests()[0].body).unwrap();
        assert_eq!(body["stream"], stream);
        assert_eq!(setup.breaker.fail_counter(), 0);
    }
}

#[tokio::test]
async fn server_errors_and_broken_replies_count_as_failures() {
    let faults = [
        LlmFault::ServerError,
        LlmFault::Unavailable,
        LlmFault::Reset,
        LlmFault::StreamWithoutEnd,
        LlmFault::ErrorInStream,
    ];
    let setup = Setup::new(|_| {}).await;
    for (count, fault) in (1..).zip(faults) {
        assert_eq!(setup.breaker.state(), CircuitState::Closed);
        setup.fail(fault).await;
        assert_eq!(setup.breaker.fail_counter(), count, "{fault:?}");
    }
    assert_eq!(setup.breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn streams_that_break_off_open_the_circuit() {
    for fault in [LlmFault::ResetInBody, LlmFault::TruncatedBody, LlmFault::StreamWithoutEnd] {
        let setup = Setup::new(|_| {}).await;
        for _ in 0..5 {
            setup.fail(fault).await;
        }
        assert_eq!(setup.breaker.state(), CircuitState::Open, "{fault:?}");
        assert!(matches!(setup.client.complete("Hello").await, Err(LlmError::Rejected(_))));
        assert_eq!(setup.requests(), 5);
    }
}

#[tokio::test]
async fn error_event_of_a_stream_is_the_error_of_the_call() {
    let setup = Setup::new(|_| {}).await;
    let error = setup.fail(LlmFault::ErrorInStream).await;
    assert_eq!(error.to_string(), "The server had an error while it processed your request");
    assert_eq!(error.kind().as_str(), "server");
}

#[tokio::test]
async fn stalled_stream_times_out_and_counts_as_failure() {
    let setup = Setup::new(|config| config.timeout = Duration::from_millis(200)).await;
    let error = timeout(PATIENCE, setup.fail(LlmFault::StalledBody)).await.unwrap();
    assert_eq!(error.kind().as_str(), "timeout", "{error}");
    assert_eq!(setup.breaker.fail_counter(), 1);
}

#[tokio::test]
async fn rate_limit_waits_for_hint_and_does_not_count() {
    let setup = Setup::new(|config| config.max_attempts = 2).await;
    setup.llm.script([Some(LlmFault::RateLimit { retry_after: 1 })]);
    let begin = Instant::now();
    assert_eq!(setup.client.complete("Hello").await.unwrap(), "reply");
    assert!(begin.elapsed() >= Duration::from_secs(1), "the API asked for a second");
    assert_eq!(setup.requests(), 2);

    for _ in 0..6 {
        setup.llm.script([Some(LlmFault::RateLimit { retry_after: 3600 })]);
        let error = setup.client.complete("Hello").await.expect_err("the hint is too long");
        assert_eq!(error.kind().as_str(), "throttled", "{error}");
    }
    assert_eq!((setup.breaker.state(), setup.breaker.fail_counter()), (CircuitState::Closed, 0));
    assert_eq!(setup.requests(), 8);
}

#[tokio::test]
async fn used_up_quota_is_sent_once_and_does_not_count() {
    let setup = Setup::new(|config| config.max_attempts = 3).await;
    for count in 1..=6 {
        let error = setup.fail(LlmFault::QuotaExhausted).await;
        assert_eq!(error.kind().as_str(), "quota", "{error}");
        assert!(error.to_string().contains("exceeded your current quota"), "{error}");
        assert_eq!(setup.requests(), count);
    }
    assert_eq!((setup.breaker.state(), setup.breaker.fail_counter()), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn quota_error_between_failures_does_not_end_the_run() {
    let setup = Setup::new(|_| {}).await;
    for _ in 0..4 {
        setup.fail(LlmFault::Unavailable).await;
    }
    setup.fail(LlmFault::QuotaExhausted).await;
    setup.fail(LlmFault::Unavailable).await;
    assert_eq!(setup.breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn each_attempt_counts_and_no_attempt_follows_the_opening() {
    let setup = Setup::new(|config| config.max_attempts = 10).await;
    setup.llm.set_faults(|_, _| Some(LlmFault::Unavailable));
    let error = setup.client.complete("Hello").await.unwrap_err();
    assert_eq!(error.kind().as_str(), "overloaded", "{error}");
    assert_eq!(setup.requests(), 5);
    assert_eq!(setup.breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn call_that_opens_the_circuit_does_not_wait_for_the_next_attempt() {
    let setup = Setup::new(|config| {
        (config.max_attempts, config.max_retry_after) = (2, Duration::from_secs(7200));
    })
    .await;
    fail_times(&setup.breaker, 4).await;
    setup.llm.http().script([Action::status(503).header("retry-after", "3600")]);
    let call = timeout(PATIENCE, setup.client.complete("Hello")).await.expect("the call waits for the hint");
    assert_eq!(call.unwrap_err().kind().as_str(), "unavailable");
    assert_eq!(setup.breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn errors_of_the_request_are_answers_of_a_healthy_api() {
    let setup = Setup::new(|_| {}).await;
    for fault in [LlmFault::InvalidKey, LlmFault::BadRequest, LlmFault::UnknownModel] {
        for _ in 0..4 {
            setup.fail(LlmFault::Unavailable).await;
        }
        setup.fail(fault).await;
        assert_eq!(setup.breaker.fail_counter(), 0, "{fault:?}");
    }
    assert_eq!(setup.breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn key_is_in_no_error() {
    let setup = Setup::new(|_| {}).await;
    let action = Action::status(401).body(r#"{"error":{"message":"wrong key sk-secret"}}"#);
    setup.llm.http().script([action]);
    let error = setup.client.complete("Hello").await.unwrap_err();
    assert_eq!(error.to_string(), "401 Unauthorized: wrong key ***");
    assert!(!format!("{error:?} {:?}", setup.client).contains("sk-secret"));
}

#[tokio::test]
async fn replies_in_another_form_are_errors_that_do_not_count() {
    let setup = Setup::new(|config| (config.stream, config.max_attempts) = (false, 3)).await;
    let bodies = [
        "",
        "null",
        "[]",
        r#"{"choices":null}"#,
        r#"{"choices":[{"message":"#,
        "<html>login</html>",
        "\u{0}\u{ff}",
    ];
    for (count, body) in (1..).zip(bodies) {
        setup.llm.http().script([Action::status(200).body(body)]);
        let error = setup.client.complete("Hello").await.expect_err(body);
        assert_eq!(error.kind().as_str(), "protocol", "{body}: {error}");
        assert_eq!(setup.llm.http().requests().len(), count, "{body}");
    }
    assert_eq!((setup.breaker.state(), setup.breaker.fail_counter()), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn redirect_is_not_followed_and_does_not_count() {
    let setup = Setup::new(|config| config.max_attempts = 3).await;
    let other = Llm::start().await;
    let location = format!("{}/v1/chat/completions", other.url());
    setup.llm.http().script([Action::status(307).header("location", location)]);
    let error = setup.client.complete("Hello").await.unwrap_err();
    assert_eq!(error.to_string(), "the API answered 307 Temporary Redirect; check `base_url`");
    assert_eq!((setup.llm.http().requests().len(), other.http().requests().len()), (1, 0));
    assert_eq!(setup.breaker.fail_counter(), 0);
}

#[tokio::test]
async fn status_200_with_an_error_object_is_an_error() {
    let setup = Setup::new(|_| {}).await;
    let error = r#"{"error":{"message":"The server is overloaded","type":"server_error"}}"#;
    setup.llm.http().script([Action::status(200).header("content-type", "application/json").body(error)]);
    let error = setup.client.complete("Hello").await.unwrap_err();
    assert_eq!((error.kind().as_str(), &*error.to_string()), ("server", "The server is overloaded"));
    assert_eq!(setup.breaker.fail_counter(), 1);
}

#[tokio::test]
async fn enormous_retry_after_ends_the_attempts() {
    let setup = Setup::new(|config| config.max_attempts = 2).await;
    for hint in ["86400000", "18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
        let before = setup.llm.http().requests().len();
        setup.llm.http().script([Action::status(429).header("retry-after", hint)]);
        let call = timeout(PATIENCE, setup.client.complete("Hello")).await.expect(hint);
        assert_eq!(call.unwrap_err().kind().as_str(), "throttled", "{hint}");
        assert_eq!(setup.llm.http().requests().len(), before + 1, "{hint}");
    }
    assert_eq!(setup.breaker.fail_counter(), 0);
}

#[tokio::test]
async fn reply_without_end_is_cut_off() {
    let enormous = vec![b' '; 65 << 20];
    for content_type in ["application/json", "text/event-stream"] {
        let setup = Setup::new(|_| {}).await;
        let action = Action::status(200).header("content-type", content_type).body(enormous.clone());
        setup.llm.http().script([action]);
        let error = setup.client.complete("Hello").await.unwrap_err();
        assert!(error.to_string().contains("longer than 64 MiB"), "{content_type}: {error}");
        assert_eq!(error.kind().as_str(), "protocol");
    }
}
