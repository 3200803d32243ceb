//! Themes, widths, and what axe-core finds.

use serde_json::{Value, json};
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker::{BreakerConfig, CircuitState, Mode};

use crate::page::Page;
use crate::server::{OPERATOR, Server};
use crate::tools::tool;

const THEMES: [&str; 2] = ["dark", "light"];
/// The smallest phones, tablets, desktops, wall screens.
const SCREENS: [(u32, u32); 5] = [(320, 640), (360, 740), (768, 1024), (1920, 1080), (3840, 2160)];

/// Starts a server with a circuit in each state, and with keys.
pub(crate) async fn server_with_each_state() -> Server {
    let config = BreakerConfig::builder().name("tenants").build().unwrap();
    let tenants = KeyedCircuits::<String>::new(KeyedConfig::builder(config).build().unwrap());
    for key in ["a", "b", "c"] {
        tenants.get_or_insert(key.to_owned()).unwrap();
    }
    tenants.get("b").unwrap().trip().unwrap();
    let names = ["billing", "disabled", "forced-closed", "forced-open", "half-open", "search"];
    let server = Server::start_with(&names, move |admin| admin.keyed(&tenants)).await;
    let disabled = BreakerConfig::builder().name("disabled").mode(Mode::Disabled).build().unwrap();
    server.circuit("disabled").reconfigure(disabled).unwrap();
    server.circuit("forced-closed").force_closed().unwrap();
    server.circuit("forced-open").force_open_for(std::time::Duration::from_secs(600)).unwrap();
    server.circuit("half-open").trip().unwrap();
    server.circuit("half-open").probe_now().unwrap();
    server.circuit("search").trip().unwrap();
    assert_eq!(server.state("half-open"), CircuitState::HalfOpen);
    server
}

/// A part of the page that is checked.
#[derive(Clone, Copy, Debug)]
enum View {
    List,
    Dialog,
    Details,
    Keys,
    Log,
}

impl View {
    async fn open(self, page: &Page) {
        match self {
            Self::List => page.wait_for_state("search", "open").await,
            Self::Dialog => page.begin("Force open", "search").await,
            Self::Details => {
                page.click(".card button", "search").await;
                page.wait_for_text("#detail h2", "search").await;
            }
            Self::Keys => {
                page.click(".card button", "tenants").await;
                page.wait_for_text("#detail", "1 of 1 key").await;
            }
            Self::Log => {
                page.click("button", "Log").await;
                page.wait_for_text("#log-list li", "search").await;
            }
        }
    }

    async fn close(self, page: &Page) {
        match self {
            Self::List => {}
            Self::Dialog => page.click("dialog button", "Cancel").await,
            Self::Details | Self::Keys => page.click("button", "Close the details").await,
            Self::Log => page.click("button", "Close the log").await,
        }
    }
}

const VIEWS: [View; 5] = [View::List, View::Dialog, View::Details, View::Keys, View::Log];

/// Opens the page without animations, so that each view is complete at once.
pub(crate) async fn log_in_without_motion(server: &Server) -> Page {
    let page = Page::open(&server.url()).await;
    page.browser.media(&[("prefers-reduced-motion", "reduce")]).await;
    page.fill("dialog input", "Access token", OPERATOR).await;
    page.click("dialog button", "Log in").await;
    page.wait_until_live().await;
    // The wide page may begin with an open log.
    if page.value("document.documentElement.dataset.panel").await == "log" {
        View::Log.close(&page).await;
    }
    page
}

async fn set_theme(page: &Page, theme: &str) {
    page.browser.media(&[("prefers-color-scheme", theme), ("prefers-reduced-motion", "reduce")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_fits_every_screen() {
    let server = server_with_each_state().await;
    let page = log_in_without_motion(&server).await;
    for (width, height) in SCREENS {
        page.browser.resize(width, height).await;
        for view in VIEWS {
            view.open(&page).await;
            page.save(&format!("{view:?}-{width}x{height}")).await;
            assert_eq!(page.wide_elements().await, [""; 0], "{view:?} at {width} px");
            assert_eq!(page.overlaps("#top").await, [""; 0], "{view:?} at {width} px");
            view.close(&page).await;
        }
    }
    assert_eq!(page.errors().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn header_leaves_a_low_screen_to_the_circuits() {
    let server = server_with_each_state().await;
    let page = log_in_without_motion(&server).await;
    let scroll = "scrollTo(0, 500); return document.querySelector('#top').getBoundingClientRect().bottom";
    // A zoom of 400 % on a screen of 1280 × 1024 px.
    page.browser.resize(320, 256).await;
    assert_eq!(page.wide_elements().await, [""; 0]);
    assert!(page.browser.run(scroll, &[]).await.as_f64() < Some(0.0));
    page.browser.resize(320, 640).await;
    assert!(page.browser.run(scroll, &[]).await.as_f64() > Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn themes_follow_the_system_until_the_user_chooses() {
    let server = Server::start(&["search"]).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    let background = "getComputedStyle(document.body).backgroundColor";
    set_theme(&page, "dark").await;
    let dark = page.value(background).await;
    set_theme(&page, "light").await;
    let light = page.value(background).await;
    assert_ne!(dark, light);
    page.click("button", "Theme: system").await;
    page.click("button", "Theme: light").await;
    assert_eq!(page.value(background).await, dark);
    // The choice is kept.
    page.browser.run("location.reload()", &[]).await;
    page.wait_until_live().await;
    assert_eq!(page.value(background).await, dark);
}

/// Returns the violations that axe-core finds: the rule and the elements.
pub(crate) async fn violations(page: &Page) -> Vec<Value> {
    let script = "
        return axe.run(document, { resultTypes: ['violations'] }).then((result) =>
            result.violations.map(({ id, help, nodes }) =>
                [id, help, nodes.map(({ target, failureSummary }) => [target, failureSummary])]));
    ";
    let found = page.browser.run(script, &[]).await;
    found.as_array().unwrap().clone()
}

pub(crate) async fn load_axe(page: &Page) {
    let axe = std::fs::read_to_string(tool("node_modules/axe-core/axe.min.js")).unwrap();
    page.browser.run(&axe, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_violation() {
    let server = server_with_each_state().await;
    let page = Page::open(&server.url()).await;
    page.wait_for_text("dialog h2", "Log in").await;
    load_axe(&page).await;
    let seen = json!(violations(&page).await);
    assert_eq!(seen, json!([]), "log in");
    drop(page);

    let page = log_in_without_motion(&server).await;
    load_axe(&page).await;
    for (width, height) in [(320, 640), (390, 844), (1280, 800), (3840, 2160)] {
        page.browser.resize(width, height).await;
        for view in VIEWS {
            view.open(&page).await;
            for theme in THEMES {
                set_theme(&page, theme).await;
                let seen = json!(violations(&page).await);
                assert_eq!(seen, json!([]), "{view:?} at {width} px, {theme}");
            }
            view.close(&page).await;
        }
    }
    // axe-core finds something if there is something.
    page.browser.run("document.querySelector('#search').removeAttribute('aria-label')", &[]).await;
    page.browser.run("document.querySelector('#search').placeholder = ''", &[]).await;
    assert_eq!(violations(&page).await.len(), 1);
}
