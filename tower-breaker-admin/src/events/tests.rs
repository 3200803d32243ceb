//! Tests of the hub with real circuits, under paused time.

mod changes;
mod client;
mod history;
mod log;
mod model;
mod slow_readers;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::{BreakerConfig, CircuitRegistry, Clock, Fault, Health, Kind, Verdict};

use self::client::{Client, Event, kinds};
use super::*;

const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
const FAILURE: Verdict = Verdict::Fault(FAULT);
const SECOND: Duration = Duration::from_secs(1);

/// Creates a registry whose clock does not advance.
pub(super) fn registry(names: &[&'static str]) -> CircuitRegistry {
    let config = BreakerConfig::builder().clock(Clock::manual().0);
    let registry = CircuitRegistry::new(config.build().unwrap());
    for name in names {
        registry.circuit(*name);
    }
    registry
}

pub(super) fn hub(registry: &CircuitRegistry, has_history: bool) -> Arc<Hub> {
    let sources = Sources { registries: vec![registry.clone()], ..Sources::default() };
    Hub::new(Arc::new(sources), has_history)
}

fn open(hub: &Arc<Hub>, last_event_id: Option<&str>) -> Client {
    Client::new(hub.stream(&User::reader("anna"), last_event_id).unwrap())
}

/// Opens a stream, and reads its start. Then waits until the sampler is between two samples.
async fn opened(hub: &Arc<Hub>) -> Client {
    let mut client = open(hub, None);
    while client.next().await.unwrap().kind != "circuits" {}
    sleep(Duration::from_millis(100)).await;
    client
}

fn audit_entry(circuit: &str) -> AuditEntry {
    AuditEntry {
        id: 1,
        at: std::time::UNIX_EPOCH,
        user: "anna".into(),
        role: Some(crate::auth::Role::Operator),
        circuit: circuit.into(),
        key: None,
        action: "trip".into(),
        scope: "process".into(),
        reason: "drill".into(),
        lasts_for: None,
        status: 200,
        error: None,
        epoch_before: Some(0),
        epoch_after: Some(1),
    }
}

fn number(event: &Event) -> u64 {
    event.id.as_deref().and_then(|id| id.split_once('-')).unwrap().1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn stream_starts_with_hello_and_all_circuits() {
    let registry = registry(&["search", "billing"]);
    let hub = hub(&registry, true);
    let mut client = open(&hub, None);
    let hello = client.next().await.unwrap();
    let expected = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"), "user": "anna", "role": "reader", "fleet": null, "history": true,
    });
    assert_eq!((hello.kind.as_str(), hello.data), ("hello", expected));
    let circuits = client.next().await.unwrap();
    assert_eq!((circuits.kind.as_str(), &circuits.data["complete"]), ("circuits", &Value::Bool(true)));
    let names: Vec<_> =
        circuits.data["circuits"].as_array().unwrap().iter().map(|view| view["circuit"].clone()).collect();
    assert_eq!(names, ["billing", "search"]);
    assert_eq!(number(&circuits), 0, "the stream can resume from here");
}

