//! Checks the servers with real clients, and their records of requests and connections.

use std::error::Error;
use std::io::ErrorKind;
use std::iter::successors;
use std::pin::pin;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;
use reqwest::Client;
use test_servers::{Action, Grpc, Http, Reason, RefusedPort, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Returns an error and all its sources.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Returns the kind of the first I/O error in the chain.
fn io_kind(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    chain(error).find_map(|error| Some(error.downcast_ref::<std::io::Error>()?.kind()))
}

/// Returns whether an error in the chain has this text in its message.
fn message_contains(error: &(dyn Error + 'static), text: &str) -> bool {
    chain(error).any(|error| error.to_string().contains(text))
}

/// The message type of the server.
#[derive(Clone, PartialEq, prost::Message)]
struct Words {
    #[prost(string, tag = "1")]
    text: String,
}

/// A gRPC client like those that `tonic-prost-build` generates.
#[derive(Clone, Debug)]
struct EchoClient(tonic::client::Grpc<Channel>);

impl EchoClient {
    async fn connect(url: String) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(url)?.connect().await?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    async fn say(&mut self, words: Words) -> Result<Response<Words>, Status> {
        self.0.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        let path = PathAndQuery::from_static("/echo.Echo/Say");
        self.0.unary(Request::new(words), path, ProstCodec::default()).await
    }
}

fn client() -> Client {
    test_servers::install_ring();
    Client::builder().no_proxy().build().unwrap()
}

async fn http(script: impl IntoIterator<Item = Action>) -> (Http, Client) {
    let server = Http::start().await;
    server.script(script);
    (server, client())
}

/// Sends one POST, and returns its error and the numbers of connections and requests.
async fn post_error(action: Action) -> (reqwest::Error, (usize, usize)) {
    let (server, client) = http([action]).await;
    let error = client.post(server.url()).body("body").send().await.unwrap_err();
    assert_eq!(server.remaining(), 0);
    (error, (server.connections(), server.requests().len()))
}

/// Sends one GET that is answered with 200, and returns the result of reading the body.
async fn body_of(action: Action) -> Result<String, reqwest::Error> {
    let (server, client) = http([action]).await;
    let response = client.get(server.url()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.requests().len()), (200, 1));
    response.text().await
}

#[tokio::test]
async fn refused_port_refuses_connections() {
    let refused = RefusedPort::bind();
    let error = client().get(refused.url()).send().await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionRefused));
    let status = EchoClient::connect(refused.url()).await.unwrap_err();
    assert_eq!(io_kind(&status), Some(ErrorKind::ConnectionRefused));
}

#[tokio::test]
async fn http_server_records_requests_and_connections() {
    let (server, client) = http([]).await;
    let response =
        client.get(format!("{}/a?b=c", server.url())).header("x-name", "value").send().await.unwrap();
    assert_eq!(response.status(), 200);
    client.post(server.url()).body("abcd").send().await.unwrap();
    server.wait_for_requests(2).await;
    assert_eq!((server.connections(), server.remaining()), (1, 0));
    let [get, post] = <[_; 2]>::try_from(server.requests()).unwrap();
    assert_eq!((get.method, &*get.path, &*get.body), (Method::GET, "/a?b=c", &b""[..]));
    assert_eq!(get.headers["x-name"], "value");
    assert_eq!((post.method, &*post.path, &*post.body), (Method::POST, "/", &b"abcd"[..]));
    assert_eq!((get.connection, post.connection), (1, 1));
}

#[tokio::test]
async fn http_server_reads_chunked_body() {
    let (server, _) = http([]).await;
    let mut socket = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    let request = "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\
        2;a=b\r\nab\r\n0A\r\n0123456789\r\n0\r\nx-trailer: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    server.wait_for_requests(2).await;
    let [put, get] = <[_; 2]>::try_from(server.requests()).unwrap();
    assert_eq!((put.method, &*put.body), (Method::PUT, &b"ab0123456789"[..]));
    assert_eq!((get.method, &*get.path), (Method::GET, "/2"));
}

