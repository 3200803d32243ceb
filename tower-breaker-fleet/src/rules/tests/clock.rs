//! Steps of the store's clock, and the ends of times.

use super::*;

const HOUR: u64 = 3_600_000;

#[test]
fn clock_step_back_does_not_prolong_open_time() {
    let mut data = CircuitData::default();
    let opened = data.do_operate(Action::Trip, START);
    let before = START - HOUR;
    assert_eq!(data.record(CIRCUIT, before).remaining, Some(OPEN));
    assert!(!data.is_granted("a", 1.0, before));
    assert!(!data.is_granted("a", 1.0, before + ms(OPEN) - 1));
    let (reply, _) = data.lease(&lease_request("a", 1.0), before + ms(OPEN));
    assert!(reply.granted);
    assert_eq!(reply.record.epoch, opened.epoch + 1, "the epoch grows although the time is earlier");
}

#[test]
fn clock_step_back_does_not_prolong_membership_leases_or_warm_up() {
    let mut data = CircuitData::default();
    for instance in ["a", "b", "c"] {
        assert!(data.vote(instance, false, HALF, START).warming_up);
    }
    data.sync(&request("a"), &SyncCircuit { local: LocalOpen::For(OPEN), ..circuit(false, HALF) }, START);
    let before = START - HOUR;
    assert!(data.vote("c", false, HALF, before).warming_up);
    let synced = data.vote("c", false, HALF, before + ms(LIFETIME) - 1);
    assert_eq!((synced.members, synced.warming_up), (3, true));
    let synced = data.vote("c", false, ONE, before + ms(LIFETIME));
    assert_eq!((synced.members, synced.local), (1, LocalOpen::No));
    // The warm-up of the first members is over; that of the lost majority is not.
    assert!(data.vote("c", false, HALF, before + 2 * ms(LIFETIME) - 1).warming_up);
    assert!(!data.vote("c", false, HALF, before + 2 * ms(LIFETIME)).warming_up);
    let unknown = SyncCircuit { local: LocalOpen::Unknown, ..circuit(false, HALF) };
    let stored = |data: &mut CircuitData, now| data.sync(&request("a"), &unknown, now).0.local;
    assert_eq!(stored(&mut data, before + ms(OPEN) - 1), LocalOpen::For(Duration::from_millis(1)));
    assert_eq!(stored(&mut data, before + ms(OPEN)), LocalOpen::No);
}

#[test]
fn clock_step_back_does_not_prolong_lease_or_override() {
    let mut data = CircuitData::default();
    data.do_operate(Action::ForceOpen, START);
    data.do_operate(Action::Release, START);
    for instance in ["a", "b", "c"] {
        assert!(data.is_granted(instance, 1.0, START));
    }
    let before = START - HOUR;
    assert!(!data.is_granted("d", 1.0, before));
    assert!(!data.is_granted("d", 1.0, before + ms(LEASE) - 1));
    assert!(data.is_granted("d", 1.0, before + ms(LEASE)));
    let keep_for = Some(OPEN);
    data.operate(&Operation { keep_for, ..operation(Action::ForceOpen) }, START);
    data.vote("a", false, ONE, before);
    assert_eq!(data.record(CIRCUIT, before + ms(OPEN) - 1).manual, Some(Override::ForcedOpen));
    assert_eq!(data.record(CIRCUIT, before + ms(OPEN)).manual, None);
}

#[test]
fn clock_step_forward_ends_times_early() {
    let mut data = CircuitData::default();
    data.vote("a", false, HALF, START);
    data.vote("b", true, HALF, START + ms(LIFETIME) - 1);
    let later = START + HOUR;
    let synced = data.vote("b", true, HALF, later);
    assert_eq!((synced.members, synced.warming_up, synced.record), (1, true, None));
    data.do_operate(Action::Trip, later);
    assert!(data.is_granted("a", 1.0, later + ms(OPEN)));
}

/// Sends a message with a success or failures of this age. The limit is two failures that span 5 s.
fn send(data: &mut CircuitData, instance: &str, success: bool, age: u64, now: u64) -> Synced {
    let age = Duration::from_millis(age);
    let ballot = if success {
        Ballot { since_success: Some(age), ..Ballot::default() }
    } else {
        Ballot { failure_ages: vec![age, Duration::ZERO], ..Ballot::default() }
    };
    let quorum = Quorum::at_least(1).rule(2, Duration::from_secs(5));
    data.sync(&request(instance), &SyncCircuit { ballot, ..circuit(false, quorum) }, now).0
}

#[test]
fn success_outlives_forgotten_record() {
    let mut data = CircuitData::default();
    data.do_operate(Action::Reset, START);
    let forgotten = START + ms(GRACE);
    send(&mut data, "a", true, 0, forgotten - 1);
    let synced = send(&mut data, "b", false, 9000, forgotten);
    assert_eq!((synced.record, data.epoch), (None, 0), "one failure is before the success");
}

#[test]
fn success_from_before_clock_step_back_is_as_old_as_the_step() {
    let mut data = CircuitData::default();
    send(&mut data, "a", true, 0, START);
    let before = START - HOUR;
    data.vote("a", false, ONE, before);
    let synced = send(&mut data, "b", false, 4999, before + 4999);
    assert_eq!(synced.record, None, "they do not span the time");
    assert!(send(&mut data, "b", false, 5000, before + 5000).record.is_some());
}

