//! Bounded data, extreme values and stored data.

use proptest::prelude::*;

use super::*;

#[test]
fn data_of_changing_instances_is_bounded() {
    let mut data = CircuitData::default();
    let mut now = START;
    data.do_operate(Action::ForceOpen, now);
    data.do_operate(Action::Release, now);
    for number in 0..1000 {
        let instance = format!("instance-{number}");
        let ballot = Ballot { since_success: Some(Duration::ZERO), ..Ballot::default() };
        let local = SyncCircuit { local: LocalOpen::For(LIFETIME), ballot, ..circuit(true, HALF) };
        data.sync(&request(&instance), &local, now);
        data.is_granted(&instance, 0.0, now);
        now += 100;
    }
    let in_two_lifetimes = 2 * ms(LIFETIME) as usize / 100;
    assert!(data.members.len() <= in_two_lifetimes, "{}", data.members.len());
    assert!(data.leases.len() <= in_two_lifetimes && data.local.len() <= in_two_lifetimes);
    now += 2 * ms(LIFETIME);
    assert!(!data.is_empty(now));
    assert_eq!(data.last_success, Some(now - 2 * ms(LIFETIME) - 100));
    data.vote("last", false, HALF, now);
    assert_eq!(data.last_success, None, "it is lost with all members");
    assert_eq!((data.members.len(), data.leases.len(), data.local.len()), (1, 0, 0));
}

#[test]
fn weights_out_of_range_are_limited() {
    let half_open = || {
        let mut data = CircuitData::default();
        data.do_operate(Action::ForceOpen, START);
        data.do_operate(Action::Release, START);
        data
    };
    for weight in [0.0, -1.0, f64::NEG_INFINITY, f64::MIN_POSITIVE] {
        let mut data = half_open();
        let granted = (0..4000).filter(|number| data.is_granted(&number.to_string(), weight, START)).count();
        assert_eq!(granted, 3000, "the smallest weight is a thousandth");
    }
    for weight in [1.5, f64::INFINITY, f64::NAN] {
        let mut data = half_open();
        let granted = (0..10).filter(|number| data.is_granted(&number.to_string(), weight, START)).count();
        assert_eq!(granted, 3, "the largest weight is one");
    }
}

#[test]
fn sum_of_weights_is_rounded() {
    let mut data = CircuitData::default();
    data.do_operate(Action::ForceOpen, START);
    data.do_operate(Action::Release, START);
    let weights = [0.2, 0.4, 0.3, 0.1];
    assert!(weights.iter().sum::<f64>() > 1.0, "the sum has a rounding error");
    for (number, weight) in weights.into_iter().enumerate() {
        let request = LeaseRequest { probes: 1, ..lease_request(&number.to_string(), weight) };
        assert!(data.lease(&request, START).0.granted, "{number}");
    }
}

#[test]
fn circuit_without_anything_is_empty() {
    let mut data = CircuitData::default();
    assert!(data.is_empty(START));
    data.vote("a", false, ONE, START);
    assert!(!data.is_empty(START));
    assert!(data.is_empty(START + 2 * ms(LIFETIME)));
    data.sync(&request("a"), &SyncCircuit { member: false, ..circuit(false, ONE) }, START);
    assert!(data.is_empty(START));
    data.do_operate(Action::Reset, START);
    assert!(!data.is_empty(START + ms(GRACE) - 1));
    assert!(data.is_empty(START + ms(GRACE)));
}

#[test]
fn local_open_until_reset_is_kept_for_a_day() {
    let mut data = CircuitData::default();
    let local = SyncCircuit { local: LocalOpen::UntilReset, ..circuit(false, ONE) };
    data.sync(&request("a"), &local, START);
    let day = 24 * 3_600_000;
    let unknown = SyncCircuit { local: LocalOpen::Unknown, ..circuit(false, ONE) };
    let stored = |data: &mut CircuitData, now| data.sync(&request("a"), &unknown, now).0.local;
    assert_eq!(stored(&mut data, START + day - 1), LocalOpen::UntilReset);
    assert_eq!(stored(&mut data, START + day), LocalOpen::No);
}

#[test]
fn votes_needed_follow_members() {
    let rule = |at_least, share| Quorum::at_least(at_least).share(share).rule(0, Duration::ZERO);
    let cases = [
        (rule(2, 0.5), 0, 2),
        (rule(2, 0.5), 3, 2),
        (rule(2, 0.5), 5, 3),
        (rule(2, 0.5), 60, 30),
        (rule(1, 0.07), 100, 7),
        (rule(1, 1.0), 7, 7),
        (rule(0, 0.0), 7, 1),
        (rule(3, f64::NAN), 7, 3),
        (rule(3, -1.0), 7, 3),
        (rule(1, 1.0), u32::MAX, u32::MAX),
    ];
    for (rule, members, expected) in cases {
        assert_eq!(ballots::votes_needed(&rule, members), expected, "{rule:?}, {members} members");
    }
}

#[test]
fn text_is_cut_at_character_boundary() {
    assert_eq!(clean_text(&"x".repeat(200)), "x".repeat(200));
    assert_eq!(clean_text(&format!("x{}", "é".repeat(100))), format!("x{}", "é".repeat(99)));
    assert_eq!(clean_text("a\tb\r\n\u{0}\u{85}🦀"), "a b    🦀");
    assert_eq!(clean_text(""), "");
}

