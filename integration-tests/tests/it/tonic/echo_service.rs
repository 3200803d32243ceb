//! A tonic server that reports each call and message to the test when it arrives.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body::Body as HttpBody;
use integration_tests::echo::Words;
use integration_tests::echo::echo_server::{Echo, EchoServer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codegen::BoxStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service};

/// A failure of a call: the numbers of messages before it, and its status.
pub(crate) struct Failure {
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) status: Status,
}

impl Failure {
    /// Returns a failure before any answer: its status is in the head of the response.
    pub(crate) fn before_answer(status: Status) -> Self {
        Self { received: 1, sent: 0, status }
    }
}

/// A test's handle to a server.
pub(crate) struct TestServer {
    pub(crate) url: String,
    /// The name of the method at the start of a call, each message, and `.` at the end of a request
    /// stream.
    events: mpsc::UnboundedReceiver<String>,
    failures: Arc<Mutex<VecDeque<Failure>>>,
    /// `spell` takes one permit for each letter that it sends.
    pub(crate) letter_permits: Arc<Semaphore>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::layered(Identity::new()).await
    }

    /// Starts a server with a layer around its services.
    pub(crate) async fn layered<L, B>(layer: L) -> Self
    where
        L: Layer<Routes> + Clone + Send + 'static,
        L::Service: Service<HttpRequest<Body>, Response = HttpResponse<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        <L::Service as Service<HttpRequest<Body>>>::Future: Send,
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let (log, events) = mpsc::unbounded_channel();
        let failures = Arc::<Mutex<VecDeque<_>>>::default();
        let letter_permits = Arc::new(Semaphore::new(0));
        let handler =
            EchoHandler { log, failures: Arc::clone(&failures), letter_permits: Arc::clone(&letter_permits) };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().layer(layer).add_service(EchoServer::new(handler));
        tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
        Self { url, events, failures, letter_permits }
    }

    /// Makes the next calls fail, one for each failure.
    pub(crate) fn fail(&self, failures: impl IntoIterator<Item = Failure>) {
        self.failures.lock().unwrap().extend(failures);
    }

    /// Waits for the next event.
    pub(crate) async fn next_event(&mut self) -> String {
        self.events.recv().await.unwrap()
    }

    /// Returns all events since the last call of this function.
    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

struct EchoHandler {
    log: mpsc::UnboundedSender<String>,
    failures: Arc<Mutex<VecDeque<Failure>>>,
    letter_permits: Arc<Semaphore>,
}

fn note(log: &mpsc::UnboundedSender<String>, event: &str) {
    // It fails only if the test has ended.
    let _ = log.send(event.to_owned());
}

impl EchoHandler {
    fn begin(&self, method: &str) -> Option<Failure> {
        note(&self.log, method);
        self.failures.lock().unwrap().pop_front()
    }
}

async fn next(
    log: &mpsc::UnboundedSender<String>,
    words: &mut Streaming<Words>,
) -> Result<Option<String>, Status> {
    let text = words.message().await?.map(|words| words.text);
    note(log, text.as_deref().unwrap_or("."));
    Ok(text)
}

fn message(text: impl Into<String>) -> Words {
    Words { text: text.into() }
}

#[tonic::async_trait]
impl Echo for EchoHandler {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        let failure = self.begin("say");
        let tag = request.metadata().get("x-tag").cloned();
        let text = request.into_inner().text;
        note(&self.log, &text);
        if let Some(failure) = failure {
            return Err(failure.status);
        }
        let mut response = Response::new(message(text.to_uppercase()));
        if let Some(tag) = tag {
            response.metadata_mut().insert("x-tag", tag);
        }
        Ok(response)
    }

    async fn gather(&self, request: Request<Streaming<Words>>) -> Result<Response<Words>, Status> {
        let failure = self.begin("gather");
        let (mut words, mut all) = (request.into_inner(), Vec::new());
        loop {
            if failure.as_ref().is_some_and(|failure| failure.received == all.len()) {
                break;
            }
            let Some(text) = next(&self.log, &mut words).await? else { break };
            all.push(text);
        }
        failure.map_or_else(|| Ok(Response::new(message(all.join(" ")))), |failure| Err(failure.status))
    }

    async fn spell(&self, request: Request<Words>) -> Result<Response<BoxStream<Words>>, Status> {
        let failure = self.begin("spell");
        let text = request.into_inner().text;
        note(&self.log, &text);
        let failure = match failure {
            Some(Failure { sent: 0, status, .. }) => return Err(status),
            other => other,
        };
        let (letters, stream) = mpsc::unbounded_channel();
        let letter_permits = Arc::clone(&self.letter_permits);
        tokio::spawn(async move {
            let count = failure.as_ref().map_or(usize::MAX, |failure| failure.sent);
            for letter in text.chars().take(count) {
                letter_permits.acquire().await.unwrap().forget();
                let _ = letters.send(Ok(message(letter)));
            }
            if let Some(failure) = failure {
                let _ = letters.send(Err(failure.status));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }

    async fn talk(&self, request: Request<Streaming<Words>>) -> Result<Response<BoxStream<Words>>, Status> {
        let failure = self.begin("talk");
        let mut words = request.into_inner();
        if let Some(Failure { received, sent: 0, status }) = failure {
            for _ in 0..received {
                next(&self.log, &mut words).await?;
            }
            return Err(status);
        }
        let (answers, stream) = mpsc::unbounded_channel();
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut left = failure.as_ref().map_or(usize::MAX, |failure| failure.sent);
            while left > 0
                && let Ok(Some(text)) = next(&log, &mut words).await
            {
                left -= 1;
                let _ = answers.send(Ok(message(text.to_uppercase())));
            }
            if let Some(failure) = failure {
                let _ = answers.send(Err(failure.status));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }
}
