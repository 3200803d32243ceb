//! Membership and ballots.

use std::time::Duration;

use super::helpers::{CIRCUIT, LONG, SHORT, connect, member, namespace, operation, voter, votes};
use crate::quorum::Quorum;
use crate::record::FleetState;
use crate::store::{Action, Backend, Ballot, QuorumRule, SyncCircuit, SyncRequest, Update};

/// At least two, and half of the members.
const MAJORITY: QuorumRule = Quorum::majority().rule(0, Duration::ZERO);

pub(crate) async fn quorum_opens_at_votes_needed(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for (instance, votes_so_far) in [("a", 1), ("b", 2)] {
        let synced = client.sync(instance, voter(votes(3))).await;
        assert_eq!((synced.votes, synced.votes_needed, synced.record), (votes_so_far, 3, None));
    }
    let synced = client.sync("c", voter(votes(3))).await;
    let record = synced.record.expect("three votes open");
    assert_eq!((record.state, &*record.reason, &*record.by), (FleetState::Open, "quorum", "c"));
    assert_eq!((&*record.circuit, record.manual), (CIRCUIT, None));
    let remaining = record.remaining.expect("an open time");
    assert!(remaining <= LONG && remaining > LONG / 2, "{remaining:?}");
    assert_eq!((synced.members, synced.votes), (3, 0), "opening clears the ballots");
}

pub(crate) async fn share_of_members_opens_and_minority_does_not(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.establish(&["a", "b", "c", "d", "e"], MAJORITY).await;
    for _ in 0..3 {
        for instance in ["a", "b"] {
            let synced = client.sync(instance, voter(MAJORITY)).await;
            assert_eq!((synced.members, synced.votes_needed, synced.record), (5, 3, None));
        }
    }
    let synced = client.sync("c", voter(MAJORITY)).await;
    assert_eq!(synced.record.expect("three of five open").state, FleetState::Open);
}

pub(crate) async fn warm_up_without_earlier_members_decides_nothing(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for instance in ["a", "b", "c"] {
        let synced = client.sync_for(LONG, instance, voter(MAJORITY)).await;
        assert!(synced.warming_up);
        assert_eq!(synced.record, None);
    }
    // A quorum without a share does not depend on the number of members.
    let synced = client.sync_for(LONG, "d", voter(votes(4))).await;
    assert!(!synced.warming_up);
    assert_eq!(synced.record.expect("four votes open").state, FleetState::Open);
}

pub(crate) async fn warm_up_begins_again_after_all_members_have_expired(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.establish(&["a", "b", "c"], MAJORITY).await;
    for instance in ["a", "b"] {
        client.sync_for(SHORT, instance, member(MAJORITY)).await;
    }
    client.sync_for(3 * SHORT, "c", member(MAJORITY)).await;
    // All have expired, and the store has forgotten all but one.
    tokio::time::sleep(4 * SHORT).await;
    for instance in ["a", "b"] {
        let synced = client.sync(instance, voter(MAJORITY)).await;
        assert_eq!((synced.warming_up, synced.record), (true, None));
    }
}

/// A quorum of one vote, or of this many consecutive failures.
fn sum(limit: u32) -> QuorumRule {
    Quorum::at_least(1).rule(limit, Duration::ZERO)
}

/// A member with failures of these ages, in seconds. Five of all members open. The ages differ by
/// more than a scenario takes.
fn failing(ages: &[u64]) -> SyncCircuit {
    let failure_ages = ages.iter().copied().map(Duration::from_secs).collect();
    SyncCircuit { ballot: Ballot { failure_ages, ..Ballot::default() }, ..member(sum(5)) }
}

/// A member whose last success is this old, in seconds.
fn succeeding(age: u64) -> SyncCircuit {
    let since_success = Some(Duration::from_secs(age));
    SyncCircuit { ballot: Ballot { since_success, ..Ballot::default() }, ..member(sum(5)) }
}

