//! Errors that are never retried.

use llm_batch::config::Api;
use llm_batch::errors::LlmError;
use serde_json::json;
use test_servers::{Action, Http};

use crate::{APIS, api_error, call, error_of, failed, fatal, job, json_response, reply};

#[tokio::test(start_paused = true)]
async fn fatal_errors_defined() {
    let rows = [
        (400, "invalid_request_error", "BadRequestError"),
        (400, "context_length_exceeded", "BadRequestError"),
        (400, "unknown_code", "BadRequestError"),
        (401, "invalid_api_key", "AuthenticationError"),
        (401, "authentication_error", "AuthenticationError"),
        (403, "permission_error", "PermissionDeniedError"),
        (404, "model_not_found", "NotFoundError"),
        (404, "not_found_error", "NotFoundError"),
    ];
    for api in APIS {
        for (status, code, error_type) in rows {
            let (error, requests) = error_of(api_error(api, status, code), api).await;
            let error = fatal(error);
            assert_eq!((error.error_type, requests), (error_type, 1), "{status} {code}");
            assert_eq!(error.to_string(), format!("{error_type}: no"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn llm_client_raises_fatal_error_without_retry() {
    for (status, error_type) in
        [(400, "BadRequestError"), (401, "AuthenticationError"), (403, "PermissionDeniedError")]
    {
        let server = Http::start().await;
        server.script([Action::status(status), reply(Api::OpenAi, "not asked for")]);
        let mut config = job(&server, Api::OpenAi);
        config.processing.max_retries = 5;
        let error = fatal(call(&config).await.expect_err("the request is refused"));
        assert_eq!((error.error_type, server.requests().len()), (error_type, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn quota_used_up_is_not_retried() {
    let anthropic_402 = api_error(Api::Anthropic, 402, "billing_error");
    let prepaid_402 = json_response(402, &json!({ "error": { "message": "no" } }));
    for (api, response, error_type) in [
        (Api::OpenAi, api_error(Api::OpenAi, 429, "insufficient_quota"), "RateLimitError"),
        (
            Api::OpenAi,
            api_error(Api::OpenAi, 429, "insufficient_quota").header("retry-after", "1"),
            "RateLimitError",
        ),
        (Api::OpenAi, prepaid_402, "APIStatusError"),
        (Api::Anthropic, anthropic_402, "APIStatusError"),
    ] {
        match error_of(response, api).await {
            (LlmError::Quota(error), 1) => assert_eq!(error.to_string(), format!("{error_type}: no")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refused_item_is_a_failure_of_that_item_only() {
    for (status, error_type) in [(413, "RequestTooLargeError"), (422, "UnprocessableEntityError")] {
        let (error, requests) = error_of(Action::status(status), Api::OpenAi).await;
        assert_eq!((failed(error).error_type, requests), (error_type, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn error_code_takes_precedence_over_status() {
    let (error, requests) = error_of(api_error(Api::OpenAi, 403, "rate_limit_exceeded"), Api::OpenAi).await;
    assert_eq!((failed(error).error_type, requests), ("PermissionDeniedError", 3));
}

#[tokio::test(start_paused = true)]
async fn key_in_a_message_of_the_server_is_removed() {
    let body = json!({ "error": { "message": "wrong key sk-secret" } });
    let (error, _) = error_of(json_response(401, &body), Api::OpenAi).await;
    assert_eq!(error.to_string(), "AuthenticationError: wrong key ***");
    let (error, _) = error_of(json_response(500, &body), Api::OpenAi).await;
    assert_eq!(error.to_string(), "InternalServerError: wrong key ***");
}

/// Otherwise the cut could leave a part of the key, which is not recognized.
#[tokio::test(start_paused = true)]
async fn key_is_removed_before_a_message_is_cut() {
    for status in [200, 403, 500] {
        let page = format!("{} sk-secret", "x".repeat(95));
        let (error, _) = error_of(Action::status(status).body(page), Api::OpenAi).await;
        assert!(error.to_string().contains("xxx ***"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn error_message_is_found_in_every_shape() {
    for (body, message) in [
        (json!({ "error": { "message": "m" } }).to_string(), "m"),
        (json!({ "error": "m" }).to_string(), "m"),
        (json!({ "message": "m", "code": 400 }).to_string(), "m"),
        (json!({ "detail": "m" }).to_string(), "m"),
        ("<html>\n <h1>no".to_owned(), "the API answered 400 Bad Request: <html> <h1>no"),
        (String::new(), "the API answered 400 Bad Request"),
    ] {
        let (error, _) = error_of(Action::status(400).body(body), Api::OpenAi).await;
        assert_eq!(fatal(error).message, message);
    }
}

#[tokio::test(start_paused = true)]
async fn page_of_a_wrong_address_names_base_url() {
    let page = "<!DOCTYPE html>\n<html><h1>Not Found</h1></html>";
    for body in [page, ""] {
        let (error, requests) = error_of(Action::status(404).body(body), Api::OpenAi).await;
        let expected = "NotFoundError: the API answered 404 Not Found; check `base_url`";
        assert_eq!((fatal(error).to_string().as_str(), requests), (expected, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn redirect_is_not_followed() {
    let other = Http::start().await;
    let (error, requests) =
        error_of(Action::status(307).header("location", other.url()), Api::Anthropic).await;
    let error = failed(error);
    assert_eq!((error.error_type, requests), ("APIStatusError", 1));
    assert_eq!(error.message, "the API answered 307 Temporary Redirect; check `base_url`");
    assert!(other.requests().is_empty());
}
