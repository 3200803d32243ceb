//! The page with high contrast, without motion, and in older browsers.

use serde_json::{Value, json};

use crate::accessibility::{load_axe, log_in_without_motion, server_with_each_state, violations};
use crate::page::Page;

/// Returns the styles of elements that differ by their color only.
const STYLES: &str = "
    const style = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
    return {
        page: style('body', 'backgroundColor'),
        pressed: style('.chip[aria-pressed=true]', 'backgroundColor'),
        other: style('.chip[aria-pressed=false]', 'backgroundColor'),
        possible: style('.card [data-action][aria-disabled=false]', 'color'),
        impossible: style('.card [data-action][aria-disabled=true]', 'color'),
        ribbon: style('.near[data-state=open] .ribbon[data-state=open]', 'fill'),
        line: style('.near .limit', 'stroke'),
        edge: style('.card[data-state=open]', 'borderLeftWidth'),
        closedEdge: style('.card[data-state=closed]', 'borderLeftWidth'),
    };
";

#[tokio::test(flavor = "multi_thread")]
async fn high_contrast_shows_what_colors_show() {
    let server = server_with_each_state().await;
    let page = log_in_without_motion(&server).await;
    page.browser.resize(1280, 1400).await;
    page.wait_for_state("search", "open").await;
    for (theme, text, background) in
        [("dark", "rgb(255, 255, 255)", "rgb(0, 0, 0)"), ("light", "rgb(0, 0, 0)", "rgb(255, 255, 255)")]
    {
        page.browser.media(&[("prefers-color-scheme", theme), ("forced-colors", "active")]).await;
        let ready = "return document.querySelector('.near[data-state=open] .ribbon[data-state=open]')";
        page.browser.wait_for(ready, &[]).await;
        page.save(&format!("contrast-{theme}")).await;
        let styles = page.browser.run(STYLES, &[]).await;
        assert_eq!(styles["page"], background, "{theme}: {styles}");
        assert_eq!((&styles["ribbon"], &styles["line"]), (&json!(text), &json!(text)), "{theme}: {styles}");
        assert_ne!(styles["pressed"], styles["other"], "{theme}: {styles}");
        assert_ne!(styles["possible"], styles["impossible"], "{theme}: {styles}");
        assert_ne!(styles["edge"], styles["closedEdge"], "{theme}: {styles}");
    }
    assert_eq!(page.errors().await, []);
}

/// Returns the elements that move: those with an animation, a transition or smooth scrolling.
const MOVING: &str = "
    const moves = (style) => style.animationName !== 'none' || style.scrollBehavior !== 'auto'
        || style.transitionDuration.split(', ').some((time) => parseFloat(time) > 0);
    return [...document.querySelectorAll('*')]
        .filter((element) => [undefined, '::before', '::after']
            .some((part) => moves(getComputedStyle(element, part))))
        .map((element) => `${element.tagName} ${element.id} ${element.className}`);
";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_with_reduced_motion() {
    let server = server_with_each_state().await;
    let page = log_in_without_motion(&server).await;
    page.act("Trip", "billing", "test").await;
    page.wait_for_text(".toast", "Tripped").await;
    page.click(".card button", "billing").await;
    assert_eq!(page.browser.run(MOVING, &[]).await, json!([]));
}

/// Returns colors of the page.
const COLORS: &str = "
    const color = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
    return [
        color('body', 'backgroundColor'), color('body', 'color'), color('.top', 'backgroundColor'),
        color('.note', 'color'), color('.card[data-state=open] .state', 'color'),
        color('.card[data-state=closed] .state', 'color'), color('#act-submit', 'backgroundColor'),
    ];
";

/// Replaces functions of CSS by names that no browser has, and returns how often it did so.
const REMOVE_FUNCTIONS: &str = "
    const style = document.querySelector('style');
    const functions = /(light-dark|color-mix)\\(/g;
    const count = style.textContent.match(functions).length;
    style.textContent = style.textContent.replaceAll(functions, 'unknown-function(');
    return count;
";

async fn colors(page: &Page) -> Vec<Value> {
    let mut colors = Vec::new();
    for theme in ["dark", "light"] {
        page.browser.media(&[("prefers-color-scheme", theme)]).await;
        colors.push(page.browser.run(COLORS, &[]).await);
    }
    colors
}

#[tokio::test(flavor = "multi_thread")]
async fn page_has_its_colors_without_new_functions_of_css() {
    let server = server_with_each_state().await;
    let page = log_in_without_motion(&server).await;
    page.wait_for_state("search", "open").await;
    let expected = colors(&page).await;
    assert_ne!(expected[0], expected[1]);
    drop(page);

    let page = Page::open("about:blank").await;
    // The policy does not allow a style that the test has changed.
    page.browser.devtools("Page.setBypassCSP", json!({ "enabled": true })).await;
    page.browser.open(&format!("{}#token={}", server.url(), crate::server::OPERATOR)).await;
    page.wait_until_live().await;
    page.wait_for_state("search", "open").await;
    assert!(page.browser.run(REMOVE_FUNCTIONS, &[]).await.as_u64() > Some(5));
    assert_eq!(colors(&page).await, expected);
    load_axe(&page).await;
    for theme in ["dark", "light"] {
        page.browser.media(&[("prefers-color-scheme", theme)]).await;
        page.save(&format!("old-{theme}")).await;
        assert_eq!(json!(violations(&page).await), json!([]), "{theme}");
    }
}
