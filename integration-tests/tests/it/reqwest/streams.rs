//! Streaming request and response bodies through the whole stack: complete, once, without a delay.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, put};
use bytes::Bytes;
use integration_tests::reqwest_client;
use reqwest::{Method, Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{inside, send, stack};

type Piece = Result<Bytes, std::io::Error>;

/// Starts a server that sends each frame of the request body back when it arrives.
async fn echo() -> String {
    let router = Router::new().route("/", put(async |body: Body| body));
    format!("http://{}/", integration_tests::serve(router).await)
}

fn piece(number: usize) -> Bytes {
    Bytes::from(vec![b'a' + (number % 26) as u8; 1 + number * 7 % 5_000])
}

/// Returns a request with this number of pieces in its body, and the bytes of all pieces.
fn large(url: &str, pieces: usize) -> (Request, Vec<u8>) {
    let all: Vec<Bytes> = (0..pieces).map(piece).collect();
    let bytes = all.concat();
    let mut request = Request::new(Method::PUT, url.parse().unwrap());
    let stream = tokio_stream::iter(all.into_iter().map(Piece::Ok));
    *request.body_mut() = Some(reqwest::Body::wrap_stream(stream));
    (request, bytes)
}

#[tokio::test]
async fn large_body_is_echoed_whole() {
    let (url, client) = (echo().await, reqwest_client().build().unwrap());
    let (request, bytes) = large(&url, 1_000);
    let answer = send(&mut stack(client.clone()), request).await.unwrap();
    assert!(answer.bytes().await.unwrap() == bytes, "over the client");

    let (request, bytes) = large(&url, 1_000);
    let answer = inside(client).execute(request).await.unwrap();
    assert!(answer.bytes().await.unwrap() == bytes, "inside the chain");
}

/// The stack does not wait for the end of a body: each piece is sent after the previous one has
/// come back.
#[tokio::test]
async fn request_and_response_bodies_stream_concurrently() {
    let url = echo().await;
    let (pieces, body) = mpsc::channel::<Piece>(1);
    let mut request = Request::new(Method::PUT, url.parse().unwrap());
    *request.body_mut() = Some(reqwest::Body::wrap_stream(ReceiverStream::new(body)));
    let mut stack = stack(reqwest_client().build().unwrap());
    pieces.send(Ok(piece(0))).await.unwrap();
    let mut answer = send(&mut stack, request).await.unwrap();
    for number in 0..20 {
        let mut back = Vec::new();
        while back.len() < piece(number).len() {
            back.extend(answer.chunk().await.unwrap().expect("the body continues"));
        }
        assert_eq!(back, piece(number));
        pieces.send(Ok(piece(number + 1))).await.unwrap();
    }
    drop(pieces);
    assert_eq!(answer.bytes().await.unwrap(), piece(20));
}

/// The layers do not delay a response.
#[tokio::test]
async fn response_is_read_while_server_writes() {
    let (pieces, body) = mpsc::channel::<Piece>(1);
    let body = Arc::new(Mutex::new(Some(body)));
    let router = Router::new().route(
        "/",
        get(async move || {
            Body::from_stream(ReceiverStream::new(
                body.lock().unwrap().take().expect("the server gets one request"),
            ))
        }),
    );
    let url = format!("http://{}/", integration_tests::serve(router).await);
    let request = Request::new(Method::GET, url.parse().unwrap());
    let mut answer = send(&mut stack(reqwest_client().build().unwrap()), request).await.unwrap();
    for number in 0..20 {
        pieces.send(Ok(piece(number))).await.unwrap();
        let mut read = Vec::new();
        while read.len() < piece(number).len() {
            read.extend(answer.chunk().await.unwrap().expect("the body continues"));
        }
        assert_eq!(read, piece(number));
    }
    drop(pieces);
    assert_eq!(answer.chunk().await.unwrap(), None);
}
