//! Records, their loss, manual operations and texts.

use std::time::Duration;

use super::helpers::{
    CIRCUIT, LONG, SHORT, completed, connect, lease, member, namespace, operation, voter, votes,
};
use crate::record::{CircuitRecord, FleetState, Override};
use crate::store::{
    Action, Backend, Ballot, LocalOpen, Operation, ProbeOutcome, SyncCircuit, SyncRequest, Update,
};

fn knowing(record: &CircuitRecord) -> SyncCircuit {
    SyncCircuit { known: Some(record.clone()), ..member(votes(1)) }
}

fn is_about(remaining: Option<Duration>, expected: Duration) -> bool {
    remaining.is_some_and(|remaining| remaining <= expected && remaining > expected / 2)
}

pub(crate) async fn update_reaches_other_session(backend: &dyn Backend) {
    let namespace = namespace();
    let mut watcher = connect(backend, &namespace).await;
    let mut elsewhere = connect(backend, &self::namespace()).await;
    let mut client = connect(backend, &namespace).await;
    let opened = client.sync("a", voter(votes(1))).await.record.expect("one vote opens");
    let Update::Record(update) = watcher.update_with(|_| true).await else { panic!("no record") };
    assert_eq!((&*update.circuit, update.epoch, update.state), (CIRCUIT, opened.epoch, FleetState::Open));
    assert_eq!((&*update.reason, &*update.by), (&*opened.reason, &*opened.by));
    assert!(is_about(update.remaining, LONG));
    assert_eq!(elsewhere.record().await.epoch, 0, "another namespace");
}

pub(crate) async fn sync_returns_only_newer_record(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    assert_eq!(client.sync("a", member(votes(2))).await.record, None);
    let opened = client.operate(operation(Action::Trip)).await.record;
    assert_eq!(client.sync("a", knowing(&opened)).await.record, None);
    let reset = client.operate(operation(Action::Reset)).await.record;
    assert!(reset.epoch > opened.epoch);
    let newer = client.sync("a", knowing(&opened)).await.record.expect("a newer record");
    assert_eq!((newer.epoch, newer.state), (reset.epoch, FleetState::Closed));
}

pub(crate) async fn epoch_grows_over_loss_of_data(backend: &dyn Backend) {
    let mut before = connect(backend, &namespace()).await;
    let mut epoch = 0;
    for action in [Action::Trip, Action::Reset, Action::Trip] {
        let record = before.operate(operation(action)).await.record;
        assert!(record.epoch > epoch);
        epoch = record.epoch;
    }
    // An epoch is at least the store's time, and at most a few numbers ahead of it.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut after = connect(backend, &namespace()).await;
    let opened = after.sync("a", voter(votes(1))).await.record.expect("one vote opens");
    assert!(opened.epoch > epoch, "{} > {epoch}", opened.epoch);
}

pub(crate) async fn known_record_is_given_back(backend: &dyn Backend) {
    let mut before = connect(backend, &namespace()).await;
    let opened = before.operate(operation(Action::Trip)).await.record;
    let namespace = namespace();
    let mut after = connect(backend, &namespace).await;
    let mut watcher = connect(backend, &namespace).await;
    assert_eq!(after.sync("a", knowing(&opened)).await.record, None);
    let Update::Record(update) = watcher.update_with(|_| true).await else { panic!("no record") };
    assert_eq!((update.epoch, update.state), (opened.epoch, FleetState::Open));
    let restored = after.record().await;
    assert_eq!((restored.epoch, restored.state), (opened.epoch, FleetState::Open));
    assert_eq!((&*restored.reason, &*restored.by), ("maintenance", "ada"));
    assert!(is_about(restored.remaining, LONG));
    // A process with an older record gets the later one, and does not change it.
    let older = CircuitRecord { epoch: opened.epoch - 1, state: FleetState::Closed, ..opened.clone() };
    let newer = after.sync("b", knowing(&older)).await.record.expect("a newer record");
    assert_eq!((newer.epoch, newer.state), (opened.epoch, FleetState::Open));
    let endless = CircuitRecord { epoch: opened.epoch + 1, remaining: None, ..opened };
    after.sync("c", knowing(&endless)).await;
    assert_eq!(after.record().await.remaining, None, "open until it is reset");
}

