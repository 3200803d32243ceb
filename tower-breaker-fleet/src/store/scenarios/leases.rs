//! Leases of probes, and their outcomes.

use std::time::Duration;

use super::helpers::{CIRCUIT, LONG, SHORT, completed, connect, lease, namespace, operation, voter, votes};
use crate::record::FleetState;
use crate::store::{Action, Backend, LeaseRequest, Operation, ProbeOutcome, Update};

pub(crate) async fn lease_before_open_time_is_over_is_denied(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let reply = client.lease(lease("a", 3)).await;
    assert!(!reply.granted, "a closed circuit has no probes");
    assert_eq!((reply.record.epoch, reply.record.state), (0, FleetState::Closed));
    let opened = client.sync("a", voter(votes(1))).await.record.expect("one vote opens");
    let reply = client.lease(lease("a", 3)).await;
    assert!(!reply.granted);
    assert_eq!((reply.record.epoch, reply.record.state), (opened.epoch, FleetState::Open));
    assert!(reply.retry_after > LONG / 2 && reply.retry_after <= LONG, "{:?}", reply.retry_after);
    // Open until it is reset: no time after which a probe may run.
    assert!(client.operate(Operation { open_for: None, ..operation(Action::Trip) }).await.applied);
    let reply = client.lease(lease("a", 3)).await;
    assert!(!reply.granted && reply.retry_after > Duration::ZERO);
    assert_eq!((reply.record.state, reply.record.remaining), (FleetState::Open, None));
}

pub(crate) async fn leases_are_limited(backend: &dyn Backend) {
    let namespace = namespace();
    let mut client = connect(backend, &namespace).await;
    let mut watcher = connect(backend, &namespace).await;
    let epoch = client.half_open(lease("a", 2)).await;
    assert!(client.lease(lease("b", 2)).await.granted);
    let denied = client.lease(lease("c", 2)).await;
    assert!(!denied.granted);
    assert!(denied.retry_after > LONG / 2 && denied.retry_after <= LONG, "{:?}", denied.retry_after);
    assert_eq!((denied.record.epoch, denied.record.state), (epoch, FleetState::HalfOpen));
    assert!(client.lease(lease("a", 2)).await.granted, "a repeated request");
    assert!(!client.lease(lease("c", 2)).await.granted, "a repeated request takes no second slot");
    // A slot becomes free, and the processes are notified.
    watcher.update_with(|update| matches!(update, Update::SlotsTaken { .. })).await;
    let record = client.complete(completed("b", epoch, ProbeOutcome::Neutral)).await;
    assert_eq!((record.epoch, record.state), (epoch, FleetState::HalfOpen));
    let freed = |update: &Update| matches!(update, Update::Record(record) if record.epoch == epoch);
    watcher.update_with(freed).await;
    assert!(client.lease(lease("c", 2)).await.granted);
}

fn reservation(instance: &str, weight: f64) -> LeaseRequest {
    LeaseRequest { weight, ..lease(instance, 1) }
}

pub(crate) async fn weights_of_leases_are_limited(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let epoch = client.half_open(reservation("a", 0.3)).await;
    assert!(client.lease(reservation("b", 0.3)).await.granted);
    assert!(client.lease(reservation("c", 0.4)).await.granted, "the sum is exactly one");
    assert!(!client.lease(reservation("d", 0.1)).await.granted);
    client.complete(completed("b", epoch, ProbeOutcome::Neutral)).await;
    assert!(!client.lease(reservation("d", 0.4)).await.granted);
    assert!(client.lease(reservation("d", 0.3)).await.granted);
}

pub(crate) async fn lease_expires(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.half_open(LeaseRequest { lease: SHORT, ..lease("a", 1) }).await;
    client
        .poll(async |client| {
            let reply = client.lease(lease("b", 1)).await;
            assert!(reply.granted || reply.retry_after <= SHORT);
            reply.granted.then_some(())
        })
        .await;
    assert!(!client.lease(lease("a", 1)).await.granted);
}

pub(crate) async fn half_open_record_lasts_as_long_as_last_lease(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.half_open(LeaseRequest { lease: SHORT, ..lease("a", 3) }).await;
    let longer = client.lease(lease("b", 3)).await.record.remaining;
    assert!(longer.is_some_and(|remaining| remaining > LONG / 2 && remaining <= LONG), "{longer:?}");
    let shorter = client.lease(LeaseRequest { lease: SHORT, ..lease("c", 3) }).await.record.remaining;
    assert!(shorter.is_some_and(|remaining| remaining > LONG / 2 && remaining <= LONG), "{shorter:?}");
}

