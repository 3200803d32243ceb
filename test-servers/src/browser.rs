//! A browser without a window.
#![expect(clippy::missing_panics_doc, reason = "`Browser` documents the panics of all its methods")]

mod driver;

use std::fmt;
use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::driver::Driver;
use crate::program::{Process, Program};

/// The line that the driver prints when it accepts connections. The port follows.
const READY: &str = "started successfully on port ";

/// How long [`Browser`] waits for a page or a condition.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long [`Browser`] waits between two looks at a page.
const POLL: Duration = Duration::from_millis(20);

/// The key of an element's number in JSON (WebDriver, section "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A headless Chromium with one page, controlled by `chromedriver`.
///
/// It needs Debian's packages `chromium` and `chromium-driver`. It also finds Chromium as
/// `chromium-browser`, and Google Chrome. `chromedriver` must have the same major version.
///
/// The browser resolves no names, so that it reaches only loopback addresses. Its profile is in a
/// temporary folder. It runs without a sandbox, because a sandbox works neither for root nor in
/// most containers, and a test opens only its own pages.
///
/// Starting and ending the programs blocks the thread. Dropping the handle kills the browser with
/// all its processes, and removes the folder. The browser also ends when the tests are killed.
///
/// Every method panics if the browser does not answer or answers with an error.
#[derive(Debug)]
pub struct Browser {
    // Dropped before the folder.
    _process: Process,
    driver: Driver,
    _folder: TempDir,
}

/// An element of the page of a [`Browser`].
#[derive(Clone, PartialEq, Eq)]
pub struct Element(String);

