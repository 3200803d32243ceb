//! Tests of the distributions over 100,000 seeded draws, and of extreme values.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

#[expect(clippy::cast_sign_loss, reason = "a place is not negative")]
fn index(place: f64, buckets: usize) -> usize {
    ((place * buckets as f64) as usize).min(buckets - 1)
}

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const DRAWS: usize = 100_000;

/// Doubles from 1 s to 8 s.
fn backoff(jitter: Jitter) -> Backoff {
    Backoff { initial: SECOND, multiplier: 2.0, max: 8 * SECOND, jitter }
}

/// Returns the delays before retry number `retry` of 100,000 calls, in seconds.
fn draws(jitter: Jitter, retry: usize) -> Vec<f64> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut draw = || backoff(jitter).delays(|range| rng.u64(range)).nth(retry - 1);
    (0..DRAWS).filter_map(|_| draw()).map(|delay| delay.as_secs_f64()).collect()
}

fn mean(draws: &[f64]) -> f64 {
    draws.iter().sum::<f64>() / draws.len() as f64
}

fn variance(draws: &[f64]) -> f64 {
    let mean = mean(draws);
    draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64
}

/// Returns the share of the draws that equal the cap.
fn at_the_cap(draws: &[f64]) -> f64 {
    draws.iter().filter(|draw| **draw >= 8.0).count() as f64 / draws.len() as f64
}

/// Asserts that the draws are uniform between two bounds: they are within the bounds, have the
/// mean, the variance and the twentieths of a uniform distribution, and hardly any two are equal.
fn assert_even(draws: &[f64], from: f64, to: f64, what: &str) {
    assert_eq!(draws.len(), DRAWS);
    let width = to - from;
    assert!(draws.iter().all(|draw| (from..=to).contains(draw)), "{what}: out of {from}..={to}");
    let mean = mean(draws);
    assert!((mean - (from + width / 2.0)).abs() < width * 0.005, "{what}: a mean of {mean}");
    let variance = variance(draws);
    let expected = width * width / 12.0;
    assert!((variance - expected).abs() < expected * 0.02, "{what}: a variance of {variance}");
    let mut buckets = [0_u32; 20];
    for draw in draws {
        buckets[index((draw - from) / width, 20)] += 1;
    }
    // Five standard deviations of a twentieth of 100,000.
    assert!(buckets.iter().all(|count| count.abs_diff(5_000) < 350), "{what}: {buckets:?}");
    let mut nanos: Vec<_> = draws.iter().map(|draw| Duration::from_secs_f64(*draw)).collect();
    nanos.sort_unstable();
    nanos.dedup();
    assert!(nanos.len() > DRAWS - 100, "{what}: {} different delays", nanos.len());
    let whole_millis = nanos.iter().filter(|delay| delay.subsec_nanos() % 1_000_000 == 0).count();
    assert!(whole_millis < 10, "{what}: {whole_millis} draws are whole milliseconds");
}

#[test]
fn jitter_is_uniform_over_its_range_below_and_at_maximum() {
    let additive = Jitter::Additive(Duration::from_secs(5));
    for (jitter, retry, from, to) in [
        (Jitter::Full, 1, 0.0, 1.0),
        (Jitter::Full, 3, 0.0, 4.0),
        (Jitter::Full, 9, 0.0, 8.0),
        (Jitter::Equal, 1, 0.5, 1.0),
        (Jitter::Equal, 3, 2.0, 4.0),
        (Jitter::Equal, 9, 4.0, 8.0),
        (Jitter::Decorrelated, 1, 1.0, 3.0),
        (Jitter::Proportional(0.5), 1, 0.5, 1.5),
        (Jitter::Proportional(0.5), 3, 2.0, 6.0),
        (Jitter::Proportional(0.5), 9, 4.0, 8.0),
        (Jitter::Proportional(1.0), 2, 0.0, 4.0),
        (additive, 1, 1.0, 6.0),
        (additive, 2, 2.0, 7.0),
        (additive, 3, 3.0, 8.0),
        (additive, 9, 3.0, 8.0),
        (Jitter::AwsDecorrelated, 1, 1.0, 3.0),
        (Jitter::CenkaltiProportional(0.5), 3, 2.0, 6.0),
        (Jitter::CenkaltiProportional(0.5), 9, 4.0, 12.0),
        (Jitter::TenacityAdditive(Duration::from_secs(5)), 2, 2.0, 7.0),
    ] {
        assert_even(&draws(jitter, retry), from, to, &format!("{jitter:?} before retry {retry}"));
    }
}