pub(crate) async fn begun_probe_extends_its_lease(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let short = |instance, weight| LeaseRequest { lease: SHORT, ..reservation(instance, weight) };
    client.half_open(short("a", 0.5)).await;
    client.lease(short("b", 0.5)).await;
    // Both reservations may have expired on a slow machine, so `a` asks until it has a lease.
    client.poll(async |client| client.lease(reservation("a", 1.0)).await.granted.then_some(())).await;
    // A late message of the reservation shortens nothing.
    assert!(client.lease(short("a", 0.5)).await.granted);
    let denied = client
        .poll(async |client| {
            let denied = client.lease(reservation("c", 1.0)).await;
            assert!(!denied.granted);
            (denied.retry_after > SHORT).then_some(denied)
        })
        .await;
    assert!(denied.retry_after <= LONG, "{:?}", denied.retry_after);
    assert!(!client.lease(reservation("d", 0.001)).await.granted, "the probe takes the whole slot");
}

pub(crate) async fn last_begun_probe_publishes_slots_taken(backend: &dyn Backend) {
    let namespace = namespace();
    let mut client = connect(backend, &namespace).await;
    let mut watcher = connect(backend, &namespace).await;
    let epoch = client.half_open(LeaseRequest { weight: 0.5, ..lease("a", 2) }).await;
    assert!(client.lease(lease("b", 2)).await.granted);
    assert!(client.lease(LeaseRequest { weight: 0.5, ..lease("c", 2) }).await.granted);
    assert!(client.lease(lease("a", 2)).await.granted, "the second probe begins");
    let taken = |update: &Update| matches!(update, Update::SlotsTaken { .. });
    let Update::SlotsTaken { circuit, epoch: taken_in, retry_after } = watcher.update_with(taken).await
    else {
        unreachable!("only this update matches")
    };
    assert_eq!((&*circuit, taken_in), (CIRCUIT, epoch));
    assert!(retry_after > LONG / 2 && retry_after <= LONG, "{retry_after:?}");
    assert!(client.lease(lease("a", 2)).await.granted, "a repeated request publishes nothing");
    // The others have published nothing: the next update is the free slot.
    client.complete(completed("b", epoch, ProbeOutcome::Neutral)).await;
    let next = watcher.update_with(|_| true).await;
    assert!(matches!(next, Update::Record(record) if record.epoch == epoch));
}

pub(crate) async fn ended_reservation_publishes_nothing(backend: &dyn Backend) {
    let namespace = namespace();
    let mut client = connect(backend, &namespace).await;
    let mut watcher = connect(backend, &namespace).await;
    let epoch = client.half_open(reservation("a", 0.5)).await;
    watcher.update_with(|update| matches!(update, Update::Record(record) if record.epoch == epoch)).await;
    client.complete(completed("a", epoch, ProbeOutcome::Neutral)).await;
    let reset = client.operate(operation(Action::Reset)).await.record;
    let next = watcher.update_with(|_| true).await;
    assert!(matches!(next, Update::Record(record) if record.epoch == reset.epoch));
}

pub(crate) async fn successes_close(backend: &dyn Backend) {
    let namespace = namespace();
    let mut client = connect(backend, &namespace).await;
    let mut watcher = connect(backend, &namespace).await;
    let epoch = client.half_open(lease("a", 3)).await;
    let record = client.complete(completed("a", epoch, ProbeOutcome::Success)).await;
    assert_eq!((record.epoch, record.state), (epoch, FleetState::HalfOpen));
    assert!(client.lease(lease("b", 3)).await.granted);
    client.complete(completed("b", epoch, ProbeOutcome::Neutral)).await;
    assert!(client.lease(lease("a", 3)).await.granted, "one process may send several probes");
    let record = client.complete(completed("a", epoch, ProbeOutcome::Success)).await;
    assert!(record.epoch > epoch);
    assert_eq!((record.state, record.remaining), (FleetState::Closed, Some(Duration::ZERO)));
    assert_eq!((&*record.reason, &*record.by), ("probes succeeded", "a"));
    let closed = |update: &Update| matches!(update, Update::Record(update) if update.epoch == record.epoch);
    watcher.update_with(closed).await;
}

