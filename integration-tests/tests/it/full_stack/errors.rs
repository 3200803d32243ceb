//! Errors of the layers with `?`, `Buffer`, `Timeout` and a user's own enum.

use std::io;

use integration_tests::TIMEOUT;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_breaker::{BreakerError, BreakerLayer, Rejection};
use tower_fault_classify::{ClassifiedError, ErrorChain, FaultClassifyLayer, Kind, classify_error};
use tower_jitter_retry::JitterRetryLayer;

use super::{circuit, policy};

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

trait Stack: Service<u32, Response = (), Error = BreakerError<io::Error>> {}

impl<S: Service<u32, Response = (), Error = BreakerError<io::Error>>> Stack for S {}

async fn call_boxed(stack: &mut impl Stack) -> Result<(), BoxError> {
    stack.ready().await?.call(1).await?;
    Ok(())
}

async fn call_anyhow(stack: &mut impl Stack) -> anyhow::Result<()> {
    stack.ready().await?.call(1).await?;
    Ok(())
}

#[tokio::test]
async fn typed_error_can_be_matched_and_propagated() {
    let breaker = BreakerLayer::new(circuit());
    let mut stack =
        ServiceBuilder::new().layer(breaker).service(service_fn(async |_: u32| Err::<(), _>(refused())));
    let error = call_boxed(&mut stack).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(BreakerError::<io::Error>::Inner(_))));
    for _ in 0..5 {
        call_anyhow(&mut stack).await.unwrap_err();
    }
    let error = call_anyhow(&mut stack).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(BreakerError::<io::Error>::Rejected(_))));
    let text = ErrorChain(&*error).to_string();
    assert!(text.starts_with("circuit breaker `stack` is open; retry after "), "{text}");
    assert_eq!(text.matches("is open").count(), 1, "{text}");
    match stack.ready().await.unwrap().call(1).await {
        Err(BreakerError::Rejected(rejection)) => assert_eq!(rejection.circuit(), "stack"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn boxed_error_stays_boxed_and_holds_rejection() {
    let inner = service_fn(async |_: u32| Err::<(), BoxError>(refused().into()));
    let mut stack = ServiceBuilder::new().layer(BreakerLayer::new(circuit())).service(inner);
    for _ in 0..6 {
        let error: BoxError = stack.ready().await.unwrap().call(1).await.unwrap_err();
        assert!(error.is::<io::Error>());
    }
    let error: BoxError = stack.ready().await.unwrap().call(1).await.unwrap_err();
    assert!(error.is::<Rejection>());
    assert_eq!(classify_error(&*error).kind(), Kind::Rejected);
}

#[tokio::test]
async fn anyhow_error_keeps_its_type() {
    let inner = service_fn(async |_: u32| Err::<(), anyhow::Error>(refused().into()));
    let mut stack = ServiceBuilder::new().layer(BreakerLayer::new(circuit())).service(inner);
    for _ in 0..6 {
        let error: anyhow::Error = stack.ready().await.unwrap().call(1).await.unwrap_err();
        assert!(error.is::<io::Error>());
    }
    let error: anyhow::Error = stack.ready().await.unwrap().call(1).await.unwrap_err();
    assert!(error.is::<Rejection>());
}

#[tokio::test]
async fn verdict_is_read_through_buffer_and_timeout() {
    let inner = service_fn(async |_: u32| Err::<(), _>(refused()));
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy()))
        .timeout(TIMEOUT)
        .buffer(8)
        .layer(BreakerLayer::new(circuit()))
        .layer(FaultClassifyLayer::new())
        .service(inner);
    let error: BoxError = stack.ready().await.unwrap().call(1).await.unwrap_err();
    let inner = error.downcast_ref::<BreakerError<ClassifiedError>>().unwrap();
    assert!(matches!(inner, BreakerError::Inner(_)));
    assert_eq!(classify_error(&*error).kind(), Kind::Unavailable);
    stack.ready().await.unwrap().call(1).await.unwrap_err();
    let error = stack.ready().await.unwrap().call(1).await.unwrap_err();
    assert_eq!(classify_error(&*error).kind(), Kind::Rejected, "six attempts open the circuit");
}

#[derive(Debug)]
enum AppError {
    Busy(Rejection),
    Io(io::Error),
}

impl From<BreakerError<io::Error>> for AppError {
    fn from(error: BreakerError<io::Error>) -> Self {
        match error {
            BreakerError::Rejected(rejection) => Self::Busy(rejection),
            BreakerError::Inner(error) => Self::Io(error),
            _ => unreachable!("the breaker has two error variants"),
        }
    }
}

#[tokio::test]
async fn user_enum_keeps_inner_error_type() {
    let mut stack = ServiceBuilder::new()
        .map_err(AppError::from)
        .layer(BreakerLayer::new(circuit()))
        .service(service_fn(async |_: u32| Err::<(), _>(refused())));
    for _ in 0..6 {
        let error = stack.ready().await.unwrap().call(1).await.unwrap_err();
        assert!(matches!(error, AppError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused));
    }
    let error = stack.ready().await.unwrap().call(1).await.unwrap_err();
    assert!(matches!(error, AppError::Busy(rejection) if rejection.circuit() == "stack"));
}
