//! Where the focus of the keyboard is, and that it can be seen.

use serde_json::json;
use tower_breaker::CircuitState;

use crate::page::Page;
use crate::server::{OPERATOR, Server};

const ENTER: char = '\u{e007}';
const ESCAPE: char = '\u{e00c}';

/// Applies an action to a circuit with the keyboard only.
async fn act_by_keyboard(page: &Page, action: &str, circuit: &str) {
    page.focus(".card button", &format!("{action}: {circuit}")).await;
    page.browser.press(ENTER).await;
    page.wait_for_text("#act h2", &format!("{action}: {circuit}")).await;
    page.type_keys("test").await;
    page.browser.press(ENTER).await;
    page.wait_until_dialog_is_closed().await;
}

/// Waits until the card of the only circuit has a button for this action.
async fn wait_for_button(page: &Page, action: &str) {
    page.wait_for_text(".card .acts button", action).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn focus_stays_at_the_card_after_an_action() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    for (action, state, next) in [
        ("Trip", CircuitState::Open, "Reset"),
        ("Reset", CircuitState::Closed, "Trip"),
        ("Force open", CircuitState::ForcedOpen, "Release"),
    ] {
        act_by_keyboard(&page, action, "search").await;
        assert_eq!(server.state("search"), state);
        wait_for_button(&page, next).await;
        assert_eq!(page.focused().await, "search", "after {action}");
    }
    // A button that the next state has, too, keeps the focus.
    page.focus(".card button", "Force closed: search").await;
    server.circuit("search").reset().unwrap_err();
    server.circuit("search").release();
    wait_for_button(&page, "Reset").await;
    assert_eq!(page.focused().await, "Force closed: search");
    // So does the button that opened a dialog, when the dialog is canceled.
    page.browser.press(ENTER).await;
    page.wait_for_text("#act h2", "Force closed: search").await;
    page.browser.press(ESCAPE).await;
    page.wait_until_dialog_is_closed().await;
    assert_eq!(page.focused().await, "Force closed: search");
}

#[tokio::test(flavor = "multi_thread")]
async fn focus_stays_when_cards_move_and_does_not_vanish_with_a_card() {
    let server = Server::start(&["alpha", "beta", "gamma"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("gamma", "closed").await;
    page.focus(".card .name", "gamma").await;
    server.circuit("gamma").trip().unwrap();
    page.wait_for_state("gamma", "open").await;
    // A new circuit sorts the cards at once.
    server.registry.circuit("delta");
    let first = "return document.querySelector('.card .name').textContent === 'gamma'";
    page.browser.wait_for(first, &[]).await;
    page.wait_for_state("delta", "closed").await;
    assert_eq!(page.focused().await, "gamma");

    server.registry.remove("gamma").unwrap();
    page.wait_until_gone("gamma").await;
    assert_eq!(page.focused().await, "main");

    // A card that the filter hides.
    page.click("#chips button", "Closed 3").await;
    page.focus(".card .name", "beta").await;
    server.circuit("beta").trip().unwrap();
    page.wait_for_state("beta", "open").await;
    server.registry.circuit("epsilon");
    page.wait_for_state("epsilon", "closed").await;
    page.wait_until_gone("beta").await;
    assert_eq!(page.focused().await, "main");
    assert_eq!(page.errors().await, []);
}

/// Returns whether other elements cover the focused one at its upper or lower edge. Empty: none
/// does.
const COVERED: &str = "
    const focused = document.activeElement;
    const box = focused.getBoundingClientRect();
    return [box.top + 2, box.bottom - 2]
        .map((y) => document.elementFromPoint(box.left + box.width / 2, y))
        .filter((top) => !focused.contains(top))
        .map((top) => `${focused.ariaLabel ?? focused.textContent}: ${top?.className}`);
";

#[tokio::test(flavor = "multi_thread")]
async fn focused_control_is_not_covered() {
    let names: Vec<&'static str> = (10..22).map(|number| &*format!("circuit-{number}").leak()).collect();
    let server = Server::start(&names).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.browser.resize(420, 640).await;
    // The messages at the bottom stay while the test uses the page.
    for circuit in ["circuit-10", "circuit-11", "circuit-12"] {
        page.act("Force closed", circuit, "test").await;
    }
    page.browser.wait_for("return document.querySelectorAll('.toast').length === 3", &[]).await;
    for (first, last, back) in [("circuit-10", "circuit-21", false), ("circuit-21", "circuit-10", true)] {
        page.focus(".card .name", first).await;
        let mut covered = Vec::new();
        let mut stops = 0;
        while page.focused().await != last {
            page.tab(back).await;
            stops += 1;
            assert!(stops < 60, "the card {last} is not reached");
            covered.extend(page.browser.run(COVERED, &[]).await.as_array().unwrap().clone());
        }
        assert_eq!(json!(covered), json!([]), "from {first} to {last}");
    }
}
