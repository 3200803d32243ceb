//! Streamed replies.

use std::time::Duration;

use llm_batch::config::{Api, JobConfig};
use llm_batch::errors::LlmError;
use test_servers::{Action, Http};

use crate::{APIS, call, failed, fatal, job, reply};

fn streaming(server: &Http, api: Api) -> JobConfig {
    let mut config = job(server, api);
    config.llm.stream = true;
    config.llm.timeout = Duration::from_secs(60);
    config
}

fn stream(events: &str) -> Action {
    Action::status(200).header("content-type", "text/event-stream; charset=utf-8").body(events)
}

/// Returns the events of "2 + 2 = 4", without the last event.
fn text_events(api: Api) -> &'static str {
    match api {
        Api::OpenAi => concat!(
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            ": a comment\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"2 + 2\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\" = 4\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"total_tokens\":9}}\n\n",
        ),
        Api::Anthropic => concat!(
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n",
            "event: content_block_start\ndata: {\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: ping\ndata: {\"type\": \"ping\"}\n\n",
            "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"2 + 2\"}}\n\n",
            "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\" = 4\"}}\n\n",
            "event: content_block_stop\ndata: {\"index\":0}\n\n",
        ),
    }
}

fn last_event(api: Api) -> &'static str {
    match api {
        Api::OpenAi => "data: [DONE]\n\n",
        Api::Anthropic => "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    }
}

fn complete_stream(api: Api) -> String {
    [text_events(api), last_event(api)].concat()
}

#[tokio::test(start_paused = true)]
async fn stream_text_is_joined() {
    for api in APIS {
        let server = Http::start().await;
        let every = Duration::from_millis(1);
        for response in [stream(&complete_stream(api)), stream(&complete_stream(api)).drip_body(every)] {
            server.script([response]);
            assert_eq!(call(&streaming(&server, api)).await.expect("the server replies"), "2 + 2 = 4");
        }
        let body: serde_json::Value =
            serde_json::from_slice(&server.requests()[0].body).expect("the body is JSON");
        assert_eq!(body["stream"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_is_complete_with_its_last_event() {
    for api in APIS {
        let server = Http::start().await;
        // The connection stays open, and its body is not complete.
        server.script([stream(&complete_stream(api)).chunked_without_end()]);
        assert_eq!(call(&streaming(&server, api)).await.expect("the reply is complete"), "2 + 2 = 4");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_that_breaks_at_any_point_is_retried() {
    for api in APIS {
        let events = text_events(api);
        for part in ["", &events[..30], events] {
            for broken in [
                stream(part).chunked_without_end().then_close(),
                stream(part).chunked_without_end().then_reset(),
                stream(part).chunked_without_end(),
                stream(part),
            ] {
                let server = Http::start().await;
                server.script([broken.clone(), stream(&complete_stream(api))]);
                let text = call(&streaming(&server, api)).await.expect("the second attempt succeeds");
                assert_eq!((&*text, server.requests().len()), ("2 + 2 = 4", 2), "{broken:?}");

                server.set_default(broken.clone());
                let error = failed(call(&streaming(&server, api)).await.expect_err("no attempt succeeds"));
                assert!(matches!(error.error_type, "APIConnectionError" | "APITimeoutError"), "{error}");
                assert_eq!(error.attempts, 3, "{broken:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_with_error_event_is_an_error() {
    let openai = "data: {\"error\":{\"code\":\"CODE\",\"message\":\"no\"}}\n\n";
    let anthropic =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"CODE\",\"message\":\"no\"}}\n\n";
    for (api, event) in [(Api::OpenAi, openai), (Api::Anthropic, anthropic)] {
        for before in ["", text_events(api)] {
            let server = Http::start().await;
            let fails =
                |code: &str| stream(&[before, &event.replace("CODE", code), last_event(api)].concat());

            server.script([fails("overloaded_error"), stream(&complete_stream(api))]);
            assert_eq!(
                call(&streaming(&server, api)).await.expect("the second attempt succeeds"),
                "2 + 2 = 4"
            );

            server.set_default(fails("overloaded_error"));
            let error = failed(call(&streaming(&server, api)).await.expect_err("no attempt succeeds"));
            assert_eq!((error.to_string(), error.attempts), ("OverloadedError: no".to_owned(), 3));

            let requests = server.requests().len();
            server.set_default(fails("authentication_error"));
            let error = fatal(call(&streaming(&server, api)).await.expect_err("the key is invalid"));
            assert_eq!(error.to_string(), "AuthenticationError: no");

            server.set_default(fails("insufficient_quota"));
            let error = call(&streaming(&server, api)).await.expect_err("the quota is used up");
            assert!(matches!(error, LlmError::Quota(_)), "{error:?}");
            assert_eq!(server.requests().len(), requests + 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_with_garbage_is_an_error() {
    for (api, garbage) in
        [(Api::OpenAi, "data: <html>\n\n"), (Api::Anthropic, "event: content_block_delta\ndata: <html>\n\n")]
    {
        let server = Http::start().await;
        server.set_default(stream(garbage));
        let error = failed(call(&streaming(&server, api)).await.expect_err("it is no reply"));
        assert_eq!((error.error_type, server.requests().len()), ("APIResponseValidationError", 1));
        assert!(error.message.contains("`<html>`"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_that_the_server_does_not_send_is_read_as_a_body() {
    for api in APIS {
        let server = Http::start().await;
        server.script([reply(api, "4")]);
        assert_eq!(call(&streaming(&server, api)).await.expect("the server replies"), "4");
    }
}
