//! `build()` returns an error for a value that is out of its range.

use std::time::Duration;

use tower_jitter_retry::{Budget, Clock, Jitter, RetryPolicy, RetryPolicyBuilder};

use crate::support::{Broken, Calls, immediate, request, response, send};

const SECOND: Duration = Duration::from_secs(1);
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

fn build_error(builder: RetryPolicyBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn invalid_policy_names_field_value_and_range() {
    let policy = RetryPolicy::builder;
    for (builder, expected) in [
        (policy().max_attempts(0), "`max_attempts` is 0; allowed is 1 to 1000"),
        (policy().backoff_multiplier(0.5), "`backoff_multiplier` is 0.5; allowed is 1.0 to 1000.0"),
        (policy().backoff_multiplier(f64::NAN), "`backoff_multiplier` is NaN; allowed is 1.0 to 1000.0"),
        (policy().backoff_multiplier(f64::INFINITY), "`backoff_multiplier` is inf; allowed is 1.0 to 1000.0"),
        (
            policy().initial_backoff(11 * SECOND),
            "`initial_backoff` is 11s; allowed is 0ns to 10s, because `max_backoff` is 10s",
        ),
        (
            policy().initial_backoff(SECOND).max_backoff(SECOND / 2),
            "`initial_backoff` is 1s; allowed is 0ns to 500ms, because `max_backoff` is 500ms",
        ),
        (policy().jitter(Jitter::Proportional(f64::NAN)), "`jitter` is NaN; allowed is 0.0 to 1.0"),
        (policy().max_backoff(CENTURY), "`max_backoff` is 3153600000s; allowed is 0ns to 31536000s"),
        (
            policy().replay_limit(usize::MAX),
            "`replay_limit` is 18446744073709551615; allowed is 0 to 1073741824",
        ),
    ] {
        assert_eq!(build_error(builder), expected);
    }
}

#[test]
fn budget_ratio_bounds_are_accepted() {
    for (ratio, expected) in [(0.0, 0), (1_000.0, 999)] {
        let budget =
            Budget::window().ratio(ratio).min_per_second(0).clock(Clock::manual().0).build().unwrap();
        let calls = Calls::default();
        let policy = immediate().max_attempts(1_000).budget(budget).build().unwrap();
        let error = policy.retry_blocking(|| Err::<(), _>(Broken(calls.next()))).unwrap_err();
        assert_eq!((calls.made(), error), (1 + expected, Broken(1 + expected)));
    }
    for ratio in [-0.1, 1_000.1, f64::NAN] {
        assert_eq!(Budget::window().ratio(ratio).build().unwrap_err().field(), "ratio");
    }
}

/// The type of the README's stack can be written as the type of a struct field.
#[test]
fn stack_can_be_a_struct_field() {
    use std::future::{Ready, ready};

    use tower::Service;
    use tower::timeout::Timeout;
    use tower_breaker::{Breaker, BreakerConfig, BreakerLayer};
    use tower_fault_classify::{FaultClassify, FaultClassifyLayer};
    use tower_jitter_retry::{JitterRetry, JitterRetryLayer};

    type Request = http::Request<String>;
    type Response = http::Response<String>;

    #[derive(Clone)]
    struct Client;

    impl Service<Request> for Client {
        type Response = Response;
        type Error = std::io::Error;
        type Future = Ready<Result<Response, std::io::Error>>;

        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), std::io::Error>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request) -> Self::Future {
            ready(Ok(response(200)))
        }
    }

    struct Orders {
        client: JitterRetry<Breaker<FaultClassify<Timeout<Client>>>>,
    }

    let mut orders = Orders {
        client: tower::ServiceBuilder::new()
            .layer(JitterRetryLayer::new(RetryPolicy::default()))
            .layer(BreakerLayer::new(BreakerConfig::default()))
            .layer(FaultClassifyLayer::new())
            .timeout(SECOND)
            .service(Client),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let answer = runtime.block_on(send(&mut orders.client, request(http::Method::GET)));
    assert_eq!(answer.unwrap().status(), 200);
}
