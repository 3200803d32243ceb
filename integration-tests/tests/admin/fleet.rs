//! The page of a process that belongs to a fleet.

use std::time::Duration;

use tower_breaker::{Circuit, CircuitState};
use tower_breaker_fleet::{Availability, Fleet, MemoryStore};

use crate::page::Page;
use crate::server::{OPERATOR, Server, registry};

/// Joins a process to the fleet of the store.
pub(crate) fn join(store: &MemoryStore, instance: &str) -> Fleet {
    let fleet = Fleet::builder(store.clone()).namespace("shop").instance(instance);
    let fleet = fleet.heartbeat(Duration::from_millis(250)).takeover(Duration::from_millis(500));
    let (fleet, agent) = fleet.timeout(Duration::from_secs(1)).build().unwrap();
    tokio::spawn(agent);
    fleet
}

/// Waits until a circuit is in a state.
async fn wait_for_state(circuit: &Circuit, state: CircuitState) {
    while circuit.status().state != state {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_action_changes_all_processes_and_outage_is_shown() {
    let store = MemoryStore::new();
    let (here, there) = (join(&store, "here"), join(&store, "there"));
    let other = registry(&["search"]);
    there.share_registry(&other).unwrap();
    let admin_of = here.clone();
    let server = Server::start_with(&["search"], move |admin| admin.fleet(&admin_of)).await;
    here.share_registry(&server.registry).unwrap();
    assert!(here.ready(Duration::from_secs(10)).await && there.ready(Duration::from_secs(10)).await);

    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_text("#fleet", "Fleet shop").await;
    page.wait_for_text(".card", "0 of 2").await;
    page.act("Force open", "search", "the provider asked us to stop").await;
    let elsewhere = other.get("search").unwrap();
    wait_for_state(&elsewhere, CircuitState::ForcedOpen).await;
    page.wait_for_state("search", "forced_open").await;
    let audit = server.take_audit();
    assert_eq!((audit[0].scope.as_str(), audit[0].status), ("fleet", 200));
    let text = page.card_text("search").await;
    assert!(text.contains("by anna") && text.contains("the provider asked us to stop"), "{text}");

    store.set_availability(Availability::Failing);
    page.wait_for_text("#detached", "Detached from the fleet").await;
    page.begin("Release", "search").await;
    page.submit("Release", "it works again").await;
    page.wait_for_text("dialog [role=alert]", "Nothing was changed").await;
    let audit = server.take_audit();
    assert_eq!((audit[0].scope.as_str(), audit[0].status), ("fleet", 503));
    assert_eq!(elsewhere.status().state, CircuitState::ForcedOpen);
    page.click("dialog button", "Cancel").await;

    store.set_availability(Availability::Available);
    page.wait_for_text("#fleet", "Fleet shop").await;
    page.act("Release", "search", "it works again").await;
    while elsewhere.status().state == CircuitState::ForcedOpen {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(page.errors().await, []);
}
