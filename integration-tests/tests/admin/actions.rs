//! The buttons of the page, and their effects.

use std::time::Duration;

use serde_json::json;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, CircuitState};

use crate::page::Page;
use crate::server::{OPERATOR, Server};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread")]
async fn each_button_changes_the_circuit_and_is_in_the_audit() {
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;
    let steps = [
        ("Trip", "trip", CircuitState::Open, "open", None),
        ("Reset", "reset", CircuitState::Closed, "closed", None),
        ("Force open", "force_open", CircuitState::ForcedOpen, "forced_open", Some(HOUR)),
        ("Force closed", "force_closed", CircuitState::ForcedClosed, "forced_closed", Some(HOUR)),
        ("Release", "release", CircuitState::Closed, "closed", None),
    ];
    for (label, action, state, shown, time) in steps {
        let reason = format!("reason of {action}");
        page.act(label, "search", &reason).await;
        assert_eq!(server.state("search"), state, "{action}");
        page.wait_for_state("search", shown).await;

        let audit = server.take_audit();
        assert_eq!(audit.len(), 1, "{audit:?}");
        let entry = &audit[0];
        assert_eq!((entry.user.as_str(), entry.circuit.as_str()), ("anna", "search"));
        assert_eq!((entry.action.as_str(), entry.scope.as_str()), (action, "process"));
        assert_eq!((entry.reason.as_str(), entry.status), (reason.as_str(), 200));
        assert_eq!((&entry.error, entry.lasts_for), (&None, time));
        assert_eq!(server.state("billing"), CircuitState::Closed);
    }
    // The log has the transitions and the actions, with who and why.
    page.click("button", "Log").await;
    for (_, action, ..) in steps {
        page.wait_for_text("#log-list li", &format!("reason of {action}")).await;
    }
    page.wait_for_text("#log-list li", "anna").await;
    let choose = "
        const kind = document.querySelector('#log-kind');
        kind.value = 'transition';
        kind.dispatchEvent(new Event('change'));
    ";
    page.browser.run(choose, &[]).await;
    let only_transitions = "
        const entries = [...document.querySelectorAll('#log-list li')];
        return entries.length === 5 && entries.every((entry) => !entry.textContent.includes('anna'));
    ";
    page.browser.wait_for(only_transitions, &[]).await;
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn action_needs_a_reason_and_takes_a_duration() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.begin("Force open", "search").await;
    page.click("dialog button", "Force open").await;
    page.wait_for_text("dialog [role=alert]", "Enter a reason.").await;
    assert_eq!(server.state("search"), CircuitState::Closed);
    // Escape closes the dialog, and nothing is done.
    page.browser.press('\u{e00c}').await;
    page.wait_until_dialog_is_closed().await;
    assert_eq!(server.take_audit().len(), 0);

    page.begin("Force open", "search").await;
    page.click("dialog input[type=radio]", "5 min").await;
    page.submit("Force open", "maintenance").await;
    page.wait_for_state("search", "forced_open").await;
    assert_eq!(server.take_audit()[0].lasts_for, Some(Duration::from_secs(300)));
    page.begin("Force closed", "search").await;
    page.click("dialog input[type=radio]", "Until released").await;
    page.submit("Force closed", "false alarm").await;
    page.wait_for_state("search", "forced_closed").await;
    assert_eq!(server.take_audit()[0].lasts_for, None);
    // The entry of the audit arrives after the transition.
    page.wait_for_card("search", "by anna · until released · “false alarm”").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_reverses_the_action() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    for (label, before, during, reverse) in [
        ("Trip", CircuitState::Closed, CircuitState::Open, "reset"),
        ("Force open", CircuitState::Closed, CircuitState::ForcedOpen, "release"),
    ] {
        page.act(label, "search", "by mistake").await;
        assert_eq!(server.state("search"), during);
        page.click(".toast button", "Undo").await;
        page.wait_for_text(".toast", "Undone").await;
        let state = server.state("search");
        // A forced open circuit is released into the half-open state.
        assert!(state == before || (reverse == "release" && state == CircuitState::HalfOpen), "{state:?}");
        let audit = server.take_audit();
        assert_eq!(audit.len(), 2, "{audit:?}");
        assert_eq!((audit[1].action.as_str(), audit[1].reason.as_str()), (reverse, "undo: by mistake"));
        server.circuit("search").reset().unwrap();
        page.wait_for_state("search", "closed").await;
        page.click(".toast button", "Close the message").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_restores_the_override_that_was_replaced() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.begin("Force open", "search").await;
    page.click("dialog input[type=radio]", "5 min").await;
    page.submit("Force open", "maintenance").await;
    page.wait_for_card("search", "left · “maintenance”").await;
    page.click(".toast button", "Close the message").await;

    page.act("Force closed", "search", "by mistake").await;
    page.wait_for_card("search", "left · “by mistake”").await;
    page.click(".toast button", "Undo").await;
    page.wait_for_card("search", "left · “maintenance (undo: by mistake)”").await;
    assert_eq!(server.state("search"), CircuitState::ForcedOpen);
    let audit = server.take_audit();
    let actions: Vec<_> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["force_open", "force_closed", "force_open"]);
    // The override has the rest of its five minutes, and not another five.
    let rest = audit[2].lasts_for.unwrap();
    assert!(rest <= Duration::from_secs(300) && rest > Duration::from_secs(200), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn override_of_the_same_state_shows_the_last_reason_and_can_be_undone() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.begin("Force open", "search").await;
    page.click("dialog input[type=radio]", "Until released").await;
    page.submit("Force open", "maintenance").await;
    page.wait_for_card("search", "until released · “maintenance”").await;
    page.click(".toast button", "Close the message").await;
    // Only the details offer the action again.
    page.click(".card button", "search").await;
    page.click("#deeds button", "Force open: search").await;
    page.submit("Force open", "for an hour only").await;
    page.wait_for_card("search", "left · “for an hour only”").await;
    page.click(".toast button", "Undo").await;
    page.wait_for_card("search", "until released · “maintenance (undo: for an hour only)”").await;
    assert_eq!(server.circuit("search").status().override_ends_in, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn circuit_that_changed_under_the_dialog_is_not_changed() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.begin("Force open", "search").await;
    let circuit = server.circuit("search");
    circuit.force_closed().unwrap();
    page.wait_for_text("dialog [role=status]", "is now forced closed").await;
    // The circuit is closed again, but it is not the one that the user saw.
    circuit.release();
    page.wait_for_state("search", "closed").await;
    page.submit("Force open", "too late").await;
    page.wait_for_text("dialog [role=alert]", "Nothing was changed").await;
    assert_eq!(server.state("search"), CircuitState::Closed);
    assert_eq!(server.take_audit()[0].status, 409);
    // Now the user has seen the change.
    page.click("dialog button", "Force open").await;
    page.wait_for_state("search", "forced_open").await;
    assert_eq!(server.take_audit()[0].status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn page_can_be_used_with_the_keyboard() {
    const ENTER: char = '\u{e007}';
    const TAB: char = '\u{e004}';
    let server = Server::start(&["billing", "search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_state("search", "closed").await;
    page.browser.press('/').await;
    for letter in "sea".chars() {
        page.browser.press(letter).await;
    }
    page.browser.wait_for("return document.querySelectorAll('.card').length === 1", &[]).await;
    // The buttons of the only card come soon after the search.
    let focused = "return document.activeElement.getAttribute('aria-label')";
    for _ in 0..20 {
        if page.browser.run(focused, &[]).await == "Trip: search" {
            break;
        }
        page.browser.press(TAB).await;
    }
    assert_eq!(page.browser.run(focused, &[]).await, "Trip: search");
    let visible = "
        const style = getComputedStyle(document.activeElement);
        return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
    ";
    assert_eq!(page.browser.run(visible, &[]).await, true, "the focus is visible");
    page.browser.press(ENTER).await;
    page.wait_for_text("#act h2", "Trip: search").await;
    for letter in "test".chars() {
        page.browser.press(letter).await;
    }
    page.browser.press(ENTER).await;
    page.wait_until_dialog_is_closed().await;
    assert_eq!(server.state("search"), CircuitState::Open);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_can_be_found_and_tripped() {
    let config = BreakerConfig::builder().name("tenants").build().unwrap();
    let tenants = KeyedCircuits::<String>::new(KeyedConfig::builder(config).build().unwrap());
    for number in 0..120 {
        tenants.get_or_insert(format!("tenant {number}")).unwrap();
    }
    let circuits = tenants.clone();
    let server = Server::start_with(&[], move |admin| admin.keyed(&circuits)).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.click(".card button", "Show keys: tenants").await;
    page.wait_for_text("#detail", "50 of 120 keys").await;
    page.fill("input", "Search keys", "tenant 7").await;
    page.wait_for_text("#detail", "11 of 11 keys").await;
    let label = "return [...document.querySelectorAll('#key-list button')]
        .find((button) => button.textContent.includes(arguments[0] + 'Closed')).click()";
    page.browser.run(label, &[json!("tenant 7")]).await;
    page.wait_for_text("#detail h2", "tenants [").await;
    page.click("#detail button", "Trip: tenants [tenant 7]").await;
    page.submit("Trip", "test").await;
    page.wait_until_dialog_is_closed().await;
    assert_eq!(tenants.get("tenant 7").unwrap().status().state, CircuitState::Open);
    assert_eq!(tenants.statuses().iter().filter(|status| status.state == CircuitState::Open).count(), 1);
    page.wait_for_text(".card", "1 of 120 keys not closed").await;
    assert_eq!(server.take_audit()[0].circuit, "tenants");
    assert_eq!(page.errors().await, []);
}
