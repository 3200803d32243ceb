//! Random bodies, limits, delays, times and points of failure: what goes on is, byte for byte, what came.

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

use super::{OWN, Shown, on_tokio, with_status};
use crate::support::bodies::{
    Says, Script, Seen, Step, any_frame, bytewise, data, frame, read_to_end, seen, through, trailers,
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

/// Nothing, trailers, an error, and an error that more comes after.
fn any_end() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![trailers(&[("x-checksum", "1"), ("grpc-status", "0")])]),
        Just(vec![Step::Fail(ErrorKind::ConnectionReset)]),
        Just(vec![Step::Fail(ErrorKind::TimedOut), Step::Wait, frame("after"), trailers(&[("x", "1")])]),
    ]
}

/// What a rule is shown at most and at least, whether that is all, and when.
#[derive(Debug)]
struct Naive {
    least: usize,
    most: usize,
    /// `None`: it cannot know.
    whole: Option<bool>,
    at: Duration,
}

fn naive(steps: &[Step], limit: usize, within: Duration) -> Naive {
    let (mut at, mut read, mut sure) = (Duration::ZERO, 0, None);
    for step in steps {
        match step {
            Step::Data(data) => read += data.len(),
            // It may or may not be asked again, if there is no time.
            Step::Wait if within.is_zero() => sure = sure.or(Some(read)),
            Step::Sleep(time) if at + *time > within => {
                return Naive {
                    least: sure.unwrap_or(read).min(limit),
                    most: read,
                    whole: Some(false),
                    at: within,
                };
            }
            Step::Sleep(time) => at += *time,
            Step::Fail(_) => {
                return Naive { least: sure.unwrap_or(read).min(limit), most: read, whole: Some(false), at };
            }
            Step::Trailers(_) => break,
            _ => {}
        }
        if read > limit {
            return Naive { least: sure.unwrap_or(read).min(limit), most: limit, whole: Some(false), at };
        }
    }
    let whole = (read < limit && sure.is_none()).then_some(true);
    Naive { least: sure.unwrap_or(read), most: read, whole, at }
}

/// A body and its rule, whatever the body says of itself.
#[derive(Clone, Debug)]
struct Case {
    steps: Vec<Step>,
    limit: usize,
    within: Duration,
    verdict: Option<Verdict>,
}

/// Reads the body ahead, and holds what the rule is shown, and when, against the oracle.
async fn read_ahead(case: &Case, says: Says) -> Result<Response<PeekedBody<Script>>, TestCaseError> {
    let Case { steps, limit, within, verdict } = case;
    let shown = Shown { verdict: *verdict, ..Shown::default() };
    let bodies = ErrorBodies::new(shown.clone()).limit(*limit).timeout(*within);
    let layer = FaultClassifyLayer::new().read_error_bodies(bodies);
    let start = Instant::now();
    let script = Script::new(steps.clone()).says(says);
    let response = through(&layer, with_status(503, script)).await;

    prop_assert_eq!(response.status(), 503);
    prop_assert_eq!(response.headers().len(), 1);
    let kind = CarriedVerdict::get(&response).unwrap().fault().map(Fault::kind);
    prop_assert_eq!(kind, Some(if verdict.is_some() { Kind::Quota } else { Kind::Unavailable }));

    let (all, (bytes, whole)) = (data(steps), shown.only());
    prop_assert!(bytes.len() <= *limit);
    prop_assert!(all.starts_with(&bytes));
    if matches!(says, Says::Lies(_)) {
        return Ok(response);
    }
    let naive = naive(steps, *limit, *within);
    prop_assert!(start.elapsed() <= naive.at, "{:?}: {naive:?}", start.elapsed());
    prop_assert!((naive.least..=naive.most).contains(&bytes.len()), "{}: {naive:?}", bytes.len());
    // A body that says when it is over may do so ahead of its end.
    let known = says == Says::Truth && bytes == all;
    prop_assert!(naive.whole.is_none_or(|expected| whole == expected || known), "{naive:?}");
    prop_assert!(!whole || bytes == all, "it is not all of it");
    Ok(response)
}

async fn check(case: Case, says: Says) -> Result<(), TestCaseError> {
    let wanted = bytewise(read_to_end(&mut Script::new(case.steps.clone())).await);
    let start = Instant::now();
    let mut body = read_ahead(&case, says).await?.into_body();
    let (mut out, mut hints) = (Vec::new(), Vec::new());
    while out.last() != Some(&Seen::End) {
        hints.push((body.size_hint(), body.is_end_stream()));
        out.push(seen(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await));
    }
    prop_assert_eq!(bytewise(out.clone()), wanted);
    let time = |step: &Step| if let Step::Sleep(time) = step { *time } else { Duration::ZERO };
    prop_assert_eq!(start.elapsed(), case.steps.iter().map(time).sum::<Duration>(), "nothing waits longer");
    if matches!(says, Says::Lies(_)) {
        return Ok(());
    }
    for (place, (size, over)) in hints.into_iter().enumerate() {
        let length = |seen: &Seen| if let Seen::Data(data) = seen { data.len() } else { 0 };
        let left = out[place..].iter().map(length).sum::<usize>() as u64;
        let fits = size.lower() <= left && size.upper().is_none_or(|upper| left <= upper);
        prop_assert!(fits, "{size:?}: {left}");
        prop_assert!(says != Says::Truth || size.exact() == Some(left), "it is known: {size:?}");
        prop_assert!(!over || bytewise(out[place..].iter().cloned()) == [Seen::End], "there is more");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn random_error_bodies_are_forwarded_and_shown(
        steps in proptest::collection::vec(any_step(), 0..12),
        end in any_end(),
        says in prop_oneof![
            4 => Just(Says::Nothing),
            4 => Just(Says::Truth),
            1 => prop_oneof![0..30_u64, (u64::MAX - 30)..].prop_map(Says::Lies),
        ],
        limit in prop_oneof![0..40_usize, Just(1_000)],
        within in prop_oneof![1 => Just(0), 9 => (0..15_u64).prop_map(|tens| 10 * tens + 5)],
        verdict: bool,
    ) {
        let verdict = verdict.then_some(OWN.into());
        on_tokio(check(Case { steps: [steps, end].concat(), limit, within: millis(within), verdict }, says))?;
    }
}

#[test]
fn model_matches_known_cases() {
    let steps = [frame("ab"), Step::Sleep(millis(10)), frame("cd"), Step::Sleep(millis(10))];
    let at = |limit, within| {
        let naive = naive(&steps, limit, millis(within));
        (naive.least, naive.most, naive.whole, naive.at)
    };
    assert_eq!(at(9, 25), (4, 4, Some(true), millis(20)));
    assert_eq!(at(9, 15), (4, 4, Some(false), millis(15)));
    assert_eq!(at(9, 5), (2, 2, Some(false), millis(5)));
    assert_eq!(at(3, 25), (3, 3, Some(false), millis(10)));
    assert_eq!(at(4, 25), (4, 4, None, millis(20)));
}
