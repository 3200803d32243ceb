//! tower-http's `FollowRedirect` over hyper: above the retry layer, where it belongs, and below it.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use integration_tests::retry_at_once;
use test_servers::{Action, Http, RefusedPort};
use tower::retry::RetryLayer;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_fault_classify::FaultClassifyLayer;
use tower_http::follow_redirect::policy::{PolicyExt, Standard, clone_body_fn};
use tower_http::follow_redirect::{FollowRedirectLayer, policy::Policy};
use tower_jitter_retry::{JitterRetryLayer, ReplayBody, RetrySafety};

type Body = Full<Bytes>;

/// The statuses of a redirect's target. 0 means that the connection is refused.
const TARGETS: [u16; 6] = [0, 421, 425, 429, 509, 529];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn client() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Also follows 307 and 308, for which the body has to be cloned.
fn follow<E>() -> FollowRedirectLayer<impl Policy<Body, E> + Clone> {
    let clone_body = clone_body_fn(|body: &Body| Some(body.clone()));
    FollowRedirectLayer::with_policy(clone_body.and::<_, Body, E>(Standard::default()))
}

/// Sends one request through the stack. Returns the numbers of requests that the redirecting server
/// and the target received.
async fn requests<S>(stack: S, method: &Method, redirect: u16, target: u16, never: bool) -> (usize, usize)
where
    S: Service<Request<Body>>,
{
    let (origin, server, refused) = (Http::start().await, Http::start().await, RefusedPort::bind());
    let url = if target == 0 { refused.url() } else { server.url() };
    origin.set_default(Action::status(redirect).header("location", format!("{url}/second")));
    server.set_default(Action::status(target));
    let request = Request::builder().method(method).uri(format!("{}/first", origin.url()));
    let mut request = request.body(Full::from("the body")).unwrap();
    if never {
        request.extensions_mut().insert(RetrySafety::Never);
    }
    let _ = stack.oneshot(request).await;
    assert!(origin.requests().iter().all(|request| request.method == method));
    (origin.requests().len(), server.requests().len())
}

/// Above the retry layer, each hop is its own request. The first is answered, and only the second
/// can be retried.
#[tokio::test]
async fn redirected_post_above_retry_is_sent_once() {
    for redirect in REDIRECTS {
        for target in TARGETS {
            for method in [Method::POST, Method::PATCH, Method::GET] {
                let stack = ServiceBuilder::new()
                    .layer(follow())
                    .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
                    .layer(FaultClassifyLayer::new())
                    .service(client());
                let (first, second) = requests(stack, &method, redirect, target, false).await;
                assert_eq!(first, 1, "{method} {redirect} {target}");
                assert_eq!(second, if target == 0 { 0 } else { 3 }, "{method} {redirect} {target}");
            }
        }
    }
}

#[tokio::test]
async fn redirected_post_below_retry_with_policy_is_sent_once() {
    for redirect in REDIRECTS {
        for target in TARGETS {
            for (method, never, attempts) in [
                (Method::POST, false, 1),
                (Method::POST, true, 1),
                (Method::PATCH, false, 1),
                (Method::PATCH, true, 1),
                (Method::GET, false, 3),
            ] {
                let policy = retry_at_once().follows_redirects(true).build().unwrap();
                let below =
                    ServiceBuilder::new().layer(FaultClassifyLayer::new()).layer(follow()).service(client());
                let expected = (attempts, if target == 0 { 0 } else { attempts });
                let ours =
                    ServiceBuilder::new().layer(JitterRetryLayer::new(policy.clone())).service(below.clone());
                let counts = requests(ours, &method, redirect, target, never).await;
                assert_eq!(counts, expected, "{method} {redirect} {target} {never}");
                let towers = ServiceBuilder::new().layer(RetryLayer::new(policy.for_tower())).service(below);
                let counts = requests(towers, &method, redirect, target, never).await;
                assert_eq!(counts, expected, "tower's: {method} {redirect} {target} {never}");
            }
        }
    }
}

/// Without the setting, the `RequestUri` of a response shows that it was redirected.
#[tokio::test]
async fn redirect_below_retry_is_detected_by_request_uri() {
    for redirect in REDIRECTS {
        for target in &TARGETS[1..] {
            for (method, attempts) in [(Method::POST, 1), (Method::PATCH, 1), (Method::GET, 3)] {
                let stack = ServiceBuilder::new()
                    .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
                    .layer(FaultClassifyLayer::new())
                    .layer(follow())
                    .service(client());
                let counts = requests(stack, &method, redirect, *target, false).await;
                assert_eq!(counts, (attempts, attempts), "{method} {redirect} {target}");
            }
        }
    }
    // A POST that is not redirected is sent again.
    let server = Http::start().await;
    server.set_default(Action::status(429));
    let stack = ServiceBuilder::new()
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .layer(follow())
        .service(client());
    stack.oneshot(Request::post(server.url()).body(Full::from("the body")).unwrap()).await.unwrap();
    assert_eq!(server.requests().len(), 3);
}

/// `FollowRedirect` requires `Default` for the body.
#[tokio::test]
async fn streaming_body_passes_follow_redirect_above_retry() {
    let (origin, target) = (Http::start().await, Http::start().await);
    origin.set_default(Action::status(303).header("location", target.url()));
    target.script([Action::status(503), Action::status(200)]);
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .layer(JitterRetryLayer::new(retry_at_once().build().unwrap()))
        .service(Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Body>>());
    let post = Request::post(origin.url()).body(ReplayBody::new(Full::from("the body"))).unwrap();
    assert_eq!(stack.oneshot(post).await.unwrap().status(), 200);
    assert_eq!((origin.requests().len(), target.requests().len()), (1, 2));
}
