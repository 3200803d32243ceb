//! A request that may have been processed is sent again only if it is idempotent.

use std::io::{self, ErrorKind};

use http::{Method, Request, Response};
use tower::{Layer, service_fn};
use tower_jitter_retry::{Budget, JitterRetryLayer, NonIdempotent, RetryPolicy, RetrySafety};

use crate::support::{Calls, block_on, immediate, request, response, send};

/// The result of every attempt.
#[derive(Clone, Copy, Debug)]
enum AttemptResult {
    Status(u16),
    Io(ErrorKind),
}

use AttemptResult::{Io, Status};

/// Results after which the request may have been processed.
const UNCLEAR: [AttemptResult; 8] = [
    Status(408),
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    Io(ErrorKind::TimedOut),
    Io(ErrorKind::ConnectionReset),
    Io(ErrorKind::Other),
];

/// Results which show that the request was not processed.
const UNPROCESSED: [AttemptResult; 5] =
    [Status(421), Status(425), Status(429), Status(529), Io(ErrorKind::ConnectionRefused)];

fn times_sent(policy: RetryPolicy, request: Request<String>, result: AttemptResult) -> usize {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(policy).layer(service_fn(|_: Request<String>| {
        calls.next();
        async move {
            match result {
                Status(status) => Ok::<Response<String>, io::Error>(response(status)),
                Io(kind) => Err(kind.into()),
            }
        }
    }));
    match (block_on(send(&mut service, request)), result) {
        (Ok(answer), Status(status)) => assert_eq!(answer.status(), status),
        (Err(error), Io(kind)) => assert_eq!(error.kind(), kind),
        (answer, _) => panic!("{answer:?} after {result:?}"),
    }
    calls.made()
}

fn default() -> RetryPolicy {
    immediate().build().unwrap()
}

fn with_safety(safety: RetrySafety) -> RetryPolicy {
    immediate().safety(safety).build().unwrap()
}

fn marked(method: Method, safety: RetrySafety) -> Request<String> {
    let mut request = request(method);
    request.extensions_mut().insert(safety);
    request
}

fn keyed(method: Method) -> Request<String> {
    let mut request = request(method);
    request.headers_mut().insert("Idempotency-Key", "8e03978e-40d5-43dd-bc93-6894a57f9324".parse().unwrap());
    request
}

#[test]
fn post_after_unclear_fault_is_sent_once() {
    for result in UNCLEAR {
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"PURCHASE").unwrap()]
        {
            assert_eq!(times_sent(default(), request(method.clone()), result), 1, "{method} {result:?}");
        }
    }
}

#[test]
fn post_known_unprocessed_is_sent_again() {
    for result in UNPROCESSED {
        assert_eq!(times_sent(default(), request(Method::POST), result), 3, "{result:?}");
    }
}

#[test]
fn idempotent_methods_are_sent_again() {
    for result in UNCLEAR.into_iter().chain(UNPROCESSED) {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        {
            assert_eq!(times_sent(default(), request(method.clone()), result), 3, "{method} {result:?}");
        }
    }
}

#[test]
fn post_with_idempotency_key_is_sent_again() {
    for result in UNCLEAR {
        assert_eq!(times_sent(default(), keyed(Method::POST), result), 3, "{result:?}");
    }
}

#[test]
fn post_with_safety_always_is_sent_again() {
    for result in UNCLEAR {
        assert_eq!(times_sent(default(), marked(Method::POST, RetrySafety::Always), result), 3, "{result:?}");
        assert_eq!(
            times_sent(with_safety(RetrySafety::Always), request(Method::POST), result),
            3,
            "{result:?}"
        );
    }
}

#[test]
fn get_with_safety_never_is_sent_once() {
    for result in UNCLEAR {
        assert_eq!(times_sent(default(), marked(Method::GET, RetrySafety::Never), result), 1, "{result:?}");
        assert_eq!(
            times_sent(with_safety(RetrySafety::Never), request(Method::GET), result),
            1,
            "{result:?}"
        );
        assert_eq!(times_sent(with_safety(RetrySafety::Never), keyed(Method::POST), result), 1, "{result:?}");
    }
}

#[test]
fn unsent_request_with_safety_never_is_sent_once() {
    for result in UNPROCESSED {
        for method in [Method::GET, Method::POST] {
            let marked = marked(method.clone(), RetrySafety::Never);
            assert_eq!(times_sent(default(), marked, result), 1, "{method} {result:?}");
            let policy = with_safety(RetrySafety::Never);
            assert_eq!(times_sent(policy, request(method.clone()), result), 1, "{method} {result:?}");
        }
    }
}

#[test]
fn post_with_blank_idempotency_key_is_sent_once() {
    for key in ["", " ", "\t ", "\"\"", "\"  \"", " \"\" ", "\""] {
        for result in UNCLEAR {
            let mut request = request(Method::POST);
            request.headers_mut().insert("idempotency-key", key.parse().unwrap());
            assert_eq!(times_sent(default(), request, result), 1, "{key:?} {result:?}");
        }
    }
}

#[test]
fn request_safety_takes_precedence_over_policy() {
    for result in UNCLEAR {
        let mut request = keyed(Method::GET);
        request.extensions_mut().insert(RetrySafety::Never);
        assert_eq!(times_sent(with_safety(RetrySafety::Always), request, result), 1, "{result:?}");
        let request = marked(Method::POST, RetrySafety::Always);
        assert_eq!(times_sent(with_safety(RetrySafety::Never), request, result), 3, "{result:?}");
        // An explicit `ByRequest` on the request overrides the policy too.
        let request = marked(Method::POST, RetrySafety::ByRequest);
        assert_eq!(times_sent(with_safety(RetrySafety::Always), request, result), 1, "{result:?}");
    }
}

