//! Names, messages and reasons that try to be more than text.

use serde_json::json;
use tower_breaker::fault_classify::{Health, Kind, Origin, Retryable};
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, CircuitState, Fault};

use crate::page::Page;
use crate::server::{OPERATOR, Server};

const SCRIPTS: [&str; 4] = [
    "<img src=x onerror=\"window.attacked = 1\">",
    "\"'><script>window.attacked = 1</script>",
    "<svg onload=\"window.attacked = 1\">",
    "javascript:window.attacked=1",
];

const NAMES: [&str; 14] = [
    SCRIPTS[0],
    SCRIPTS[1],
    SCRIPTS[2],
    SCRIPTS[3],
    "../../api/v1/audit",
    "a/b?c=d#e%2Ff%",
    "__proto__",
    "constructor",
    "line\nevent: hello\ndata: {}\n\n",
    "carriage\rreturn\u{2028}\u{2029}\u{0}",
    "\u{202e}desrever",
    "\u{5e2}\u{5d1}\u{5e8}\u{5d9}\u{5ea} \u{645}\u{631}\u{62d}\u{628}\u{627}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \u{7a}\u{351}\u{34a}\u{35b}\u{36f}",
    "   ",
];

/// Changes a circuit's state in the page, whatever its name is.
async fn trip(page: &Page, name: &str, reason: &str) {
    let click = "
        [...document.querySelectorAll('.card')]
            .find((card) => card.querySelector('.name').title === arguments[0])
            .querySelector('[data-action=trip]').click();
    ";
    page.browser.run(click, &[json!(name)]).await;
    page.submit("Trip", reason).await;
    page.wait_until_dialog_is_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_only_text() {
    let long: &'static str = "w".repeat(2_000).leak();
    let names: Vec<_> = NAMES.into_iter().chain([long]).collect();
    let config = BreakerConfig::builder().name("keys").build().unwrap();
    let keys = KeyedCircuits::<String>::new(KeyedConfig::builder(config).build().unwrap());
    for name in SCRIPTS {
        keys.get_or_insert(name.to_owned()).unwrap().trip().unwrap();
    }
    let server = Server::start_with(&names, move |admin| admin.keyed(&keys)).await;
    let fault = Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote);
    for name in &names {
        let permit = server.circuit(name).try_acquire().unwrap();
        permit.fail_as(fault, &std::io::Error::other(SCRIPTS[0]), SCRIPTS[1]);
    }
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_text("button", &format!("All {}", names.len() + 1)).await;

    let shown = page
        .browser
        .run("return [...document.querySelectorAll('.card .name')].map((name) => name.title).sort()", &[]);
    let mut expected: Vec<_> = names.iter().copied().chain(["keys"]).collect();
    expected.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
    assert_eq!(shown.await, json!(expected));
    page.wait_for_text(".card", SCRIPTS[0]).await;

    for name in &names {
        trip(&page, name, SCRIPTS[0]).await;
        assert_eq!(server.state(name), CircuitState::Open, "{name:?}");
    }
    assert_eq!(server.take_audit().iter().filter(|entry| entry.status == 200).count(), names.len());
    page.click("button", "Log").await;
    page.wait_for_text("#log-list li", SCRIPTS[0]).await;
    page.click("button", "Close the log").await;
    page.click(".card button", "keys").await;
    page.wait_for_text("#key-list li", "<img src=x").await;
    page.save("hostile").await;
    page.click("button", "Close the details").await;

    for width in [360, 1920] {
        page.browser.resize(width, 900).await;
        assert_eq!(page.wide_elements().await, [""; 0], "{width} px");
        page.save(&format!("hostile-{width}")).await;
    }
    assert_eq!(page.value("window.attacked ?? null").await, json!(null));
    assert_eq!(page.value("document.querySelectorAll('img, iframe, body script ~ script').length").await, 0);
    assert_eq!(page.errors().await, [], "nothing has violated the content security policy");
}
