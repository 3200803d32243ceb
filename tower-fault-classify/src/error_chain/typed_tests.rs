//! Compares [`classify_typed`] with the walk, for errors of all kinds in and around each other.
//!
//! The integration tests of the workspace compare them for the errors of real clients.

use std::fmt;

use super::*;
#[cfg(feature = "__internals")]
use crate::circuit_rejection::{CircuitCondition, CircuitRecord, CircuitRejection};
use crate::error::BoxError;
use crate::fault::{Health, Kind, Origin};

/// An error with a boxed source.
#[derive(Debug)]
struct Around(BoxError);

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("around")
    }
}

impl Error for Around {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// An error whose sources have known types, as the error of a circuit breaker.
#[derive(Debug)]
enum Breaker<E> {
    Rejected(Rejection),
    Inner(E),
}

#[derive(Debug)]
struct Rejection(ClassifiedError);

impl<E> fmt::Display for Breaker<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("breaker")
    }
}

impl<E: Error + 'static> Error for Breaker<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Inner(error) => Some(error),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rejected")
    }
}

impl Error for Rejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn fault() -> Fault {
    Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote)
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Compares the two classifications of an error, in each state of the request's body.
fn assert_equal<E: Error + 'static>(error: &E) {
    assert_eq!(classify_typed(error), classify_error(error), "{error:?}");
    for stalled in [false, true] {
        let _upload = UploadGuard::enter(stalled);
        assert_eq!(classify_typed(error), classify_error(error), "{error:?}, stalled: {stalled}");
    }
    let _upload = UploadGuard::failed();
    assert_eq!(classify_typed(error), classify_error(error), "{error:?}, upload failed");
}

/// Makes an error, or puts an error around another one.
type Make = fn() -> BoxError;
type Wrap = fn(BoxError) -> BoxError;

/// The errors without a source, and others at which the walk ends.
const LAST: &[Make] = &[
    || reset().into(),
    || io::Error::from(io::ErrorKind::ConnectionRefused).into(),
    || io::Error::from(io::ErrorKind::TimedOut).into(),
    || io::Error::from(io::ErrorKind::NotFound).into(),
    || io::Error::from(io::ErrorKind::Other).into(),
    || io::Error::from_raw_os_error(104).into(),
    || io::Error::from_raw_os_error(110).into(),
    || io::Error::from_raw_os_error(23).into(),
    || io::Error::new(io::ErrorKind::TimedOut, "with a payload").into(),
    || ClassifiedError::from_fault(fault()).into(),
    #[cfg(feature = "__internals")]
    || ClassifiedError::from_rejection(rejection_of_open_circuit(None)).into(),
    || fmt::Error.into(),
    #[cfg(feature = "h2")]
    || h2::Error::from(h2::Reason::REFUSED_STREAM).into(),
    #[cfg(feature = "tonic")]
    || tonic::Status::unavailable("").into(),
    #[cfg(feature = "tonic")]
    || tonic::TimeoutExpired(()).into(),
    #[cfg(feature = "tower")]
    || tower::load_shed::error::Overloaded::new().into(),
    #[cfg(feature = "tower")]
    || tower::timeout::error::Elapsed::new().into(),
];

const WRAPS: &[Wrap] = &[
    |error| Around(error).into(),
    |error| io::Error::other(error).into(),
    |error| io::Error::new(io::ErrorKind::InvalidData, error).into(),
    |error| ClassifiedError::new(fault(), error).into(),
    |error| UploadError::new(error).into(),
    |error| shared(error).into(),
    #[cfg(feature = "reqwest-middleware")]
    |error| reqwest_middleware::Error::middleware(Around(error)).into(),
    #[cfg(feature = "tonic")]
    |error| status(error).into(),
];

#[cfg(feature = "__internals")]
fn rejection_of_open_circuit(retry_after: Option<u64>) -> CircuitRejection {
    CircuitRejection::new(CircuitRecord::of("stock"), CircuitCondition::Open, retry_after)
}

fn shared(error: BoxError) -> Arc<dyn Error + Send + Sync> {
    error.into()
}

#[cfg(feature = "tonic")]
fn status(source: BoxError) -> tonic::Status {
    let mut status = tonic::Status::unknown("");
    status.set_source(source.into());
    status
}

/// Calls `check` with each chain of up to three errors.
fn for_each_chain(check: impl Fn(&dyn Fn() -> BoxError)) {
    for last in LAST {
        check(last);
        for inner in WRAPS {
            check(&|| inner(last()));
            for outer in WRAPS {
                check(&|| outer(inner(last())));
            }
        }
    }
}

