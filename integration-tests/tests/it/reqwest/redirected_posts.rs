//! A POST that was processed and answered with a redirect, whose target fails. The fault belongs to
//! the second hop, and the POST is not sent again.

use std::time::Duration;

use bytes::Bytes;
use integration_tests::reqwest_client;
use integration_tests::retry_at_once;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, Method, Request, Response};
use reqwest_middleware::ClientBuilder;
use test_servers::{Action, Http, RefusedPort};
use tower::retry::RetryLayer;
use tower::{Layer, ServiceBuilder};
use tower_fault_classify::FaultClassifyLayer;
use tower_jitter_retry::{Jitter, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder, RetrySafety};

use super::{inside, send, stack};

/// The statuses of a redirect's target. 0 means that the connection is refused.
const TARGETS: [u16; 6] = [0, 421, 425, 429, 509, 529];

/// A server that answers each request with a redirect, and the target.
struct Hops {
    origin: Http,
    target: Http,
    _refused: RefusedPort,
}

impl Hops {
    async fn start(redirect: u16, target: u16) -> Self {
        let (origin, server, refused) = (Http::start().await, Http::start().await, RefusedPort::bind());
        let url = if target == 0 { refused.url() } else { server.url() };
        origin.set_default(Action::status(redirect).header("location", format!("{url}/second")));
        server.set_default(Action::status(target));
        Self { origin, target: server, _refused: refused }
    }

    fn request(&self, method: &Method, safety: Option<RetrySafety>) -> http::Request<Body> {
        let url = format!("{}/first?a=b", self.origin.url());
        let mut request = http::Request::builder().method(method).uri(url).body("the body".into()).unwrap();
        if let Some(safety) = safety {
            request.extensions_mut().insert(safety);
        }
        request
    }

    /// Returns the numbers of requests that the redirecting server and the target received.
    fn requests(&self) -> (usize, usize) {
        (self.origin.requests().len(), self.target.requests().len())
    }
}

fn client() -> Client {
    reqwest_client().build().unwrap()
}

/// Sends POST, PATCH and GET through every redirect to every target, and checks the counts.
async fn check(send: impl AsyncFn(http::Request<Body>)) {
    for redirect in [301, 302, 303, 307, 308] {
        for target in TARGETS {
            for (method, safety, attempts) in [
                (Method::POST, None, 1),
                (Method::POST, Some(RetrySafety::Never), 1),
                (Method::PATCH, None, 1),
                (Method::PATCH, Some(RetrySafety::Never), 1),
                (Method::GET, None, 3),
                (Method::GET, Some(RetrySafety::Never), 1),
            ] {
                let hops = Hops::start(redirect, target).await;
                send(hops.request(&method, safety)).await;
                let expected = (attempts, if target == 0 { 0 } else { attempts });
                assert_eq!(hops.requests(), expected, "{method} {redirect} {target} {safety:?}");
            }
        }
    }
}

fn of_reqwest(request: http::Request<Body>) -> Request {
    request.try_into().unwrap()
}

#[tokio::test]
async fn redirected_post_through_stack_is_sent_once() {
    check(async |request| drop(send(&mut stack(client()), of_reqwest(request)).await)).await;
}

#[tokio::test]
async fn redirected_post_through_retry_alone_is_sent_once() {
    let layer = JitterRetryLayer::new(retry_at_once().budget(None).build().unwrap());
    check(async |request| drop(send(&mut layer.layer(client()), of_reqwest(request)).await)).await;
}

#[tokio::test]
async fn redirected_post_through_tower_retry_is_sent_once() {
    let layer = RetryLayer::new(retry_at_once().budget(None).build().unwrap().for_tower());
    check(async |request| drop(send(&mut layer.layer(client()), of_reqwest(request)).await)).await;
}

#[tokio::test]
async fn redirected_post_in_middleware_chain_is_sent_once() {
    check(async |request| drop(inside(client()).execute(of_reqwest(request)).await)).await;
}

#[tokio::test]
async fn redirected_post_over_middleware_is_sent_once() {
    let client = ClientBuilder::new(client()).build();
    check(async |request| drop(send(&mut stack(client.clone()), of_reqwest(request)).await)).await;
}

/// The layers see only requests and responses of `http`.
#[tokio::test]
async fn redirected_post_as_http_request_is_sent_once() {
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().budget(None).build().unwrap()))
        .layer(FaultClassifyLayer::new())
        .map_request(of_reqwest)
        .map_response(|response: Response| http::Response::<Body>::from(response))
        .service(client());
    check(async |request| drop(send(&mut stack.clone(), request).await)).await;
}

