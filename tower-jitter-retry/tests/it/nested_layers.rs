//! Nested retry layers, and the marks on requests.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable, Verdict};
use tower_jitter_retry::request::{Attempt, RequestExt, remove_marker};
use tower_jitter_retry::{
    Budget, Clock, Deadline, Jitter, JitterRetryLayer, NonIdempotent, ReplayBody, RetryPolicy, RetrySafety,
};

use crate::support::{Broken, Calls, block_on, immediate, layer, request, response, send};

const SECOND: Duration = Duration::from_secs(1);

fn three() -> JitterRetryLayer {
    layer(immediate())
}

/// A server that always responds with 503, and records the requests.
fn failing<B>(
    sent: &Mutex<Vec<Request<B>>>,
) -> impl Service<Request<B>, Response = Response<String>, Error = io::Error, Future: Send> + Clone + '_
where
    B: Send,
{
    service_fn(move |request: Request<B>| {
        sent.lock().unwrap().push(request);
        std::future::ready(Ok(response(503)))
    })
}

fn sends(service: impl for<'a> FnOnce(&'a Mutex<Vec<Request<String>>>)) -> Vec<Request<String>> {
    let sent = Mutex::new(Vec::new());
    service(&sent);
    sent.into_inner().unwrap()
}

#[test]
fn three_nested_layers_number_attempts_one_to_three() {
    let sent = sends(|sent| {
        let mut service =
            ServiceBuilder::new().layer(three()).layer(three()).layer(three()).service(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert_eq!(sent.len(), 3);
    let numbers: Vec<_> = sent.iter().map(|sent| Attempt::of(sent.extensions()).unwrap().number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn layer_without_retries_does_not_suppress_inner() {
    // The second policy retries, but does not mark its requests.
    for (outer, expected) in [(immediate().max_attempts(1), (3, 1)), (immediate().marker(false), (9, 3))] {
        let calls = Calls::default();
        let unmarked = Mutex::new(0);
        let mut service = ServiceBuilder::new()
            .layer(layer(outer))
            .layer(count_unmarked(&unmarked))
            .layer(three())
            .service(service_fn(|_: Request<String>| {
                calls.next();
                async { Ok::<_, io::Error>(response(503)) }
            }));
        let mut request = request(Method::POST);
        request.extensions_mut().insert(RetrySafety::Always);
        block_on(send(&mut service, request)).unwrap();
        assert_eq!((calls.made(), *unmarked.lock().unwrap()), expected);
    }
}

/// Returns a layer that counts the requests without a mark.
fn count_unmarked<S>(unmarked: &Mutex<usize>) -> impl Layer<S, Service = CountUnmarked<'_, S>> {
    tower::layer::layer_fn(move |inner| CountUnmarked { inner, unmarked })
}

#[derive(Clone)]
struct CountUnmarked<'a, S> {
    inner: S,
    unmarked: &'a Mutex<usize>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for CountUnmarked<'_, S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        *self.unmarked.lock().unwrap() += usize::from(Attempt::of(request.extensions()).is_none());
        self.inner.call(request)
    }
}

/// A body that the outer layer cannot send again, but the inner layer can.
#[test]
fn request_not_replayable_in_outer_is_retried_by_inner() {
    struct Streaming;
    impl tower_jitter_retry::replay::RetryBody for Streaming {
        type Saved = ();
        fn save(&mut self, _: usize) -> Option<()> {
            None
        }
        fn replay((): (), _: bool) -> Option<(Self, Option<()>)> {
            None
        }
    }
    let calls = Calls::default();
    let mut service = ServiceBuilder::new()
        .layer(three())
        .map_request(|request: Request<Streaming>| request.map(|Streaming| "collected".to_owned()))
        .layer(three())
        .service(service_fn(|request: Request<String>| {
            calls.next();
            assert!(Attempt::of(request.extensions()).is_some(), "the inner layer marks the request");
            async { Ok::<_, io::Error>(response(503)) }
        }));
    block_on(send(&mut service, Request::put("/").body(Streaming).unwrap())).unwrap();
    assert_eq!(calls.made(), 3);
}

#[test]
fn marker_off_lets_every_layer_retry() {
    let unmarked = || layer(immediate().marker(false));
    let sent = sends(|sent| {
        let mut service = ServiceBuilder::new()
            .layer(unmarked())
            .layer(unmarked())
            .layer(unmarked())
            .service(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert_eq!(sent.len(), 27, "attempts multiply without marks");
    assert!(sent.iter().all(|sent| sent.extensions().is_empty()));
    let sent = sends(|sent| {
        let mut service = ServiceBuilder::new().layer(three()).layer(unmarked()).service(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert_eq!(sent.len(), 9, "it also ignores the marks of other layers");
}

#[test]
fn remove_marker_lets_inner_layer_retry() {
    let sent = sends(|sent| {
        let mut service = ServiceBuilder::new()
            .layer(three())
            .map_request(|mut request: Request<String>| {
                remove_marker(&mut request);
                request
            })
            .layer(three())
            .service(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert_eq!(sent.len(), 9);
    let sent = sends(|sent| {
        let mut service =
            ServiceBuilder::new().layer(three()).layer(three().remove_marker()).service(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert_eq!(sent.len(), 9);
}

#[test]
fn remove_marker_removes_remote_headers_from_every_request() {
    let name = HeaderName::from_static("x-attempt");
    let remote = |method| {
        let mut request = request(method);
        request.headers_mut().append("x-attempt", "7".parse().unwrap());
        request.headers_mut().append("x-attempt", "8".parse().unwrap());
        request.headers_mut().append("grpc-previous-rpc-attempts", "6".parse().unwrap());
        request
    };
    // A single attempt is not marked, so that nothing overwrites the headers of the remote client.
    for policy in [immediate().max_attempts(1), immediate().marker(false)] {
        for method in [Method::GET, Method::POST] {
            let policy = policy.clone().marker_header(name.clone());
            let sent = sends(|sent| {
                let mut service = layer(policy.clone()).remove_marker().layer(failing(sent));
                block_on(send(&mut service, remote(method.clone()))).unwrap();
            });
            assert!(sent.iter().all(|sent| sent.headers().is_empty()), "{method}: {sent:?}");
        }
    }
    let policy = immediate().marker_header(name.clone());
    let sent = sends(|sent| {
        let mut service = layer(policy).remove_marker().layer(failing(sent));
        block_on(send(&mut service, remote(Method::GET))).unwrap();
    });
    let numbers: Vec<_> = sent.iter().map(|sent| sent.headers()[&name].to_str().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    assert!(sent.iter().all(|sent| sent.headers().len() == 1), "{sent:?}");
}

#[test]
fn gateway_removes_remote_marks_without_a_setting() {
    let policy = RetryPolicy::gateway().initial_backoff(std::time::Duration::ZERO).budget(None::<Budget>);
    let sent = sends(|sent| {
        let mut service =
            ServiceBuilder::new().layer(three()).layer(layer(policy.max_attempts(2))).service(failing(sent));
        let mut request = request(Method::GET);
        request.headers_mut().insert("grpc-previous-rpc-attempts", "6".parse().unwrap());
        block_on(send(&mut service, request)).unwrap();
    });
    assert_eq!(sent.len(), 6);
    assert!(sent.iter().all(|sent| sent.headers().is_empty()));
}

/// A gRPC call of a method that only the policy of [`listed`] lists.
fn grpc_request() -> Request<String> {
    let mut request = Request::post("/shop.Orders/Get").body("the body".to_owned()).unwrap();
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

fn listed() -> JitterRetryLayer {
    layer(immediate().idempotent_methods(["shop.Orders/Get"]))
}

#[test]
fn outer_without_grpc_method_does_not_suppress_inner() {
    let sent = sends(|sent| {
        let mut service = ServiceBuilder::new().layer(three()).layer(listed()).service(failing(sent));
        block_on(send(&mut service, grpc_request())).unwrap();
    });
    assert_eq!(sent.len(), 3);
    let sent = sends(|sent| {
        let mut service =
            ServiceBuilder::new().layer(three()).layer(listed()).layer(listed()).service(failing(sent));
        block_on(send(&mut service, grpc_request())).unwrap();
    });
    assert_eq!(sent.len(), 3, "the second layer suppresses the third");
}

#[test]
fn outer_by_request_does_not_suppress_inner_always() {
    let always = || layer(immediate().safety(RetrySafety::Always));
    for (status, expected) in [(503, 3), (429, 3)] {
        let calls = Calls::default();
        let mut service = ServiceBuilder::new().layer(three()).layer(always()).layer(always()).service(
            service_fn(|_: Request<String>| {
                calls.next();
                async move { Ok::<_, io::Error>(response(status)) }
            }),
        );
        block_on(send(&mut service, request(Method::POST))).unwrap();
        assert_eq!(calls.made(), expected, "{status}");
    }
}

#[test]
fn outer_level_suppresses_inner_for_what_it_allows() {
    let outer = |level| layer(immediate().non_idempotent(level));
    for (level, made) in [
        (NonIdempotent::Never, [3, 3]),
        (NonIdempotent::Unsent, [3, 3]),
        (NonIdempotent::UnsentOrRefused, [3, 3]),
    ] {
        for (refused, made) in [false, true].into_iter().zip(made) {
            let calls = Calls::default();
            let mut service = ServiceBuilder::new().layer(outer(level)).layer(three()).service(service_fn(
                |_: Request<String>| {
                    calls.next();
                    async move {
                        if refused { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(response(429)) }
                    }
                },
            ));
            let _: Result<_, io::Error> = block_on(send(&mut service, request(Method::POST)));
            assert_eq!(calls.made(), made, "{level:?} refused {refused}");
        }
    }
}

#[test]
fn outer_errors_only_does_not_suppress_inner_on_responses() {
    let calls = Calls::default();
    let inner = |status: u16| {
        let calls = calls.clone();
        service_fn(move |_: Request<String>| {
            calls.next();
            async move {
                match status {
                    0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
                    status => Ok(response(status)),
                }
            }
        })
    };
    for (status, expected) in [(503, 3), (0, 3)] {
        let before = calls.made();
        let mut service =
            ServiceBuilder::new().layer(three().errors_only()).layer(three()).service(inner(status));
        let _: Result<_, io::Error> = block_on(send(&mut service, request(Method::GET)));
        assert_eq!(calls.made() - before, expected, "{status}");
        let before = calls.made();
        let mut service = ServiceBuilder::new()
            .layer(three())
            .layer(three().errors_only())
            .layer(three())
            .service(inner(status));
        let _: Result<_, io::Error> = block_on(send(&mut service, request(Method::GET)));
        assert_eq!(calls.made() - before, expected, "{status} under a layer that covers both");
    }
}

#[test]
fn attempt_numbers_start_at_outermost_layer() {
    let name = HeaderName::from_static("x-attempt");
    let numbered = || immediate().marker_header(name.clone());
    let numbers = |answers: [u16; 4]| {
        let answers = Mutex::new(answers.into_iter());
        let sent = sends(|sent| {
            let mut service = ServiceBuilder::new()
                .layer(layer(numbered()))
                .layer(layer(numbered().safety(RetrySafety::Always)))
                .service(service_fn(|request: Request<String>| {
                    sent.lock().unwrap().push(request);
                    let status = answers.lock().unwrap().next().unwrap();
                    async move { Ok::<_, io::Error>(response(status)) }
                }));
            block_on(send(&mut service, request(Method::POST))).unwrap();
        });
        let number = |sent: &Request<String>| {
            let number = Attempt::of(sent.extensions()).unwrap().number();
            assert_eq!(sent.headers()["x-attempt"], number.to_string());
            number
        };
        sent.iter().map(number).collect::<Vec<_>>()
    };
    // The outer layer retries a 429, and the inner layer a 503.
    assert_eq!(numbers([503, 503, 200, 0]), [1, 2, 3]);
    assert_eq!(numbers([429, 429, 200, 0]), [1, 2, 3]);
    assert_eq!(numbers([429, 503, 503, 200]), [1, 2, 3, 4]);
}

#[test]
fn retry_safety_never_is_not_marked() {
    let sent = sends(|sent| {
        let mut service = three().layer(failing(sent));
        let mut request = request(Method::GET);
        request.extensions_mut().insert(RetrySafety::Never);
        block_on(send(&mut service, request)).unwrap();
    });
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].extensions().get::<Attempt>(), None);
}

#[test]
fn marker_header_carries_attempt_number() {
    let name = HeaderName::from_static("x-attempt");
    let sent = sends(|sent| {
        let mut service = layer(immediate().marker_header(name.clone())).layer(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    let numbers: Vec<_> = sent.iter().map(|sent| sent.headers()[&name].to_str().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    let sent = sends(|sent| {
        let mut service = three().layer(failing(sent));
        block_on(send(&mut service, request(Method::GET))).unwrap();
    });
    assert!(sent.iter().all(|sent| sent.headers().is_empty()), "no header by default");
}

#[test]
fn grpc_header_counts_previous_attempts() {
    let sent = sends(|sent| {
        let mut service = three().layer(failing(sent));
        let mut request = request(Method::POST);
        request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        request.extensions_mut().insert(RetrySafety::Always);
        block_on(send(&mut service, request)).unwrap();
    });
    let before = |sent: &Request<String>| sent.headers().get("grpc-previous-rpc-attempts").cloned();
    assert_eq!(before(&sent[0]), None);
    assert_eq!(before(&sent[1]).unwrap(), "1");
    assert_eq!(before(&sent[2]).unwrap(), "2");
}

#[test]
fn second_attempt_does_not_carry_mark_of_first() {
    let numbers = Mutex::new(Vec::new());
    let mut service = three().layer(service_fn(|request: Request<&'static str>| {
        let mut marks = 0;
        Attempt::of(request.extensions()).inspect(|attempt| marks = attempt.number());
        numbers.lock().unwrap().push(marks);
        async { Err::<Response<()>, _>(Broken(0)) }
    }));
    block_on(send(&mut service, Request::new("text"))).unwrap_err();
    assert_eq!(*numbers.lock().unwrap(), [1, 2, 3]);
}

#[cfg(feature = "reqwest")]
#[test]
fn outer_over_reqwest_suppresses_inner_for_what_it_covers() {
    let always = || layer(immediate().safety(RetrySafety::Always));
    for (method, status) in [(Method::POST, 503), (Method::POST, 429), (Method::GET, 503)] {
        let calls = Calls::default();
        let mut service = ServiceBuilder::new().layer(three()).layer(always()).layer(always()).service(
            service_fn(|_: reqwest::Request| {
                calls.next();
                async move { Ok::<_, io::Error>(response(status)) }
            }),
        );
        let request = reqwest::Request::new(method.clone(), "http://example.org/".parse().unwrap());
        block_on(send(&mut service, request)).unwrap();
        assert_eq!(calls.made(), 3, "{method} {status}");
    }
}

#[cfg(feature = "reqwest")]
#[test]
fn three_nested_layers_over_reqwest_make_three_calls() {
    let calls = Calls::default();
    let mut service = ServiceBuilder::new().layer(three()).layer(three()).layer(three()).service(service_fn(
        |request: reqwest::Request| {
            calls.next();
            assert_eq!(request.url().as_str(), "http://example.org/a?b#c");
            async { Ok::<_, io::Error>(response(503)) }
        },
    ));
    let request = reqwest::Request::new(Method::GET, "http://example.org/a?b#c".parse().unwrap());
    block_on(send(&mut service, request)).unwrap();
    assert_eq!(calls.made(), 3);
}

/// Sends a streaming POST to a server that responds with 500, and returns the number of calls.
fn calls_with_streaming_body<L, S>(stack: &ServiceBuilder<L>) -> usize
where
    L: Layer<BoxCloneService<Streaming, Response<String>, io::Error>, Service = S>,
    S: Service<Streaming, Response = Response<String>, Error = io::Error> + Clone,
{
    let calls = std::sync::Arc::new(Calls::default());
    let counted = std::sync::Arc::clone(&calls);
    let server = service_fn(move |request: Streaming| {
        counted.next();
        async move {
            let body = request.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "upload");
            Ok::<_, io::Error>(response(500))
        }
    });
    let mut service = stack.service(BoxCloneService::new(server));
    let body = ReplayBody::new(Full::from("upload"));
    block_on(send(&mut service, Request::post("/").body(body).unwrap())).unwrap();
    calls.made()
}

type Streaming = Request<ReplayBody<Full<Bytes>>>;

#[test]
fn inner_covering_more_replays_stream_kept_by_outer() {
    let always = || layer(immediate().safety(RetrySafety::Always));
    let unmarked = || layer(immediate().safety(RetrySafety::Always).marker(false));
    let builder = ServiceBuilder::new;
    assert_eq!(calls_with_streaming_body(&builder().layer(three()).layer(always())), 3);
    assert_eq!(calls_with_streaming_body(&builder().layer(three()).layer(three()).layer(always())), 3);
    assert_eq!(calls_with_streaming_body(&builder().layer(always()).layer(always()).layer(always())), 3);
    assert_eq!(calls_with_streaming_body(&builder().layer(unmarked()).layer(unmarked())), 9);
}

/// Returns the number of calls to a server that responds to a GET with this status.
fn calls_answered_by<L, S>(stack: &ServiceBuilder<L>, status: u16) -> usize
where
    L: Layer<BoxCloneService<Request<String>, Response<String>, io::Error>, Service = S>,
    S: Service<Request<String>, Response = Response<String>, Error = io::Error>,
{
    let calls = Calls::default();
    let counted = calls.clone();
    let server = service_fn(move |_: Request<String>| {
        counted.next();
        std::future::ready(Ok::<_, io::Error>(response(status)))
    });
    let mut service = stack.service(BoxCloneService::new(server));
    block_on(send(&mut service, request(Method::GET))).unwrap();
    calls.made()
}

/// A rule that makes a 404 retryable.
fn not_found(outcome: Result<&Response<String>, &io::Error>) -> Option<Verdict> {
    let gone = Fault::new(Kind::Unavailable, Retryable::IfIdempotent, Health::Unhealthy, Origin::Remote);
    outcome.ok().filter(|response| response.status() == 404).map(|_| gone.into())
}

#[test]
fn inner_leaves_responses_to_outer_that_covers_them() {
    let builder = ServiceBuilder::new;
    let none = || three().errors_only();
    let by_rule = || three().errors_only().rule(not_found);
    let all = || three().rule(not_found);
    assert_eq!(calls_answered_by(&builder().layer(none()).layer(by_rule()), 404), 3);
    assert_eq!(calls_answered_by(&builder().layer(none()).layer(all()), 503), 3);
    assert_eq!(calls_answered_by(&builder().layer(by_rule()).layer(by_rule()).layer(by_rule()), 404), 3);
    assert_eq!(calls_answered_by(&builder().layer(by_rule()).layer(all()), 503), 3);
    assert_eq!(calls_answered_by(&builder().layer(by_rule()).layer(all()), 404), 9, "both layers retry it");
    assert_eq!(calls_answered_by(&builder().layer(by_rule()).layer(none()).layer(by_rule()), 404), 3);
    assert_eq!(calls_answered_by(&builder().layer(all()).layer(by_rule()).layer(all()), 404), 3);
}

#[test]
fn three_nested_layers_of_three_make_three_calls() {
    let calls = Calls::default();
    let three = || layer(immediate());
    let mut service = ServiceBuilder::new().layer(three()).layer(three()).layer(three()).service(service_fn(
        |_: Request<String>| {
            calls.next();
            async { Ok::<_, io::Error>(response(503)) }
        },
    ));
    block_on(send(&mut service, request(Method::GET))).unwrap();
    assert_eq!(calls.made(), 3);
}

/// The outer layer retries the refusals, and the inner layer the failures of a POST.
#[tokio::test(start_paused = true)]
async fn deadline_of_call_limits_retries_of_inner_layer() {
    let delayed = |safety| {
        let policy = RetryPolicy::builder().clock(Clock::tokio()).jitter(Jitter::None).budget(None);
        layer(policy.safety(safety).initial_backoff(SECOND).backoff_multiplier(1.0).max_attempts(9))
    };
    let (start, last) = (Instant::now(), Mutex::new(Duration::ZERO));
    let mut service = ServiceBuilder::new()
        .layer(delayed(RetrySafety::ByMethod))
        .layer(delayed(RetrySafety::Always))
        .service(service_fn(|_: Request<String>| {
            *last.lock().unwrap() = start.elapsed();
            async {
                sleep(SECOND / 2).await;
                let status = if start.elapsed() < 2 * SECOND { 429 } else { 500 };
                Ok::<_, io::Error>(response(status))
            }
        }));
    let request = request(Method::POST).with_extension(Deadline::within(5 * SECOND));
    send(&mut service, request).await.unwrap();
    assert_eq!(*last.lock().unwrap(), SECOND * 9 / 2, "the next one would be sent after the deadline");
}