pub(crate) async fn known_half_open_record_comes_back_as_open(backend: &dyn Backend) {
    let mut before = connect(backend, &namespace()).await;
    let epoch = before.half_open(lease("a", 1)).await;
    let half_open = before.record().await;
    let mut after = connect(backend, &namespace()).await;
    assert_eq!(after.sync("b", knowing(&half_open)).await.record, None);
    let restored = after.record().await;
    assert_eq!((restored.epoch, restored.state), (epoch, FleetState::Open));
    assert_eq!(restored.remaining, Some(Duration::ZERO));
    after.complete(completed("a", epoch, ProbeOutcome::Success)).await;
    let reply = after.lease(lease("b", 1)).await;
    assert!(reply.granted && reply.record.epoch > epoch);
}

pub(crate) async fn known_override_is_given_back(backend: &dyn Backend) {
    for (action, manual, keep_for) in [
        (Action::ForceOpen, Override::ForcedOpen, None),
        (Action::ForceClosed, Override::ForcedClosed, Some(LONG)),
    ] {
        let mut before = connect(backend, &namespace()).await;
        let forced = before.operate(Operation { keep_for, ..operation(action) }).await.record;
        let mut after = connect(backend, &namespace()).await;
        after.sync("a", knowing(&forced)).await;
        let restored = after.record().await;
        assert_eq!((restored.epoch, restored.manual), (forced.epoch, Some(manual)));
        assert_eq!(restored.manual_remaining.is_some(), keep_for.is_some());
        assert_eq!(after.sync("a", voter(votes(1))).await.votes, 0);
        // Its time is over when it is given back.
        let over = CircuitRecord { manual_remaining: Some(Duration::ZERO), ..forced.clone() };
        let mut late = connect(backend, &namespace()).await;
        let record = late.sync("a", knowing(&over)).await.record.expect("the override has ended");
        assert!(record.epoch > forced.epoch);
        assert_eq!((record.manual, record.manual_remaining), (None, None));
    }
}

pub(crate) async fn known_closed_record_is_lower_bound_of_next_epoch(backend: &dyn Backend) {
    let mut before = connect(backend, &namespace()).await;
    let closed = before.operate(operation(Action::Reset)).await.record;
    // The clock of the store steps back at the loss of its data.
    let known = CircuitRecord { epoch: closed.epoch + 1_000_000_000, ..closed };
    let mut after = connect(backend, &namespace()).await;
    assert_eq!(after.sync("a", knowing(&known)).await.record, None);
    assert_eq!(after.record().await.epoch, 0, "an empty store means closed already");
    let ballot = Ballot { vote: true, ..Ballot::default() };
    let synced = after.sync("a", SyncCircuit { ballot, ..knowing(&known) }).await;
    assert_eq!(synced.record.expect("one vote opens").epoch, known.epoch + 1);
}

pub(crate) async fn absurd_known_epoch_is_ignored(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let opened = client.operate(operation(Action::Trip)).await.record;
    for epoch in [crate::rules::MAX_EPOCH + 1, u64::MAX] {
        let known = CircuitRecord { epoch, state: FleetState::Closed, ..opened.clone() };
        let record = client.sync("a", knowing(&known)).await.record.expect("the record of the store");
        assert_eq!((record.epoch, record.state), (opened.epoch, FleetState::Open));
    }
}

pub(crate) async fn local_open_time_outlives_restart(backend: &dyn Backend) {
    let namespace = namespace();
    let local = |local| SyncCircuit { local, ..member(votes(2)) };
    let mut client = connect(backend, &namespace).await;
    client.sync("a", local(LocalOpen::For(LONG))).await;
    client.sync("b", local(LocalOpen::UntilReset)).await;
    client.sync("c", local(LocalOpen::For(SHORT))).await;
    drop(client);
    let mut client = connect(backend, &namespace).await;
    let LocalOpen::For(remaining) = client.sync("a", local(LocalOpen::Unknown)).await.local else {
        panic!("the open time of `a` is lost")
    };
    assert!(is_about(Some(remaining), LONG), "{remaining:?}");
    assert_eq!(client.sync("b", local(LocalOpen::Unknown)).await.local, LocalOpen::UntilReset);
    assert_eq!(client.sync("d", local(LocalOpen::Unknown)).await.local, LocalOpen::No);
    client.sync("a", local(LocalOpen::No)).await;
    client.sync("b", local(LocalOpen::No)).await;
    for instance in ["a", "b"] {
        assert_eq!(client.sync(instance, local(LocalOpen::Unknown)).await.local, LocalOpen::No);
    }
    client
        .poll(async |client| {
            let synced = client.sync("c", local(LocalOpen::Unknown)).await;
            (synced.local == LocalOpen::No).then_some(())
        })
        .await;
}