/// A redirect with `RetryPolicy::gateway`, and with a closure as classifier.
#[tokio::test]
async fn redirected_post_with_other_policies_is_sent_once() {
    use tower_fault_classify::{classify_error, classify_fn, classify_response};

    let gateway =
        RetryPolicy::gateway().initial_backoff(Duration::ZERO).jitter(Jitter::None).build().unwrap();
    let closure = classify_fn(|outcome: Result<&Response, &reqwest::Error>| match outcome {
        Ok(response) => classify_response(response),
        Err(error) => classify_error(error).into(),
    });
    for target in TARGETS {
        let hops = Hops::start(303, target).await;
        let post = || of_reqwest(hops.request(&Method::POST, None));
        let _ = send(&mut JitterRetryLayer::new(gateway.clone()).layer(client()), post()).await;
        assert_eq!(hops.requests().0, 1, "{target}");
        let layer = JitterRetryLayer::new(retry_at_once().budget(None).build().unwrap()).classify(closure);
        let _ = send(&mut layer.layer(client()), post()).await;
        assert_eq!(hops.requests().0, 2, "{target}");
    }
}

#[tokio::test]
async fn redirected_post_with_unsent_rule_is_sent_once() {
    use tower_fault_classify::{Fault, Health, Kind, Origin, Retryable};

    let rule = |outcome: Result<&Response, &reqwest::Error>| {
        let fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Transport);
        outcome.err().filter(|error| error.is_connect()).map(|_| fault.into())
    };
    let hops = Hops::start(303, 0).await;
    let layer = JitterRetryLayer::new(retry_at_once().budget(None).build().unwrap()).rule(rule);
    let request = hops.request(&Method::POST, None).try_into().unwrap();
    send(&mut layer.layer(client()), request).await.unwrap_err();
    assert_eq!(hops.requests(), (1, 0));
}

/// reqwest does not report which hop refused the connection. A client that follows no redirects has
/// one hop.
#[tokio::test]
async fn refused_post_without_redirects_is_sent_again() {
    let refused = RefusedPort::bind();
    let client = reqwest_client().redirect(Policy::none()).build().unwrap();
    for (policy, expected) in [(retry_at_once(), 1), (retry_at_once().follows_redirects(false), 3)] {
        let attempts = std::sync::atomic::AtomicU32::new(0);
        let count = |request: Request| {
            attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            request
        };
        let mut stack = ServiceBuilder::new()
            .layer(JitterRetryLayer::new(policy.build().unwrap()))
            .map_request(count)
            .service(client.clone());
        let mut post = Request::new(Method::POST, refused.url().parse().unwrap());
        *post.body_mut() = Some("the body".into());
        send(&mut stack, post).await.unwrap_err();
        assert_eq!(attempts.into_inner(), expected);
    }
}

/// Sends a POST that is answered with 429, to a URL that reqwest normalizes. Returns the number of
/// requests.
async fn sent_to(policy: RetryPolicyBuilder, path: &str) -> usize {
    let server = Http::start().await;
    server.set_default(Action::status(429));
    let url = format!("{}{path}", server.url().replace("http://", "HTTP://user:secret@"));
    let request = http::Request::post(url).body(Body::from("the body"));
    let mut stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(policy.build().unwrap()))
        .map_request(of_reqwest)
        .service(client());
    send(&mut stack, request.unwrap()).await.unwrap();
    server.requests().len()
}

#[tokio::test]
async fn post_after_429_without_redirect_is_sent_again() {
    for path in ["", "/", "/a?b", "/a/../b", "/\"quoted\"", "/%22quoted%22"] {
        assert_eq!(sent_to(retry_at_once(), path).await, 3, "{path}");
        assert_eq!(sent_to(retry_at_once().follows_redirects(true), path).await, 1, "{path}");
    }
    let server = Http::start().await;
    server.set_default(Action::status(429));
    let mut post = Request::new(Method::POST, format!("{}/a#fragment", server.url()).parse().unwrap());
    *post.body_mut() = Some("the body".into());
    send(&mut stack(client()), post).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

/// The URL of the response is that of the request, so only the setting shows the redirect.
#[tokio::test]
async fn post_redirected_to_own_url_with_policy_is_sent_once() {
    for target in &TARGETS[1..] {
        let server = Http::start().await;
        server.script([Action::status(303).header("location", "/first")]);
        server.set_default(Action::status(*target));
        let layer = JitterRetryLayer::new(retry_at_once().follows_redirects(true).build().unwrap());
        let mut post = Request::new(Method::POST, format!("{}/first", server.url()).parse().unwrap());
        *post.body_mut() = Some(Body::from(Bytes::from_static(b"the body")));
        send(&mut layer.layer(client()), post).await.unwrap();
        let methods: Vec<_> = server.requests().into_iter().map(|request| request.method).collect();
        assert_eq!(methods, [Method::POST, Method::GET], "{target}");
    }
}
