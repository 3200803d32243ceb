//! gRPC trailers over a tonic `Channel`, with a generated client.

use integration_tests::echo::echo_client::EchoClient;
use integration_tests::{channel, words};
use test_servers::{Grpc, Reason, Reply};
use tonic::{Code, Status};
use tower::{Layer, ServiceBuilder};
use tower_fault_classify::rules::GrpcRules;
use tower_fault_classify::{FaultClassifyLayer, Health, Kind, Retryable};

use super::{Axes, Log};

const UNKNOWN: Option<Axes> = Some((Kind::Server, Retryable::Never, Health::Unhealthy));

/// Makes a call that gets this reply. Returns its result, and the verdict that its hook gets.
async fn call(reply: Reply) -> (Result<String, Status>, Option<Axes>) {
    let server = Grpc::start().await;
    server.script([reply]);
    let log = Log::default();
    let service = ServiceBuilder::new()
        .layer(FaultClassifyLayer::new().track_body(log.clone()))
        .service(channel(&server.url()));
    let mut client = EchoClient::new(service);
    let answer = client.say(words("hi")).await.map(|answer| answer.into_inner().text);
    assert_eq!((server.requests().len(), server.remaining()), (1, 0));
    (answer, log.only())
}

#[tokio::test]
async fn complete_response_is_success() {
    let (answer, reported) = call(Reply::ok("answer")).await;
    assert_eq!((&*answer.unwrap(), reported), ("answer", None));
}

#[tokio::test]
async fn error_in_trailers_after_200_is_reported() {
    for (code, kind, health) in [
        (3, Kind::Client, Health::Healthy),
        (8, Kind::Throttled, Health::Neutral),
        (13, Kind::Server, Health::Unhealthy),
        (14, Kind::Unavailable, Health::Unhealthy),
        (16, Kind::Auth, Health::Healthy),
    ] {
        for reply in [Reply::headers(), Reply::message("x"), Reply::message("x").and_message("y")] {
            let (answer, reported) = call(reply.clone().status(code)).await;
            assert_eq!(answer.unwrap_err().code(), Code::from(code), "{reply:?}");
            // A call whose response has begun is never retried.
            assert_eq!(reported, Some((kind, Retryable::Never, health)), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn error_in_head_is_reported_unchanged() {
    let (_, reported) = call(Reply::trailers_only(14)).await;
    assert_eq!(reported, Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)));
    let (_, reported) = call(Reply::trailers_only(8).trailer("grpc-retry-pushback-ms", "20")).await;
    assert_eq!(reported, Some((Kind::Throttled, Retryable::Refused, Health::Neutral)));
    let (_, reported) = call(Reply::http(503)).await;
    assert_eq!(reported, Some((Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)));
}

#[tokio::test]
async fn stream_with_missing_or_invalid_status_is_unknown() {
    for reply in [
        Reply::headers(),
        Reply::message("x"),
        Reply::message("x").status("abc"),
        Reply::message("x").status(""),
        Reply::message("x").status(0).trailer("grpc-status", "14"),
        Reply::headers().status(14).trailer("grpc-status", "0"),
    ] {
        let (_, reported) = call(reply.clone()).await;
        assert_eq!(reported, UNKNOWN, "{reply:?}");
    }
}

#[tokio::test]
async fn broken_stream_is_if_idempotent_failure() {
    for reply in [Reply::headers(), Reply::message("x"), Reply::truncated_message("hello world")] {
        for reply in [reply.clone().close_connection(), reply.clone().reset_connection()] {
            let (answer, reported) = call(reply.clone()).await;
            let (kind, retry, health) = reported.unwrap();
            assert_eq!((kind, health), (Kind::Transient, Health::Unhealthy), "{reply:?}: {answer:?}");
            assert!(!matches!(retry, Retryable::Unsent | Retryable::Refused), "{reply:?}");
        }
        for reason in [Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM] {
            let (answer, reported) = call(reply.clone().rst_stream(reason)).await;
            answer.unwrap_err();
            assert!(
                !matches!(reported.unwrap().1, Retryable::Unsent | Retryable::Refused),
                "{reply:?} {reason}"
            );
        }
    }
    let (_, reported) = call(Reply::message("x").rst_stream(Reason::INTERNAL_ERROR)).await;
    assert_eq!(reported.unwrap().2, Health::Unhealthy);
}

#[tokio::test]
async fn call_dropped_midway_is_cancelled() {
    let server = Grpc::start().await;
    server.script([Reply::message("x").hang()]);
    let log = Log::default();
    let layer = FaultClassifyLayer::new().track_body(log.clone());
    let mut client = EchoClient::new(layer.layer(channel(&server.url())));
    let mut other = client.clone();
    let mut call = Box::pin(client.say(words("hi")));
    tokio::select! {
        biased;
        answer = &mut call => panic!("{answer:?}"),
        () = server.wait_for_requests(1) => {}
    }
    // The headers of the first call have arrived when a later call is answered.
    assert_eq!(other.say(words("hi")).await.unwrap().into_inner().text, "ok");
    assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut call).await.is_err());
    assert_eq!(log.only(), None, "the verdict of the other call");
    log.0.lock().unwrap().clear();
    drop(call);
    assert_eq!(log.only(), Some((Kind::Cancelled, Retryable::Never, Health::Neutral)));
}

#[tokio::test]
async fn code_rules_apply_to_trailers() {
    let server = Grpc::start().await;
    server.script([Reply::message("x").status(5), Reply::trailers_only(5)]);
    let log = Log::default();
    let busy = GrpcRules::row(5).with_health(Health::Unhealthy);
    let layer = FaultClassifyLayer::new().rule(GrpcRules::new().code(5, busy)).track_body(log.clone());
    let mut client = EchoClient::new(layer.layer(channel(&server.url())));
    for _ in 0..2 {
        client.say(words("hi")).await.unwrap_err();
        assert_eq!(log.only(), Some((Kind::Client, Retryable::Never, Health::Unhealthy)));
        log.0.lock().unwrap().clear();
    }
}