#[test]
fn safety_always_does_not_retry_permanent_fault() {
    for result in [Status(400), Status(404), Status(501), Io(ErrorKind::InvalidInput)] {
        assert_eq!(
            times_sent(with_safety(RetrySafety::Always), request(Method::GET), result),
            1,
            "{result:?}"
        );
    }
}

#[test]
fn plain_request_is_idempotent_by_default() {
    for (safety, kind, expected) in [
        (RetrySafety::ByRequest, ErrorKind::TimedOut, 3),
        (RetrySafety::Always, ErrorKind::TimedOut, 3),
        (RetrySafety::Never, ErrorKind::TimedOut, 1),
        (RetrySafety::Never, ErrorKind::ConnectionRefused, 1),
    ] {
        let calls = Calls::default();
        let mut service = JitterRetryLayer::new(with_safety(safety)).layer(service_fn(|_: &'static str| {
            calls.next();
            async move { Err::<(), _>(io::Error::from(kind)) }
        }));
        block_on(send(&mut service, "ping")).unwrap_err();
        assert_eq!(calls.made(), expected, "{safety:?} {kind}");
    }
}

#[test]
fn post_refused_then_timed_out_is_not_sent_again() {
    let calls = Calls::default();
    let mut service = JitterRetryLayer::new(default()).layer(service_fn(|_: Request<String>| {
        let kind = if calls.next() == 1 { ErrorKind::ConnectionRefused } else { ErrorKind::TimedOut };
        async move { Err::<Response<String>, _>(io::Error::from(kind)) }
    }));
    let error = block_on(send(&mut service, request(Method::POST))).unwrap_err();
    assert_eq!((calls.made(), error.kind()), (2, ErrorKind::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn post_after_tower_timeout_is_sent_once() {
    for (method, expected) in [(Method::POST, 1), (Method::GET, 3)] {
        let calls = Calls::default();
        let mut service = tower::ServiceBuilder::new()
            .layer(JitterRetryLayer::new(default()))
            .timeout(std::time::Duration::from_secs(1))
            .service(service_fn(|_: Request<String>| {
                calls.next();
                std::future::pending::<Result<Response<String>, io::Error>>()
            }));
        let error = send(&mut service, request(method)).await.unwrap_err();
        assert!(error.is::<tower::timeout::error::Elapsed>());
        assert_eq!(calls.made(), expected);
    }
}

/// Responses by which the server says that it did not process the request.
const REFUSED: [AttemptResult; 4] = [Status(421), Status(425), Status(429), Status(529)];

/// A result which proves that the request was not sent.
const UNSENT: AttemptResult = Io(ErrorKind::ConnectionRefused);

#[test]
fn non_idempotent_level_limits_retries_of_post_only() {
    for (level, unsent, refused) in
        [(NonIdempotent::Never, 1, 1), (NonIdempotent::Unsent, 3, 1), (NonIdempotent::UnsentOrRefused, 3, 3)]
    {
        let policy = || immediate().non_idempotent(level).build().unwrap();
        assert_eq!(times_sent(policy(), request(Method::POST), UNSENT), unsent, "{level:?}");
        assert_eq!(times_sent(policy(), request(Method::GET), UNSENT), 3, "{level:?}");
        for result in REFUSED {
            assert_eq!(times_sent(policy(), request(Method::POST), result), refused, "{level:?} {result:?}");
            assert_eq!(times_sent(policy(), request(Method::GET), result), 3, "{level:?} {result:?}");
            assert_eq!(times_sent(policy(), keyed(Method::POST), result), 3, "{level:?} {result:?}");
            let always = marked(Method::POST, RetrySafety::Always);
            assert_eq!(times_sent(policy(), always, result), 3, "{level:?} {result:?}");
        }
        for result in UNCLEAR {
            assert_eq!(times_sent(policy(), request(Method::POST), result), 1, "{level:?} {result:?}");
        }
    }
}

#[test]
fn by_method_ignores_the_idempotency_key() {
    let policy = || with_safety(RetrySafety::ByMethod);
    for result in UNCLEAR {
        assert_eq!(times_sent(policy(), keyed(Method::POST), result), 1, "{result:?}");
        assert_eq!(times_sent(policy(), request(Method::PUT), result), 3, "{result:?}");
        let mut request = keyed(Method::POST);
        request.extensions_mut().insert(RetrySafety::ByMethod);
        assert_eq!(times_sent(default(), request, result), 1, "{result:?}");
    }
}

#[test]
fn gateway_sends_post_again_only_if_unsent() {
    let policy = || {
        RetryPolicy::gateway()
            .initial_backoff(std::time::Duration::ZERO)
            .budget(None::<Budget>)
            .build()
            .unwrap()
    };
    for result in UNCLEAR.into_iter().chain(REFUSED) {
        for post in [request(Method::POST), keyed(Method::POST), request(Method::PATCH)] {
            assert_eq!(times_sent(policy(), post, result), 1, "{result:?}");
        }
        assert_eq!(times_sent(policy(), request(Method::GET), result), 3, "{result:?}");
    }
    assert_eq!(times_sent(policy(), request(Method::POST), UNSENT), 3);
}

#[test]
fn post_after_io_timeout_is_sent_once() {
    let calls = Calls::default();
    let mut service =
        JitterRetryLayer::new(immediate().build().unwrap()).layer(service_fn(|_: Request<String>| {
            calls.next();
            async { Err::<Response<()>, _>(io::Error::from(ErrorKind::TimedOut)) }
        }));
    block_on(send(&mut service, request(Method::POST))).unwrap_err();
    assert_eq!(calls.made(), 1);
}
