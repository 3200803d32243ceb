//! The service below a path of axum, and under hyper alone.

use std::convert::Infallible;
use std::future::{IntoFuture, ready};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use tower_breaker_admin::Admin;

use super::harness::*;

/// Sends a request over a connection, and returns the response as text.
async fn exchange(address: std::net::SocketAddr, method: &str, path: &str, more: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {OPERATOR}\r\nconnection: close\r\n{more}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    connection.read_to_string(&mut response).await.unwrap();
    response
}

const TRIP: &str = "x-tower-breaker: 1\r\ncontent-type: application/json\r\ncontent-length: 38\r\n\r\n\
    {\"reason\": \"test\", \"scope\": \"process\"}";

/// Checks an admin that is served below a prefix.
async fn check(address: std::net::SocketAddr, prefix: &str) {
    let page = exchange(address, "GET", &format!("{prefix}/"), "\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("text/html"), "{page:.300}");
    let hostile = format!("{prefix}{API}/circuits/{}", encoded(HOSTILE));
    let view = exchange(address, "GET", &hostile, "\r\n").await;
    assert!(view.starts_with("HTTP/1.1 200 OK") && view.contains("\"state\":\"closed\""), "{view}");
    let head = exchange(address, "HEAD", &format!("{prefix}{API}/audit"), "\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(head.contains("content-length: 26"), "{head}");
    let path = format!("{prefix}{}", action("search", "trip"));
    let view = exchange(address, "POST", &path, TRIP).await;
    assert!(view.starts_with("HTTP/1.1 200 OK") && view.contains("\"state\":\"open\""), "{view}");
    let options = exchange(address, "OPTIONS", &path, "\r\n").await;
    assert!(options.starts_with("HTTP/1.1 405") && options.contains("allow: POST"), "{options}");
    let none = exchange(address, "GET", &format!("{prefix}/api/v1/x"), "\r\n").await;
    assert!(none.starts_with("HTTP/1.1 404") && none.contains("problem+json"), "{none}");
}

#[tokio::test]
async fn axum_nests_the_service() {
    let (_circuits, admin) = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new()
        .route("/", axum::routing::get(|| ready("the application")))
        .nest_service("/ops/breakers", admin);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    check(address, "/ops/breakers").await;
    let page = exchange(address, "GET", "/ops/breakers", "\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("text/html"), "{page:.300}");
    let other = exchange(address, "GET", "/", "\r\n").await;
    assert!(other.ends_with("the application"), "{other}");
}

#[tokio::test]
async fn axum_serves_it_as_a_fallback_with_a_user_of_a_layer() {
    let (_circuits, admin) = admin();
    let app: Router = Router::new().fallback_service(admin);
    let request = Call::get(format!("{API}/circuits")).with_body(axum::body::Body::empty());
    assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn hyper_serves_it_alone() {
    let (_circuits, admin) = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(admin.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    });
    check(address, "").await;
}

/// The service can be used where a program needs these properties.
#[test]
fn service_is_send_sync_and_infallible() {
    fn is_service<S>(_: &S)
    where
        S: tower::Service<http::Request<http_body_util::Empty<bytes::Bytes>>, Error = Infallible>,
        S: Clone + Send + Sync + std::fmt::Debug + 'static,
        S::Future: Send,
    {
    }

    let admin = Admin::builder().build().unwrap();
    is_service(&admin);
}

#[tokio::test]
async fn graceful_shutdown_ends_event_streams() {
    let (_circuits, admin) = admin();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().nest_service("/breakers", admin.clone());
    let (shut_down, signal) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        signal.await.unwrap();
        admin.close_streams();
    });
    let server = tokio::spawn(server.into_future());
    let mut connection = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /breakers{API}/events HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {OPERATOR}\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    connection.read_u8().await.unwrap();
    shut_down.send(()).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), server)
        .await
        .expect("it ends")
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the last chunk was sent");
}
