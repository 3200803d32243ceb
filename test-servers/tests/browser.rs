//! Checks the browser: it shows pages, takes input, and ends with its handle.
#![cfg(unix)]

use std::path::Path;

use serde_json::{Value, json};
use test_servers::{Action, Browser, Http};

const PAGE: &str = r##"<!doctype html>
<html lang="en"><title>Test</title>
<style>body { background: rgb(255, 255, 255) } @media (prefers-color-scheme: dark) { body { background: rgb(0, 0, 0) } }</style>
<label>Name <input id="name"></label>
<button id="first" aria-label="Greet">x</button>
<button id="second" disabled>Leave</button>
<p id="output"></p>
<script>
document.querySelector("#first").onclick = () => setTimeout(() => {
    document.querySelector("#output").textContent = "Hello " + document.querySelector("#name").value;
}, 100);
document.onkeydown = (event) => { document.title = event.key; };
</script>"##;

async fn open_page() -> (Http, Browser) {
    let server = Http::start().await;
    server.set_default(Action::status(200).header("content-type", "text/html").body(PAGE));
    let browser = Browser::start().await;
    browser.open(&server.url()).await;
    (server, browser)
}

#[tokio::test]
async fn browser_runs_scripts_and_takes_input() {
    let (_server, browser) = open_page().await;
    assert_eq!(browser.run("return document.title", &[]).await, "Test");
    assert_eq!(browser.run("return arguments[0] + arguments[1]", &[json!(1), json!(2)]).await, 3);

    let name = browser.element("input", "Name").await;
    assert_eq!(browser.role(&name).await, "textbox");
    browser.fill(&name, "Anna").await;
    let greet = browser.element("button", "Greet").await;
    assert!(browser.is_enabled(&greet).await);
    browser.click(&greet).await;
    // The page writes it after 100 ms.
    let text = browser.wait_for("return document.querySelector('#output').textContent", &[]).await;
    assert_eq!(text, "Hello Anna");
    let leave = browser.element("button", "Leave").await;
    assert!(!browser.is_enabled(&leave).await);
    assert_eq!(browser.elements("button").await, [greet, leave]);

    browser.press('\u{e00c}').await;
    assert_eq!(browser.run("return document.title", &[]).await, "Escape");
}

#[tokio::test]
async fn browser_emulates_screens_and_media() {
    let (_server, browser) = open_page().await;
    for (width, height) in [(360_u32, 640_u32), (1920, 1080)] {
        browser.resize(width, height).await;
        assert_eq!(browser.run("return [innerWidth, innerHeight]", &[]).await, json!([width, height]));
        let image = browser.screenshot().await;
        assert!(image.starts_with(b"\x89PNG"));
        // The header has the width and the height.
        let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
        assert_eq!(image[16..24], sizes);
    }
    let background = "return getComputedStyle(document.body).backgroundColor";
    for (scheme, color) in [("dark", "rgb(0, 0, 0)"), ("light", "rgb(255, 255, 255)")] {
        browser.media(&[("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")]).await;
        assert_eq!(browser.run(background, &[]).await, color);
        assert_eq!(browser.run("return matchMedia('(prefers-reduced-motion)').matches", &[]).await, true);
    }
}

#[tokio::test]
async fn browser_console_has_exceptions_and_failed_requests() {
    let (server, browser) = open_page().await;
    // The request for an icon may fail.
    browser.console().await;
    server.set_default(Action::status(418));
    let script = "setTimeout(() => { throw new Error('thrown') }); return fetch('/missing').then(() => true)";
    assert_eq!(browser.run(script, &[]).await, true);
    let entries = browser.console().await;
    let found = |source: &str, text: &str| {
        entries
            .iter()
            .any(|entry| entry.level == "SEVERE" && entry.source == source && entry.message.contains(text))
    };
    assert!(found("javascript", "Error: thrown"), "{entries:?}");
    assert!(found("network", "418"), "{entries:?}");
    assert_eq!(browser.console().await, [], "each entry is returned once");
}

#[tokio::test]
#[should_panic(expected = "invalid argument: No dialog is showing")]
async fn browser_error_of_the_driver_is_named() {
    let (_server, browser) = open_page().await;
    browser.devtools("Page.handleJavaScriptDialog", json!({ "accept": true })).await;
}

#[tokio::test]
async fn browser_reaches_only_loopback() {
    let (_server, browser) = open_page().await;
    let script = "return fetch('http://example.com/').then(() => 'reached', (error) => error.name)";
    assert_eq!(browser.run(script, &[]).await, "TypeError");
    let entries = browser.console().await;
    assert!(entries.iter().any(|entry| entry.message.contains("ERR_NAME_NOT_RESOLVED")), "{entries:?}");
}

/// Returns the number of processes with this text in their command line.
fn processes_with(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    commands.filter(|command| String::from_utf8_lossy(command).contains(text)).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn browser_ends_with_its_handle() {
    let (_server, browser) = open_page().await;
    let version = browser.devtools("Browser.getBrowserCommandLine", json!({})).await;
    let Value::Array(arguments) = &version["arguments"] else { panic!("{version}") };
    let profile = arguments.iter().find_map(|argument| argument.as_str()?.strip_prefix("--user-data-dir="));
    let profile = profile.unwrap().to_owned();
    assert!(processes_with(&profile) > 0);
    drop(browser);
    assert_eq!(processes_with(&profile), 0);
    assert!(!Path::new(&profile).parent().unwrap().exists());
}