#[test]
fn cut_range_does_not_pile_up_at_maximum_and_clamp_does() {
    for jitter in [
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
        Jitter::Proportional(0.5),
        Jitter::Additive(Duration::from_secs(5)),
    ] {
        for retry in [2, 4, 20] {
            let draws = draws(jitter, retry);
            assert!(at_the_cap(&draws) < 1e-4, "{jitter:?} before retry {retry}");
            // They do not pile up just below the cap either: the last hundredth of the narrowest
            // range here holds a hundredth of the draws.
            let near = draws.iter().filter(|draw| **draw > 7.96).count() as f64 / DRAWS as f64;
            assert!(near < 0.02, "{jitter:?} before retry {retry}: {near} within 40 ms of the max");
        }
    }
    let aws = at_the_cap(&draws(Jitter::AwsDecorrelated, 20));
    assert!((0.3..0.7).contains(&aws), "{aws}");
    let tenacity = Jitter::TenacityAdditive(Duration::from_secs(5));
    assert!((at_the_cap(&draws(tenacity, 3)) - 0.2).abs() < 0.01, "4 to 9 s, clamped at 8");
    assert!((at_the_cap(&draws(tenacity, 9)) - 1.0).abs() < 1e-9);
}

#[test]
fn decorrelated_delay_depends_on_last_delay() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut delays = backoff(Jitter::Decorrelated).delays(|range| rng.u64(range));
    let mut last = Duration::from_secs(1);
    let mut thirds = [0_u32; 3];
    for _ in 0..DRAWS {
        let delay = delays.next().unwrap();
        let most = (last * 3).min(Duration::from_secs(8));
        assert!((Duration::from_secs(1)..=most).contains(&delay), "{delay:?} after {last:?}");
        let range = most.as_secs_f64() - 1.0;
        let place = (delay.as_secs_f64() - 1.0) / range.max(f64::EPSILON);
        thirds[index(place, 3)] += 1;
        last = delay;
    }
    assert!(thirds.iter().all(|count| count.abs_diff(33_333) < 750), "{thirds:?}");
}

/// A draw of one call does not correlate with the next call's, nor with the next delay of the same
/// call.
#[test]
fn delays_of_calls_and_retries_are_independent() {
    let seeds = crate::rng::Seeds::from(7);
    let calls: Vec<[f64; 2]> = (0..DRAWS)
        .map(|_| {
            let mut stream = crate::rng::RandomStream::open(Some(seeds.next()));
            let mut delays = backoff(Jitter::Full).delays(|range| stream.uniform(range));
            [delays.next(), delays.next()].map(|delay| delay.unwrap().as_secs_f64())
        })
        .collect();
    let first: Vec<f64> = calls.iter().map(|call| call[0]).collect();
    let second: Vec<f64> = calls.iter().map(|call| call[1] / 2.0).collect();
    assert_even(&first, 0.0, 1.0, "the first delays of calls");
    assert_even(&second, 0.0, 1.0, "the second delays of calls");
    let correlation = |one: &[f64], other: &[f64]| {
        let (one_mean, other_mean) = (mean(one), mean(other));
        let shared: f64 = one.iter().zip(other).map(|(a, b)| (a - one_mean) * (b - other_mean)).sum();
        shared / one.len() as f64 / (variance(one) * variance(other)).sqrt()
    };
    for (what, found) in [
        ("neighbouring calls", correlation(&first[1..], &first[..DRAWS - 1])),
        ("every second call", correlation(&first[2..], &first[..DRAWS - 2])),
        ("the delays of one call", correlation(&first, &second)),
        ("a call's last and the next one's first", correlation(&first[1..], &second[..DRAWS - 1])),
    ] {
        // Four standard deviations of independent draws.
        assert!(found.abs() < 0.0127, "{what}: {found}");
    }
}

