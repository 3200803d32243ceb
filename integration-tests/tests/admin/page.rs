//! The page in a browser.

use serde_json::{Value, json};
use test_servers::{Browser, ConsoleEntry};

/// Finds the card of a circuit.
const CARD: &str = "
    const card = (name) => [...document.querySelectorAll('.card')]
        .find((card) => card.querySelector('.name').textContent === name);
";

/// The page in a browser of its own.
pub(crate) struct Page {
    pub(crate) browser: Browser,
}

impl Page {
    /// Opens the page in a new browser.
    pub(crate) async fn open(url: &str) -> Self {
        let browser = Browser::start().await;
        browser.open(url).await;
        Self { browser }
    }

    /// Opens the page in a new browser with a token, and waits until it is live.
    pub(crate) async fn log_in(url: &str, token: &str) -> Self {
        let page = Self::open(&format!("{url}#token={token}")).await;
        page.wait_until_live().await;
        page
    }

    /// Waits until the page shows live data.
    pub(crate) async fn wait_until_live(&self) {
        self.wait_for_text("#connection", "Live").await;
    }

    /// Waits until the text of a visible element contains `text`.
    pub(crate) async fn wait_for_text(&self, selector: &str, text: &str) {
        let script = "
            return [...document.querySelectorAll(arguments[0])].some((element) =>
                element.checkVisibility() && element.textContent.includes(arguments[1]));
        ";
        self.browser.wait_for(script, &[json!(selector), json!(text)]).await;
    }

    /// Waits until the page shows a circuit in a state, such as `forced_open`.
    pub(crate) async fn wait_for_state(&self, circuit: &str, state: &str) {
        let script = format!("{CARD} return card(arguments[0])?.dataset.state === arguments[1];");
        self.browser.wait_for(&script, &[json!(circuit), json!(state)]).await;
    }

    /// Waits until the page shows no circuit of this name.
    pub(crate) async fn wait_until_gone(&self, circuit: &str) {
        let script = format!("{CARD} return card(arguments[0]) === undefined;");
        self.browser.wait_for(&script, &[json!(circuit)]).await;
    }

    /// Returns whether the page shows a circuit of this name.
    pub(crate) async fn has(&self, circuit: &str) -> bool {
        let script = format!("{CARD} return card(arguments[0]) !== undefined;");
        self.browser.run(&script, &[json!(circuit)]).await == true
    }

