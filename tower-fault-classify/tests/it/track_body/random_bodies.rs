//! Random bodies, each compared with a bare twin and with a naive model.

use std::panic::{AssertUnwindSafe, catch_unwind};

use http_body::Body;
use proptest::prelude::*;

use super::{BROKEN, CODES, DROPPED, Row, UNKNOWN, of_type, row, tracked};
use crate::support::bodies::{BodyHints, Script, Seen, Step, any_frame, frame, poll, trailers};

/// A strategy for gRPC trailers, valid and invalid.
fn any_trailers() -> impl Strategy<Value = Step> {
    let status = prop_oneof![(0..20_u32).prop_map(|code| code.to_string()), "[0-9a-z ,+-]{0,3}"];
    proptest::collection::vec(status, 0..3)
        .prop_map(|all| trailers(&all.iter().map(|status| ("grpc-status", &**status)).collect::<Vec<_>>()))
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_frame(),
        3 => Just(Step::Wait),
        2 => any_trailers(),
        1 => proptest::sample::select(&BROKEN[..]).prop_map(|(kind, _)| Step::Fail(kind)),
    ]
}

/// Returns the row of trailers.
fn trailers_row(trailers: &http::HeaderMap) -> Row {
    let mut codes = trailers.get_all("grpc-status").iter().map(|status| {
        let status = status.to_str().unwrap();
        let digits = (1..=2).contains(&status.len()) && status.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits && (status.len() == 1 || !status.starts_with('0'));
        if canonical { status.parse::<usize>().ok() } else { None }
    });
    let Some(Some(code)) = codes.next() else { return UNKNOWN };
    if codes.all(|other| other == Some(code)) { CODES.get(code).copied().unwrap_or(UNKNOWN) } else { UNKNOWN }
}

/// Returns the row that the hook gets for what a reader saw.
///
/// `seen` has the result of each poll, and whether the body then reported its end.
fn naive(grpc: bool, seen: &[(Seen, bool)], ended_at_drop: bool) -> Row {
    let end = if grpc { UNKNOWN } else { None };
    for (result, ended) in seen {
        match result {
            Seen::Failed(failed) => return BROKEN.iter().find(|(kind, _)| kind == failed).unwrap().1,
            Seen::Trailers(trailers) if grpc => return trailers_row(trailers),
            Seen::Trailers(_) | Seen::End => return end,
            Seen::Data(_) if *ended => return end,
            Seen::Data(_) | Seen::Pending => {}
        }
    }
    // A reader that never polled the body needed only the head.
    if ended_at_drop || (seen.is_empty() && !grpc) { end } else { DROPPED }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bodies_pass_and_report_model_verdict_once(
        steps in proptest::collection::vec(any_step(), 0..10),
        kind in proptest::sample::select(vec!["application/grpc", "application/grpc-web", "text/plain"]),
        truthful: bool,
        polls in 0..14,
    ) {
        let body_hints = if truthful { BodyHints::Correct } else { BodyHints::Absent };
        let mut twin = Script::new(steps.clone()).body_hints(body_hints);
        let (wrapped, log) = tracked(of_type(kind, Script::new(steps).body_hints(body_hints)));
        let mut body = wrapped.into_body();
        let mut all = Vec::new();
        for _ in 0..polls {
            prop_assert_eq!(body.is_end_stream(), twin.is_end_stream());
            prop_assert_eq!(body.size_hint().lower(), twin.size_hint().lower());
            prop_assert_eq!(body.size_hint().upper(), twin.size_hint().upper());
            let seen = poll(&mut body);
            prop_assert_eq!(&seen, &poll(&mut twin));
            let known = matches!(seen, Seen::Failed(_) | Seen::Trailers(_) | Seen::End);
            all.push((seen, twin.is_end_stream()));
            prop_assert!(log.count() <= 1);
            prop_assert!(!known || log.count() == 1, "the hook is called when the verdict is known");
        }
        drop(body);
        prop_assert_eq!(row(log.only()), naive(kind == "application/grpc", &all, twin.is_end_stream()));
    }

    #[test]
    fn random_misbehaving_bodies_pass_and_report_once(
        steps in proptest::collection::vec(prop_oneof![9 => any_step(), 1 => Just(Step::Panic)], 0..10),
        kind in proptest::sample::select(vec!["application/grpc", "text/plain"]),
        wrong_size in any::<u64>(),
        polls in 0..14,
    ) {
        let mut twin = Script::new(steps.clone()).body_hints(BodyHints::Wrong(wrong_size));
        let (wrapped, log) = tracked(of_type(kind, Script::new(steps).body_hints(BodyHints::Wrong(wrong_size))));
        let mut body = wrapped.into_body();
        for _ in 0..polls {
            prop_assert!(body.is_end_stream());
            prop_assert_eq!(body.size_hint().exact(), Some(wrong_size));
            let seen = catch_unwind(AssertUnwindSafe(|| poll(&mut body))).ok();
            let bare = catch_unwind(AssertUnwindSafe(|| poll(&mut twin))).ok();
            prop_assert_eq!(seen, bare);
            prop_assert!(log.count() <= 1);
        }
        drop(body);
        prop_assert_eq!(log.count(), 1);
    }
}

#[test]
fn model_matches_known_cases() {
    let data = || Seen::Data("a".into());
    assert_eq!(naive(true, &[(data(), false), (Seen::End, true)], true), UNKNOWN);
    assert_eq!(naive(false, &[(data(), false)], false), DROPPED);
    assert_eq!(naive(false, &[(data(), true)], true), None);
    let Step::Trailers(status) = trailers(&[("grpc-status", "14")]) else { unreachable!() };
    assert_eq!(naive(true, &[(Seen::Trailers(status), false)], false), CODES[14]);
    assert_eq!(frame("a"), Step::Data("a".into()));
}