#[test]
fn ceiling_doubles_up_to_maximum() {
    let backoff =
        Backoff { initial: 100 * MILLI, multiplier: 2.0, max: 10_000 * MILLI, jitter: Jitter::None };
    let delays: Vec<_> = backoff.delays(|_| unreachable!()).take(9).map(|delay| delay.as_millis()).collect();
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
}

#[test]
fn backoff_extreme_values_saturate() {
    let of = |initial, multiplier, max, jitter| Backoff { initial, multiplier, max, jitter };
    assert_eq!(of(1, 1_000.0, u64::MAX, Jitter::None).ceiling(u32::MAX), u64::MAX);
    assert_eq!(of(0, 1_000.0, u64::MAX, Jitter::None).ceiling(u32::MAX), 0);
    let level = of(7, 1.0, 9, Jitter::None);
    assert_eq!((level.ceiling(0), level.ceiling(1), level.ceiling(u32::MAX)), (7, 7, 7));
    let most = Duration::MAX;
    for jitter in [Jitter::Decorrelated, Jitter::Proportional(1.0), Jitter::Additive(most)] {
        let mut delays = of(u64::MAX, 1_000.0, u64::MAX, jitter).delays(|range| *range.end());
        assert_eq!(delays.nth(3), Some(Duration::from_nanos(u64::MAX)), "{jitter:?}");
    }
    let nothing = of(0, 2.0, 0, Jitter::Additive(most)).delays(|range| *range.end()).next();
    assert_eq!(nothing, Some(Duration::ZERO), "the max is applied last");
}

#[test]
fn hint_is_stretched_by_at_most_half_and_never_shortened() {
    let mut rng = fastrand::Rng::with_seed(7);
    let draws: Vec<f64> = (0..DRAWS)
        .filter_map(|_| Jitter::Full.stretch(4 * SECOND, u64::MAX, |range| rng.u64(range)))
        .map(|delay| delay as f64 / SECOND as f64)
        .collect();
    assert_even(&draws, 4.0, 6.0, "a hint of 4 s");
    let longest = |jitter: Jitter, delay| jitter.stretch(delay, u64::MAX, |range| *range.end());
    assert_eq!(longest(Jitter::Equal, 60 * SECOND), Some(65 * SECOND));
    assert_eq!(longest(Jitter::Full, u64::MAX), Some(u64::MAX));
    assert_eq!(longest(Jitter::None, SECOND), Some(SECOND));
}

#[test]
fn range_beyond_the_time_left_is_cut_before_drawing() {
    let left = 3 * SECOND;
    // Before the third retry the ceiling is 4 s.
    for (jitter, from) in [
        (Jitter::Full, 0.0),
        (Jitter::Equal, 2.0),
        (Jitter::Decorrelated, 1.0),
        (Jitter::Proportional(0.5), 2.0),
        (Jitter::Additive(Duration::from_secs(6)), 2.0),
        (Jitter::AwsDecorrelated, 1.0),
        (Jitter::CenkaltiProportional(0.5), 2.0),
    ] {
        let mut rng = fastrand::Rng::with_seed(7);
        let third = Position { retries: 2, last: 2 * SECOND };
        let mut draw = || backoff(jitter).next(&mut third.clone(), left, |range| rng.u64(range));
        let draws: Vec<_> = (0..DRAWS).map(|_| draw().unwrap() as f64 / SECOND as f64).collect();
        // A tick of the timer is kept free.
        assert_even(&draws, from, 2.999, &format!("{jitter:?}"));
    }
    let stretched = Jitter::Full.stretch(2 * SECOND + SECOND / 2, left, |range| *range.end());
    assert_eq!(stretched, Some(left - MILLI), "only the stretch of a hint is cut");
}

