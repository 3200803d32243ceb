//! The number of attempts, and the outcome that the caller gets.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use tower::{BoxError, Layer, ServiceBuilder, service_fn};
use tower_fault_classify::{
    ClassifiedError, FaultClassifyLayer, classify_error, classify_fn, classify_response, rule_fn,
};
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Rule, Verdict};
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy};

use crate::support::{Broken, Calls, block_on, immediate, request, response, send};

const UNAVAILABLE: Fault =
    Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
const REJECTED: Fault = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);

/// Returns how many times a GET is sent to a server that always responds with `status`.
fn gets(policy: RetryPolicy, status: u16) -> usize {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: Request<String>| {
        calls.next();
        async move { Ok::<_, io::Error>(response(status)) }
    }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(answer.status().as_u16(), status, "the response of the server is unchanged");
    calls.made()
}

/// Sends a plain request to a service that always fails with `error`. Returns how many times the
/// request was sent, and the error of the call.
fn sends<E: Error + 'static>(error: impl Fn() -> E) -> (usize, E) {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|(): ()| {
        calls.next();
        let error = error();
        async move { Err::<(), _>(error) }
    }));
    let error = block_on(send(&mut service, ())).unwrap_err();
    (calls.made(), error)
}

#[tokio::test(start_paused = true)]
async fn default_policy_sends_three_attempts() {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(RetryPolicy::default()).layer(service_fn(|request: &'static str| {
            let call = calls.next();
            async move { if call < 3 { Err(Broken(call)) } else { Ok(format!("{request} {call}")) } }
        }));
    assert_eq!(send(&mut service, "ping").await, Ok("ping 3".to_owned()));
    assert_eq!(calls.made(), 3);
}

#[test]
fn request_is_sent_until_first_success() {
    for failures in 0..20 {
        let calls = Calls::default();
        let mut service = JitterRetryLayer::new(immediate().max_attempts(20).build().unwrap()).layer(
            service_fn(|_: u32| {
                let call = calls.next();
                async move { if call <= failures { Err(Broken(call)) } else { Ok(call) } }
            }),
        );
        assert_eq!(block_on(send(&mut service, 7)), Ok(failures + 1));
        assert_eq!(calls.made(), failures + 1);
    }
}

#[test]
fn consecutive_calls_have_separate_attempts() {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    for call in 1..=5 {
        assert_eq!(block_on(send(&mut service, 7)), Err(Broken(3 * call)));
    }
}

#[test]
fn max_attempts_includes_the_first() {
    for attempts in 1..=7 {
        assert_eq!(gets(immediate().max_attempts(attempts).build().unwrap(), 503), attempts as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_ends_unlimited_attempts() {
    let calls = Calls::default();
    let second = Duration::from_secs(1);
    let policy = RetryPolicy::builder()
        .max_attempts(None)
        .max_elapsed(2_000 * second)
        .initial_backoff(second)
        .max_backoff(second)
        .jitter(Jitter::None)
        .budget(None);
    let mut service = JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: u32| {
        let call = calls.next();
        async move { Err::<(), _>(Broken(call)) }
    }));
    assert_eq!(send(&mut service, 7).await, Err(Broken(2_001)));
}

#[test]
fn last_error_is_returned_itself_after_max_attempts() {
    #[derive(Debug)]
    struct Traced(Arc<str>);
    impl std::fmt::Display for Traced {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.0)
        }
    }
    impl Error for Traced {}

    let made = Mutex::new(Vec::new());
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|_: u32| {
        let text: Arc<str> = "down".into();
        made.lock().unwrap().push(Arc::clone(&text));
        async move { Err::<(), _>(Traced(text)) }
    }));
    let Traced(last) = block_on(send(&mut service, 7)).unwrap_err();
    let made = made.lock().unwrap();
    assert_eq!(made.len(), 3);
    assert!(Arc::ptr_eq(&last, &made[2]));
}

#[test]
fn last_response_is_returned_itself_after_max_attempts() {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|_: Request<String>| {
            let call = calls.next();
            async move {
                let mut response: Response<Box<usize>> = Response::new(Box::new(call));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response.headers_mut().insert("x-call", call.into());
                response.extensions_mut().insert(Broken(call));
                Ok::<_, io::Error>(response)
            }
        }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers().len(), 1);
    assert_eq!(answer.headers()["x-call"], "3");
    assert_eq!(answer.extensions().get(), Some(&Broken(3)));
    assert_eq!(**answer.body(), 3);
}

#[test]
fn error_without_retry_is_not_wrapped() {
    let mut service =
        JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(async |_: Request<String>| {
            Err::<Response<()>, _>(io::Error::new(ErrorKind::TimedOut, Broken(1)))
        }));
    let error: io::Error = block_on(send(&mut service, request(Method::POST))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.downcast::<Broken>().unwrap(), Broken(1));
}