    /// Returns the text of the card of a circuit.
    pub(crate) async fn card_text(&self, circuit: &str) -> String {
        let script = format!("{CARD} return card(arguments[0]).textContent;");
        let text = self.browser.run(&script, &[json!(circuit)]).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the card of a circuit contains the text.
    pub(crate) async fn wait_for_card(&self, circuit: &str, text: &str) {
        let script = format!("{CARD} return card(arguments[0]).textContent.includes(arguments[1]);");
        self.browser.wait_for(&script, &[json!(circuit), json!(text)]).await;
    }

    /// Clicks on the only visible element that matches the selector and has this accessible name.
    pub(crate) async fn click(&self, selector: &str, name: &str) {
        let element = self.browser.element(selector, name).await;
        self.browser.click(&element).await;
    }

    /// Types into the only element that matches the selector and has this accessible name.
    pub(crate) async fn fill(&self, selector: &str, name: &str, text: &str) {
        let element = self.browser.element(selector, name).await;
        self.browser.fill(&element, text).await;
    }

    /// Opens the dialog of an action of a circuit's card, such as `Force open`.
    pub(crate) async fn begin(&self, action: &str, circuit: &str) {
        self.click(".card button", &format!("{action}: {circuit}")).await;
        self.wait_for_text("#act h2", &format!("{action}: {circuit}")).await;
    }

    /// Enters a reason in the open dialog, and applies the action.
    pub(crate) async fn submit(&self, action: &str, reason: &str) {
        self.fill("dialog input", "Reason", reason).await;
        self.click("dialog button", action).await;
    }

    /// Applies an action to a circuit, and waits for the page's answer.
    pub(crate) async fn act(&self, action: &str, circuit: &str, reason: &str) {
        self.begin(action, circuit).await;
        self.submit(action, reason).await;
        self.wait_until_dialog_is_closed().await;
    }

    /// Sets the focus, as Tab does, to the only visible element that matches the selector and has
    /// this accessible name.
    pub(crate) async fn focus(&self, selector: &str, name: &str) {
        let script = "
            const found = [...document.querySelectorAll(arguments[0])].filter((element) =>
                (element.getAttribute('aria-label') ?? element.textContent) === arguments[1]
                && element.checkVisibility());
            found[0]?.focus();
            return found.length === 1 && document.activeElement === found[0];
        ";
        self.browser.wait_for(script, &[json!(selector), json!(name)]).await;
    }

    /// Returns the accessible name of the element that has the focus. `BODY`: no element has it.
    pub(crate) async fn focused(&self) -> String {
        let script = "
            const element = document.activeElement;
            return element === document.body ? 'BODY'
                : element.getAttribute('aria-label') ?? (element.id || element.textContent);
        ";
        self.browser.run(script, &[]).await.as_str().unwrap().to_owned()
    }

    /// Presses Tab, with Shift if `back`.
    pub(crate) async fn tab(&self, back: bool) {
        for kind in ["rawKeyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": "Tab", "code": "Tab",
                "windowsVirtualKeyCode": 9, "modifiers": if back { 8 } else { 0 },
            });
            self.browser.devtools("Input.dispatchKeyEvent", key).await;
        }
    }

    /// Types a text into the focused element.
    pub(crate) async fn type_keys(&self, text: &str) {
        for key in text.chars() {
            self.browser.press(key).await;
        }
    }

    /// Waits until no dialog is open, and until the page has handled the event of its end.
    pub(crate) async fn wait_until_dialog_is_closed(&self) {
        let script = "
            return !document.querySelector('dialog[open]')
                && new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 0, true)));
        ";
        self.browser.wait_for(script, &[]).await;
    }

    /// Returns the errors of the console since the last call.
    ///
    /// Responses with an error status are not among them: the tests cause those.
    pub(crate) async fn errors(&self) -> Vec<ConsoleEntry> {
        let entries = self.browser.console().await.into_iter();
        entries.filter(|entry| entry.level == "SEVERE" && entry.source != "network").collect()
    }

    /// Returns the visible elements whose content is wider than they are, so that a user must
    /// scroll sideways. The row of filters may be: it scrolls on purpose.
    pub(crate) async fn wide_elements(&self) -> Vec<String> {
        let script = "
            const scrolls = (element) => element === document.documentElement
                || ['auto', 'scroll'].includes(getComputedStyle(element).overflowX);
            return [...document.querySelectorAll('*:not(#chips)')]
                .filter((element) => element.checkVisibility() && scrolls(element))
                .filter((element) => element.scrollWidth > element.clientWidth)
                .map((element) => `${element.tagName} ${element.id} ${element.className}`);
        ";
        let found = self.browser.run(script, &[]).await;
        found.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Returns the texts and controls in an element that overlap others, or that leave the window.
    /// The row of filters may leave it: it scrolls on purpose.
    pub(crate) async fn overlaps(&self, selector: &str) -> Vec<String> {
        let script = "
            const all = [...document.querySelectorAll(`${arguments[0]} :is(h1, p, bdi, button, input, select)`)]
                .filter((element) => element.checkVisibility() && !element.closest('#chips'))
                .filter((element) => element.textContent || element.matches('input, button'));
            const name = (element) => element.id || element.ariaLabel || element.textContent;
            const box = (element) => element.getBoundingClientRect();
            const found = all.filter((element) => box(element).left < 0 || box(element).right > innerWidth + 0.5)
                .map((element) => `${name(element)} leaves the window`);
            all.forEach((one, index) => all.slice(index + 1).forEach((other) => {
                const [a, b] = [box(one), box(other)];
                const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (!one.contains(other) && wide > 0.5 && high > 0.5)
                    found.push(`${name(one)} overlaps ${name(other)}`);
            }));
            return found;
        ";
        let found = self.browser.run(script, &[json!(selector)]).await;
        found.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    /// Saves a screenshot in the target directory, to be looked at.
    pub(crate) async fn save(&self, name: &str) {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), self.browser.screenshot().await).unwrap();
    }

    /// Returns the value of an expression in the page.
    pub(crate) async fn value(&self, expression: &str) -> Value {
        self.browser.run(&format!("return {expression}"), &[]).await
    }
}