pub(crate) async fn failures_open_again(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let epoch = client.half_open(lease("a", 3)).await;
    assert!(client.lease(lease("b", 3)).await.granted);
    assert!(client.lease(lease("c", 3)).await.granted);
    client.complete(completed("a", epoch, ProbeOutcome::Failure)).await;
    client.complete(completed("b", epoch, ProbeOutcome::Success)).await;
    let record = client.complete(completed("c", epoch, ProbeOutcome::Failure)).await;
    assert!(record.epoch > epoch);
    assert_eq!((record.state, &*record.reason), (FleetState::Open, "probes failed"));
    let remaining = record.remaining.expect("an open time");
    assert!(remaining > LONG / 2 && remaining <= LONG, "{remaining:?}");
    assert!(!client.lease(lease("a", 3)).await.granted, "the open time begins again");
}

pub(crate) async fn one_failure_of_several_probes_frees_slot(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let epoch = client.half_open(lease("a", 1)).await;
    assert!(!client.lease(lease("b", 1)).await.granted);
    let record = client.complete(completed("a", epoch, ProbeOutcome::Failure)).await;
    assert_eq!(
        (record.epoch, record.state),
        (epoch, FleetState::HalfOpen),
        "one bad process decides nothing"
    );
    assert!(client.lease(lease("b", 1)).await.granted);
}

pub(crate) async fn late_outcome_of_other_epoch_is_ignored(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let first = client.half_open(lease("a", 3)).await;
    let second = client.half_open(lease("a", 3)).await;
    assert!(second > first);
    for outcome in
        [ProbeOutcome::Success, ProbeOutcome::Success, ProbeOutcome::Failure, ProbeOutcome::Failure]
    {
        let record = client.complete(completed("a", first, outcome)).await;
        assert_eq!((record.epoch, record.state), (second, FleetState::HalfOpen));
    }
    let opened = client.operate(operation(Action::Trip)).await.record;
    for epoch in [second, opened.epoch] {
        let record = client.complete(completed("a", epoch, ProbeOutcome::Success)).await;
        assert_eq!((record.epoch, record.state), (opened.epoch, FleetState::Open));
    }
}

pub(crate) async fn new_round_begins_without_leases_and_outcomes(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let first = client.half_open(lease("a", 2)).await;
    assert!(client.lease(lease("b", 2)).await.granted);
    for (instance, outcome) in [("a", ProbeOutcome::Success), ("b", ProbeOutcome::Failure)] {
        let record = client.complete(completed(instance, first, outcome)).await;
        assert_eq!(record.epoch, first);
    }
    for instance in ["a", "b"] {
        assert!(client.lease(lease(instance, 2)).await.granted);
    }
    // The two slots of the first round are taken, and it has one success and one failure.
    let second = client.half_open(lease("c", 2)).await;
    assert!(client.lease(lease("d", 2)).await.granted);
    for (instance, outcome) in [("c", ProbeOutcome::Success), ("d", ProbeOutcome::Failure)] {
        let record = client.complete(completed(instance, second, outcome)).await;
        assert_eq!((record.epoch, record.state), (second, FleetState::HalfOpen));
    }
}

pub(crate) async fn repeated_outcome_counts_once(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let epoch = client.half_open(lease("a", 3)).await;
    assert!(client.lease(lease("b", 3)).await.granted);
    for _ in 0..3 {
        let record = client.complete(completed("a", epoch, ProbeOutcome::Success)).await;
        assert_eq!((record.epoch, record.state), (epoch, FleetState::HalfOpen));
    }
    let record = client.complete(completed("without lease", epoch, ProbeOutcome::Success)).await;
    assert_eq!(record.epoch, epoch);
    let record = client.complete(completed("b", epoch, ProbeOutcome::Success)).await;
    assert_eq!(record.state, FleetState::Closed);
}

pub(crate) async fn late_outcome_of_expired_lease_counts(backend: &dyn Backend) {
    let lease_of = Duration::from_secs(1);
    let mut client = connect(backend, &namespace()).await;
    let epoch = client.half_open(LeaseRequest { lease: lease_of, ..lease("a", 1) }).await;
    client.poll(async |client| client.lease(lease("b", 1)).await.granted.then_some(())).await;
    client.complete(completed("a", epoch, ProbeOutcome::Success)).await;
    assert!(!client.lease(lease("c", 1)).await.granted, "the late outcome frees no slot of others");
    let record = client.complete(completed("b", epoch, ProbeOutcome::Success)).await;
    assert_eq!((record.state, &*record.reason), (FleetState::Closed, "probes succeeded"));
}
