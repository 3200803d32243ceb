//! Ten thousand calls through the layers, a fifth of which fail: what the callers got, what the
//! server was asked and what the circuit counted agree, call by call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::{echo_client, retry_at_once, words};
use test_servers::{Grpc, Reason, RecordedRequest, Reply};
use tokio::task::JoinSet;
use tonic::Code;
use tower_breaker::{BreakerConfig, Circuit, CircuitState, Clock};

const CALLS: usize = 10_000;
const AT_ONCE: usize = 256;
const ATTEMPTS: u32 = 3;

/// How one attempt goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    /// UNAVAILABLE, in the head.
    Unavailable,
    /// `RST_STREAM`, before an answer.
    Reset,
    /// `RST_STREAM` that says that nothing was done.
    Refused,
    /// UNAVAILABLE, after the message.
    Late,
}

impl Fate {
    /// Of the attempt that comes in this place: every fifth goes wrong.
    fn of(place: usize) -> Self {
        const WRONG: [Fate; 4] = [Fate::Unavailable, Fate::Reset, Fate::Refused, Fate::Late];
        if place.is_multiple_of(5) { WRONG[place / 5 % 4] } else { Self::Answered }
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

    /// Whether another attempt follows.
    fn is_retried(self, listed: bool) -> bool {
        match self {
            Self::Refused => true,
            Self::Unavailable | Self::Reset => listed,
            Self::Answered | Self::Late => false,
        }
    }
}

/// The number of the call that a request belongs to: what is said in its message, after five bytes
/// of framing and two of a field.
fn number(request: &RecordedRequest) -> usize {
    str::from_utf8(&request.body[7..]).unwrap().parse().unwrap()
}

/// Every second call is of a method that may be called twice.
fn is_listed(number: usize) -> bool {
    number.is_multiple_of(2)
}

#[tokio::test]
async fn ten_thousand_calls_over_tonic_add_up() {
    let server = Grpc::start().await;
    server.script((0..2 * CALLS).map(|place| Fate::of(place).reply()));
    let config =
        BreakerConfig::builder().consecutive_failures(0).minimum_calls(1_000).clock(Clock::manual().0);
    let circuit = Circuit::new(config.build().unwrap());
    let policy = retry_at_once().max_attempts(ATTEMPTS).budget(None).idempotent_methods(["echo.Echo/Say"]);
    let client = echo_client(&server.url(), policy, &circuit);

    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..AT_ONCE {
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
    let mut attempts: HashMap<usize, Vec<Fate>> = HashMap::new();
    for (place, request) in requests.iter().enumerate() {
        attempts.entry(number(request)).or_default().push(Fate::of(place));
    }
    assert_eq!(attempts.len(), CALLS, "every call has reached the server");
    for (number, code) in answers {
        let fates = &attempts[&number];
        let (last, before) = fates.split_last().unwrap();
        let again = |fate: &Fate| fate.is_retried(is_listed(number));
        assert!(before.iter().all(again), "{number}: {fates:?}");
        assert!(fates.len() == ATTEMPTS as usize || !again(last), "{number}: {fates:?}");
        assert_eq!(code, last.code(), "{number}: {fates:?}");
    }

    let count = |fate| (0..requests.len()).filter(|place| Fate::of(*place) == fate).count() as u64;
    let failures = count(Fate::Unavailable) + count(Fate::Reset) + count(Fate::Late);
    let window = circuit.status().window;
    assert_eq!((window.calls, window.failures), (count(Fate::Answered) + failures, failures));
    assert_eq!((window.cancelled, circuit.status().state), (0, CircuitState::Closed));
    assert_eq!(server.connections(), 1);
}
