//! Deadlines from before the clock of the server was set back.

use std::time::Duration;

use super::server::shared;
use super::{HALF, circuit, connect, heartbeat, lease, operation};
use crate::quorum::Quorum;
use crate::store::{Action, Ballot, Operation, SyncCircuit};

#[tokio::test]
async fn open_time_after_clock_step_is_at_most_its_length() {
    let server = shared().await;
    let store = server.with_schema("step_open").await;
    let mut session = connect(&store, "test").await;
    let short = Duration::from_millis(300);
    session.operate(&Operation { open_for: Some(short), ..operation("open", Action::Trip) }).await.unwrap();
    session
        .operate(&Operation { keep_for: Some(short), ..operation("forced", Action::ForceOpen) })
        .await
        .unwrap();
    let step = "UPDATE step_open.breaker_circuit SET until_ms = until_ms + 3600000, \
                manual_until_ms = manual_until_ms + 3600000";
    server.admin().await.run(step).await;
    let circuits = || vec![circuit("open", false, HALF), circuit("forced", false, HALF)];
    let wait = async {
        loop {
            let synced = session.sync(&heartbeat("a", circuits())).await.unwrap();
            let [open, forced] = [0, 1].map(|index| synced[index].record.clone().unwrap());
            assert!(
                open.remaining.unwrap() <= short && forced.manual_remaining.is_none_or(|left| left <= short)
            );
            if open.remaining == Some(Duration::ZERO) && forced.manual.is_none() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::DEADLINE, wait).await.expect("both end");
}

#[tokio::test]
async fn members_from_before_clock_step_do_not_count() {
    let server = shared().await;
    let store = server.with_schema("step_members").await;
    let mut session = connect(&store, "test").await;
    let members = ["b", "c", "d"];
    for instance in members {
        session.sync(&heartbeat(instance, vec![circuit("search", true, HALF)])).await.unwrap();
    }
    let mut admin = server.admin().await;
    // The warm-up is over, and the clock is set back.
    admin
        .run("UPDATE step_members.breaker_member SET warm_until_ms = 0, until_ms = until_ms + 3600000")
        .await;
    let vote = heartbeat("a", vec![circuit("search", true, HALF)]);
    let synced = session.sync(&vote).await.unwrap().remove(0);
    assert_eq!((synced.members, synced.votes), (1, 1));
    assert!(synced.warming_up, "most members have not reported since");
    for instance in members {
        session.sync(&heartbeat(instance, vec![circuit("search", false, HALF)])).await.unwrap();
    }
    // No member was live after the step, so the warm-up has begun again.
    for is_warming_up in [true, false] {
        let synced = session.sync(&vote).await.unwrap().remove(0);
        assert_eq!((synced.members, synced.votes, synced.warming_up), (4, 1, is_warming_up));
        admin.run("UPDATE step_members.breaker_member SET warm_until_ms = 0").await;
    }
}

#[tokio::test]
async fn success_and_failures_from_before_clock_step_do_not_count() {
    let server = shared().await;
    let store = server.with_schema("step_success").await;
    let mut session = connect(&store, "test").await;
    let quorum = Quorum::at_least(1).rule(2, Duration::ZERO);
    let circuit = |ballot| SyncCircuit { ballot, ..circuit("search", false, quorum) };
    let failing = |failures| {
        circuit(Ballot { failure_ages: vec![Duration::from_secs(1); failures], ..Ballot::default() })
    };
    let success = Ballot { since_success: Some(Duration::from_secs(2)), ..Ballot::default() };
    session.sync(&heartbeat("a", vec![circuit(success)])).await.unwrap();
    session.sync(&heartbeat("b", vec![failing(1)])).await.unwrap();
    let step = "UPDATE step_success.breaker_member SET until_ms = until_ms + 3600000, \
                success_ms = success_ms + 3600000, failed_ms = ARRAY(SELECT unnest(failed_ms) + 3600000)";
    server.admin().await.run(step).await;
    for (failures, opens) in [(1, false), (2, true)] {
        let synced = session.sync(&heartbeat("c", vec![failing(failures)])).await.unwrap().remove(0);
        assert_eq!(synced.record.is_some(), opens, "{synced:?}");
    }
}

#[tokio::test]
async fn lease_from_before_clock_step_is_over() {
    let server = shared().await;
    let store = server.with_schema("step_lease").await;
    let mut session = connect(&store, "test").await;
    session
        .operate(&Operation { open_for: Some(Duration::ZERO), ..operation("search", Action::Trip) })
        .await
        .unwrap();
    assert!(session.lease(&lease("search")).await.unwrap().granted);
    let other = crate::store::LeaseRequest { instance: "b".to_owned(), ..lease("search") };
    assert!(!session.lease(&other).await.unwrap().granted);
    server.admin().await.run("UPDATE step_lease.breaker_lease SET until_ms = until_ms + 3600000").await;
    assert!(session.lease(&other).await.unwrap().granted);
}
