//! A real tonic server that tells a test what it hears, when it hears it.

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

/// How a call fails: after so many messages were heard, and so many were said.
pub(crate) struct Failure {
    pub(crate) hears: usize,
    pub(crate) says: usize,
    pub(crate) status: Status,
}

impl Failure {
    /// Before anything is said: its status comes in the head of the answer.
    pub(crate) fn at_once(status: Status) -> Self {
        Self { hears: 1, says: 0, status }
    }
}

/// The test's end of a server.
pub(crate) struct Speaker {
    pub(crate) url: String,
    /// The name of the method when a call begins, each message, and `.` when a stream of them has
    /// ended.
    heard: mpsc::UnboundedReceiver<String>,
    failures: Arc<Mutex<VecDeque<Failure>>>,
    /// What `spell` takes one of before it says a letter.
    pub(crate) breath: Arc<Semaphore>,
}

impl Speaker {
    pub(crate) async fn start() -> Self {
        Self::layered(Identity::new()).await
    }

    /// Starts one whose calls go through the layer first.
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
        let (log, heard) = mpsc::unbounded_channel();
        let failures = Arc::<Mutex<VecDeque<_>>>::default();
        let breath = Arc::new(Semaphore::new(0));
        let ear = Ear { log, failures: Arc::clone(&failures), breath: Arc::clone(&breath) };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().layer(layer).add_service(EchoServer::new(ear));
        tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
        Self { url, heard, failures, breath }
    }

    /// Lets the calls that come next fail, one for each.
    pub(crate) fn fail(&self, failures: impl IntoIterator<Item = Failure>) {
        self.failures.lock().unwrap().extend(failures);
    }

    /// Waits for the next thing that it hears.
    pub(crate) async fn hears(&mut self) -> String {
        self.heard.recv().await.unwrap()
    }

    /// All that it has heard since it was asked last.
    pub(crate) fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

struct Ear {
    log: mpsc::UnboundedSender<String>,
    failures: Arc<Mutex<VecDeque<Failure>>>,
    breath: Arc<Semaphore>,
}

fn note(log: &mpsc::UnboundedSender<String>, what: &str) {
    // A test that has ended does not listen.
    let _ = log.send(what.to_owned());
}

impl Ear {
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

fn said(text: impl Into<String>) -> Words {
    Words { text: text.into() }
}

#[tonic::async_trait]
impl Echo for Ear {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        let failure = self.begin("say");
        let tag = request.metadata().get("x-tag").cloned();
        let text = request.into_inner().text;
        note(&self.log, &text);
        if let Some(failure) = failure {
            return Err(failure.status);
        }
        let mut response = Response::new(said(text.to_uppercase()));
        if let Some(tag) = tag {
            response.metadata_mut().insert("x-tag", tag);
        }
        Ok(response)
    }

    async fn gather(&self, request: Request<Streaming<Words>>) -> Result<Response<Words>, Status> {
        let failure = self.begin("gather");
        let (mut words, mut all) = (request.into_inner(), Vec::new());
        loop {
            if failure.as_ref().is_some_and(|failure| failure.hears == all.len()) {
                break;
            }
            let Some(text) = next(&self.log, &mut words).await? else { break };
            all.push(text);
        }
        failure.map_or_else(|| Ok(Response::new(said(all.join(" ")))), |failure| Err(failure.status))
    }

    async fn spell(&self, request: Request<Words>) -> Result<Response<BoxStream<Words>>, Status> {
        let failure = self.begin("spell");
        let text = request.into_inner().text;
        note(&self.log, &text);
        let says = match failure {
            Some(Failure { says: 0, status, .. }) => return Err(status),
            other => other,
        };
        let (letters, stream) = mpsc::unbounded_channel();
        let breath = Arc::clone(&self.breath);
        tokio::spawn(async move {
            let count = says.as_ref().map_or(usize::MAX, |failure| failure.says);
            for letter in text.chars().take(count) {
                breath.acquire().await.unwrap().forget();
                let _ = letters.send(Ok(said(letter)));
            }
            if let Some(failure) = says {
                let _ = letters.send(Err(failure.status));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }

    async fn talk(&self, request: Request<Streaming<Words>>) -> Result<Response<BoxStream<Words>>, Status> {
        let failure = self.begin("talk");
        let mut words = request.into_inner();
        if let Some(Failure { hears, says: 0, status }) = failure {
            for _ in 0..hears {
                next(&self.log, &mut words).await?;
            }
            return Err(status);
        }
        let (answers, stream) = mpsc::unbounded_channel();
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut left = failure.as_ref().map_or(usize::MAX, |failure| failure.says);
            while left > 0
                && let Ok(Some(text)) = next(&log, &mut words).await
            {
                left -= 1;
                let _ = answers.send(Ok(said(text.to_uppercase())));
            }
            if let Some(failure) = failure {
                let _ = answers.send(Err(failure.status));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }
}