impl fmt::Debug for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of the console of a [`Browser`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleEntry {
    /// `SEVERE` for errors, `WARNING`, `INFO` or `DEBUG`.
    pub level: String,
    /// The part of the browser that wrote the entry: `javascript`, `network`, `security`,
    /// `console-api`.
    pub source: String,
    /// The text, which begins with the URL and the line.
    pub message: String,
}

/// Starts chromedriver on a port that the system picks.
///
/// The system picks the port for IPv6. chromedriver ends if another program has the same port for
/// IPv4, and is then started again.
fn start_driver(program: &Program) -> Process {
    const ATTEMPTS: u32 = 20;
    for _ in 1..ATTEMPTS {
        match Process::try_start(program, &["--port=0".to_owned()], READY) {
            Err(problem) if problem.contains("Address already in use") => {}
            started => return started.unwrap_or_else(|problem| panic!("{problem}")),
        }
    }
    Process::start(program, &["--port=0".to_owned()], READY)
}

impl Browser {
    /// Starts the browser with an empty page of 1280 × 800 px.
    ///
    /// # Panics
    ///
    /// Panics if a program is missing or fails. The text names the package, and has what the
    /// program printed.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("browser-").expect("a temporary folder can be created");
        let launcher = write_launcher(folder.path());
        let program = Program { path: PathBuf::from("chromedriver"), package: "chromium-driver", user: None };
        let process = start_driver(&program);
        let port = process.last_line().rsplit(READY).next().unwrap_or_default();
        let port = port.trim_end_matches('.').parse();
        let port = port.unwrap_or_else(|_| panic!("{}", program.failed(process.last_line())));
        let driver = Driver::connect(port, &capabilities(folder.path(), &launcher)).await;
        let browser = Self { _process: process, driver, _folder: folder };
        browser.resize(1280, 800).await;
        browser
    }

    /// Opens a URL, and waits until the page and its resources are loaded.
    pub async fn open(&self, url: &str) {
        self.driver.post("/url", &json!({ "url": url })).await;
    }

    /// Runs the body of a function in the page, and returns its result. Its arguments are
    /// `arguments[0]` and so on.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.driver.post("/execute/sync", &json!({ "script": script, "args": arguments })).await
    }

    /// Runs the body of a function again and again until its result is neither `null`, `false`, 0
    /// nor empty. Returns the result.
    ///
    /// An exception counts as `null`: the page may be loading.
    ///
    /// # Panics
    ///
    /// Panics with the last result and the console if that takes longer than 30 s.
    pub async fn wait_for(&self, script: &str, arguments: &[Value]) -> Value {
        let body = json!({ "script": script, "args": arguments });
        let started = Instant::now();
        loop {
            let result = self.driver.try_post("/execute/sync", &body).await;
            match result {
                Ok(value) if is_true(&value) => return value,
                _ if started.elapsed() < DEADLINE => sleep(POLL).await,
                _ => panic!("{script} {arguments:?} returns {result:?}; console: {:?}", self.console().await),
            }
        }
    }

    /// Returns the elements that a CSS selector matches.
    pub async fn elements(&self, selector: &str) -> Vec<Element> {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.driver.post("/elements", &query).await;
        let found = found.as_array().expect("the driver returns a list").iter();
        found
            .map(|element| Element(element[ELEMENT].as_str().expect("an element has a number").to_owned()))
            .collect()
    }

    /// Waits for exactly one element that matches the CSS selector, and has the name for assistive
    /// technology.
    ///
    /// # Panics
    ///
    /// Panics with the names of the elements that match if that takes longer than 30 s.
    pub async fn element(&self, selector: &str, name: &str) -> Element {
        let started = Instant::now();
        loop {
            let mut names = Vec::new();
            for element in self.elements(selector).await {
                // An element that was removed in the meantime has no name.
                if let Ok(Value::String(label)) = self.property(&element, "computedlabel").await {
                    names.push((label, element));
                }
            }
            let mut found = names.iter().filter(|(label, _)| label == name);
            match (found.next(), found.next()) {
                (Some((_, element)), None) => return element.clone(),
                _ if started.elapsed() < DEADLINE => sleep(POLL).await,
                _ => panic!("no single element {selector:?} has the name {name:?}: {names:?}"),
            }
        }
    }

    /// Returns the role of an element for assistive technology.
    pub async fn role(&self, element: &Element) -> String {
        let role = self.property(element, "computedrole").await;
        role.expect("the element exists").as_str().unwrap_or_default().to_owned()
    }

    /// Returns whether a user can operate the element.
    pub async fn is_enabled(&self, element: &Element) -> bool {
        self.property(element, "enabled").await.expect("the element exists") == true
    }

    /// Scrolls an element into the middle of the window, and clicks on it. It must be visible, and
    /// not be covered.
    pub async fn click(&self, element: &Element) {
        // The driver does not scroll to an element that is in the window, even if it is covered.
        let center = "arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })";
        self.run(center, &[json!({ ELEMENT: element.0 })]).await;
        self.driver.post(&format!("/element/{}/click", element.0), &json!({})).await;
    }

    /// Types text into an element.
    pub async fn fill(&self, element: &Element, text: &str) {
        self.driver.post(&format!("/element/{}/value", element.0), &json!({ "text": text })).await;
    }

    /// Presses and releases a key in the focused element. A special key is a code point of
    /// WebDriver, such as `\u{e00c}` for Escape.
    pub async fn press(&self, key: char) {
        let keys = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] });
        self.driver.post("/actions", &actions).await;
    }

    /// Sets the size of the page in px.
    pub async fn resize(&self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Sets media features, such as `("prefers-color-scheme", "dark")`. The others have their
    /// defaults.
    pub async fn media(&self, features: &[(&str, &str)]) {
        let features = features.iter().map(|(name, value)| json!({ "name": name, "value": value }));
        let features = json!({ "features": features.collect::<Vec<_>>() });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Sends a command of the DevTools protocol to the page, and returns its result.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.driver.post("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    /// Returns the visible part of the page as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        let image = self.driver.get("/screenshot").await;
        let image = image.as_str().expect("the driver returns a text");
        BASE64_STANDARD.decode(image).expect("the driver encodes with Base64")
    }

    /// Returns the entries of the console since the last call: exceptions, failed requests,
    /// violations of the content security policy.
    pub async fn console(&self) -> Vec<ConsoleEntry> {
        let entries = self.driver.post("/se/log", &json!({ "type": "browser" })).await;
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        let entries = entries.as_array().expect("the driver returns a list").iter();
        let entries = entries.map(|entry| ConsoleEntry {
            level: text(entry, "level"),
            source: text(entry, "source"),
            message: text(entry, "message"),
        });
        entries.collect()
    }

    /// Returns a property that the driver computes.
    async fn property(&self, element: &Element, property: &str) -> Result<Value, String> {
        self.driver.try_get(&format!("/element/{}/{property}", element.0)).await
    }
}

/// Writes the script that the driver starts as the browser, and returns its path.
///
/// The script lets the kernel kill the browser when the driver ends. Otherwise the browser would
/// stay, because the driver starts it in a session of its own.
fn write_launcher(folder: &Path) -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.iter().find_map(|name| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists())
    });
    let browser = found.unwrap_or_else(|| {
        let program = Program { path: PathBuf::from("chromium"), package: "chromium", user: None };
        panic!("{}", program.failed("it is not in PATH"))
    });
    let end_with_driver = if cfg!(target_os = "linux") { "setpriv --pdeathsig KILL --" } else { "" };
    let launcher = folder.join("launcher");
    let script = format!(
        "#!/bin/sh\nHOME='{}' exec {end_with_driver} '{}' \"$@\"\n",
        folder.display(),
        browser.display()
    );
    write(&launcher, script).expect("the folder is writable");
    set_permissions(&launcher, Permissions::from_mode(0o755)).expect("the file is this user's");
    launcher
}

/// Returns what a new session asks of the driver.
fn capabilities(folder: &Path, launcher: &Path) -> Value {
    let profile = format!("--user-data-dir={}", folder.join("profile").display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        // Containers have a small /dev/shm.
        "--disable-dev-shm-usage",
        "--disable-breakpad",
        "--disable-component-update",
        "--no-proxy-server",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        &profile,
    ];
    let timeouts = json!({ "pageLoad": DEADLINE.as_millis(), "script": DEADLINE.as_millis() });
    json!({ "capabilities": { "alwaysMatch": {
        "timeouts": timeouts,
        "goog:loggingPrefs": { "browser": "ALL" },
        "goog:chromeOptions": { "binary": launcher, "args": arguments },
    } } })
}

/// Returns whether a value is one that [`Browser::wait_for`] waits for.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
    }
}
