//! Logging in, and what each role sees.

use tower_breaker::CircuitState;
use tower_breaker_admin::AdminBuilder;

use crate::page::Page;
use crate::server::{OPERATOR, READER, Server};

#[tokio::test(flavor = "multi_thread")]
async fn page_asks_for_a_token_and_shows_circuits_after_it() {
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::open(&server.url()).await;
    page.wait_for_text("dialog h2", "Log in").await;
    assert!(!page.has("search").await);
    assert_eq!(page.value("document.activeElement.type").await, "password");

    page.fill("dialog input", "Access token", "a-token-that-is-wrong").await;
    page.click("dialog button", "Log in").await;
    page.wait_for_text("dialog [role=alert]", "The access token is not valid.").await;
    page.fill("dialog input", "Access token", OPERATOR).await;
    page.click("dialog button", "Log in").await;
    page.wait_until_live().await;
    page.wait_for_state("search", "closed").await;
    page.wait_for_state("billing", "closed").await;
    page.wait_for_text("#user", "anna").await;

    // A token is in no address, and in no storage that outlives the tab.
    let exposed = format!("(location.href + JSON.stringify(localStorage)).includes('{OPERATOR}')");
    assert_eq!(page.value(&exposed).await, false);
    // A reload needs no other login.
    page.browser.run("location.reload()", &[]).await;
    page.wait_for_state("search", "closed").await;
    page.click("button", "Log out").await;
    page.wait_for_text("dialog h2", "Log in").await;
    assert_eq!(page.value(&format!("JSON.stringify(sessionStorage).includes('{OPERATOR}')")).await, false);
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_in_fragment_is_removed_from_the_address() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;
    assert_eq!(page.value("location.href.includes('token')").await, false);
    assert_eq!(page.value("history.length").await, 2, "the page has replaced its own entry");
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_sees_disabled_buttons_and_why() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), READER).await;
    page.wait_for_state("search", "closed").await;
    let disabled = "
        const buttons = [...document.querySelectorAll('[data-action]')];
        return buttons.length >= 3 && buttons.every((button) => button.ariaDisabled === 'true');
    ";
    page.browser.wait_for(disabled, &[]).await;
    page.click(".card button", "Trip: search").await;
    page.wait_for_text("[role=alert]", "Only operators can act. rob is a reader.").await;
    assert_eq!(page.value("document.querySelector('dialog[open]')").await, serde_json::Value::Null);

    // A page that someone changed gets no further.
    let post = format!(
        "return fetch('{}/api/v1/circuits/search/actions/trip', {{
            method: 'POST',
            body: JSON.stringify({{ reason: 'test', scope: 'process' }}),
            headers: {{
                authorization: 'Bearer {READER}',
                'content-type': 'application/json',
                'x-tower-breaker': '1',
            }},
        }}).then((response) => response.status)",
        server.url()
    );
    assert_eq!(page.browser.run(&post, &[]).await, 403);
    assert_eq!(server.state("search"), CircuitState::Closed);
    let audit = server.take_audit();
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!((audit[0].user.as_str(), audit[0].status), ("rob", 403));
}

#[tokio::test(flavor = "multi_thread")]
async fn page_without_token_reads_what_is_open_to_read() {
    let server = Server::start_with(&["search"], AdminBuilder::open_to_read).await;
    let page = Page::open(&server.url()).await;
    page.wait_for_state("search", "closed").await;
    page.wait_for_text("#user", "Read only").await;
    page.click(".card button", "Trip: search").await;
    page.wait_for_text("[role=alert]", "Only operators can act.").await;
    page.click("button", "Log in").await;
    page.fill("dialog input", "Access token", OPERATOR).await;
    page.click("dialog button", "Log in").await;
    page.wait_for_text("#user", "anna").await;
    page.act("Trip", "search", "test").await;
    assert_eq!(server.state("search"), CircuitState::Open);
    assert_eq!(page.errors().await, []);
}
