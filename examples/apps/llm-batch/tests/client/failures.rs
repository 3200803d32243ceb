//! Failures that are retried.

use std::error::Error;
use std::time::Duration;

use llm_batch::config::{Api, Mode};
use llm_batch::errors::LlmError;
use test_servers::{Action, Http, RefusedPort};
use tower_fault_classify::ErrorChain;

use crate::{APIS, api_error, call, error_of, failed, fatal, job, reply};

#[tokio::test(start_paused = true)]
async fn retryable_errors_defined() {
    let rows = [
        (429, "rate_limit_exceeded", "RateLimitError"),
        (429, "rate_limit_error", "RateLimitError"),
        (429, "unknown_code", "RateLimitError"),
        (408, "timeout_error", "APIStatusError"),
        (500, "server_error", "InternalServerError"),
        (500, "api_error", "InternalServerError"),
        (502, "unknown_code", "InternalServerError"),
        (503, "server_is_overloaded", "InternalServerError"),
        (504, "timeout_error", "InternalServerError"),
        (529, "overloaded_error", "OverloadedError"),
    ];
    for api in APIS {
        for (status, code, error_type) in rows {
            let (error, requests) = error_of(api_error(api, status, code), api).await;
            let error = failed(error);
            assert_eq!((error.error_type, error.attempts, requests), (error_type, 3, 3), "{status} {code}");
            assert_eq!(error.to_string(), format!("{error_type}: no"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connection_failures_are_retried() {
    for broken in [
        Action::CloseOnAccept,
        Action::ResetOnAccept,
        Action::ResetBeforeRequest,
        Action::ResetAfterRequest,
        Action::CloseAfterRequest,
        Action::raw("HTTP/1.1 200 OK\r\ncontent-le").then_reset(),
    ] {
        let server = Http::start().await;
        server.script([broken.clone(), broken.clone(), reply(Api::OpenAi, "4")]);
        assert_eq!(
            call(&job(&server, Api::OpenAi)).await.expect("the third attempt succeeds"),
            "4",
            "{broken:?}"
        );

        server.set_default(broken.clone());
        let error = failed(call(&job(&server, Api::OpenAi)).await.expect_err("no attempt succeeds"));
        assert_eq!((error.error_type, error.attempts), ("APIConnectionError", 3), "{broken:?}");
        assert!(error.source().is_some(), "the error of the last attempt is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn connection_refused_names_the_address_and_the_reason() {
    let server = Http::start().await;
    let mut config = job(&server, Api::OpenAi);
    let port = RefusedPort::bind();
    config.llm.base_url = Some(format!("http://{}", port.address()));
    let error = failed(call(&config).await.expect_err("no server listens"));
    assert_eq!((error.error_type, error.attempts), ("APIConnectionError", 3));
    let text = ErrorChain(&error).to_string();
    assert!(text.contains(&port.address().to_string()) && text.contains("refused"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn hanging_server_is_a_timeout() {
    let server = Http::start().await;
    server.script([Action::Hang, Action::Hang]);
    server.set_default(reply(Api::OpenAi, "4"));
    let mut config = job(&server, Api::OpenAi);
    config.llm.timeout = Duration::from_secs(30);
    config.processing.max_retries = 2;
    let error = failed(call(&config).await.expect_err("both attempts time out"));
    assert_eq!((error.error_type, error.attempts, server.requests().len()), ("APITimeoutError", 2, 2));
    assert_eq!(call(&config).await.expect("the server answers again"), "4");
}

#[tokio::test(start_paused = true)]
async fn llm_client_uses_max_retries_param() {
    for max_retries in [1, 2, 5] {
        for mode in [Mode::Async, Mode::Sequential] {
            let server = Http::start().await;
            server.set_default(Action::status(429));
            let mut config = job(&server, Api::OpenAi);
            config.processing.max_retries = max_retries;
            config.processing.mode = mode;
            let error = failed(call(&config).await.expect_err("each request is refused"));
            assert_eq!((error.attempts, server.requests().len()), (max_retries, max_retries as usize));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn max_retries_default_makes_three_requests() {
    let (error, requests) = error_of(Action::status(500), Api::OpenAi).await;
    assert_eq!((failed(error).attempts, requests), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn call_succeeds_after_failures() {
    for api in APIS {
        let server = Http::start().await;
        server.script([
            api_error(api, 429, "rate_limit_error"),
            api_error(api, 529, "overloaded_error"),
            reply(api, "4"),
        ]);
        assert_eq!(call(&job(&server, api)).await.expect("the third attempt succeeds"), "4");
        assert_eq!(server.requests().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn last_error_is_returned() {
    let server = Http::start().await;
    server.script([Action::status(500), Action::status(429), api_error(Api::OpenAi, 401, "invalid_api_key")]);
    let error = fatal(call(&job(&server, Api::OpenAi)).await.expect_err("no attempt succeeds"));
    assert_eq!((error.error_type, server.requests().len()), ("AuthenticationError", 3));

    server.script([Action::status(500), Action::status(429), Action::ResetAfterRequest]);
    let error = failed(call(&job(&server, Api::OpenAi)).await.expect_err("no attempt succeeds"));
    assert_eq!(error.error_type, "APIConnectionError");
}

#[tokio::test(start_paused = true)]
async fn x_should_retry_takes_precedence() {
    for (status, header, expected) in
        [(429, "false", 1), (500, "false", 1), (400, "true", 3), (409, "true", 3), (409, "maybe", 1)]
    {
        let response = api_error(Api::OpenAi, status, "unknown_code").header("x-should-retry", header);
        let (_, requests) = error_of(response, Api::OpenAi).await;
        assert_eq!(requests, expected, "{status} {header}");
    }
    let quota = api_error(Api::OpenAi, 429, "insufficient_quota").header("x-should-retry", "true");
    assert!(matches!(error_of(quota, Api::OpenAi).await, (LlmError::Quota(_), 1)));
}