#[test]
fn failures_from_before_clock_step_back_are_as_old_as_the_step() {
    let mut data = CircuitData::default();
    assert_eq!(send(&mut data, "a", false, 4000, START).record, None);
    let before = START - HOUR;
    for now in [before, before + 4999] {
        let synced = send(&mut data, "b", false, 0, now);
        assert_eq!(synced.record, None, "they do not span the time");
    }
    assert!(send(&mut data, "b", false, 0, before + 5000).record.is_some());
}

#[test]
fn lost_majority_of_members_delays_decisions_for_one_lifetime() {
    let lifetime = ms(LIFETIME);
    let mut data = CircuitData::default();
    for instance in ["a", "b", "c", "d", "e", "f"] {
        data.vote(instance, false, HALF, START);
    }
    let now = START + lifetime - 1;
    for instance in ["a", "b"] {
        assert!(data.vote(instance, false, HALF, now).warming_up);
    }
    // Four of six expire. The votes of the two others are half of the members that are known now.
    let now = START + lifetime;
    for instance in ["a", "b"] {
        let synced = data.vote(instance, true, HALF, now);
        assert_eq!((synced.members, synced.votes_needed, synced.warming_up), (2, 2, true));
        assert_eq!(synced.record, None);
    }
    assert!(data.vote("a", true, HALF, now + lifetime - 1).warming_up);
    assert_eq!(data.vote("b", true, HALF, now + lifetime - 1).record, None);
    let synced = data.vote("b", true, HALF, now + lifetime);
    assert!(!synced.warming_up);
    assert_eq!(synced.record.expect("two of two open").state, FleetState::Open);
}

#[test]
fn loss_of_all_members_delays_decisions_for_one_lifetime() {
    let lifetime = ms(LIFETIME);
    let mut data = CircuitData::default();
    for instance in ["a", "b", "c"] {
        data.vote(instance, false, HALF, START);
    }
    data.vote("d", false, HALF, START + lifetime / 2);
    // The store has forgotten all but one. Two are half of the members that it knows now.
    let now = START + 2 * lifetime;
    for instance in ["a", "b"] {
        let synced = data.vote(instance, true, HALF, now);
        assert_eq!((synced.warming_up, synced.record), (true, None));
    }
    assert!(data.vote("a", true, HALF, now + lifetime - 1).warming_up);
    assert_eq!(data.vote("b", true, HALF, now + lifetime - 1).record, None);
    assert!(data.vote("b", true, HALF, now + lifetime).record.is_some());
}

#[test]
fn lost_half_of_members_delays_no_decision() {
    let mut data = CircuitData::default();
    for instance in ["a", "b", "c", "d"] {
        data.vote(instance, false, HALF, START);
    }
    for instance in ["a", "b"] {
        data.vote(instance, false, HALF, START + ms(LIFETIME) - 1);
    }
    assert!(!data.vote("a", true, HALF, START + ms(LIFETIME)).warming_up);
    assert!(data.vote("b", true, HALF, START + ms(LIFETIME)).record.is_some());
}

#[test]
fn leaving_members_delay_no_decision() {
    let mut data = CircuitData::default();
    for instance in ["a", "b", "c", "d", "e"] {
        data.vote(instance, false, HALF, START);
    }
    let now = START + ms(LIFETIME) - 1;
    for instance in ["a", "b"] {
        data.vote(instance, false, HALF, now);
    }
    for instance in ["c", "d", "e"] {
        data.sync(&request(instance), &SyncCircuit { member: false, ..circuit(false, HALF) }, now);
    }
    data.vote("a", true, HALF, START + ms(LIFETIME));
    let synced = data.vote("b", true, HALF, START + ms(LIFETIME));
    assert_eq!((synced.members, synced.warming_up, synced.record.is_some()), (2, false, true));
}

#[test]
fn override_end_has_same_epoch_for_reader_and_writer() {
    let mut data = CircuitData::default();
    let keep_for = Some(OPEN);
    let (forced, _) = data.operate(&Operation { keep_for, ..operation(Action::ForceOpen) }, START);
    let end = START + ms(OPEN);
    let read = data.record(CIRCUIT, end + 5000);
    assert_eq!((read.epoch, read.state, read.manual), (end, FleetState::Open, None));
    assert!(read.epoch > forced.record.epoch);
    let expected_epoch = Some(read.epoch);
    let reset = Operation { expected_epoch, ..operation(Action::Reset) };
    let (reply, updates) = data.operate(&reset, end + 9000);
    assert!(reply.applied);
    assert_eq!(updates, [crate::store::Update::Record(reply.record)]);
}

#[test]
fn override_end_is_published_by_each_message() {
    let mut data = CircuitData::default();
    let keep_for = Some(OPEN);
    data.operate(&Operation { keep_for, ..operation(Action::ForceClosed) }, START);
    let end = START + ms(OPEN);
    let (_, updates) = data.clone().sync(&request("a"), &circuit(false, ONE), end);
    assert_eq!(updates.len(), 1);
    let (reply, updates) = data.clone().lease(&lease_request("a", 1.0), end);
    assert_eq!((reply.granted, updates.len()), (false, 1));
    let (record, updates) = data.clone().complete(&completed("a", 0, ProbeOutcome::Success), end);
    assert_eq!((record.manual, updates.len()), (None, 1));
    let refused = Operation { expected_epoch: Some(1), ..operation(Action::Reset) };
    let (reply, updates) = data.operate(&refused, end);
    assert_eq!((reply.applied, updates.len()), (false, 1));
}