#[test]
fn boxed_error_is_returned_as_the_same_box() {
    let mut service = JitterRetryLayer::new(immediate().build().unwrap())
        .layer(service_fn(async |_: Request<String>| Err::<Response<()>, BoxError>(Box::new(Broken(1)))));
    for method in [Method::POST, Method::GET] {
        let error: BoxError = block_on(send(&mut service, request(method))).unwrap_err();
        assert_eq!(*error.downcast::<Broken>().unwrap(), Broken(1));
    }
}

#[test]
fn success_is_returned_unchanged() {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(RetryPolicy::default()).layer(service_fn(|_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(200)) }
        }));
    let answer = block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(calls.made(), 1);
    assert_eq!(answer.body(), "it is 200");
    assert!(answer.headers().is_empty());
    assert!(answer.extensions().is_empty());
}

#[test]
fn permanent_fault_is_sent_once() {
    for status in [200, 204, 301, 304, 400, 401, 403, 404, 409, 410, 422, 499, 501, 505, 507, 511] {
        assert_eq!(gets(immediate().build().unwrap(), status), 1, "{status}");
    }
    for kind in
        [ErrorKind::InvalidInput, ErrorKind::PermissionDenied, ErrorKind::InvalidData, ErrorKind::OutOfMemory]
    {
        let (calls, error) = sends(|| io::Error::from(kind));
        assert_eq!((calls, error.kind()), (1, kind));
    }
}

#[test]
fn transient_fault_is_sent_again() {
    for status in [408, 421, 425, 429, 500, 502, 503, 504, 509, 520, 522, 529, 599] {
        assert_eq!(gets(immediate().build().unwrap(), status), 3, "{status}");
    }
    for kind in [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
        ErrorKind::TimedOut,
        ErrorKind::Interrupted,
    ] {
        assert_eq!(sends(|| io::Error::from(kind)).0, 3, "{kind}");
    }
}

#[test]
fn rejection_below_stops_retries_in_any_wrapping() {
    let (calls, error) = sends(|| ClassifiedError::from_fault(REJECTED));
    assert_eq!((calls, error.fault()), (1, REJECTED));

    // Wrapped in an error of a kind that is retried on its own.
    let (calls, _) =
        sends(|| io::Error::new(ErrorKind::ConnectionReset, ClassifiedError::from_fault(REJECTED)));
    assert_eq!(calls, 1);

    // The outermost classification in the chain decides: it was made with the deeper cause in view.
    let cause = || io::Error::from(ErrorKind::ConnectionRefused);
    let (calls, _) = sends(|| io::Error::other(ClassifiedError::new(REJECTED, cause())));
    assert_eq!(calls, 1);
}

#[test]
fn rejection_in_second_attempt_stops_retries() {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(immediate().max_attempts(5).build().unwrap()).layer(service_fn(|(): ()| {
            let call = calls.next();
            async move { Err::<(), _>(ClassifiedError::from_fault(if call < 2 { UNAVAILABLE } else { REJECTED })) }
        }));
    assert_eq!(
        block_on(send(&mut service, ())).unwrap_err().fault(),
        UNAVAILABLE,
        "the fault of the attempt that was sent"
    );
    assert_eq!(calls.made(), 2);
}

#[test]
fn attached_verdict_takes_precedence_over_status() {
    let calls = Calls::default();
    let rule = rule_fn(|outcome: Result<&Response<String>, &io::Error>| {
        outcome.is_ok_and(|response| response.status() == 404).then_some(UNAVAILABLE.into())
    });
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(immediate().build().unwrap()))
        .layer(FaultClassifyLayer::new().rule(rule))
        .service(service_fn(|_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(404)) }
        }));
    assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap().status(), 404);
    assert_eq!(calls.made(), 3);
}

#[test]
fn attached_verdict_is_stale_after_status_change() {
    let calls = Calls::default();
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(immediate().build().unwrap()))
        .map_response(|mut response: Response<String>| {
            *response.status_mut() = StatusCode::OK;
            response
        })
        .layer(FaultClassifyLayer::new())
        .service(service_fn(|_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        }));
    assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap().status(), 200);
    assert_eq!(calls.made(), 1);
}

