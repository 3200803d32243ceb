//! The dialog of an action.

use tower_breaker::CircuitState;

use crate::page::Page;
use crate::server::{OPERATOR, Server};

const ESCAPE: char = '\u{e00c}';

/// Opens a dialog for the first circuit, cancels it, and opens one for the second circuit, before
/// the browser reports that the first one was closed.
const NEXT_DIALOG: &str = "
    const press = (name) => document.querySelector(`.card [aria-label='${name}']`).click();
    press('Trip: billing');
    document.querySelector('#act-cancel').click();
    press('Trip: search');
";

#[tokio::test(flavor = "multi_thread")]
async fn end_of_a_dialog_does_not_end_the_next_one() {
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("billing", "closed").await;
    page.wait_for_state("search", "closed").await;
    page.browser.run(NEXT_DIALOG, &[]).await;
    page.submit("Trip", "test").await;
    page.wait_until_dialog_is_closed().await;
    page.wait_for_state("search", "open").await;
    assert_eq!(server.state("billing"), CircuitState::Closed);
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_response_leaves_the_next_dialog_alone() {
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;
    let hold_actions = "
        const send = window.fetch;
        window.fetch = (url, options) => options?.method !== 'POST' ? send(url, options)
            : new Promise((resolve) => { window.answer = () => resolve(send(url, options)); });
    ";
    page.browser.run(hold_actions, &[]).await;
    page.begin("Trip", "billing").await;
    page.submit("Trip", "slow").await;
    page.browser.wait_for("return typeof window.answer === 'function'", &[]).await;
    page.browser.press(ESCAPE).await;
    page.wait_until_dialog_is_closed().await;

    page.begin("Force open", "search").await;
    page.fill("dialog input", "Reason", "next").await;
    page.browser.run("window.answer(); window.answer = null;", &[]).await;
    page.wait_for_text(".toast", "Tripped in this process: billing").await;
    assert_eq!(page.value("document.querySelector('#act').open").await, true);
    page.click("dialog button", "Force open").await;
    page.browser.wait_for("return typeof window.answer === 'function'", &[]).await;
    page.browser.run("window.answer()", &[]).await;
    page.wait_for_state("search", "forced_open").await;
    assert_eq!(server.take_audit()[1].reason, "next");
    assert_eq!(page.errors().await, []);
}