#[tokio::test(start_paused = true)]
async fn many_circuits_are_sent_in_pieces() {
    let registry = registry(&[]);
    for number in 0..450 {
        registry.circuit(format!("circuit-{number}"));
    }
    let hub = hub(&registry, true);
    let mut client = open(&hub, None);
    sleep(SECOND / 2).await;
    let pieces = client.read().await;
    assert_eq!(kinds(&pieces), ["hello", "circuits", "circuits", "circuits"]);
    let sizes: Vec<_> =
        pieces[1..].iter().map(|piece| piece.data["circuits"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [200, 200, 50]);
    let complete: Vec<_> =
        pieces[1..].iter().map(|piece| piece.data["complete"].as_bool().unwrap()).collect();
    assert_eq!(complete, [true, false, false]);
    let has_id: Vec<_> = pieces[1..].iter().map(|piece| piece.id.is_some()).collect();
    assert_eq!(has_id, [false, false, true], "an interrupted snapshot is no place to resume from");
}

#[tokio::test(start_paused = true)]
async fn transition_reaches_stream_at_once() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    let start = Instant::now();
    registry.trip("search").unwrap();
    let event = client.next().await.unwrap();
    assert_eq!((event.kind.as_str(), &event.data["to"]), ("transition", &Value::from("open")));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn each_of_many_transitions_reaches_stream_within_100_ms() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    let start = Instant::now();
    let registry_of_task = registry.clone();
    tokio::spawn(async move {
        for _ in 0..100 {
            registry_of_task.trip("search").unwrap();
            registry_of_task.reset("search").unwrap();
            sleep(Duration::from_millis(7)).await;
        }
    });
    for epoch in 1..=200_u32 {
        let event = loop {
            let event = client.next().await.unwrap();
            if event.kind == "transition" {
                break event;
            }
        };
        assert_eq!(event.data["epoch"], epoch);
        let due = Duration::from_millis(7) * ((epoch - 1) / 2) + Duration::from_millis(100);
        assert!(start.elapsed() <= due, "transition {epoch} is late: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn only_changed_circuits_are_sent() {
    let registry = registry(&["a", "b", "c"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    registry.record("b", Verdict::Success).unwrap();
    sleep(SECOND).await;
    let events = client.read().await;
    assert_eq!(kinds(&events), ["samples"]);
    assert_eq!(events[0].data["rows"], serde_json::json!([["b", 1, 0, 0, 0, null, "c"]]));
    registry.force_open("c").unwrap();
    registry.remove("a");
    registry.circuit("d");
    sleep(SECOND).await;
    let events = client.read().await;
    assert_eq!(kinds(&events), ["transition", "circuits", "circuits", "samples"]);
    assert_eq!(events[1].data["removed"], serde_json::json!(["a"]));
    let changed = events[2].data["circuits"].as_array().unwrap();
    let changed: Vec<_> =
        changed.iter().map(|view| (view["circuit"].clone(), view["epoch"].clone())).collect();
    assert_eq!(changed, [("c".into(), 1.into()), ("d".into(), 0.into())]);
    assert_eq!(events[3].data["rows"], serde_json::json!([["c", 0, 0, 0, 0, null, "O"]]));
}

#[tokio::test(start_paused = true)]
async fn circuit_that_replaces_another_is_sent_as_new() {
    let registry = registry(&["a", "b"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    // The streams have the epoch of `a` from the transition, and that of `b` from the view.
    registry.trip("b").unwrap();
    sleep(2 * SECOND).await;
    client.read().await;
    registry.trip("a").unwrap();
    sleep(SECOND / 10).await;
    for name in ["a", "b"] {
        registry.remove(name);
        registry.circuit(name);
    }
    sleep(SECOND).await;
    let events = client.read().await;
    assert_eq!(kinds(&events)[..3], ["transition", "circuits", "circuits"]);
    assert_eq!(events[1].data["removed"], serde_json::json!(["a", "b"]));
    let epochs = events[2].data["circuits"].as_array().unwrap().iter().map(|view| view["epoch"].clone());
    assert_eq!(epochs.collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn circuit_that_is_replaced_after_several_transitions_is_sent_as_new() {
    let registry = registry(&["a"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    registry.trip("a").unwrap();
    registry.reset("a").unwrap();
    registry.remove("a");
    registry.circuit("a").trip().unwrap();
    sleep(SECOND).await;
    let events = client.read().await;
    assert_eq!(kinds(&events)[..4], ["transition", "transition", "transition", "circuits"]);
    assert_eq!(events[3].data["removed"], serde_json::json!(["a"]));
    assert_eq!(events[4].data["circuits"][0]["epoch"], 1);
}

#[test]
fn epochs_wrap_after_24_bits() {
    use super::changes::is_older;

    let last = (1 << 24) - 1;
    assert!(is_older(0, 1) && is_older(last, 0) && is_older(last - 5, 7));
    assert!(!is_older(1, 0) && !is_older(0, last) && !is_older(3, 3));
}

#[tokio::test(start_paused = true)]
async fn idle_stream_has_only_comments_every_15_s() {
    let registry = registry(&["a"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    let mut last = Instant::now();
    for number in 0..4 {
        let text = client.next_text().await.unwrap();
        assert_eq!(text, ":\n\n");
        let elapsed = last.elapsed();
        assert!(elapsed <= 15 * SECOND && (number == 0 || elapsed == 15 * SECOND), "{elapsed:?}");
        last = Instant::now();
    }
}

#[tokio::test(start_paused = true)]
async fn audit_is_sent_in_order_with_transitions() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    registry.trip("search").unwrap();
    hub.publish_audit(&audit_entry("search"));
    registry.reset("search").unwrap();
    sleep(SECOND / 10).await;
    let events = client.read().await;
    assert_eq!(kinds(&events), ["transition", "audit", "transition"]);
    assert_eq!(events.iter().map(number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(events[1].data["reason"], "drill");
}

#[tokio::test(start_paused = true)]
async fn resume_replays_what_was_missed_and_then_the_state() {
    for is_streamed in [false, true] {
        let registry = registry(&["search"]);
        let hub = hub(&registry, true);
        let mut client = opened(&hub).await;
        registry.trip("search").unwrap();
        sleep(SECOND / 10).await;
        let last = client.read().await.pop().unwrap();
        drop(client);
        // Another stream makes the hub serialize the events at once.
        let other = is_streamed.then(|| open(&hub, None));
        sleep(2 * SECOND).await;
        registry.reset("search").unwrap();
        hub.publish_audit(&audit_entry("search"));
        sleep(SECOND).await;
        registry.force_closed("search").unwrap();
        let mut client = open(&hub, last.id.as_deref());
        sleep(SECOND / 10).await;
        let events = client.read().await;
        assert_eq!(kinds(&events), ["hello", "transition", "audit", "transition", "circuits"]);
        assert_eq!(events[1..].iter().map(number).collect::<Vec<_>>(), [2, 3, 4, 4]);
        assert_eq!(events[4].data["circuits"][0]["local"]["state"], "forced_closed");
        drop(other);
    }
}

#[tokio::test(start_paused = true)]
async fn resume_from_unknown_id_starts_with_all_circuits() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    let last = client.read().await.pop().unwrap().id.unwrap();
    let boot = last.split_once('-').unwrap().0;
    let other_hub = format!("{:016x}-0", !hub.shared.state().log.boot());
    let unknown = [&other_hub, &format!("{boot}-2"), &format!("{boot}-"), "", "-", "1", "\u{e9}-1", "-1-1"];
    for id in unknown {
        let mut client = open(&hub, Some(id));
        sleep(2 * SECOND).await;
        assert_eq!(kinds(&client.read().await)[..2], ["hello", "circuits"], "{id}");
    }
    // The log keeps 256 entries.
    for _ in 0..130 {
        registry.reset("search").unwrap();
        registry.trip("search").unwrap();
    }
    let missed = |events: &[Event]| events.iter().filter(|event| event.kind == "transition").count();
    for (number, expected) in [(4, 0), (5, 256), (6, 255)] {
        let mut client = open(&hub, Some(&format!("{boot}-{number}")));
        sleep(2 * SECOND).await;
        let events = client.read().await;
        let complete = events.iter().position(|event| event.kind == "circuits").unwrap();
        assert_eq!(missed(&events[..complete]), expected, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn resumed_stream_gets_no_snapshot_older_than_its_last_event() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    // This snapshot is of the current second.
    let mut other = open(&hub, None);
    sleep(SECOND / 10).await;
    assert_eq!(kinds(&other.read().await), ["hello", "circuits"]);
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    let last = client.read().await.pop().unwrap();
    let mut resumed = open(&hub, last.id.as_deref());
    sleep(SECOND / 10).await;
    assert_eq!(kinds(&resumed.read().await), ["hello"], "there is one snapshot per second");
    let circuits = resumed.next().await.unwrap();
    assert_eq!(circuits.data["circuits"][0]["epoch"], 1);
}

#[tokio::test(start_paused = true)]
async fn resume_in_the_second_of_a_snapshot_replays_what_was_missed() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let client = opened(&hub).await;
    // This snapshot is of the current second.
    let mut other = open(&hub, None);
    sleep(SECOND / 10).await;
    let last = other.read().await.pop().unwrap();
    drop((client, other));
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    let mut client = open(&hub, last.id.as_deref());
    sleep(2 * SECOND).await;
    assert_eq!(kinds(&client.read().await)[..3], ["hello", "transition", "circuits"]);
}

#[tokio::test(start_paused = true)]
async fn events_while_no_sampler_runs_are_replayed() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, false);
    let mut client = opened(&hub).await;
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    let last = client.read().await.pop().unwrap();
    drop(client);
    sleep(2 * SECOND).await;
    assert!(hub.shared.state().sampler.is_none());
    registry.reset("search").unwrap();
    let mut client = open(&hub, last.id.as_deref());
    sleep(SECOND / 10).await;
    let events = client.read().await;
    assert_eq!(kinds(&events), ["hello", "transition", "circuits"]);
    assert_eq!(number(&events[1]), 2);
}

#[tokio::test(start_paused = true)]
async fn entries_that_were_dropped_leave_a_gap_and_a_snapshot() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    // The sampler does not run until this task waits.
    for _ in 0..1_000 {
        registry.trip("search").unwrap();
        registry.reset("search").unwrap();
    }
    sleep(2 * SECOND).await;
    let events = client.read().await;
    assert_eq!(kinds(&events)[0], "circuits");
    assert_eq!((&events[0].data["complete"], number(&events[0])), (&Value::Bool(true), 2_000));
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    assert_eq!(number(&client.read().await[0]), 2_001);
}

#[tokio::test(start_paused = true)]
async fn without_history_the_sampler_runs_only_for_streams() {
    let hub = hub(&registry(&["search"]), false);
    hub.start();
    assert!(hub.shared.state().sampler.is_none());
    for _ in 0..2 {
        let client = opened(&hub).await;
        assert!(hub.shared.state().sampler.is_some());
        drop(client);
        sleep(2 * SECOND).await;
        assert!(hub.shared.state().sampler.is_none());
    }
    assert!(hub.history("search").is_none());
}

#[tokio::test(start_paused = true)]
async fn everything_ends_with_the_hub() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = opened(&hub).await;
    client.read().await;
    let shared = Arc::downgrade(&hub.shared);
    let reader = tokio::spawn(async move { while client.next_text().await.is_some() {} });
    sleep(SECOND).await;
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 2);
    drop(hub);
    sleep(SECOND / 10).await;
    assert!(reader.is_finished(), "the stream has ended");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
    assert!(shared.upgrade().is_none());
    // No observer is left.
    registry.trip("search").unwrap();
}

#[tokio::test(start_paused = true)]
async fn closed_hub_ends_its_streams_and_opens_none() {
    let registry = registry(&["search"]);
    let hub = hub(&registry, false);
    let mut waiting = opened(&hub).await;
    let mut unread = open(&hub, None);
    registry.trip("search").unwrap();
    sleep(SECOND / 10).await;
    let reader = tokio::spawn(async move { while waiting.next_text().await.is_some() {} });
    sleep(SECOND / 10).await;
    hub.close();
    reader.await.unwrap();
    assert!(unread.next_text().await.unwrap().starts_with("event: hello"));
    assert!(unread.next_text().await.is_none());
    drop(unread);
    let problem = hub.stream(&User::operator("anna"), None).unwrap_err();
    assert_eq!((problem.status.as_u16(), hub.shared.state().streams), (503, 0));
    assert_eq!(problem.detail, "the server is shutting down; connect to another process");
    sleep(2 * SECOND).await;
    assert!(hub.shared.state().sampler.is_none(), "the sampler has ended");
}

#[test]
fn sampler_continues_in_another_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let registry = registry(&["search"]);
    let hub = hub(&registry, true);
    let mut client = runtime().unwrap().block_on(opened(&hub));
    runtime().unwrap().block_on(async {
        registry.trip("search").unwrap();
        hub.start();
        // The second sampler does not have the last sample of the first one.
        assert_eq!(client.next().await.unwrap().kind, "transition");
        assert_eq!(client.next().await.unwrap().data["complete"], true);
        hub.start();
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn dropped_stream_frees_its_slot_at_once() {
    let hub = hub(&registry(&["search"]), true);
    let user = User::operator("anna");
    let mut streams: Vec<_> = (0..MAX_STREAMS).map(|_| hub.stream(&user, None).unwrap()).collect();
    assert!(hub.stream(&user, None).is_err());
    drop(streams.pop());
    streams.push(hub.stream(&user, None).unwrap());
    assert!(hub.stream(&user, None).is_err());
}

#[tokio::test(start_paused = true)]
async fn hostile_text_stays_in_one_line_of_data() {
    const TEXT: &str =
        "a\r\nevent: hello\n\ndata: {}\r\u{2028}\u{2029}\u{0}\u{7f}\u{1b}[2J<script>\"\\:\u{feff}";
    let registry = registry(&[TEXT]);
    let hub = hub(&registry, true);
    let stream = hub.stream(&User::reader(TEXT), None).unwrap();
    let mut client = Client::new(stream);
    let mut texts = vec![client.next_text().await.unwrap(), client.next_text().await.unwrap()];
    registry.circuit(TEXT).try_acquire().unwrap().fail_as(FAULT, &std::io::Error::other(TEXT), TEXT);
    registry.trip(TEXT).unwrap();
    hub.publish_audit(&AuditEntry { reason: TEXT.into(), error: Some(TEXT.into()), ..audit_entry(TEXT) });
    sleep(2 * SECOND).await;
    texts.extend(client.read_texts().await);
    registry.remove(TEXT);
    sleep(SECOND).await;
    texts.extend(client.read_texts().await);
    let events: Vec<_> = texts.iter().flat_map(|text| Event::parse_all(text)).collect();
    let kinds = kinds(&events);
    assert_eq!(kinds, ["hello", "circuits", "transition", "audit", "circuits", "samples", "circuits"]);
    assert_eq!(events[0].data["user"], TEXT);
    assert_eq!(events[1].data["circuits"][0]["circuit"], TEXT);
    assert_eq!(events[2].data["circuit"], TEXT);
    assert_eq!((&events[3].data["reason"], &events[3].data["error"]), (&TEXT.into(), &TEXT.into()));
    let failure = &events[4].data["circuits"][0]["local"]["last_failure"];
    assert_eq!((&failure["message"], &failure["subject"]), (&TEXT.into(), &TEXT.into()));
    assert_eq!(events[5].data["rows"][0][0], TEXT);
    assert_eq!(events[6].data["removed"][0], TEXT);
}