/// A member that is open on its local evidence as `local` says. No number of votes opens the fleet.
fn open_member(local: LocalOpen) -> SyncCircuit {
    SyncCircuit { local, ..member(votes(u32::MAX)) }
}

pub(crate) async fn members_open_on_local_evidence_are_counted(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let observer = SyncCircuit { member: false, ..open_member(LocalOpen::For(LONG)) };
    assert_eq!(client.sync("observer", observer).await.open_members, 0, "no member");
    for (instance, local, open_members) in [
        ("a", LocalOpen::For(LONG), 1),
        ("b", LocalOpen::UntilReset, 2),
        ("c", LocalOpen::No, 2),
        // Repeated messages.
        ("a", LocalOpen::For(LONG), 2),
        ("b", LocalOpen::UntilReset, 2),
        // A restart.
        ("a", LocalOpen::Unknown, 2),
        ("b", LocalOpen::Unknown, 2),
        ("c", LocalOpen::Unknown, 2),
        ("a", LocalOpen::No, 1),
    ] {
        let synced = client.sync(instance, open_member(local)).await;
        assert_eq!(synced.open_members, open_members, "{instance} {local:?}");
    }
    let leave = SyncCircuit { member: false, ..open_member(LocalOpen::UntilReset) };
    assert_eq!(client.sync("b", leave).await.open_members, 0);
    let back = client.sync("b", open_member(LocalOpen::Unknown)).await;
    assert_eq!((back.local, back.open_members), (LocalOpen::UntilReset, 1));
}

pub(crate) async fn open_member_counts_until_membership_or_open_time_ends(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.sync_for(SHORT, "dead", open_member(LocalOpen::For(LONG))).await;
    client.sync_for(SHORT, "dead too", open_member(LocalOpen::UntilReset)).await;
    client.sync("half-open", open_member(LocalOpen::For(SHORT))).await;
    client
        .poll(async |client| {
            let synced = client.sync("open", open_member(LocalOpen::UntilReset)).await;
            ((synced.members, synced.open_members) == (2, 1)).then_some(())
        })
        .await;
    let restarted = client.sync("dead", open_member(LocalOpen::Unknown)).await;
    assert_eq!((restarted.members, restarted.open_members), (3, 2));
}

pub(crate) async fn open_members_are_zero_unless_fleet_is_closed(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let open = open_member(LocalOpen::For(LONG));
    assert_eq!(client.sync("a", open.clone()).await.open_members, 1);
    for (action, open_members) in [
        (Action::Trip, 0),
        (Action::Reset, 1),
        (Action::ForceOpen, 0),
        (Action::ForceClosed, 0),
        (Action::Release, 1),
    ] {
        client.operate(operation(action)).await;
        assert_eq!(client.sync("a", open.clone()).await.open_members, open_members, "{action:?}");
    }
    client.half_open(lease("a", 3)).await;
    assert_eq!(client.sync("a", open.clone()).await.open_members, 0);
    client.operate(operation(Action::Reset)).await;
    let ballot = Ballot { vote: true, ..Ballot::default() };
    let deciding = client.sync("a", SyncCircuit { ballot, quorum: votes(1), ..open }).await;
    assert_eq!((deciding.votes, deciding.open_members), (0, 0));
}

pub(crate) async fn record_is_forgotten_after_grace(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let short = Operation { open_for: Some(SHORT), grace: SHORT, ..operation(Action::Trip) };
    client.operate(short.clone()).await;
    let forced = Operation { circuit: "forced".to_owned(), grace: SHORT, ..operation(Action::ForceOpen) };
    client.operate(forced).await;
    let endless = Operation { circuit: "endless".to_owned(), open_for: None, ..short };
    client.operate(endless).await;
    client.poll(async |client| (client.record().await.epoch == 0).then_some(())).await;
    let names = client.list(None, 10).await.into_iter().map(|record| record.circuit);
    assert_eq!(names.collect::<Vec<_>>(), ["endless", "forced"]);
}

