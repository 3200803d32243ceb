//! The soak over a generated tonic client. One attempt in five fails.
//!
//! The results of the callers, the requests of the server and the counts of the circuit agree for
//! each call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::{echo_client, retry_at_once, words};
use test_servers::{Grpc, Reason, RecordedRequest, Reply};
use tokio::task::JoinSet;
use tonic::Code;
use tower_breaker::{BreakerConfig, Circuit, CircuitState, Clock};

const CALLS: usize = 10_000;
const CONCURRENCY: usize = 256;
const ATTEMPTS: u32 = 3;

/// The outcome of one attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
enum AttemptOutcome {
    Answered,
    /// UNAVAILABLE in the head.
    Unavailable,
    /// `RST_STREAM` before an answer.
    Reset,
    /// `RST_STREAM` with `REFUSED_STREAM`: the server did not process the call.
    Refused,
    /// UNAVAILABLE after the message.
    Late,
}

impl AttemptOutcome {
    /// Returns the outcome of the attempt with this index. Every fifth attempt fails.
    fn of(index: usize) -> Self {
        const FAILURES: [AttemptOutcome; 4] = [
            AttemptOutcome::Unavailable,
            AttemptOutcome::Reset,
            AttemptOutcome::Refused,
            AttemptOutcome::Late,
        ];
        if index.is_multiple_of(5) { FAILURES[index / 5 % 4] } else { Self::Answered }
    }

    fn reply(self) -> Reply {
        match self {
            Self::Answered => Reply::ok("ok"),
            Self::Unavailable => Reply::trailers_only(14),
            Self::Reset => Reply::nothing().rst_stream(Reason::INTERNAL_ERROR),
            Self::Refused => Reply::nothing().rst_stream(Reason::REFUSED_STREAM),
            Self::Late => Reply::message("ok").status(14),
        }
    }

    fn code(self) -> Code {
        match self {
            Self::Answered => Code::Ok,
            Self::Reset => Code::Internal,
            Self::Unavailable | Self::Refused | Self::Late => Code::Unavailable,
        }
    }

    /// Returns whether another attempt follows.
    fn is_retried(self, listed: bool) -> bool {
        match self {
            Self::Refused => true,
            Self::Unavailable | Self::Reset => listed,
            Self::Answered | Self::Late => false,
        }
    }
}

/// Returns the number of the call that a request belongs to: the text of its message, after five
/// bytes of framing and two bytes of the field.
fn number(request: &RecordedRequest) -> usize {
    str::from_utf8(&request.body[7..]).unwrap().parse().unwrap()
}

/// Returns whether the call uses an idempotent method. Every second call does.
fn is_listed(number: usize) -> bool {
    number.is_multiple_of(2)
}

#[tokio::test]
async fn ten_thousand_calls_over_tonic_add_up() {
    let server = Grpc::start().await;
    server.script((0..2 * CALLS).map(|index| AttemptOutcome::of(index).reply()));
    let config = BreakerConfig::builder()
        .consecutive_failures(0)
        .minimum_calls(1_000)
        .count_failed_retries(true)
        .clock(Clock::manual().0);
    let circuit = Circuit::new(config.build().unwrap());
    let policy = retry_at_once().max_attempts(ATTEMPTS).budget(None).idempotent_methods(["echo.Echo/Say"]);
    let client = echo_client(&server.url(), policy, &circuit);

    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (mut client, next) = (client.clone(), Arc::clone(&next));
        callers.spawn(async move {
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CALLS {
                    return answers;
                }
                let text = words(&number.to_string());
                let answer = if is_listed(number) {
                    client.say(text).await
                } else {
                    client.gather(tokio_stream::once(text)).await
                };
                answers.push((number, answer.map_or_else(|status| status.code(), |_| Code::Ok)));
            }
        });
    }
    let answers: Vec<(usize, Code)> = callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(answers.len(), CALLS);

    let requests = server.requests();
    let mut attempts: HashMap<usize, Vec<AttemptOutcome>> = HashMap::new();
    for (index, request) in requests.iter().enumerate() {
        attempts.entry(number(request)).or_default().push(AttemptOutcome::of(index));
    }
    assert_eq!(attempts.len(), CALLS, "every call reaches the server");
    for (number, code) in answers {
        let outcomes = &attempts[&number];
        let (last, earlier) = outcomes.split_last().unwrap();
        let is_retried = |outcome: &AttemptOutcome| outcome.is_retried(is_listed(number));
        assert!(earlier.iter().all(is_retried), "{number}: {outcomes:?}");
        assert!(outcomes.len() == ATTEMPTS as usize || !is_retried(last), "{number}: {outcomes:?}");
        assert_eq!(code, last.code(), "{number}: {outcomes:?}");
    }

    let count =
        |outcome| (0..requests.len()).filter(|index| AttemptOutcome::of(*index) == outcome).count() as u64;
    let failures =
        count(AttemptOutcome::Unavailable) + count(AttemptOutcome::Reset) + count(AttemptOutcome::Late);
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures), (count(AttemptOutcome::Answered) + failures, failures));
    assert_eq!((window.cancelled, circuit.status().state), (0, CircuitState::Closed));
    assert_eq!(server.connections(), 1);
}
