//! A server with TLS that fails as the demo wants, and otherwise answers with the text in capitals.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::codegen::BoxStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tower::BoxError;

use crate::echo::Words;
use crate::echo::echo_server::{Echo, EchoServer};

/// How the server goes on after the first letter of a stream.
#[derive(Clone, Copy, Default)]
pub(crate) enum Ending {
    #[default]
    Complete,
    /// The status in the trailers is `UNAVAILABLE`.
    Broken,
    /// Neither letters nor trailers follow, and the connection stays open.
    Stalled,
}

#[derive(Clone, Default)]
pub(crate) struct ScriptedEcho(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    failures: VecDeque<Status>,
    ending: Ending,
    request_count: usize,
}

impl ScriptedEcho {
    /// Sets the statuses of the next requests.
    pub(crate) fn fail_next(&self, failures: &[Status]) {
        self.script().failures = failures.iter().cloned().collect();
    }

    /// Sets how streams end.
    pub(crate) fn end_streams(&self, ending: Ending) {
        self.script().ending = ending;
    }

    pub(crate) fn request_count(&self) -> usize {
        self.script().request_count
    }

    /// Counts a request. Returns its failure, if the script has one for it.
    fn begin_request(&self) -> Result<(), Status> {
        let mut script = self.script();
        script.request_count += 1;
        script.failures.pop_front().map_or(Ok(()), Err)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Echo for ScriptedEcho {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        self.begin_request()?;
        Ok(Response::new(Words { text: request.into_inner().text.to_uppercase() }))
    }

    async fn spell(&self, request: Request<Words>) -> Result<Response<BoxStream<Words>>, Status> {
        self.begin_request()?;
        let text = request.into_inner().text.to_uppercase();
        let letters: Vec<_> = text.chars().map(|letter| Ok(Words { text: letter.into() })).collect();
        let letters = tokio_stream::iter(letters);
        let ending = self.script().ending;
        let stream: BoxStream<Words> = match ending {
            Ending::Complete => Box::pin(letters),
            Ending::Broken => {
                let failure = Err(failure(Code::Unavailable));
                Box::pin(letters.take(1).chain(tokio_stream::once(failure)))
            }
            Ending::Stalled => Box::pin(letters.take(1).chain(tokio_stream::pending())),
        };
        Ok(Response::new(stream))
    }
}

pub(crate) fn failure(code: Code) -> Status {
    Status::new(code, "scripted failure")
}

/// Returns a status that asks the client to wait.
pub(crate) fn busy_for(delay: Duration) -> Status {
    let mut status = failure(Code::Unavailable);
    let milliseconds = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    status.metadata_mut().insert("grpc-retry-pushback-ms", milliseconds.into());
    status
}

/// Starts the server on a loopback port.
///
/// Returns its address, and the certificate that a client must trust.
pub(crate) async fn start_server(echo: ScriptedEcho) -> Result<(String, Certificate), BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let certificate = certified.cert.pem();
    let identity = Identity::from_pem(&certificate, certified.signing_key.serialize_pem());
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        .add_service(EchoServer::new(echo));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Ok((url, Certificate::from_pem(certificate)))
}
