//! Random bodies, limits, delays, timeouts and failures: the body is forwarded byte for byte.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::time::Duration;

use http::Response;
use http_body::Body;
use proptest::prelude::*;
use tokio::time::Instant;
use tower_fault_classify::body::{ErrorBodies, PeekedBody};
use tower_fault_classify::{CarriedVerdict, Fault, FaultClassifyLayer, Kind, Verdict};

use super::{OWN, RecordingRule, on_tokio, with_status};
use crate::support::bodies::{
    BodyHints, Script, Seen, Step, any_frame, bytewise, data, frame, read_to_end, seen, through, trailers,
};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any_frame(),
        1 => Just(Step::Wait),
        1 => (1..5_u64).prop_map(|tens| Step::Sleep(millis(10 * tens))),
    ]
}

/// Ends with nothing, trailers, an error, or an error that is followed by more frames.
fn any_end() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![trailers(&[("x-checksum", "1"), ("grpc-status", "0")])]),
        Just(vec![Step::Fail(ErrorKind::ConnectionReset)]),
        Just(vec![Step::Fail(ErrorKind::TimedOut), Step::Wait, frame("after"), trailers(&[("x", "1")])]),
    ]
}

/// The model of what a rule gets: the least and the most bytes, whether they are complete, and
/// when.
#[derive(Debug)]
struct Naive {
    least: usize,
    most: usize,
    /// `None`: the layer cannot know.
    complete: Option<bool>,
    at: Duration,
}

fn naive(steps: &[Step], limit: usize, within: Duration) -> Naive {
    let (mut at, mut read, mut sure) = (Duration::ZERO, 0, None);
    for step in steps {
        match step {
            Step::Data(data) => read += data.len(),
            // Without time to wait, the body may or may not be polled again.
            Step::Wait if within.is_zero() => sure = sure.or(Some(read)),
            Step::Sleep(time) if at + *time > within => {
                return Naive {
                    least: sure.unwrap_or(read).min(limit),
                    most: read,
                    complete: Some(false),
                    at: within,
                };
            }
            Step::Sleep(time) => at += *time,
            Step::Fail(_) => {
                return Naive {
                    least: sure.unwrap_or(read).min(limit),
                    most: read,
                    complete: Some(false),
                    at,
                };
            }
            Step::Trailers(_) => break,
            _ => {}
        }
        if read > limit {
            return Naive { least: sure.unwrap_or(read).min(limit), most: limit, complete: Some(false), at };
        }
    }
    let complete = (read < limit && sure.is_none()).then_some(true);
    Naive { least: sure.unwrap_or(read), most: read, complete, at }
}

/// A body, its limits, and the rule's verdict.
#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    limit: usize,
    within: Duration,
    verdict: Option<Verdict>,
}

/// Reads the beginning of the body, and compares what the rule gets, and when, with the model.
async fn read_ahead(
    case: &Case,
    body_hints: BodyHints,
) -> Result<Response<PeekedBody<Script>>, TestCaseError> {
    let Case { steps, limit, within, verdict } = case;
    let recorded = RecordingRule { verdict: *verdict, ..RecordingRule::default() };
    let bodies = ErrorBodies::new(recorded.clone()).limit(*limit).timeout(*within);
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    let start = Instant::now();
    let script = Script::new(steps.clone()).body_hints(body_hints);
    let response = through(&layer, with_status(503, script)).await;

    prop_assert_eq!(response.status(), 503);
    prop_assert_eq!(response.headers().len(), 1);
    let kind = CarriedVerdict::get(&response).unwrap().fault().map(Fault::kind);
    prop_assert_eq!(kind, Some(if verdict.is_some() { Kind::Quota } else { Kind::Unavailable }));

    let (all, (bytes, complete)) = (data(steps), recorded.only());
    prop_assert!(bytes.len() <= *limit);
    prop_assert!(all.starts_with(&bytes));
    if matches!(body_hints, BodyHints::Wrong(_)) {
        return Ok(response);
    }
    let naive = naive(steps, *limit, *within);
    prop_assert!(start.elapsed() <= naive.at, "{:?}: {naive:?}", start.elapsed());
    prop_assert!((naive.least..=naive.most).contains(&bytes.len()), "{}: {naive:?}", bytes.len());
    // A body with correct hints may report its end before it returns it.
    let known = body_hints == BodyHints::Correct && bytes == all;
    prop_assert!(naive.complete.is_none_or(|expected| complete == expected || known), "{naive:?}");
    prop_assert!(!complete || bytes == all, "it is not complete");
    Ok(response)
}

async fn check(case: Case, body_hints: BodyHints) -> Result<(), TestCaseError> {
    let expected = bytewise(read_to_end(&mut Script::new(case.steps.clone())).await);
    let start = Instant::now();
    let mut body = read_ahead(&case, body_hints).await?.into_body();
    let (mut out, mut hints) = (Vec::new(), Vec::new());
    while out.last() != Some(&Seen::End) {
        hints.push((body.size_hint(), body.is_end_stream()));
        out.push(seen(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await));
    }
    prop_assert_eq!(bytewise(out.clone()), expected);
    let time = |step: &Step| if let Step::Sleep(time) = step { *time } else { Duration::ZERO };
    prop_assert_eq!(
        start.elapsed(),
        case.steps.iter().map(time).sum::<Duration>(),
        "the body is not delayed"
    );
    if matches!(body_hints, BodyHints::Wrong(_)) {
        return Ok(());
    }
    for (index, (size, ended)) in hints.into_iter().enumerate() {
        let length = |seen: &Seen| if let Seen::Data(data) = seen { data.len() } else { 0 };
        let left = out[index..].iter().map(length).sum::<usize>() as u64;
        let fits = size.lower() <= left && size.upper().is_none_or(|upper| left <= upper);
        prop_assert!(fits, "{size:?}: {left}");
        prop_assert!(body_hints != BodyHints::Correct || size.exact() == Some(left), "it is known: {size:?}");
        prop_assert!(!ended || bytewise(out[index..].iter().cloned()) == [Seen::End], "there is more");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn random_error_bodies_are_forwarded_and_shown(
        steps in proptest::collection::vec(any_step(), 0..12),
        end in any_end(),
        body_hints in prop_oneof![
            4 => Just(BodyHints::Absent),
            4 => Just(BodyHints::Correct),
            1 => prop_oneof![0..30_u64, (u64::MAX - 30)..].prop_map(BodyHints::Wrong),
        ],
        limit in prop_oneof![0..40_usize, Just(1_000)],
        within in prop_oneof![1 => Just(0), 9 => (0..15_u64).prop_map(|tens| 10 * tens + 5)],
        verdict: bool,
    ) {
        let verdict = verdict.then_some(OWN.into());
        on_tokio(check(Case { steps: [steps, end].concat(), limit, within: millis(within), verdict }, body_hints))?;
    }
}

#[test]
fn model_matches_known_cases() {
    let steps = [frame("ab"), Step::Sleep(millis(10)), frame("cd"), Step::Sleep(millis(10))];
    let at = |limit, within| {
        let naive = naive(&steps, limit, millis(within));
        (naive.least, naive.most, naive.complete, naive.at)
    };
    assert_eq!(at(9, 25), (4, 4, Some(true), millis(20)));
    assert_eq!(at(9, 15), (4, 4, Some(false), millis(15)));
    assert_eq!(at(9, 5), (2, 2, Some(false), millis(5)));
    assert_eq!(at(3, 25), (3, 3, Some(false), millis(10)));
    assert_eq!(at(4, 25), (4, 4, None, millis(20)));
}