pub(crate) async fn consecutive_failures_of_all_members_open(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for instance in ["a", "b"] {
        assert_eq!(client.sync(instance, failing(&[40, 20])).await.record, None);
        assert_eq!(client.sync(instance, failing(&[40, 20])).await.record, None, "a repeated state");
    }
    let record = client.sync("c", failing(&[0])).await.record.expect("five failures open");
    assert_eq!((record.state, &*record.reason, &*record.by), (FleetState::Open, "consecutive failures", "c"));
    let epoch = client.sync("d", failing(&[0; 5])).await.record.map(|record| record.epoch);
    assert_eq!(epoch, Some(record.epoch), "they do not open an open circuit again");
    assert!(client.operate(operation(Action::Reset)).await.applied);
    let synced = client.sync("d", failing(&[0; 4])).await;
    assert_eq!(synced.record.map(|record| record.state), Some(FleetState::Closed));
}

pub(crate) async fn consecutive_failures_before_success_of_any_member_do_not_count(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    assert_eq!(client.sync("a", failing(&[60, 60, 60, 0])).await.record, None);
    assert_eq!(client.sync("b", succeeding(40)).await.record, None);
    assert_eq!(client.sync("c", failing(&[60; 5])).await.record, None);
    assert_eq!(client.sync("b", failing(&[20, 0])).await.record, None);
    assert_eq!(client.sync("c", failing(&[60, 60, 0])).await.record, None, "one of a, two of b, one of c");
    assert!(client.sync("d", failing(&[60, 20])).await.record.is_some());
}

pub(crate) async fn latest_success_counts_after_late_message_and_leave(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for age in [20, 40] {
        assert_eq!(client.sync("a", succeeding(age)).await.record, None);
    }
    assert_eq!(client.sync("b", failing(&[30; 5])).await.record, None);
    client.sync("a", SyncCircuit { member: false, ..member(sum(5)) }).await;
    assert_eq!(client.sync("c", failing(&[30; 5])).await.record, None);
    assert!(client.sync("c", failing(&[10; 5])).await.record.is_some());
}

pub(crate) async fn success_without_membership_does_not_count(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.sync("a", failing(&[20; 4])).await;
    client.sync("b", SyncCircuit { member: false, ..succeeding(0) }).await;
    assert!(client.sync("c", failing(&[20])).await.record.is_some());
}

pub(crate) async fn consecutive_failures_open_when_they_span_time(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let quorum = Quorum::at_least(1).rule(5, Duration::from_secs(40));
    let failing = |ages: &[u64]| SyncCircuit { quorum, ..failing(ages) };
    assert_eq!(client.sync("a", succeeding(70)).await.record, None);
    assert_eq!(client.sync("b", failing(&[90, 20, 20, 20])).await.record, None);
    let synced = client.sync("c", failing(&[90, 20, 20])).await;
    assert_eq!(synced.record, None, "the first of five failures since the success is too young");
    let record = client.sync("b", failing(&[50, 20, 20])).await.record.expect("they span the time");
    assert_eq!((record.state, &*record.by), (FleetState::Open, "b"));
}

pub(crate) async fn consecutive_failures_without_limit_do_not_open(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for instance in ["a", "b"] {
        let circuit = SyncCircuit { quorum: votes(1), ..failing(&[0; 100]) };
        assert_eq!(client.sync(instance, circuit).await.record, None);
    }
}

pub(crate) async fn message_without_ballot_decides_nothing(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    assert_eq!(client.sync("a", failing(&[0; 3])).await.record, None);
    let synced = client.sync("b", member(sum(3))).await;
    assert_eq!(synced.record, None, "a lower limit, without a failure");
    client.sync("c", succeeding(20)).await;
    let with_limit = |circuit| SyncCircuit { quorum: sum(3), ..circuit };
    let synced = client.sync("b", with_limit(failing(&[40]))).await;
    assert_eq!(synced.record, None, "a lower limit, with a failure before a success");
    assert!(client.sync("b", with_limit(failing(&[0]))).await.record.is_some());
    // The votes of two are enough when another member leaves. The next vote decides.
    let mut client = connect(backend, &namespace()).await;
    client.establish(&["a", "b", "c", "d", "e"], MAJORITY).await;
    for instance in ["a", "b"] {
        assert_eq!(client.sync(instance, voter(MAJORITY)).await.record, None);
    }
    let leave = SyncCircuit { member: false, ..member(MAJORITY) };
    let synced = client.sync("e", leave).await;
    assert_eq!((synced.votes, synced.votes_needed, synced.record), (2, 2, None));
    assert_eq!(client.sync("d", member(MAJORITY)).await.record, None);
    assert!(client.sync("a", voter(MAJORITY)).await.record.is_some());
}