#[test]
fn stored_data_is_read_back_unchanged() {
    let mut data = CircuitData::default();
    data.vote("a", true, HALF, START);
    data.do_operate(Action::ForceOpen, START);
    data.do_operate(Action::Release, START);
    data.is_granted("a", 0.25, START);
    let failure_ages = vec![Duration::from_secs(2), Duration::ZERO];
    let ballot = Ballot { vote: true, since_success: Some(LEASE), failure_ages };
    let local = SyncCircuit { local: LocalOpen::UntilReset, ballot, ..circuit(true, HALF) };
    data.sync(&request("b"), &local, START);
    let json = serde_json::to_string(&data).unwrap();
    assert_eq!(serde_json::from_str::<CircuitData>(&json).unwrap(), data);
}

#[test]
fn stored_data_out_of_range_is_refused() {
    let mut data = CircuitData::default();
    data.do_operate(Action::ForceOpen, START);
    data.do_operate(Action::Release, START);
    data.is_granted("a", 0.25, START);
    let json = serde_json::to_string(&data).unwrap();
    let epoch = data.epoch.to_string();
    let cases = [
        (&*epoch, "4503599627370497", "expected an epoch up to 2^52"),
        (&*epoch, "-1", "invalid value"),
        ("0.25", "1.5", "expected a weight from 0 to 1"),
        ("\"half_open\"", "\"melted\"", "unknown variant"),
    ];
    for (from, to, expected) in cases {
        let broken = json.replacen(from, to, 1);
        let error = serde_json::from_str::<CircuitData>(&broken).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let long = json.replacen("\"by\":\"a\"", &format!("\"by\":\"{}\"", "y".repeat(5000)), 1);
    assert_eq!(serde_json::from_str::<CircuitData>(&long).unwrap().by, "y".repeat(200));
}

#[test]
fn stored_deadline_is_limited_to_ten_years() {
    let mut data = CircuitData::default();
    data.do_operate(Action::Trip, START);
    let json = serde_json::to_string(&data).unwrap();
    let until = format!("\"at\":{},\"length\":{}", START + ms(OPEN), ms(OPEN));
    let endless = format!("\"at\":{},\"length\":{}", u64::MAX, u64::MAX);
    assert!(json.contains(&until));
    let data: CircuitData = serde_json::from_str(&json.replacen(&until, &endless, 1)).unwrap();
    let ten_years = Duration::from_secs(10 * 365 * 24 * 3600);
    assert_eq!(data.record(CIRCUIT, START).remaining, Some(ten_years));
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_nanos(1)),
        (0..100_000_u64).prop_map(Duration::from_millis),
        Just(Duration::MAX),
    ]
}

fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(START), START..START + 100_000, Just(u64::MAX - 1), Just(u64::MAX)]
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), -2.0..2.0]
}

fn any_record() -> impl Strategy<Value = Option<CircuitRecord>> {
    let states = prop::sample::select(vec![FleetState::Closed, FleetState::Open, FleetState::HalfOpen]);
    let manual = prop::option::of(prop::sample::select(vec![Override::ForcedOpen, Override::ForcedClosed]));
    let epoch = any_time();
    let times = (prop::option::of(any_duration()), prop::option::of(any_duration()));
    let record =
        (epoch, states, manual, times).prop_map(|(epoch, state, manual, (remaining, manual_remaining))| {
            let (reason, by, circuit) = ("x".repeat(500), String::new(), CIRCUIT.to_owned());
            CircuitRecord { circuit, epoch, state, remaining, manual, manual_remaining, reason, by }
        });
    prop::option::of(record)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Neither extreme times nor extreme values panic, and all times stay bounded.
    #[test]
    fn extreme_values_are_handled(
        steps in prop::collection::vec(
            (0..5, any_time(), any_duration(), any_duration(), any_number(), any_record(), 0..u32::MAX),
            1..12,
        ),
    ) {
        let mut data = CircuitData::default();
        for (kind, now, first, second, number, known, count) in steps {
            match kind {
                0 => {
                    let quorum = Quorum::at_least(count % 3).share(number).rule(0, first);
                    let quorum = QuorumRule { consecutive_failures: count % 2, ..quorum };
                    let failure_ages = vec![first, second];
                    let ballot = Ballot { vote: true, since_success: Some(first), failure_ages };
                    let local = if count % 2 == 0 { LocalOpen::For(second) } else { LocalOpen::UntilReset };
                    let sync = SyncCircuit { ballot, local, known, open_for: Some(second), ..circuit(true, quorum) };
                    data.sync(&SyncRequest { lifetime: first, grace: second, ..request("a") }, &sync, now);
                }
                1 => {
                    let asked = LeaseRequest { probes: count, lease: first, grace: second, ..lease_request("a", number) };
                    data.lease(&asked, now);
                }
                2 => {
                    let probe = completed("a", data.epoch, ProbeOutcome::Failure);
                    let (probes, successes_to_close) = (count, count % 7);
                    data.complete(&CompletedProbe { probes, successes_to_close, open_for: Some(first), ..probe }, now);
                }
                3 => {
                    let forced = operation(if count % 2 == 0 { Action::ForceOpen } else { Action::Release });
                    data.operate(&Operation { keep_for: Some(first), grace: second, ..forced }, now);
                }
                _ => {
                    data.operate(&Operation { open_for: Some(first), grace: second, ..operation(Action::Trip) }, now);
                }
            }
            let record = data.record(CIRCUIT, now);
            let ten_years = Duration::from_secs(10 * 365 * 24 * 3600);
            prop_assert!(record.remaining.is_none_or(|remaining| remaining <= ten_years));
            prop_assert!(record.manual_remaining.is_none_or(|remaining| remaining <= ten_years));
            prop_assert!(record.reason.len() <= 200);
        }
    }
}
