//! The delays between attempts, under tokio's paused time.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response};
use tokio::time::Instant;
use tower::{Layer, service_fn};
use tower_fault_classify::ClassifiedError;
use tower_jitter_retry::fault_classify::{Fault, Health, Kind, Origin, Retryable};
use tower_jitter_retry::{Budget, Clock, Jitter, JitterRetryLayer, RetryPolicy, RetryPolicyBuilder};

use crate::support::{Broken, Calls, layer, request, send};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A policy without a budget, on tokio's clock.
fn policy() -> RetryPolicyBuilder {
    RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio())
}

/// Sends a request that fails at every attempt, and returns the pauses between the attempts.
async fn pauses(layer: &JitterRetryLayer) -> Vec<Duration> {
    let sent = Mutex::new(Vec::new());
    let mut service = layer.layer(service_fn(|_: u32| {
        sent.lock().unwrap().push(Instant::now());
        async { Err::<(), _>(Broken(0)) }
    }));
    let before = Instant::now();
    send(&mut service, 7).await.unwrap_err();
    let sent = sent.lock().unwrap();
    assert_eq!(sent[0], before, "the first attempt is not delayed");
    assert_eq!(sent.last(), Some(&Instant::now()), "there is no pause after the last attempt");
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Returns the pauses between the attempts if the server always responds with this status and this
/// `Retry-After`.
async fn hinted_pauses(layer: &JitterRetryLayer, status: u16, retry_after: &str) -> Vec<Duration> {
    let sent = Mutex::new(Vec::new());
    let hint = HeaderValue::from_bytes(retry_after.as_bytes()).unwrap();
    let mut service = layer.layer(service_fn(|_: Request<String>| {
        sent.lock().unwrap().push(Instant::now());
        let response = Response::builder().status(status).header("retry-after", &hint).body("later").unwrap();
        async { Ok::<_, io::Error>(response) }
    }));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    assert_eq!((answer.status().as_u16(), *answer.body()), (status, "later"));
    assert_eq!(answer.headers()["retry-after"], hint);
    let sent = sent.lock().unwrap();
    assert_eq!(sent.last(), Some(&Instant::now()), "there is no pause after the last attempt");
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn delays_without_jitter_double_with_every_retry() {
    let layer = layer(policy().jitter(Jitter::None).max_attempts(5));
    let pauses = pauses(&layer).await;
    assert_eq!(pauses, [100, 200, 400, 800].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn backoff_uses_policy_settings() {
    let layer = layer(
        policy()
            .jitter(Jitter::None)
            .max_attempts(6)
            .initial_backoff(20 * MILLI)
            .backoff_multiplier(3.0)
            .max_backoff(400 * MILLI),
    );
    let pauses = pauses(&layer).await;
    assert_eq!(pauses, [20, 60, 180, 400, 400].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn default_delays_are_at_most_100_and_200_milliseconds() {
    let layer = layer(policy());
    for _ in 0..200 {
        let pauses = pauses(&layer).await;
        assert_eq!(pauses.len(), 2);
        // Tokio's timer rounds up to a millisecond.
        assert!(pauses[0] <= 101 * MILLI && pauses[1] <= 201 * MILLI, "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn full_jitter_of_one_second_is_uniform() {
    let layer = layer(policy().max_attempts(2).initial_backoff(SECOND).seed(1));
    let mut firsts = Vec::new();
    for _ in 0..400 {
        firsts.push(pauses(&layer).await[0]);
    }
    let different = firsts.iter().collect::<BTreeSet<_>>().len();
    assert!(different > 200, "{different} different delays out of 400");
    assert!(firsts.iter().all(|pause| *pause <= SECOND + MILLI));
    // Uniform from 0 to the ceiling: a quarter of the delays is in each quarter, within five
    // standard deviations.
    for quarter in 0..4 {
        let count = firsts.iter().filter(|pause| (pause.as_millis().min(999)) / 250 == quarter).count();
        assert!((57..=143).contains(&count), "{count} of 400 in quarter {quarter}");
    }
}

#[tokio::test(start_paused = true)]
async fn seeded_delays_are_reproducible() {
    let run = async |seed| {
        let layer = layer(policy().max_attempts(6).initial_backoff(SECOND).seed(seed));
        let mut calls = Vec::new();
        for _ in 0..10 {
            calls.push(pauses(&layer).await);
        }
        calls
    };
    let first = run(42).await;
    assert_eq!(first, run(42).await);
    assert_ne!(first, run(43).await);
}

#[tokio::test(start_paused = true)]
async fn calls_have_different_delays() {
    for builder in [policy(), policy().seed(42)] {
        let layer = layer(builder.max_attempts(6).initial_backoff(SECOND));
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            assert!(seen.insert(pauses(&layer).await), "two calls have the same delays");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_clones_have_different_delays() {
    let layer = layer(policy().max_attempts(6).initial_backoff(SECOND).seed(42));
    let sent = Mutex::new(Vec::new());
    let service = layer.layer(service_fn(|_: u32| {
        sent.lock().unwrap().push(Instant::now());
        async { Err::<(), _>(Broken(0)) }
    }));
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        sent.lock().unwrap().clear();
        send(&mut service.clone(), 7).await.unwrap_err();
        let pauses: Vec<_> = sent.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(seen.insert(pauses), "a cloned service repeats the delays");
        assert!(seen.insert(self::pauses(&layer.clone()).await), "a cloned layer repeats the delays");
    }
}

#[tokio::test(start_paused = true)]
async fn unseeded_layers_have_different_delays() {
    let delays = async || pauses(&layer(policy().max_attempts(6).initial_backoff(SECOND))).await;
    assert_ne!(delays().await, delays().await);
}

#[tokio::test(start_paused = true)]
async fn delays_never_exceed_maximum_nor_pile_up_there() {
    let cap = 2 * SECOND;
    let layer = layer(policy().max_attempts(6).initial_backoff(SECOND).max_backoff(cap).seed(7));
    let mut capped = Vec::new();
    for _ in 0..200 {
        let pauses = pauses(&layer).await;
        assert!(pauses.iter().all(|pause| *pause <= cap + MILLI), "{pauses:?}");
        capped.extend_from_slice(&pauses[1..]);
    }
    let at_the_cap = capped.iter().filter(|pause| **pause * 100 >= cap * 99).count();
    assert!(at_the_cap < capped.len() / 20, "{at_the_cap} of {} are within 1 % of the cap", capped.len());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_stretched_by_at_most_half() {
    let layer = layer(policy().max_attempts(2).seed(3));
    for (status, hint, least, most) in [
        (503, "3", 3_000, 4_500),
        (429, "1", 1_000, 1_500),
        (503, "10", 10_000, 15_000),
        (503, "40", 40_000, 45_000),
    ] {
        let mut seen = BTreeSet::new();
        for _ in 0..100 {
            let pauses = hinted_pauses(&layer, status, hint).await;
            assert_eq!(pauses.len(), 1);
            assert!(pauses[0] >= Duration::from_millis(least), "{pauses:?} is early for {hint}");
            assert!(pauses[0] <= Duration::from_millis(most + 1), "{pauses:?} is late for {hint}");
            seen.insert(pauses[0]);
        }
        assert!(seen.len() > 50, "many clients return in the same millisecond: {}", seen.len());
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_without_jitter_is_exact() {
    let layer = layer(policy().jitter(Jitter::None).max_attempts(3));
    assert_eq!(hinted_pauses(&layer, 503, "3").await, [3 * SECOND; 2]);
    assert_eq!(hinted_pauses(&layer, 413, "3").await, [3 * SECOND; 2]);
}

/// RFC 9110 §5.3 allows one such header. If a server sends several, the retry waits at least for
/// the longest.
#[tokio::test(start_paused = true)]
async fn longest_of_several_retry_afters_applies() {
    let sent = Mutex::new(Vec::new());
    let mut service =
        layer(policy().jitter(Jitter::None).max_attempts(2)).layer(service_fn(|_: Request<String>| {
            sent.lock().unwrap().push(Instant::now());
            let response =
                Response::builder().status(429).header("retry-after", "2").header("retry-after", "7");
            async { Ok::<_, io::Error>(response.body(()).unwrap()) }
        }));
    send(&mut service, request(Method::GET)).await.unwrap();
    let sent = sent.lock().unwrap();
    assert_eq!(sent[1] - sent[0], 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn retry_after_over_maximum_stops_retries() {
    let century = (100 * YEAR.as_secs()).to_string();
    let layer = layer(policy());
    for hint in ["61", "3600", &century, "18446744073709551616", "99999999999999999999999999999999999"] {
        assert_eq!(hinted_pauses(&layer, 503, hint).await, [], "{hint}");
        assert_eq!(hinted_pauses(&layer, 429, hint).await, [], "{hint}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_retry_after_is_compared_before_stretch() {
    let layer = layer(policy().max_attempts(2).seed(3));
    for _ in 0..20 {
        let pauses = hinted_pauses(&layer, 503, "60").await;
        assert_eq!(pauses.len(), 1);
        assert!((60 * SECOND..=65 * SECOND + MILLI).contains(&pauses[0]), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_retry_after_is_configurable() {
    let second = layer(policy().max_attempts(2).jitter(Jitter::None).max_retry_after(SECOND));
    assert_eq!(hinted_pauses(&second, 503, "1").await, [SECOND]);
    assert_eq!(hinted_pauses(&second, 503, "2").await, []);
    let day = layer(
        policy().max_attempts(2).jitter(Jitter::None).max_retry_after(DAY).max_elapsed(None::<Duration>),
    );
    assert_eq!(hinted_pauses(&day, 503, "86400").await, [DAY]);
    assert_eq!(hinted_pauses(&day, 503, "86401").await, []);
}

#[tokio::test(start_paused = true)]
async fn max_backoff_does_not_shorten_hint() {
    let layer =
        layer(policy().max_attempts(2).initial_backoff(MILLI).max_backoff(10 * MILLI).jitter(Jitter::None));
    assert_eq!(hinted_pauses(&layer, 503, "30").await, [30 * SECOND]);
}

#[tokio::test(start_paused = true)]
async fn invalid_retry_after_keeps_backoff() {
    let layer = layer(policy().max_attempts(3).jitter(Jitter::None));
    for hint in ["-1", "-30", "1.5", "1e3", "soon", "", "+5", "0x10", "30s", "３"] {
        assert_eq!(hinted_pauses(&layer, 503, hint).await, [100 * MILLI, 200 * MILLI], "{hint:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_zero_keeps_backoff() {
    let layer = layer(policy().max_attempts(3).jitter(Jitter::None));
    assert_eq!(hinted_pauses(&layer, 503, "0").await, [100 * MILLI, 200 * MILLI]);
}

#[tokio::test(start_paused = true)]
async fn hint_attached_to_error_is_respected() {
    let sent = Mutex::new(Vec::new());
    let fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote)
        .with_retry_after(Duration::from_millis(1_234));
    let mut service = layer(policy().max_attempts(2).jitter(Jitter::None)).layer(service_fn(|_: u32| {
        sent.lock().unwrap().push(Instant::now());
        async move { Err::<(), _>(ClassifiedError::new(fault, Broken(0))) }
    }));
    send(&mut service, 7).await.unwrap_err();
    let sent = sent.lock().unwrap();
    assert_eq!(sent[1] - sent[0], Duration::from_millis(1_234));
}

#[tokio::test(start_paused = true)]
async fn delay_that_does_not_fit_is_not_started() {
    let second =
        || policy().jitter(Jitter::None).max_attempts(10).initial_backoff(SECOND).backoff_multiplier(1.0);
    assert_eq!(pauses(&layer(second().max_elapsed(2_500 * MILLI))).await, [SECOND; 2]);
    assert_eq!(pauses(&layer(second().max_elapsed(3_000 * MILLI))).await, [SECOND; 3]);
    assert_eq!(pauses(&layer(second().max_elapsed(999 * MILLI))).await, []);
    assert_eq!(pauses(&layer(second().max_elapsed(Duration::ZERO))).await, []);
    assert_eq!(pauses(&layer(second().max_elapsed(None::<Duration>))).await, [SECOND; 9]);
}

#[tokio::test(start_paused = true)]
async fn default_max_elapsed_is_two_minutes() {
    let layer = layer(
        policy().jitter(Jitter::None).max_attempts(100).initial_backoff(50 * SECOND).max_backoff(50 * SECOND),
    );
    assert_eq!(pauses(&layer).await, [50 * SECOND; 2]);
}

#[tokio::test(start_paused = true)]
async fn hint_that_does_not_fit_stops_retries() {
    let layer = layer(policy().jitter(Jitter::None).max_elapsed(10 * SECOND));
    assert_eq!(hinted_pauses(&layer, 503, "30").await, []);
}

#[tokio::test(start_paused = true)]
async fn hint_that_fits_is_stretched_up_to_time_left() {
    let layer = layer(policy().max_attempts(2).max_elapsed(10 * SECOND).seed(1));
    let mut seen = BTreeSet::new();
    for _ in 0..400 {
        let pauses = hinted_pauses(&layer, 503, "8").await;
        assert_eq!(pauses.len(), 1, "8 s fit into 10 s");
        assert!((8 * SECOND..=10 * SECOND).contains(&pauses[0]), "{pauses:?}");
        seen.insert(pauses[0]);
    }
    assert!(seen.len() > 200, "{} different delays", seen.len());
}

#[tokio::test(start_paused = true)]
async fn backoff_over_time_left_is_drawn_from_time_left() {
    let layer = layer(policy().max_attempts(2).initial_backoff(10 * SECOND).max_elapsed(SECOND).seed(1));
    for _ in 0..400 {
        let pauses = pauses(&layer).await;
        assert_eq!(pauses.len(), 1);
        assert!(pauses[0] <= SECOND, "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_zero_sends_no_retry() {
    let layer = layer(policy().max_elapsed(Duration::ZERO));
    assert_eq!(pauses(&layer).await, []);
}

#[tokio::test(start_paused = true)]
async fn short_hint_keeps_backoff() {
    let layer = layer(policy().jitter(Jitter::None).max_attempts(6));
    let sent = Mutex::new(Vec::new());
    let mut service = layer.layer(service_fn(|_: Request<String>| {
        sent.lock().unwrap().push(Instant::now());
        let response = Response::builder().status(503).header("retry-after-ms", "0.000001");
        async { Ok::<_, io::Error>(response.body(()).unwrap()) }
    }));
    send(&mut service, request(Method::GET)).await.unwrap();
    let sent = sent.into_inner().unwrap();
    let pauses: Vec<_> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1_600].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn hint_longer_than_backoff_keeps_backoff_growth() {
    let layer = layer(policy().jitter(Jitter::None).max_attempts(5).initial_backoff(SECOND));
    assert_eq!(hinted_pauses(&layer, 503, "3").await, [3, 3, 4, 8].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn attempt_time_counts_toward_max_elapsed() {
    let sent = Mutex::new(0);
    let builder = policy()
        .jitter(Jitter::None)
        .max_attempts(10)
        .initial_backoff(SECOND)
        .backoff_multiplier(1.0)
        .max_elapsed(10 * SECOND);
    let mut service = layer(builder).layer(service_fn(|_: u32| {
        *sent.lock().unwrap() += 1;
        async {
            tokio::time::sleep(2 * SECOND).await;
            Err::<(), _>(Broken(0))
        }
    }));
    let before = Instant::now();
    send(&mut service, 7).await.unwrap_err();
    // The attempts fail after 2, 5, 8 and 11 seconds. The retry after the third failure starts at
    // 9 s. The retry after the fourth would start at 12 s.
    assert_eq!(*sent.lock().unwrap(), 4);
    assert_eq!(before.elapsed(), 11 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn time_before_call_does_not_count() {
    let layer = layer(policy().jitter(Jitter::None).max_elapsed(SECOND));
    for _ in 0..3 {
        tokio::time::advance(YEAR).await;
        assert_eq!(pauses(&layer).await, [100 * MILLI, 200 * MILLI]);
    }
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_uses_policy_clock() {
    let (clock, manual) = Clock::manual();
    let sent = Mutex::new(0);
    let builder = policy().jitter(Jitter::None).max_attempts(10).initial_backoff(SECOND).max_backoff(SECOND);
    let mut service = layer(builder.max_elapsed(10 * SECOND).clock(clock)).layer(service_fn(|_: u32| {
        *sent.lock().unwrap() += 1;
        let manual = manual.clone();
        async move {
            tokio::task::yield_now().await;
            manual.advance(3 * SECOND);
            Err::<(), _>(Broken(0))
        }
    }));
    send(&mut service, 7).await.unwrap_err();
    // A retry fits after 3, 6 and 9 seconds, but not after 12.
    assert_eq!(*sent.lock().unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn max_elapsed_ends_under_paused_clock() {
    let policy = RetryPolicy::builder()
        .budget(None::<Budget>)
        .jitter(Jitter::None)
        .initial_backoff(SECOND)
        .backoff_multiplier(1.0);
    let policy = policy.max_attempts(1_000).max_elapsed(10 * SECOND);
    assert_eq!(pauses(&layer(policy.clone())).await, [SECOND; 10]);
    let calls = Mutex::new(0);
    let attempt = async || {
        *calls.lock().unwrap() += 1;
        Err::<(), _>(Broken(0))
    };
    policy.build().unwrap().retry(attempt).await.unwrap_err();
    assert_eq!(*calls.lock().unwrap(), 11);
}

#[tokio::test(start_paused = true)]
async fn clock_going_backwards_is_tolerated() {
    let (clock, manual) = Clock::manual();
    manual.set(YEAR);
    let mut service = layer(policy().jitter(Jitter::None).clock(clock)).layer(service_fn(|_: u32| {
        manual.set(Duration::ZERO);
        async { Err::<(), _>(Broken(0)) }
    }));
    let before = Instant::now();
    send(&mut service, 7).await.unwrap_err();
    assert_eq!(before.elapsed(), 300 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn overflowing_delays_do_not_panic() {
    let huge = policy()
        .initial_backoff(MILLI)
        .backoff_multiplier(1_000.0)
        .max_backoff(YEAR)
        .max_attempts(700)
        .max_elapsed(None::<Duration>);
    let longest = pauses(&layer(huge.clone().jitter(Jitter::None))).await;
    assert_eq!(longest[..4], [MILLI, SECOND, 1_000 * SECOND, 1_000_000 * SECOND]);
    assert_eq!(longest[4..], [YEAR; 695]);
    // The clock has saturated by now: 699 years exceed 64 bits of nanoseconds.
    let drawn = pauses(&layer(huge.jitter(Jitter::Full).seed(5))).await;
    assert_eq!(drawn.len(), 699);
    assert!(drawn.iter().all(|pause| *pause <= YEAR + MILLI));
}

#[tokio::test(start_paused = true)]
async fn delays_of_a_year_fit_into_max_elapsed_of_a_year() {
    let year = || policy().jitter(Jitter::None).initial_backoff(YEAR).max_backoff(YEAR).max_attempts(1_000);
    assert_eq!(pauses(&layer(year().max_elapsed(YEAR))).await, [YEAR]);
    assert_eq!(pauses(&layer(year().max_elapsed(364 * DAY))).await, []);
    assert_eq!(pauses(&layer(year().backoff_multiplier(1_000.0).max_elapsed(YEAR))).await, [YEAR]);
    let hint =
        policy().max_attempts(2).max_retry_after(YEAR).max_elapsed(None::<Duration>).jitter(Jitter::None);
    assert_eq!(hinted_pauses(&layer(hint), 503, "18446744073709551616").await, [YEAR]);
}

/// Returns the pauses between the attempts of one call if the server always gives this response.
async fn pauses_after(
    layer: &JitterRetryLayer,
    answer: impl Fn() -> http::response::Builder,
) -> Vec<Duration> {
    let sent = Mutex::new(Vec::new());
    let mut service = layer.layer(service_fn(|_: Request<String>| {
        sent.lock().unwrap().push(Instant::now());
        let answer = answer().body(()).unwrap();
        async { Ok::<_, io::Error>(answer) }
    }));
    send(&mut service, request(Method::GET)).await.unwrap();
    let sent = sent.into_inner().unwrap();
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn unavailable() -> http::response::Builder {
    Response::builder().status(503)
}

#[tokio::test(start_paused = true)]
async fn jitter_has_nanosecond_resolution_and_clones_differ() {
    let settings = || policy().initial_backoff(SECOND).max_attempts(4).seed(1);
    let backoff = settings().build().unwrap().backoff();
    let mut rng = fastrand::Rng::with_seed(1);
    let fine = backoff.delays(|range| rng.u64(range)).take(1_000);
    assert!(fine.filter(|delay| delay.subsec_nanos() % 1_000_000 != 0).count() > 990);
    // The services are clones of one service, as with tower's `Buffer`, `axum` and `tonic`.
    let one = layer(settings());
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        assert!(seen.insert(pauses_after(&one.clone(), unavailable).await), "two calls have the same delays");
    }
}

#[tokio::test(start_paused = true)]
async fn delay_with_any_jitter_stays_within_maximum() {
    for jitter in [
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
        Jitter::Proportional(1.0),
        Jitter::Additive(SECOND),
    ] {
        let capped = layer(
            policy()
                .initial_backoff(SECOND)
                .max_backoff(SECOND)
                .jitter(jitter)
                .max_attempts(50)
                .max_elapsed(None),
        );
        let pauses = pauses_after(&capped, unavailable).await;
        assert_eq!(pauses.len(), 49);
        // Tokio's timer rounds up to a millisecond.
        assert!(pauses.iter().all(|pause| *pause <= SECOND + MILLI), "{jitter:?}: {pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn hint_is_bounded_precise_and_never_shortened() {
    let two = layer(policy().max_attempts(2).max_elapsed(None).seed(5));
    let after = |name: &'static str, value: &'static str| move || unavailable().header(name, value);
    assert_eq!(
        pauses_after(&two, after("retry-after", "3600")).await,
        [],
        "a hint of an hour ends the retries"
    );
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let pause = pauses_after(&two, after("retry-after-ms", "1500")).await[0];
        assert!((1_500 * MILLI..=2_251 * MILLI).contains(&pause), "{pause:?}");
        seen.insert(pause);
    }
    assert!(seen.len() > 40, "clients with the same hint return in the same millisecond");
    let date = || {
        unavailable()
            .header("date", "Sun, 06 Nov 1994 08:49:30 GMT")
            .header("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    let pause = pauses_after(&two, date).await[0];
    assert!((7 * SECOND..=10_501 * MILLI).contains(&pause), "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn delay_past_max_elapsed_is_not_started_nor_overflows() {
    let constant = || {
        policy().jitter(Jitter::None).initial_backoff(10 * SECOND).backoff_multiplier(1.0).max_attempts(100)
    };
    let before = Instant::now();
    assert_eq!(
        pauses_after(&layer(constant().max_elapsed(25 * SECOND)), unavailable).await,
        [10 * SECOND; 2]
    );
    assert_eq!(before.elapsed(), 20 * SECOND, "a delay that would end at 30 s is not begun");
    let year = 365 * 24 * 3_600 * SECOND;
    let huge = policy()
        .jitter(Jitter::Additive(year))
        .initial_backoff(year)
        .max_backoff(year)
        .backoff_multiplier(1_000.0)
        .max_attempts(1_000);
    assert_eq!(pauses_after(&layer(huge.max_elapsed(None)), unavailable).await.len(), 999);
}

/// Returns the pauses between the attempts if the server always responds with 503 and this header.
async fn pauses_hinted_by(name: &'static str, value: &str) -> Vec<Duration> {
    let policy = RetryPolicy::builder().budget(None::<Budget>).clock(Clock::tokio()).jitter(Jitter::None);
    let sent = Mutex::new(Vec::new());
    let mut service =
        JitterRetryLayer::new(policy.build().unwrap()).layer(service_fn(|_: Request<String>| {
            sent.lock().unwrap().push(Instant::now());
            let answer = Response::builder().status(503).header(name, value).body("real").unwrap();
            async { Ok::<_, io::Error>(answer) }
        }));
    let answer = send(&mut service, request(Method::GET)).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), *answer.body(), answer.headers()[name].to_str().unwrap()),
        (503, "real", value)
    );
    let sent = sent.into_inner().unwrap();
    sent.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn invalid_hint_keeps_backoff_and_huge_hint_stops_retries() {
    let own = [SECOND / 10, SECOND / 5];
    for (name, value) in [
        ("retry-after", "0"),
        ("retry-after", "-1"),
        ("retry-after", "soon"),
        ("retry-after", "NaN"),
        ("retry-after-ms", "0"),
        ("retry-after-ms", "-5"),
        ("retry-after-ms", "1e9"),
        ("x-should-retry", "perhaps"),
    ] {
        assert_eq!(pauses_hinted_by(name, value).await, own, "{name}: {value}: the backoff's own delays");
    }
    for (name, value) in [
        ("retry-after", "3153600000"),
        ("retry-after", "99999999999999999999999999"),
        ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("retry-after-ms", "3153600000000"),
        ("x-should-retry", "false"),
    ] {
        assert_eq!(pauses_hinted_by(name, value).await, [], "{name}: {value}: no retry");
    }
}

#[tokio::test(start_paused = true)]
async fn custom_fault_with_huge_delay_stops_retries() {
    let fault = Fault::new(Kind::Unavailable, Retryable::Unsent, Health::Unhealthy, Origin::Remote);
    for delay in [Duration::MAX, 100 * YEAR] {
        let calls = Calls::default();
        let policy = RetryPolicy::builder().clock(Clock::tokio()).max_elapsed(None).build().unwrap();
        let error = policy
            .retry(async || {
                calls.next();
                Err::<(), _>(ClassifiedError::from_fault(fault.with_retry_after(delay)))
            })
            .await
            .unwrap_err();
        assert_eq!((calls.made(), error.fault().retry_after()), (1, Some(delay)));
    }
}