#[test]
fn classify_typed_equals_walk_for_each_type_around_each_chain() {
    for_each_chain(|chain| {
        assert_equal(&Around(chain()));
        assert_equal(&Breaker::Inner(Around(chain())));
        assert_equal(&Breaker::Inner(Breaker::Inner(Around(chain()))));
        assert_equal(&Breaker::Inner(io::Error::other(chain())));
        assert_equal(&Breaker::Inner(ClassifiedError::new(fault(), chain())));
        assert_equal(&Breaker::Inner(shared(chain())));
        assert_equal(&io::Error::other(chain()));
        assert_equal(&ClassifiedError::new(fault(), chain()));
        assert_equal(&UploadError::new(chain()));
        assert_equal(&shared(chain()));
        assert_equal(&Arc::new(Around(chain())));
        // Its `source()` skips the error in it.
        #[cfg(feature = "reqwest-middleware")]
        assert_equal(&reqwest_middleware::Error::middleware(UploadError::new(Around(chain()))));
        #[cfg(feature = "tonic")]
        assert_equal(&status(chain()));
        #[cfg(feature = "tonic")]
        assert_equal(&tonic::ConnectError(chain()));
    });
}

#[test]
fn classify_typed_equals_walk_for_errors_of_circuit_breakers() {
    let kinds = table::io::ROWS.iter().map(|row| row.kind).chain([io::ErrorKind::Other]);
    let by_kind = kinds.map(io::Error::from);
    let by_number = (0..200).map(io::Error::from_raw_os_error);
    for error in by_kind.chain(by_number) {
        let error = Breaker::Inner(error);
        assert_equal(&error);
        let error = Breaker::Inner(error);
        assert_equal(&error);
        assert_equal(&Breaker::Inner(error));
    }
    let rejection = || Rejection(ClassifiedError::from_fault(fault()));
    assert_equal(&rejection());
    assert_equal(&Breaker::<io::Error>::Rejected(rejection()));
    assert_equal(&Breaker::Inner(Breaker::<io::Error>::Rejected(rejection())));
    assert_equal(&Breaker::Inner(Breaker::Inner(Breaker::<io::Error>::Rejected(rejection()))));
    assert_equal(&Breaker::Inner(fmt::Error));
}

#[cfg(feature = "__internals")]
#[test]
fn classify_typed_equals_walk_for_rejections_of_circuits() {
    for retry_after in [None, Some(0), Some(1_500_000_000)] {
        let open = || rejection_of_open_circuit(retry_after);
        let rejection = || Rejection(ClassifiedError::from_rejection(open()));
        let rejected = || Breaker::<io::Error>::Rejected(rejection());
        assert_equal(&rejection());
        assert_equal(&rejected());
        assert_equal(&Breaker::Inner(rejected()));
        assert_equal(&Breaker::Inner(shared(rejection().into())));
        assert_equal(&Breaker::Inner(Around(rejection().into())));
        assert_eq!(classify_typed(&rejected()), open().fault());
        assert_eq!(classify_short_chain(rejected().source().unwrap()), Some(open().fault()));
    }
}

#[test]
fn short_chains_need_no_walk() {
    let short = |error: &dyn Error| classify_short_chain(error.source().expect("a source"));
    let rejection = Rejection(ClassifiedError::from_fault(fault()));
    assert_eq!(short(&Breaker::<io::Error>::Rejected(rejection)), Some(fault()));
    let walked = classify_error(&reset());
    assert_eq!(short(&Breaker::Inner(reset())), Some(walked));
    assert_eq!(short(&Breaker::Inner(Breaker::Inner(reset()))), Some(walked));
    assert_eq!(short(&Breaker::Inner(Breaker::Inner(Breaker::Inner(reset())))), None);
    assert_eq!(short(&Breaker::Inner(io::Error::other(reset()))), None);
    assert_eq!(short(&Breaker::Inner(UploadError::new(Around(reset().into())))), None);
}

/// The worker of a buffer ends when the service in it fails.
#[cfg(feature = "tower")]
#[test]
fn classify_typed_equals_walk_for_error_of_ended_buffer() {
    use std::future::{Ready, ready};
    use std::task::{Context, Poll};

    use tower::{Service, ServiceExt};

    /// A service whose readiness fails.
    struct NeverReady;

    impl Service<()> for NeverReady {
        type Response = ();
        type Error = io::Error;
        type Future = Ready<io::Result<()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(reset()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(()))
        }
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let mut buffer = tower::buffer::Buffer::new(NeverReady, 1);
        buffer.ready().await.unwrap().call(()).await.unwrap_err()
    });
    let ended = ended.downcast::<tower::buffer::error::ServiceError>().unwrap();
    assert_equal(&*ended);
    assert_eq!(classify_typed(&*ended).retryable(), Retryable::Never);
}
