//! The rows for gRPC codes, over tonic: below a generated client, where the layer sees the response
//! head, and above it, where the result is a `Status`.

use integration_tests::echo::Words;
use integration_tests::echo::echo_client::EchoClient;
use test_servers::{Grpc, Reply};
use tonic::Code;
use tower::{ServiceBuilder, ServiceExt};
use tower_fault_classify::rules::GrpcOnly;
use tower_fault_classify::{
    CarriedVerdict, FaultClassifyLayer, Health, Kind, Retryable, Verdict, grpc_code_of_status,
};

use super::http1_rows::row_of;
use super::tonic_channel::Caller;
use super::{Axes, Table, axes, verdict};

const CLIENT: Axes = axes(Kind::Client, Retryable::Never, Health::Healthy);
const AUTH: Axes = axes(Kind::Auth, Retryable::Never, Health::Healthy);
pub(crate) const SERVER: Axes = axes(Kind::Server, Retryable::Never, Health::Unhealthy);

/// The row of each code except OK, from the fault table.
pub(crate) const CODES: [(u32, Axes); 16] = [
    (1, axes(Kind::Cancelled, Retryable::Never, Health::Neutral)),
    (2, SERVER),
    (3, CLIENT),
    (4, axes(Kind::Timeout, Retryable::Never, Health::Unhealthy)),
    (5, CLIENT),
    (6, CLIENT),
    (7, AUTH),
    (8, axes(Kind::Throttled, Retryable::Never, Health::Neutral)),
    (9, CLIENT),
    (10, axes(Kind::Conflict, Retryable::Never, Health::Healthy)),
    (11, CLIENT),
    (12, axes(Kind::Protocol, Retryable::Never, Health::Neutral)),
    (13, SERVER),
    (14, axes(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy)),
    (15, SERVER),
    (16, AUTH),
];

#[tokio::test]
async fn code_in_head_matches_table_below_and_above_client() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (code, want) in CODES {
        let reply = Reply::trailers_only(code).grpc_message("why");
        server.script([reply.clone()]);
        let (below, status) = caller.expect_error().await;
        assert_eq!(status.code() as u32, code);
        table.row(&("below", &reply), below, want);
        table.error(&("above", &reply), &status, want);
    }
}

/// The layer below the client does not see the trailers yet. A body is classified at its end.
#[tokio::test]
async fn code_in_trailers_matches_table_above_client() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (code, want) in CODES {
        for reply in [Reply::headers(), Reply::message("text")] {
            server.script([reply.clone().status(code)]);
            let (_, status) = caller.expect_error().await;
            assert_eq!(status.code() as u32, code);
            table.error(&(code, reply), &status, want);
        }
    }
}

#[tokio::test]
async fn ok_response_carries_no_fault() {
    let server = Grpc::start().await;
    assert_eq!(Caller::new(&server).expect_ok().await, None);
}

#[tokio::test]
async fn invalid_code_is_unknown() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for code in ["abc", "", "17", "99", "-1", "1.0", "014", "0x0e", "14 14", "99999999999999999999"] {
        for (is_head, reply) in
            [(true, Reply::trailers_only(code)), (false, Reply::message("text").status(code))]
        {
            server.script([reply.clone()]);
            let (below, status) = caller.expect_error().await;
            table.row(&(&reply, status.code()), below, Some(SERVER).filter(|_| is_head));
            table.error(&reply, &status, SERVER);
        }
    }
}

/// tonic uses the first of two codes.
#[tokio::test]
async fn conflicting_codes_are_unknown() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (codes, want) in [((14, 0), SERVER), ((8, 14), SERVER), ((14, 14), CODES[13].1)] {
        server.script([Reply::trailers_only(codes.0).trailer("grpc-status", codes.1.to_string())]);
        table.row(&codes, caller.expect_error().await.0, want);
    }
}

/// The response comes from an intermediary. The generated client returns the code that gRPC maps
/// the HTTP status to.
#[tokio::test]
async fn response_without_code_is_classified_by_http_status() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for status in 400..600 {
        server.script([Reply::http(status)]);
        let (below, returned) = caller.expect_error().await;
        table.row(&status, below, row_of(status));
        let code = grpc_code_of_status(http::StatusCode::from_u16(status).unwrap());
        table.check(returned.code() as u32 == code, || {
            format!("{status}: expected code {code}, got {returned:?}")
        });
    }
    for (status, code) in [
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (429, Code::Unavailable),
        (500, Code::Unknown),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
    ] {
        assert_eq!(grpc_code_of_status(http::StatusCode::from_u16(status).unwrap()), code as u32);
    }
}

/// A response without gRPC's content type comes from an intermediary, even if it has a code. tonic
/// returns that code.
#[tokio::test]
async fn code_in_non_grpc_response_is_ignored() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for (code, want) in CODES {
        server.script([Reply::http(503).header("grpc-status", code.to_string())]);
        let (below, status) = caller.expect_error().await;
        table.row(&("below", code), below, row_of(503));
        table.error(&("above", code), &status, want);
    }
}

/// The head of such a response counts as a success, so only the `Status` is checked.
#[tokio::test]
async fn response_200_without_code_is_unknown() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    let mut caller = Caller::new(&server);
    for reply in [Reply::headers(), Reply::message("text"), Reply::http(200)] {
        server.script([reply.clone()]);
        let (_, status) = caller.expect_error().await;
        assert_eq!((status.code(), verdict(&status)), (Code::Unknown, SERVER));
        table.error(&reply, &status, SERVER);
    }
}

/// A proxy in front of the server returns its login page, or a redirect to it.
#[tokio::test]
async fn non_grpc_response_with_grpc_only_rule_is_unknown() {
    let (server, mut table) = (Grpc::start().await, Table::default());
    server.set_default(Reply::http(200));
    let channel = super::tonic_channel::endpoint(&server.url()).connect_lazy();
    let stack = ServiceBuilder::new().layer(FaultClassifyLayer::new().rule(GrpcOnly)).service(channel);
    for status in [200, 302] {
        server.script([Reply::http(status)]);
        let request = http::Request::post("/echo.Echo/Say").body(tonic::body::Body::empty()).unwrap();
        let response = stack.clone().oneshot(request).await.unwrap();
        let carried = CarriedVerdict::get(&response);
        table.row(&("below", status), carried.as_ref().and_then(Verdict::fault).map(Axes::of), SERVER);
    }
    let status = EchoClient::new(stack).say(Words { text: "hi".to_owned() }).await.unwrap_err();
    table.error(&("above", &status), &status, SERVER);
}