pub(crate) async fn trip_and_reset_apply(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.sync("a", voter(votes(2))).await;
    let reply = client.operate(operation(Action::Trip)).await;
    assert!(reply.applied);
    assert_eq!((reply.record.state, reply.record.manual), (FleetState::Open, None));
    assert_eq!((&*reply.record.reason, &*reply.record.by), ("maintenance", "ada"));
    assert!(is_about(reply.record.remaining, LONG));
    let reset = client.operate(operation(Action::Reset)).await;
    assert!(reset.applied && reset.record.epoch > reply.record.epoch);
    assert_eq!((reset.record.state, reset.record.remaining), (FleetState::Closed, Some(Duration::ZERO)));
    let record = client.sync("b", voter(votes(2))).await.record.expect("the record of the reset");
    assert_eq!(record.state, FleetState::Closed, "an operation clears the ballots");
}

pub(crate) async fn operation_with_other_epoch_is_refused(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let expecting = |expected_epoch, action| Operation { expected_epoch, ..operation(action) };
    let first = client.operate(expecting(Some(0), Action::Trip)).await;
    assert!(first.applied, "0: the store has no record");
    for epoch in [0, first.record.epoch + 1] {
        let refused = client.operate(expecting(Some(epoch), Action::Reset)).await;
        assert!(!refused.applied);
        assert_eq!((refused.record.epoch, refused.record.state), (first.record.epoch, FleetState::Open));
    }
    assert!(client.operate(expecting(Some(first.record.epoch), Action::Reset)).await.applied);
}

pub(crate) async fn override_blocks_other_operations_votes_and_leases(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    for (action, state, manual) in [
        (Action::ForceOpen, FleetState::Open, Override::ForcedOpen),
        (Action::ForceClosed, FleetState::Closed, Override::ForcedClosed),
    ] {
        let forced = client.operate(operation(action)).await;
        assert!(forced.applied);
        assert_eq!((forced.record.state, forced.record.remaining), (state, Some(Duration::ZERO)));
        assert_eq!((forced.record.manual, forced.record.manual_remaining), (Some(manual), None));
        for blocked in [Action::Trip, Action::Reset] {
            let reply = client.operate(operation(blocked)).await;
            assert!(!reply.applied);
            assert_eq!((reply.record.epoch, reply.record.manual), (forced.record.epoch, Some(manual)));
        }
        let synced = client.sync("a", voter(votes(1))).await;
        assert_eq!((synced.votes, synced.record.map(|record| record.epoch)), (0, Some(forced.record.epoch)));
        assert!(!client.lease(lease("a", 1)).await.granted);
    }
}

pub(crate) async fn release_of_forced_open_probes_first(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    client.operate(operation(Action::ForceOpen)).await;
    let released = client.operate(operation(Action::Release)).await;
    assert!(released.applied);
    let record = released.record;
    assert_eq!(
        (record.state, record.remaining, record.manual),
        (FleetState::Open, Some(Duration::ZERO), None)
    );
    assert!(client.lease(lease("a", 1)).await.granted);
    client.operate(operation(Action::ForceClosed)).await;
    let record = client.operate(operation(Action::Release)).await.record;
    assert_eq!((record.state, record.manual), (FleetState::Closed, None));
}

pub(crate) async fn release_without_override_changes_nothing(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let opened = client.operate(operation(Action::Trip)).await.record;
    let reply = client.operate(operation(Action::Release)).await;
    assert!(reply.applied);
    assert_eq!((reply.record.epoch, reply.record.state), (opened.epoch, FleetState::Open));
}

pub(crate) async fn override_ends_by_itself(backend: &dyn Backend) {
    for (action, state) in [(Action::ForceOpen, FleetState::Open), (Action::ForceClosed, FleetState::Closed)]
    {
        let namespace = namespace();
        let mut client = connect(backend, &namespace).await;
        let mut watcher = connect(backend, &namespace).await;
        let forced = client.operate(Operation { keep_for: Some(SHORT), ..operation(action) }).await.record;
        assert!(forced.manual_remaining.is_some_and(|remaining| remaining <= SHORT));
        let listed = client
            .poll(async |client| {
                let record = client.list(None, 1).await.pop()?;
                record.manual.is_none().then_some(record)
            })
            .await;
        // A reader and a writer agree on the epoch, so that an operation on what was read applies.
        let ended = client.sync("a", knowing(&forced)).await.record.expect("a new epoch");
        assert!(ended.epoch > forced.epoch);
        assert_eq!((ended.epoch, ended.state), (listed.epoch, state));
        assert_eq!((ended.manual, ended.manual_remaining), (None, None));
        assert_eq!(ended.remaining, Some(Duration::ZERO));
        let published =
            |update: &Update| matches!(update, Update::Record(update) if update.epoch == ended.epoch);
        watcher.update_with(published).await;
    }
}