#[test]
fn rule_added_last_is_checked_first() {
    fn rule(status: u16, verdict: Verdict) -> impl Rule<Response<String>, io::Error> + Clone {
        rule_fn(move |outcome: Result<&Response<String>, &io::Error>| {
            outcome.is_ok_and(|response| response.status() == status).then_some(verdict)
        })
    }
    let layer = JitterRetryLayer::new(immediate().build().unwrap())
        .rule(rule(200, UNAVAILABLE.into()))
        .rule(rule(503, REJECTED.into()))
        .rule(rule(503, Verdict::Success))
        .rule(rule(404, Verdict::Success))
        .rule(rule(404, UNAVAILABLE.into()));
    for (status, expected) in [(200, 3), (503, 1), (404, 3), (502, 3), (400, 1)] {
        let calls = Calls::default();
        let mut service = layer.layer(service_fn(|_: Request<String>| {
            calls.next();
            async move { Ok(response(status)) }
        }));
        assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap().status(), status);
        assert_eq!(calls.made(), expected, "{status}");
    }
}

#[test]
fn custom_classifier_ignores_attached_verdict() {
    let calls = Calls::default();
    let own = classify_fn(|outcome: Result<&Response<String>, &ClassifiedError>| match outcome {
        Ok(response) if response.status() == 503 => Verdict::Success,
        Ok(response) => classify_response(response),
        Err(error) => classify_error(error).into(),
    });
    let mut service = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(immediate().build().unwrap()).classify(own))
        .layer(FaultClassifyLayer::new())
        .service(service_fn(|_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        }));
    assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap().status(), 503);
    assert_eq!(calls.made(), 1);
}

#[test]
fn errors_only_accepts_any_response_type() {
    #[derive(Debug, PartialEq)]
    struct Foreign(usize);

    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(immediate().build().unwrap()).errors_only().layer(service_fn(|_: u32| {
            let call = calls.next();
            async move { if call < 3 { Err(Broken(call)) } else { Ok(Foreign(call)) } }
        }));
    assert_eq!(block_on(send(&mut service, 7)), Ok(Foreign(3)));
}

#[test]
fn errors_only_counts_every_response_as_success() {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).errors_only().layer(service_fn(
        |_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        },
    ));
    assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap().status(), 503);
    assert_eq!(calls.made(), 1);
}

/// The layer does not require the inner service to be `'static`.
#[test]
fn borrowed_service_is_accepted() {
    let owner = String::from("not static");
    let mut service = JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|_: u32| {
        let owner = &owner;
        async move { Ok::<_, Broken>(owner.len()) }
    }));
    assert_eq!(block_on(send(&mut service, 7)), Ok(10));
}

#[test]
fn policy_error_contains_field_value_and_range() {
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let longer = year + Duration::from_nanos(1);
    let second = Duration::from_secs(1);
    for (builder, field) in [
        (RetryPolicy::builder().max_attempts(0), "max_attempts"),
        (RetryPolicy::builder().max_attempts(1_001), "max_attempts"),
        (RetryPolicy::builder().backoff_multiplier(0.99), "backoff_multiplier"),
        (RetryPolicy::builder().backoff_multiplier(1_000.1), "backoff_multiplier"),
        (RetryPolicy::builder().backoff_multiplier(f64::NAN), "backoff_multiplier"),
        (RetryPolicy::builder().initial_backoff(second).max_backoff(second / 2), "initial_backoff"),
        (RetryPolicy::builder().max_backoff(longer), "max_backoff"),
        (RetryPolicy::builder().max_elapsed(longer), "max_elapsed"),
        (RetryPolicy::builder().max_retry_after(longer), "max_retry_after"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.field(), field);
        assert!(error.to_string().contains(error.value()), "{error}");
        assert!(error.to_string().contains(error.allowed()), "{error}");
    }
    for builder in [
        RetryPolicy::builder().max_attempts(1).backoff_multiplier(1.0),
        RetryPolicy::builder().max_attempts(1_000).backoff_multiplier(1_000.0),
        RetryPolicy::builder().initial_backoff(second).max_backoff(second),
        RetryPolicy::builder()
            .initial_backoff(year)
            .max_backoff(year)
            .max_elapsed(year)
            .max_retry_after(year),
        RetryPolicy::builder()
            .initial_backoff(Duration::ZERO)
            .max_backoff(Duration::ZERO)
            .max_retry_after(Duration::ZERO),
    ] {
        assert!(builder.build().is_ok());
    }
}

#[test]
fn error_type_is_the_inner_one_with_or_without_retry() {
    for (attempts, kind) in
        [(1, ErrorKind::TimedOut), (3, ErrorKind::TimedOut), (3, ErrorKind::PermissionDenied)]
    {
        let mut service = JitterRetryLayer::new(immediate().max_attempts(attempts).build().unwrap())
            .layer(service_fn(move |_: u32| async move { Err::<(), _>(io::Error::new(kind, Broken(7))) }));
        let error: io::Error = block_on(send(&mut service, 7)).unwrap_err();
        assert_eq!((error.kind(), error.downcast::<Broken>().unwrap()), (kind, Broken(7)));
    }
}