#[test]
fn range_beyond_the_time_left_has_no_delay() {
    let next = |jitter, left| {
        backoff(jitter).next(&mut Position { retries: 2, last: 2 * SECOND }, left, |range| *range.start())
    };
    assert_eq!(next(Jitter::None, 4 * SECOND), Some(4 * SECOND));
    assert_eq!(next(Jitter::None, 4 * SECOND - 1), None);
    assert_eq!(next(Jitter::Equal, 2 * SECOND), Some(2 * SECOND));
    assert_eq!(next(Jitter::Equal, 2 * SECOND - 1), None);
    assert_eq!(next(Jitter::Decorrelated, SECOND - 1), None);
    assert_eq!(next(Jitter::Full, 1), Some(0));
    assert_eq!(Jitter::Full.stretch(SECOND, SECOND - 1, |range| *range.start()), None);
}

fn any_jitter() -> impl Strategy<Value = Jitter> {
    let time = (0..u64::MAX).prop_map(Duration::from_nanos);
    prop_oneof![
        Just(Jitter::None),
        Just(Jitter::Full),
        Just(Jitter::Equal),
        Just(Jitter::Decorrelated),
        (0.0..=1.0).prop_map(Jitter::Proportional),
        time.prop_map(Jitter::Additive),
    ]
}

proptest! {
    #[test]
    fn ceiling_never_falls_and_never_exceeds_maximum(initial in 0..u64::MAX, max in 0..u64::MAX, multiplier in 1.0..1_000.0, retry in 0_u32..2_000) {
        let backoff = Backoff { initial: initial.min(max), multiplier, max, jitter: Jitter::None };
        let ceiling = backoff.ceiling(retry);
        prop_assert!(ceiling <= max);
        prop_assert!(backoff.ceiling(retry + 1) >= ceiling);
    }

    /// Checks the jitters that cut at the cap, and that each of their ranges is valid.
    #[test]
    fn delay_never_exceeds_maximum(jitter in any_jitter(), initial in 0..u64::MAX, max in 0..u64::MAX, multiplier in 1.0..1_000.0, seed in any::<u64>()) {
        let backoff = Backoff { initial: initial.min(max), multiplier, max, jitter };
        let mut rng = fastrand::Rng::with_seed(seed);
        let draw = |range: RangeInclusive<u64>| {
            assert!(!range.is_empty(), "{range:?}");
            rng.u64(range)
        };
        for delay in backoff.delays(draw).take(50) {
            prop_assert!(delay <= Duration::from_nanos(max));
        }
    }
}

#[test]
fn zero_initial_backoff_is_immediate_unless_jitter_adds() {
    let delays = |jitter| {
        let backoff = Backoff { initial: 0, multiplier: 2.0, max: 10 * SECOND, jitter };
        let delays: Vec<_> = backoff.delays(|range| *range.end()).take(3).collect();
        delays
    };
    for jitter in [
        Jitter::None,
        Jitter::Full,
        Jitter::Equal,
        Jitter::Decorrelated,
        Jitter::Proportional(1.0),
        Jitter::AwsDecorrelated,
        Jitter::CenkaltiProportional(1.0),
    ] {
        assert_eq!(delays(jitter), [Duration::ZERO; 3], "{jitter:?}");
    }
    let second = Duration::from_secs(1);
    for jitter in [Jitter::Additive(second), Jitter::TenacityAdditive(second)] {
        assert_eq!(delays(jitter), [second; 3], "{jitter:?}");
    }
}

#[test]
fn jitters_have_names_in_snake_case() {
    let second = Duration::from_secs(1);
    for (jitter, name) in [
        (Jitter::None, "none"),
        (Jitter::Full, "full"),
        (Jitter::Equal, "equal"),
        (Jitter::Decorrelated, "decorrelated"),
        (Jitter::Proportional(0.5), "proportional"),
        (Jitter::Additive(second), "additive"),
        (Jitter::AwsDecorrelated, "aws_decorrelated"),
        (Jitter::CenkaltiProportional(0.5), "cenkalti_proportional"),
        (Jitter::TenacityAdditive(second), "tenacity_additive"),
    ] {
        assert_eq!(jitter.as_str(), name);
        assert_eq!(jitter.to_string(), name);
    }
}
