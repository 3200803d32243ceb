//! The pages in a browser.

use serde_json::json;
use test_servers::Browser;

use crate::support::{Files, OPERATOR};

#[tokio::test]
async fn documentation_page_lists_routes() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let browser = Browser::start().await;
    browser.open(&server.url("/")).await;
    let routes = "return [...document.querySelectorAll('.opblock-summary-path')]
        .map(path => path.textContent.replaceAll('\\u200b', ''))";
    let routes = browser.wait_for(routes, &[]).await;
    for route in ["/api/v1/circuits/", "/api/v1/circuits/{agent_id}", "/api/v1/circuits/{agent_id}/action"] {
        assert!(routes.as_array().unwrap().contains(&json!(route)), "{routes}");
    }
    assert!(browser.console().await.is_empty(), "{:?}", browser.console().await);
}

#[tokio::test]
async fn admin_page_shows_change_of_api() {
    let server = Files::embedded(&json!({ "agents": { "carrier-pigeon": {} } })).start().await;
    let browser = Browser::start().await;
    browser.open(&server.url(&format!("/admin/#token={OPERATOR}"))).await;
    // Only visible text: the script of the page has many words.
    let shows = "return document.body.innerText.toLowerCase().includes(arguments[0])";
    browser.wait_for(shows, &[json!("carrier-pigeon")]).await;
    assert_eq!(browser.run(shows, &[json!("tripped")]).await, false);
    server.act("carrier-pigeon", "open").await;
    browser.wait_for(shows, &[json!("tripped")]).await;
    assert!(browser.console().await.is_empty(), "{:?}", browser.console().await);
}

/// The page sends the token as its first message.
#[tokio::test]
async fn browser_follows_events_over_websocket() {
    let server = Files::embedded(&json!({ "agents": { "search": {} } })).start().await;
    let browser = Browser::start().await;
    browser.open(&server.url("/health")).await;
    let url = format!("ws://{}/api/v1/circuits/ws", server.address());
    let follow = "window.messages = [];
        const socket = new WebSocket(arguments[0]);
        socket.onopen = () => socket.send(JSON.stringify({ token: arguments[1] }));
        socket.onmessage = message => window.messages.push(JSON.parse(message.data));";
    browser.run(follow, &[json!(url), json!(OPERATOR)]).await;
    browser.wait_for("return window.messages.some(message => message.type === 'subscribed')", &[]).await;
    server.act("search", "open").await;
    let states = "return window.messages.slice(1).map(message => message.data.state)";
    assert_eq!(browser.wait_for(states, &[]).await, json!(["open"]));
}
