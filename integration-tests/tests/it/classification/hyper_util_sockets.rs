//! I/O errors that do not occur on loopback, injected below hyper-util's client: while it connects,
//! while it reads, and while it polls the request's body.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper::body::{Body, Frame};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use test_servers::Http;
use tower::{Layer, ServiceExt, service_fn};
use tower_fault_classify::{ClassifiedError, FaultClassifyLayer, Health, Kind, Retryable};

use super::{
    Axes, BROKEN, BROKEN_UNSENT, CALLER, CONNECT_TIMEOUT, INVALID_RESPONSE, TIMEOUT, Table,
    UNAVAILABLE_UNSENT, axes,
};

const LOCAL: Axes = axes(Kind::Local, Retryable::Never, Health::Neutral);
const LOCAL_TRANSIENT: Axes = axes(Kind::Local, Retryable::IfIdempotent, Health::Neutral);
const LOCAL_TRANSIENT_UNSENT: Axes = axes(Kind::Local, Retryable::Unsent, Health::Neutral);
const UNAVAILABLE: Axes = axes(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy);

/// The kinds of an I/O error, with their rows for a connect error and for other errors.
const KINDS: [(ErrorKind, Axes, Axes); 34] = [
    (ErrorKind::ConnectionRefused, UNAVAILABLE_UNSENT, UNAVAILABLE_UNSENT),
    (ErrorKind::HostUnreachable, UNAVAILABLE_UNSENT, UNAVAILABLE),
    (ErrorKind::NetworkUnreachable, UNAVAILABLE_UNSENT, UNAVAILABLE),
    (ErrorKind::NotFound, UNAVAILABLE_UNSENT, CALLER),
    (ErrorKind::TimedOut, CONNECT_TIMEOUT, TIMEOUT),
    (ErrorKind::WouldBlock, CONNECT_TIMEOUT, TIMEOUT),
    (ErrorKind::ConnectionReset, BROKEN_UNSENT, BROKEN),
    (ErrorKind::ConnectionAborted, BROKEN_UNSENT, BROKEN),
    (ErrorKind::BrokenPipe, BROKEN_UNSENT, BROKEN),
    (ErrorKind::UnexpectedEof, BROKEN_UNSENT, BROKEN),
    (ErrorKind::NotConnected, UNAVAILABLE_UNSENT, BROKEN),
    (ErrorKind::WriteZero, BROKEN_UNSENT, BROKEN),
    (ErrorKind::InvalidData, INVALID_RESPONSE, INVALID_RESPONSE),
    (ErrorKind::Interrupted, LOCAL_TRANSIENT_UNSENT, LOCAL_TRANSIENT),
    (ErrorKind::ResourceBusy, LOCAL_TRANSIENT_UNSENT, LOCAL_TRANSIENT),
    (ErrorKind::Deadlock, LOCAL_TRANSIENT_UNSENT, LOCAL_TRANSIENT),
    (ErrorKind::StaleNetworkFileHandle, LOCAL_TRANSIENT_UNSENT, LOCAL_TRANSIENT),
    (ErrorKind::NetworkDown, LOCAL, LOCAL),
    (ErrorKind::AddrNotAvailable, LOCAL, LOCAL),
    (ErrorKind::AddrInUse, LOCAL, LOCAL),
    (ErrorKind::OutOfMemory, LOCAL, LOCAL),
    (ErrorKind::StorageFull, LOCAL, LOCAL),
    (ErrorKind::QuotaExceeded, LOCAL, LOCAL),
    (ErrorKind::PermissionDenied, CALLER, CALLER),
    (ErrorKind::InvalidInput, CALLER, CALLER),
    (ErrorKind::Unsupported, CALLER, CALLER),
    (ErrorKind::AlreadyExists, CALLER, CALLER),
    (ErrorKind::NotADirectory, CALLER, CALLER),
    (ErrorKind::IsADirectory, CALLER, CALLER),
    (ErrorKind::DirectoryNotEmpty, CALLER, CALLER),
    (ErrorKind::ReadOnlyFilesystem, CALLER, CALLER),
    (ErrorKind::FileTooLarge, CALLER, CALLER),
    (ErrorKind::NotSeekable, CALLER, CALLER),
    (ErrorKind::InvalidFilename, CALLER, CALLER),
];

