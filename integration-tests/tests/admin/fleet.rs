//! The page of a process that belongs to a fleet.

use std::time::Duration;

use serde_json::json;
use tower_breaker::{Circuit, CircuitState};
use tower_breaker_admin::User;
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
    page.wait_for_text(".card", "open in 0 of 2 processes").await;
    page.act("Force open", "search", "the provider asked us to stop").await;
    let elsewhere = other.get("search").unwrap();
    wait_for_state(&elsewhere, CircuitState::ForcedOpen).await;
    page.wait_for_state("search", "forced_open").await;
    let audit = server.take_audit();
    assert_eq!((audit[0].scope.as_str(), audit[0].status), ("fleet", 200));
    // The details of the override follow the state.
    page.wait_for_card("search", "by anna").await;
    page.wait_for_card("search", "the provider asked us to stop").await;

    store.set_availability(Availability::Failing);
    page.wait_for_text("#detached", "Detached from the fleet").await;
    page.begin("Release", "search").await;
    page.submit("Release", "it works again").await;
    page.wait_for_text("dialog [role=alert]", "The store of the fleet is unreachable").await;
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

/// Starts a server that shares the circuit `search` with a fleet, and opens its page.
async fn page_in_fleet(store: &MemoryStore) -> (Server, Page) {
    let fleet = join(store, "here");
    let admin_of = fleet.clone();
    let server = Server::start_with(&["search"], move |admin| admin.fleet(&admin_of)).await;
    fleet.share_registry(&server.registry).unwrap();
    assert!(fleet.ready(Duration::from_secs(10)).await);
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_text("#fleet", "Fleet shop").await;
    page.wait_for_text(".card", "open in 0 of 1 process").await;
    (server, page)
}

#[tokio::test(flavor = "multi_thread")]
async fn card_shows_in_how_many_processes_the_circuit_is_open() {
    let store = MemoryStore::new();
    let (_server, page) = page_in_fleet(&store).await;
    let there = join(&store, "there");
    let other = registry(&["search"]);
    there.share_registry(&other).unwrap();
    page.wait_for_card("search", "open in 0 of 2 processes").await;

    other.get("search").unwrap().trip_for(Duration::from_secs(5)).unwrap();
    page.wait_for_card("search", "open in 1 of 2 · 1 of 2 votes").await;
    page.click(".card button", "search").await;
    page.wait_for_text("#detail", "Open in1 of 2 processes").await;
    // Its time is over, and no call has probed the server: it still votes.
    page.wait_for_card("search", "open in 0 of 2 · 1 of 2 votes").await;
    page.wait_for_text("#detail", "Open in0 of 2 processes").await;
    page.click("#deeds button", "Trip: search").await;
    page.submit("Trip", "the provider asked us to stop").await;
    page.wait_for_card("search", "open in all 2 processes").await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_of_the_fleet_changes_header_banner_and_dialog() {
    let store = MemoryStore::new();
    let (_server, page) = page_in_fleet(&store).await;
    let status = "document.querySelector('#fleet').dataset.status";
    assert_eq!(page.value(status).await, "good");
    let scopes = "[...document.querySelectorAll('#act-scopes input')].map((input) => input.disabled)";
    page.begin("Trip", "search").await;
    assert_eq!(page.value(scopes).await, json!([false, false]));
    page.click("dialog button", "Cancel").await;
    page.wait_until_dialog_is_closed().await;

    // The page is not loaded again, and its stream stays open: the event brings the change.
    store.set_availability(Availability::Failing);
    page.wait_for_text("#fleet", "Fleet detached").await;
    assert_eq!(page.value(status).await, "bad");
    page.wait_for_text("#detached", "Each circuit of this process decides for itself").await;
    page.wait_for_text("#connection", "Live").await;
    page.begin("Trip", "search").await;
    assert_eq!(page.value(scopes).await, json!([true, false]));
    page.wait_for_text("#act-scope-hint", "The store of the fleet does not answer").await;
    page.click("dialog button", "Cancel").await;
    page.wait_until_dialog_is_closed().await;

    store.set_availability(Availability::Available);
    page.wait_for_text("#fleet", "Fleet shop").await;
    assert_eq!(page.value(status).await, "good");
    assert_eq!(page.value("document.querySelector('#detached').checkVisibility()").await, false);
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn override_of_the_process_is_shown_before_that_of_the_fleet() {
    let store = MemoryStore::new();
    let (server, page) = page_in_fleet(&store).await;
    page.act("Force open", "search", "the provider asked us to stop").await;
    page.wait_for_card("search", "“the provider asked us to stop”").await;

    page.begin("Force closed", "search").await;
    page.click("dialog input[type=radio]", "This process only").await;
    page.submit("Force closed", "a trial here").await;
    page.wait_for_state("search", "forced_closed").await;
    page.wait_for_card("search", "“a trial here”").await;
    assert_eq!(server.state("search"), CircuitState::ForcedClosed);
    let text = page.card_text("search").await;
    assert!(!text.contains("the provider asked us to stop"), "{text}");

    // The undo ends the override of the process, and that of the fleet applies again.
    page.click(".toast:last-child button", "Undo").await;
    page.wait_for_state("search", "forced_open").await;
    page.wait_for_card("search", "“the provider asked us to stop”").await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_fits_a_narrow_screen_in_a_fleet() {
    let store = MemoryStore::new();
    let fleet = Fleet::builder(store.clone()).namespace("production-europe-west-payments");
    let fleet = fleet.instance("payments-7d9f8b6c5-x2x4z").heartbeat(Duration::from_millis(250));
    let (fleet, agent) = fleet.timeout(Duration::from_secs(1)).build().unwrap();
    tokio::spawn(agent);
    let admin_of = fleet.clone();
    let server = Server::start_with(&["search"], move |admin| {
        admin
            .fleet(&admin_of)
            .bearer("token-of-a-user-with-a-long-name", User::operator("annemarie.hinterhuber@shop.example"))
    })
    .await;
    fleet.share_registry(&server.registry).unwrap();
    assert!(fleet.ready(Duration::from_secs(10)).await);
    let page = Page::log_in(&server.url(), "token-of-a-user-with-a-long-name").await;
    page.wait_for_text("#fleet", "Fleet production").await;
    store.set_availability(Availability::Failing);
    page.wait_for_text("#fleet", "Fleet detached").await;
    for available in [false, true] {
        if available {
            store.set_availability(Availability::Available);
            page.wait_for_text("#fleet", "Fleet production").await;
        }
        for width in [320, 390, 768, 1024, 1280] {
            page.browser.resize(width, 640).await;
            page.save(&format!("header-{width}-{available}")).await;
            assert_eq!(page.wide_elements().await, [""; 0], "{width} px");
            assert_eq!(page.overlaps("#top").await, [""; 0], "{width} px");
        }
    }
}
