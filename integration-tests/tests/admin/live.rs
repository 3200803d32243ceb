//! What the page shows follows the circuits.

use std::time::Duration;

use tokio::time::Instant;
use tower_breaker::fault_classify::{Health, Kind, Origin, Retryable};
use tower_breaker::{BreakerConfig, Circuit, Fault};

use crate::page::Page;
use crate::server::{OPERATOR, Server};

/// Trips a circuit and resets it several times, and returns the median of the times until the page
/// shows it.
///
/// The times include those of the driver, so each is an upper limit.
pub(crate) async fn median_latency(page: &Page, circuit: &Circuit) -> Duration {
    let mut times = Vec::new();
    for _ in 0..4 {
        let started = Instant::now();
        circuit.trip().unwrap();
        page.wait_for_state(circuit.name(), "open").await;
        times.push(started.elapsed());
        let started = Instant::now();
        circuit.reset().unwrap();
        page.wait_for_state(circuit.name(), "closed").await;
        times.push(started.elapsed());
    }
    times.sort();
    println!("latency of transitions: {times:?}");
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn transition_appears_within_a_moment() {
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;
    let latency = median_latency(&page, &server.circuit("search")).await;
    assert!(latency < Duration::from_millis(1500), "{latency:?}");
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_shows_new_circuits_and_why_a_circuit_opened() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;

    let billing = server.registry.circuit("billing");
    page.wait_for_state("billing", "closed").await;
    let fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
    // Failures in a row open a circuit only if they span some time, and the test uses none.
    let circuit = server.registry.circuit("rate");
    for _ in 0..20 {
        let error = std::io::Error::other("the ledger is locked");
        let Ok(permit) = circuit.try_acquire() else { break };
        permit.fail_as(fault, &error, "order 7");
    }
    page.wait_for_state("rate", "open").await;
    circuit.try_acquire().unwrap_err();
    page.browser
        .wait_for(
            "return [...document.querySelectorAll('.card')].some((card) =>
                card.textContent.includes('rate') && card.textContent.includes('the ledger is locked'))",
            &[],
        )
        .await;
    page.click(".card button", "rate").await;
    page.wait_for_text("#detail", "order 7").await;
    page.wait_for_text("#detail", "Why it opened").await;

    drop(billing);
    server.registry.remove("billing").unwrap();
    page.browser.wait_for("return document.querySelectorAll('.card').length === 2", &[]).await;
    assert!(!page.has("billing").await);
    assert_eq!(page.errors().await, []);
}

/// Keeps each text that the note of the only card has.
const RECORD_NOTES: &str = "
    const note = document.querySelector('.card .note');
    window.notes = [note.textContent];
    new MutationObserver(() => window.notes.push(note.textContent))
        .observe(note, { childList: true, characterData: true, subtree: true });
";

async fn notes_of_openings(page: &Page, circuit: &Circuit, last: &str) -> Vec<String> {
    circuit.trip().unwrap();
    circuit.reset().unwrap();
    page.wait_for_state("search", "closed").await;
    page.browser.run(RECORD_NOTES, &[]).await;
    for _ in 0..3 {
        // The view has arrived, too. It follows the transition within a second.
        page.wait_for_card("search", "Closed for 1").await;
        circuit.trip().unwrap();
        page.wait_for_card("search", last).await;
        circuit.reset().unwrap();
    }
    let notes = page.value("window.notes").await;
    notes.as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn circuit_is_open_until_reset_only_if_configured() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    let circuit = server.circuit("search");
    let notes = notes_of_openings(&page, &circuit, "Probe in").await;
    let wrong: Vec<_> = notes.iter().filter(|note| note.contains("until")).collect();
    assert!(wrong.is_empty(), "{notes:?}");

    let endless = BreakerConfig::builder().name("search").open_until_reset(true).build().unwrap();
    circuit.reconfigure(endless).unwrap();
    let notes = notes_of_openings(&page, &circuit, "Open until it is reset").await;
    assert!(notes.iter().all(|note| !note.contains("Probe in")), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn override_with_an_end_is_never_shown_without_it() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    let circuit = server.circuit("search");
    page.wait_for_state("search", "closed").await;
    page.browser.run(RECORD_NOTES, &[]).await;
    for _ in 0..3 {
        circuit.force_open_for(Duration::from_secs(600)).unwrap();
        page.wait_for_card("search", "by the program · 9").await;
        circuit.release();
        circuit.reset().unwrap();
        page.wait_for_card("search", "Closed for 1").await;
    }
    let notes = page.value("window.notes").await;
    let has_end = |note: &serde_json::Value| !note.as_str().unwrap().contains("until released");
    assert!(notes.as_array().unwrap().iter().all(has_end), "{notes}");
}