#[tokio::test]
async fn echo_returns_the_request_body() {
    let (server, client) = http([Action::Echo]).await;
    let response = client.post(format!("{}/a?b", server.url())).body("text").send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "/a?b\ntext".to_owned()));
}

#[tokio::test]
async fn script_plays_in_order_then_default_follows() {
    let (server, client) = http([Action::status(503), Action::status(429)]).await;
    server.set_default(Action::status(404));
    for status in [503, 429, 404, 404] {
        assert_eq!(client.get(server.url()).send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn dropped_server_closes_port_and_connections() {
    let (server, client) = http([]).await;
    let url = server.url();
    client.get(&url).send().await.unwrap();
    let mut open = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    server.wait_for_requests(1).await;
    drop(server);
    assert!(matches!(open.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(self::client().get(&url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn reset_action_ends_connection_with_reset() {
    for (action, requests) in
        [(Action::ResetOnAccept, 0), (Action::ResetBeforeRequest, 0), (Action::ResetAfterRequest, 1)]
    {
        let (error, counts) = post_error(action.clone()).await;
        let kind = io_kind(&error);
        // A write to a socket that was reset fails with `BrokenPipe`.
        assert!(
            matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)),
            "{action:?}: {error:?}"
        );
        assert!(!error.is_connect());
        assert_eq!(counts, (1, requests), "{action:?}");
    }
}

#[tokio::test]
async fn close_action_ends_connection_without_response() {
    for (action, requests) in [(Action::CloseOnAccept, 0), (Action::CloseAfterRequest, 1)] {
        let (error, counts) = post_error(action.clone()).await;
        assert!(
            message_contains(&error, "connection closed before message completed"),
            "{action:?}: {error:?}"
        );
        assert_eq!(counts, (1, requests), "{action:?}");
    }
}

#[tokio::test]
async fn hang_action_sends_no_response() {
    let (server, client) = http([Action::Hang]).await;
    let mut call = pin!(client.get(server.url()).send());
    tokio::select! {
        biased;
        answer = &mut call => panic!("{answer:?}"),
        () = server.wait_for_requests(1) => {}
    }
    // A later request is answered. The first call would have its answer by then.
    assert_eq!(client.get(server.url()).send().await.unwrap().status(), 200);
    assert!(timeout(Duration::ZERO, call).await.is_err());
    assert_eq!((server.connections(), server.requests().len()), (2, 2));
}

#[tokio::test]
async fn truncated_body_fails_for_reader() {
    let cut = || Action::status(200).body("0123");
    for action in [cut().content_length(10).then_close(), cut().chunked_without_end().then_close()] {
        let error = body_of(action).await.unwrap_err();
        assert_eq!(io_kind(&error), Some(ErrorKind::UnexpectedEof), "{error:?}");
    }
    assert_eq!(body_of(cut().chunked()).await.unwrap(), "0123");
    assert_eq!(body_of(cut().without_length().then_close()).await.unwrap(), "0123");
}

#[tokio::test]
async fn stalled_body_never_ends() {
    let (server, client) = http([Action::status(200).body("0123").content_length(10)]).await;
    let mut response = client.get(server.url()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "0123");
    assert!(timeout(Duration::ZERO, response.chunk()).await.is_err());
}

#[tokio::test]
async fn content_length_below_body_truncates_it() {
    let (server, client) = http([Action::status(200).body("0123456789").content_length(4)]).await;
    assert_eq!(client.get(server.url()).send().await.unwrap().text().await.unwrap(), "0123");
    assert_eq!(client.get(server.url()).send().await.unwrap().status(), 200);
    assert_eq!(server.connections(), 2, "the client discards the rest of the body");
}

#[tokio::test]
async fn dripped_response_arrives_in_pieces() {
    let action = Action::status(200).body("whole").drip(Duration::from_micros(1));
    assert_eq!(body_of(action).await.unwrap(), "whole");

    let (server, client) = http([Action::status(200).body("ab").drip_body(Duration::from_secs(3600))]).await;
    let mut response = client.get(server.url()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "a");
    assert!(timeout(Duration::ZERO, response.chunk()).await.is_err());
}

#[tokio::test]
async fn garbage_is_not_an_http_response() {
    for (action, text) in [
        (Action::garbage(), "invalid HTTP version"),
        (Action::raw("HTTP/1.1 200 OK\r\ncontent-"), "connection closed before message completed"),
        (Action::status(99), "invalid HTTP status-code"),
        (Action::status(200).header("x name", "a"), "invalid HTTP header"),
        (Action::status(200).header("x-large", "a".repeat(1 << 20)), "message head is too large"),
        (Action::status(200).body("0123").header("content-length", "3"), "invalid content-length"),
    ] {
        let (error, counts) = post_error(action).await;
        assert!(message_contains(&error, text), "{text}: {error:?}");
        assert_eq!(counts, (1, 1), "{text}");
    }
}

#[tokio::test]
async fn raw_header_value_arrives_unchanged() {
    let action = Action::status(503).header("retry-after", "1").header("retry-after", "soon");
    let (server, client) = http([action.header("x-name", b"\xc3\xa9\xff").body("busy")]).await;
    let response = client.get(server.url()).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().get_all("retry-after").iter().eq(["1", "soon"]));
    assert_eq!(response.headers()["x-name"].as_bytes(), b"\xc3\xa9\xff");
    assert_eq!(response.text().await.unwrap(), "busy");
}

/// Sends two requests together on a plain socket, and returns everything that the server sends.
async fn raw_responses(server: &Http) -> String {
    let mut socket = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"HEAD /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn informational_response_precedes_final_one() {
    assert_eq!(body_of(Action::status(200).body("ok").after_informational(103)).await.unwrap(), "ok");
    let (server, _) = http([Action::status(204).after_informational(100).after_informational(103)]).await;
    server.set_default(Action::status(200).body("ok"));
    let wanted = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(raw_responses(&server).await, wanted);
}

#[tokio::test]
async fn connection_closed_between_requests_is_not_reused() {
    let ok = || Action::status(200).body("ok");
    for action in [ok().then_close(), ok().then_half_close()] {
        let (server, client) = http([action]).await;
        assert_eq!(client.get(server.url()).send().await.unwrap().text().await.unwrap(), "ok");
        // Gives the client time to notice that the connection is closed.
        client.get(RefusedPort::bind().url()).send().await.unwrap_err();
        assert_eq!(client.get(server.url()).send().await.unwrap().status(), 200);
        assert_eq!((server.connections(), server.requests().len()), (2, 2));
    }
    let error = body_of(Action::status(200).body("0123").content_length(10).then_reset()).await.unwrap_err();
    assert_eq!(io_kind(&error), Some(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn kept_connection_ends_on_next_request() {
    for (action, requests) in
        [(Action::CloseAfterRequest, 2), (Action::ResetAfterRequest, 2), (Action::ResetBeforeRequest, 1)]
    {
        let (server, client) = http([Action::status(200), action.clone()]).await;
        client.get(server.url()).send().await.unwrap().bytes().await.unwrap();
        client.post(server.url()).body("once").send().await.unwrap_err();
        assert_eq!((server.connections(), server.requests().len()), (1, requests), "{action:?}");
    }
}

#[tokio::test]
async fn half_closed_server_still_reads() {
    let (server, _) = http([Action::status(200).body("ok").then_half_close(), Action::status(500)]).await;
    assert_eq!(raw_responses(&server).await, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n");
    server.wait_for_requests(2).await;
    assert_eq!((&*server.requests()[1].path, server.remaining()), ("/2", 1));
}

/// Makes a call that gets this reply, and another call that is answered. Returns the result of the
/// first call and the number of connections.
async fn call(reply: Reply) -> (Result<String, Status>, usize) {
    let server = Grpc::start().await;
    server.script([reply]);
    let mut client = EchoClient::connect(server.url()).await.unwrap();
    let first = say(&mut client).await;
    assert_eq!(say(&mut client).await.unwrap(), "ok");
    assert_eq!((server.requests().len(), server.remaining()), (2, 0));
    (first, server.connections())
}

async fn say(client: &mut EchoClient) -> Result<String, Status> {
    Ok(client.say(Words { text: "hi".to_owned() }).await?.into_inner().text)
}

#[tokio::test]
async fn grpc_server_records_calls_and_connections() {
    let server = Grpc::start().await;
    let mut client = EchoClient::connect(server.url()).await.unwrap();
    assert_eq!(say(&mut client).await.unwrap(), "ok");
    server.set_default(Reply::ok("other"));
    assert_eq!(say(&mut client).await.unwrap(), "other");
    server.wait_for_requests(2).await;
    let [first, _] = <[_; 2]>::try_from(server.requests()).unwrap();
    assert_eq!(
        (first.connection, &*first.path, &*first.body),
        (1, "/echo.Echo/Say", &b"\0\0\0\0\x04\n\x02hi"[..])
    );
}

#[tokio::test]
async fn grpc_status_arrives_with_message_and_trailers() {
    let with = |reply: Reply| {
        let reply = reply.grpc_message("a%20b").trailer("grpc-retry-pushback-ms", "20");
        reply.binary_trailer("grpc-status-details-bin", b"\x08\x0e")
    };
    for reply in [Reply::trailers_only(14), Reply::headers().status(14)] {
        let status = call(with(reply)).await.0.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "a b"));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "20");
        assert_eq!(status.details(), b"\x08\x0e");
    }
}

#[tokio::test]
async fn reply_form_gives_expected_code() {
    let message = || Reply::message("x");
    for (reply, code) in [
        (message().status(14), Code::Unavailable),
        (Reply::trailers_only(0), Code::Internal),
        (Reply::headers(), Code::Unknown),
        (message(), Code::Unknown),
        (Reply::trailers_only("abc"), Code::Unknown),
        (Reply::trailers_only("99"), Code::Unknown),
        (Reply::trailers_only(""), Code::Unknown),
        (Reply::trailers_only(14).trailer("grpc-status", "0"), Code::Unavailable),
        (message().status("abc"), Code::Unknown),
        (Reply::http(200), Code::Unknown),
        (Reply::http(400), Code::Internal),
        (Reply::http(401), Code::Unauthenticated),
        (Reply::http(403), Code::PermissionDenied),
        (Reply::http(404), Code::Unimplemented),
        (Reply::http(429), Code::Unavailable),
        (Reply::http(500), Code::Unknown),
        (Reply::http(503), Code::Unavailable),
        (Reply::http(503).header("grpc-status", "7"), Code::PermissionDenied),
        (Reply::truncated_message("hello world"), Code::Internal),
        (Reply::truncated_message("hello world").status(0), Code::Internal),
        (Reply::truncated_message("hello world").status(14), Code::Unavailable),
    ] {
        let (result, connections) = call(reply.clone()).await;
        assert_eq!((result.unwrap_err().code(), connections), (code, 1), "{reply:?}");
    }
    assert_eq!(call(message().and_message("y").status(0)).await.0.unwrap(), "x");
}

#[tokio::test]
async fn rst_stream_ends_only_its_stream() {
    for (reason, code) in [
        (Reason::REFUSED_STREAM, Code::Unavailable),
        (Reason::CANCEL, Code::Cancelled),
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
    ] {
        for (reply, has_begun) in [
            (Reply::nothing(), false),
            (Reply::headers(), true),
            (Reply::message("x"), true),
            (Reply::truncated_message("long"), true),
        ] {
            let (result, connections) = call(reply.clone().rst_stream(reason)).await;
            let status = result.unwrap_err();
            let cause = chain(&status).find_map(|error| error.downcast_ref::<h2::Error>()).unwrap();
            assert!(cause.is_reset() && cause.is_remote(), "{cause:?}");
            assert_eq!((cause.reason(), status.code(), connections), (Some(reason), code, 1), "{reply:?}");
            assert_eq!(message_contains(&status, "error reading a body"), has_begun, "{reply:?}: {status:?}");
        }
    }
}

#[tokio::test]
async fn goaway_makes_client_reconnect() {
    for reason in [Reason::NO_ERROR, Reason::ENHANCE_YOUR_CALM] {
        let (result, connections) = call(Reply::nothing().go_away_below(reason)).await;
        let status = result.unwrap_err();
        let cause = chain(&status).find_map(|error| error.downcast_ref::<h2::Error>()).unwrap();
        assert!(cause.is_go_away() && cause.is_remote(), "{cause:?}");
        assert_eq!((cause.reason(), connections), (Some(reason), 2));
    }
    let (result, connections) = call(Reply::ok("bye").go_away_gracefully()).await;
    assert_eq!((&*result.unwrap(), connections), ("bye", 2));
}

/// tonic reports only a broken pipe, because the `GOAWAY` does not refuse this stream. The test
/// therefore also uses a plain `h2` client.
#[tokio::test]
async fn immediate_goaway_fails_call() {
    let (result, connections) = call(Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR)).await;
    assert_eq!((result.unwrap_err().code(), connections), (Code::Unknown, 2));

    let server = Grpc::start().await;
    server.script([Reply::nothing().go_away_at_once(Reason::INTERNAL_ERROR)]);
    let socket = TcpStream::connect(server.url().trim_start_matches("http://")).await.unwrap();
    let (mut client, connection) = h2::client::handshake(socket).await.unwrap();
    let request = http::Request::post("http://echo/").body(()).unwrap();
    let (_answer, _) = client.send_request(request, true).unwrap();
    let error = connection.await.unwrap_err();
    assert_eq!(
        (error.is_go_away(), error.is_remote(), error.reason()),
        (true, true, Some(Reason::INTERNAL_ERROR))
    );
}

#[tokio::test]
async fn connection_lost_in_call_fails_it() {
    for reply in [Reply::nothing(), Reply::message("x"), Reply::truncated_message("hello world")] {
        for (reply, kind) in [
            (reply.clone().close_connection(), "BrokenPipe"),
            (reply.clone().reset_connection(), "ConnectionReset"),
        ] {
            let (result, connections) = call(reply.clone()).await;
            let status = result.unwrap_err();
            assert_eq!((status.code(), connections), (Code::Unknown, 2), "{reply:?}");
            // After the headers, the I/O error is inside `h2::Error`, which has no source.
            assert!(format!("{status:?}").contains(kind), "{reply:?}: {status:?}");
        }
    }
}

#[tokio::test]
async fn stalled_call_never_completes() {
    for reply in [Reply::nothing(), Reply::headers().hang(), Reply::message("x").hang()] {
        let server = Grpc::start().await;
        server.script([reply]);
        let mut client = EchoClient::connect(server.url()).await.unwrap();
        let mut stalled = client.clone();
        let mut call = Box::pin(say(&mut stalled));
        tokio::select! {
            biased;
            answer = &mut call => panic!("{answer:?}"),
            () = server.wait_for_requests(1) => {}
        }
        // A later call is answered. The first call would have its answer by then.
        assert_eq!(say(&mut client).await.unwrap(), "ok");
        assert!(timeout(Duration::ZERO, &mut call).await.is_err());
        drop(call);
        assert_eq!(say(&mut client).await.unwrap(), "ok");
        assert_eq!((server.connections(), server.requests().len()), (1, 3));
    }
}