pub(crate) async fn repeated_votes_count_once(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for _ in 0..5 {
        let synced = client.sync("a", voter(votes(2))).await;
        assert_eq!((synced.members, synced.votes, synced.record), (1, 1, None));
    }
    let synced = client.sync("a", member(votes(2))).await;
    assert_eq!((synced.members, synced.votes), (1, 0), "the vote is taken back");
    assert_eq!(client.sync("b", voter(votes(2))).await.record, None);
}

pub(crate) async fn vote_expires_with_membership(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.sync_for(SHORT, "a", voter(votes(2))).await;
    client.sync("b", member(votes(2))).await;
    client
        .poll(async |client| {
            let synced = client.sync("b", member(votes(2))).await;
            (synced.members == 1).then(|| assert_eq!(synced.votes, 0))
        })
        .await;
    assert_eq!(client.sync("b", voter(votes(2))).await.record, None);
}

pub(crate) async fn leave_removes_member_and_ballot(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.sync("a", voter(votes(2))).await;
    let synced = client.sync("b", member(votes(2))).await;
    assert_eq!((synced.members, synced.votes), (2, 1));
    let leave = SyncCircuit { member: false, ..voter(votes(2)) };
    for _ in 0..2 {
        let synced = client.sync("a", leave.clone()).await;
        assert_eq!((synced.members, synced.votes), (1, 0));
    }
    assert_eq!(client.sync("b", voter(votes(2))).await.record, None);
}

pub(crate) async fn votes_in_open_circuit_do_not_count(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let opened = client.sync("a", voter(votes(1))).await.record.expect("one vote opens");
    for instance in ["a", "b"] {
        let synced = client.sync(instance, voter(votes(1))).await;
        assert_eq!((synced.votes, synced.record.map(|record| record.epoch)), (0, Some(opened.epoch)));
    }
    assert!(client.operate(operation(Action::Reset)).await.applied);
    let synced = client.sync("c", member(votes(1))).await;
    assert_eq!((synced.votes, synced.record.map(|record| record.state)), (0, Some(FleetState::Closed)));
}

pub(crate) async fn concurrent_votes_open_one_epoch(backend: &dyn Backend) {
    const SESSIONS: usize = 8;
    const VOTERS: usize = 104;
    let namespace = namespace();
    let mut watcher = connect(backend, &namespace).await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(connect(backend, &namespace).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut epochs = Vec::new();
            for voters in 0..VOTERS / SESSIONS {
                let instance = format!("{number}-{voters}");
                let synced = client.sync(&instance, voter(votes(VOTERS as u32 / 2))).await;
                epochs.extend(synced.record.map(|record| record.epoch));
            }
            epochs
        });
    }
    let mut epochs = tasks.join_all().await.concat();
    epochs.dedup();
    assert_eq!(epochs.len(), 1, "{epochs:?}");
    let update = watcher.update_with(|update| matches!(update, Update::Record(_))).await;
    let Update::Record(record) = update else { unreachable!("only records match") };
    assert_eq!((record.state, record.epoch), (FleetState::Open, epochs[0]));
    // One message with several circuits has one reply for each, in its order.
    let circuits =
        [CIRCUIT, "second", "third"].map(|name| SyncCircuit { name: name.to_owned(), ..member(votes(2)) });
    let lifetime = Duration::from_secs(60);
    let request =
        SyncRequest { instance: "several".to_owned(), lifetime, grace: LONG, circuits: circuits.to_vec() };
    let replies = watcher.sync_request(&request).await;
    let epochs = replies.iter().map(|synced| synced.record.as_ref().map(|record| record.epoch));
    assert_eq!(epochs.collect::<Vec<_>>(), [Some(record.epoch), None, None]);
}