/// EMFILE and ENFILE, for which std has no kind. Every Unix uses the same numbers.
#[cfg(unix)]
const TOO_MANY_OPEN_FILES: [i32; 2] = [24, 23];

fn post<B>(url: &str, body: B) -> Request<B> {
    Request::post(url).body(body).unwrap()
}

async fn connect_error(error: impl Fn() -> Error + Clone + Send + Sync + 'static) -> ClassifiedError {
    let connector = service_fn(move |_: Uri| std::future::ready(Err::<FailingRead, _>(error())));
    let client = Client::builder(TokioExecutor::new()).build(connector);
    FaultClassifyLayer::new()
        .layer(client)
        .oneshot(post("http://server", Full::<Bytes>::default()))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn io_error_while_connecting_matches_table() {
    let mut table = Table::default();
    for (kind, want, _) in KINDS {
        table.error(&kind, &connect_error(move || kind.into()).await, want);
        table.error(&kind, &connect_error(move || Error::new(kind, Error::other("cause"))).await, want);
    }
    #[cfg(unix)]
    for number in TOO_MANY_OPEN_FILES {
        table.error(&number, &connect_error(move || Error::from_raw_os_error(number)).await, LOCAL);
    }
}

/// A connection that accepts the request, and then fails instead of returning a response.
#[derive(Debug)]
struct FailingRead {
    error: Option<ErrorKind>,
    is_written: bool,
    reader: Option<Waker>,
}

impl Read for FailingRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        _: ReadBufCursor<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.is_written {
            // After the error, the stream has ended.
            return Poll::Ready(self.error.take().map_or(Ok(()), |kind| Err(kind.into())));
        }
        self.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Write for FailingRead {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        self.is_written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

impl Connection for FailingRead {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[tokio::test]
async fn io_error_in_place_of_response_matches_table() {
    let mut table = Table::default();
    for (kind, _, want) in KINDS {
        let connector = service_fn(move |_: Uri| {
            std::future::ready(Ok::<_, Error>(FailingRead {
                error: Some(kind),
                is_written: false,
                reader: None,
            }))
        });
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let classified = FaultClassifyLayer::new().layer(client);
        let error = classified.oneshot(post("http://server", Full::<Bytes>::from("body"))).await.unwrap_err();
        table.error(&kind, &error, want);
    }
}

/// A body that fails after its first frame.
pub(crate) struct FailingBody {
    has_begun: bool,
    error: ErrorKind,
}

impl FailingBody {
    pub(crate) const fn new(error: ErrorKind) -> Self {
        Self { has_begun: false, error }
    }
}

impl Body for FailingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let has_begun = std::mem::replace(&mut self.has_begun, true);
        let first = Ok(Frame::data(Bytes::from_static(b"half")));
        Poll::Ready(Some(if has_begun { Err(self.error.into()) } else { first }))
    }
}

/// An I/O error of the request's body is a fault of the caller, regardless of its row for
/// connections.
#[tokio::test]
async fn io_error_in_request_body_is_fault_of_caller() {
    let (server, mut table) = (Http::start().await, Table::default());
    for (kind, ..) in KINDS {
        let client: Client<HttpConnector, _> = Client::builder(TokioExecutor::new()).build_http();
        let classified = FaultClassifyLayer::new().layer(client);
        let body = FailingBody::new(kind);
        table.error(&kind, &classified.oneshot(post(&server.url(), body)).await.unwrap_err(), CALLER);
    }
    assert!(server.requests().is_empty());
}