pub(crate) async fn list_is_sorted_and_paged(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    assert_eq!(client.list(None, 10).await, []);
    // In the order of the bytes.
    let sorted = ["B", "a", "a b", "b", "z", "ä", "日本"];
    for name in ["z", "日本", "a", "ä", "B", "b", "a b"] {
        client.operate(Operation { circuit: name.to_owned(), ..operation(Action::Trip) }).await;
    }
    client.sync("a", SyncCircuit { name: "without a record".to_owned(), ..member(votes(2)) }).await;
    let mut names: Vec<String> = Vec::new();
    loop {
        let page = client.list(names.last().map(String::as_str), 3).await;
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        assert!(
            page.iter().all(|record| record.state == FleetState::Open && is_about(record.remaining, LONG))
        );
        names.extend(page.into_iter().map(|record| record.circuit));
    }
    assert_eq!(names, sorted);
}

/// Texts that break a format which does not escape them.
fn hostile_texts() -> Vec<String> {
    let texts = [
        " ",
        "a\tb\nc\r\nd",
        "'\"\\`$1 %s {} {x} #k *",
        "'; DROP TABLE tb1_circuit; --",
        "🦀é\u{202e}",
        "../../etc",
    ];
    let long = ["é".repeat(128), "x".repeat(256)];
    texts.into_iter().map(str::to_owned).chain(long).collect()
}

pub(crate) async fn hostile_names_and_texts_are_kept(backend: &dyn Backend) {
    for text in hostile_texts() {
        // A namespace that is hostile, too, and still the only one of its name.
        let hostile: String = text.chars().take(40).collect();
        let namespace = format!("{hostile}{}", namespace());
        let mut client = connect(backend, &namespace).await;
        let mut watcher = connect(backend, &namespace).await;
        let circuit = SyncCircuit { name: text.clone(), local: LocalOpen::For(LONG), ..voter(votes(2)) };
        let circuits = vec![circuit];
        let request = SyncRequest { instance: text.clone(), lifetime: LONG, grace: LONG, circuits };
        assert_eq!(client.sync_request(&request).await[0].votes, 1);
        let second = SyncRequest { instance: "b".to_owned(), ..request };
        let record = client.sync_request(&second).await.pop().and_then(|synced| synced.record);
        assert_eq!(record.expect("two votes open").circuit, text);
        let Update::Record(update) = watcher.update_with(|_| true).await else { panic!("no record") };
        assert_eq!((&update.circuit, update.state), (&text, FleetState::Open));
        let forced = Operation { circuit: text.clone(), ..operation(Action::ForceOpen) };
        let (by, reason) = (text.clone(), text.clone());
        let reply = client.operate(Operation { by, reason, ..forced }).await;
        assert!(reply.applied);
        let listed = client.list(None, 10).await;
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].circuit, listed[0].epoch), (&text, reply.record.epoch));
        assert_eq!(listed[0].by, crate::rules::clean_text(&text));
        assert_eq!(listed[0].reason, crate::rules::clean_text(&text));
    }
}

pub(crate) async fn long_reason_is_cut(backend: &dyn Backend) {
    let mut client = connect(backend, &namespace()).await;
    let reason = "é".repeat(1000);
    let record = client.operate(Operation { reason, ..operation(Action::Trip) }).await.record;
    assert_eq!(record.reason, "é".repeat(100));
    let reason = "a\u{0}b".to_owned();
    let record = client.operate(Operation { reason, ..operation(Action::Trip) }).await.record;
    assert_eq!(record.reason, "a b");
    // A process may give back a record of another store.
    let known = CircuitRecord { epoch: record.epoch + 1, reason: "é".repeat(1000), ..record };
    client.sync("a", knowing(&known)).await;
    assert_eq!(client.record().await.reason, "é".repeat(100));
}
