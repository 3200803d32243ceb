//! The protocol of `chromedriver`: JSON over HTTP (W3C WebDriver).

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A session of a driver.
#[derive(Debug)]
pub(super) struct Driver {
    address: SocketAddr,
    /// `/session/` and the number of the session.
    session: String,
}

impl Driver {
    /// Starts the browser.
    pub(super) async fn connect(port: u16, capabilities: &Value) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut driver = Self { address, session: "/session".to_owned() };
        let session = driver.post("", capabilities).await;
        driver.session =
            format!("/session/{}", session["sessionId"].as_str().expect("a session has a number"));
        driver
    }

    /// Sends a command, and returns the value of the response.
    ///
    /// # Panics
    ///
    /// Panics if the driver does not answer, or answers with an error.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    /// Like [`post`](Self::post), without a body.
    pub(super) async fn get(&self, path: &str) -> Value {
        self.try_get(path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Like [`post`](Self::post), with an error of the driver as a text.
    pub(super) async fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.send(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// Like [`get`](Self::get), with an error of the driver as a text.
    pub(super) async fn try_get(&self, path: &str) -> Result<Value, String> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Value, String> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.session))
            .header(HOST, self.address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("the path is a URI");
        let (ok, response) = self.exchange(request).await.expect("chromedriver answers");
        let mut response: Value = serde_json::from_slice(&response).expect("chromedriver answers with JSON");
        let value = response["value"].take();
        // An error has also a code, which is part of its message, and a stack trace of the driver.
        if ok { Ok(value) } else { Err(value["message"].as_str().unwrap_or_default().to_owned()) }
    }

    /// Returns whether the request was successful, and the body of the response.
    ///
    /// Each request has its own connection, so that requests can be concurrent.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(bool, Bytes), Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender. An error is also the result of the request.
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let ok = response.status().is_success();
        Ok((ok, response.into_body().collect().await?.to_bytes()))
    }
}
