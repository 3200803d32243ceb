//! Inner layers see which calls are retries. The code of the retry layer and of its user does not
//! run in the scope of a retry.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower::{Layer, Service};
use tower_fault_classify::__internals::RetryScope;
use tower_fault_classify::{classify_error, classify_fn};
use tower_jitter_retry::JitterRetryLayer;

use crate::support::{Broken, block_on, immediate, request, send};

/// The steps of a call, and whether each of them ran in the scope of a retry.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<(&'static str, bool)>>>);

impl Steps {
    fn add(&self, step: &'static str) {
        self.0.lock().unwrap().push((step, RetryScope::is_active()));
    }
}

/// Fails each call in its second poll. A clone becomes ready once only.
struct Recording {
    steps: Steps,
    /// How often the service becomes ready.
    ready: u32,
}

impl Clone for Recording {
    fn clone(&self) -> Self {
        Self { steps: self.steps.clone(), ready: 1 }
    }
}

impl Service<Request<String>> for Recording {
    type Response = Response<String>;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Broken>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.steps.add("ready");
        let left = self.ready.checked_sub(1).ok_or(Broken(9));
        Poll::Ready(left.map(|left| self.ready = left))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        self.steps.add("call");
        let (steps, mut polls) = (self.steps.clone(), 0);
        Box::pin(poll_fn(move |cx| {
            steps.add("poll");
            polls += 1;
            if polls == 2 {
                return Poll::Ready(Err(Broken(1)));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

#[test]
fn only_the_calls_of_a_retry_run_in_its_scope() {
    let steps = Steps::default();
    let (of_observer, of_condition, of_classifier) = (steps.clone(), steps.clone(), steps.clone());
    let policy = immediate().max_attempts(9).on_retry(move |_| of_observer.add("observer"));
    let policy = policy.retry_while(move || {
        of_condition.add("condition");
        true
    });
    let classifier = classify_fn(move |result: Result<&Response<String>, &Broken>| {
        of_classifier.add("classifier");
        classify_error(result.unwrap_err()).into()
    });
    let layer = JitterRetryLayer::new(policy.build().unwrap()).classify(classifier);
    let mut service = layer.layer(Recording { steps: steps.clone(), ready: 1 });
    assert_eq!(block_on(send(&mut service, request(Method::GET))).unwrap_err(), Broken(1));

    let attempt = |is_retry| {
        let calls = ["ready", "call", "poll", "poll"].map(|step| (step, is_retry));
        calls.into_iter().chain([("classifier", false), ("condition", false), ("observer", false)])
    };
    let refused = [("ready", true), ("classifier", false)];
    let expected: Vec<_> = attempt(false).chain(attempt(true)).chain(refused).collect();
    assert_eq!(*steps.0.lock().unwrap(), expected);
}
