//! The circuits by key.

use serde_json::json;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, CircuitState};

use crate::page::Page;
use crate::server::{OPERATOR, Server};

/// Starts a server with the keyed circuit `tenants`.
async fn server_with_keys(keys: &[&str]) -> (Server, KeyedCircuits<String>) {
    let config = BreakerConfig::builder().name("tenants").build().unwrap();
    let tenants = KeyedCircuits::<String>::new(KeyedConfig::builder(config).build().unwrap());
    for key in keys {
        tenants.get_or_insert((*key).to_owned()).unwrap();
    }
    let circuits = tenants.clone();
    (Server::start_with(&[], move |admin| admin.keyed(&circuits)).await, tenants)
}

/// Opens the page of a key from the list of keys.
async fn show_key(page: &Page, key: &str) {
    let open = "
        const row = [...document.querySelectorAll('#key-list button')]
            .find((button) => button.querySelector('bdi').textContent === arguments[0]);
        row?.click();
        return row !== undefined;
    ";
    page.browser.wait_for(open, &[json!(key)]).await;
    page.wait_for_text("#detail h2", &format!("tenants [{key}]")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn card_and_list_follow_the_keys() {
    let (server, tenants) = server_with_keys(&["a", "b", "c"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("tenants", "closed").await;
    page.click(".card button", "Show keys: tenants").await;
    page.wait_for_text("#detail", "3 of 3 keys").await;

    tenants.get("b").unwrap().trip().unwrap();
    page.wait_for_state("tenants", "keys").await;
    page.wait_for_card("tenants", "1 of 3 keys not closed").await;
    page.wait_for_text("#chips button", "Keys 1").await;
    page.wait_for_text("#key-list li", "bOpen · probe in").await;
    page.wait_for_text("#detail-entries li", "b Open").await;

    tenants.get_or_insert("d".to_owned()).unwrap();
    page.wait_for_card("tenants", "1 of 4 keys not closed").await;
    page.wait_for_text("#detail", "4 of 4 keys").await;

    tenants.get("b").unwrap().reset().unwrap();
    page.wait_for_state("tenants", "closed").await;
    page.wait_for_text("#key-list li", "bClosed").await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_a_key_follows_its_circuit() {
    let (server, tenants) = server_with_keys(&["a", "b"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.click(".card button", "Show keys: tenants").await;
    show_key(&page, "b").await;
    page.wait_for_text("#detail-state", "Closed").await;

    // Views of keys are not in the stream. Their transitions are.
    tenants.get("b").unwrap().trip().unwrap();
    page.wait_for_text("#detail-state", "Open").await;
    page.wait_for_text("#detail-lead", "Probe in").await;
    page.wait_for_text("#detail-entries", "tripped manually").await;
    // The transition of another key is not shown here.
    tenants.get("a").unwrap().trip().unwrap();
    page.wait_for_card("tenants", "2 of 2 keys not closed").await;
    assert_eq!(page.value("document.querySelectorAll('#detail-entries li').length").await, 1);

    page.click("#deeds button", "Force closed: tenants [b]").await;
    page.submit("Force closed", "a test").await;
    page.wait_for_text("#detail-state", "Forced closed").await;
    page.wait_for_text("#detail-lead", "by anna").await;
    page.wait_for_text("#detail-lead", "“a test”").await;
    assert_eq!(tenants.get("b").unwrap().status().state, CircuitState::ForcedClosed);
    page.wait_for_text(".toast", "Forced closed in this process: tenants [b]").await;
    page.click(".toast button", "Undo").await;
    page.wait_for_text("#detail-state", "Closed").await;

    // The address leads to the key.
    page.browser.run("location.reload()", &[]).await;
    page.wait_for_text("#detail h2", "tenants [b]").await;
    page.click("#detail button", "Back to the keyed circuit").await;
    page.wait_for_text("#detail", "1 of 1 key").await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_a_key_shows_that_its_circuit_is_gone() {
    let (server, tenants) = server_with_keys(&["a", "b"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.click(".card button", "Show keys: tenants").await;
    show_key(&page, "b").await;
    page.wait_for_text("#detail-lead", "No transition yet").await;
    tenants.remove("b").unwrap();
    page.wait_for_text("#detail-lead", "Not found").await;
    // A new circuit of the key is shown.
    tenants.get_or_insert("b".to_owned()).unwrap();
    page.wait_for_text("#detail-lead", "No transition yet").await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn focus_goes_to_a_key_when_all_keys_are_shown() {
    let names: Vec<String> = (10..70).map(|number| format!("tenant {number}")).collect();
    let keys: Vec<&str> = names.iter().map(String::as_str).collect();
    let (server, _tenants) = server_with_keys(&keys).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.click(".card button", "Show keys: tenants").await;
    page.wait_for_text("#detail", "50 of 60 keys").await;
    page.focus("#key-more", "Show more keys").await;
    page.browser.press('\u{e007}').await;
    page.wait_for_text("#detail", "60 of 60 keys").await;
    let focused = page.focused().await;
    assert!(focused.starts_with("tenant 69"), "{focused}");
}
