//! Many circuits with many transitions.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tower_breaker::{CircuitRegistry, CircuitState};

use crate::page::Page;
use crate::server::{OPERATOR, Server};

const CIRCUITS: usize = 500;
/// 50 transitions per second.
const BETWEEN_TRANSITIONS: Duration = Duration::from_millis(20);

/// Trips and resets random circuits, until it is aborted.
async fn change(registry: CircuitRegistry) {
    let circuits = registry.circuits();
    let mut random = fastrand::Rng::with_seed(1);
    let mut ticks = interval(BETWEEN_TRANSITIONS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let circuit = &circuits[random.usize(..circuits.len())];
        let is_open = circuit.status().state == CircuitState::Open;
        if is_open { circuit.reset() } else { circuit.trip() }.unwrap();
    }
}

/// How long the test scrolls.
const SECONDS: f64 = 6.0;

/// Scrolls up and down. Returns the times between frames and those of long tasks in ms.
const SCROLL: &str = "
    const tasks = [];
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration)))
        .observe({ type: 'longtask' });
    return new Promise((resolve) => {
        const frames = [];
        const started = performance.now();
        let last = started;
        let step = 12;
        const frame = (now) => {
            frames.push(now - last);
            last = now;
            const bottom = document.documentElement.scrollHeight - innerHeight;
            if (scrollY + step < 0 || scrollY + step > bottom) step = -step;
            scrollBy(0, step);
            if (now - started < arguments[0] * 1000) requestAnimationFrame(frame);
            else resolve({ frames: frames.slice(1), tasks });
        };
        requestAnimationFrame(frame);
    });
";

fn sorted(value: &Value) -> Vec<f64> {
    let mut numbers: Vec<_> =
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// Returns how many seconds the page's thread has computed, all in all and for each purpose.
async fn computing_time(page: &Page) -> [f64; 4] {
    let metrics = page.browser.devtools("Performance.getMetrics", json!({})).await;
    let metrics = metrics["metrics"].as_array().unwrap().clone();
    ["TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration"].map(|name| {
        let metric = metrics.iter().find(|metric| metric["name"] == name).unwrap();
        metric["value"].as_f64().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn page_scrolls_while_many_circuits_change() {
    let names: Vec<&'static str> =
        (0..CIRCUITS).map(|number| &*format!("circuit-{number:03}").leak()).collect();
    let server = Server::start(&names).await;
    let page = Page::log_in(&server.url(), OPERATOR).await;
    page.wait_for_text("button", &format!("All {CIRCUITS}")).await;
    // Other processes do not change the time that a thread computes.
    page.browser.devtools("Performance.enable", json!({ "timeDomain": "threadTicks" })).await;
    let changes = tokio::spawn(change(server.registry.clone()));
    let before = computing_time(&page).await;
    let measured = page.browser.run(SCROLL, &[json!(SECONDS)]).await;
    let after = computing_time(&page).await;
    let computed: Vec<_> =
        after.iter().zip(before).map(|(after, before)| (after - before) / SECONDS).collect();
    let (frames, tasks) = (sorted(&measured["frames"]), sorted(&measured["tasks"]));
    let at = |percent: usize| frames[(frames.len() - 1) * percent / 100];
    println!(
        "{} frames: median {:.1} ms, 95 % {:.1} ms, longest {:.1} ms; {} long tasks, longest {:.0} ms",
        frames.len(),
        at(50),
        at(95),
        at(100),
        tasks.len(),
        tasks.last().unwrap_or(&0.0),
    );
    println!("computing time per second, of that scripts, layout, styles: {computed:.3?} s");
    page.save("many").await;
    // The limits are far above the times of an idle machine: other tests run at the same time.
    assert!(computed[0] < 0.8, "{computed:?}");
    assert!(tasks.last().is_none_or(|longest| *longest < 3_000.0), "{tasks:?}");

    changes.abort();
    // In the end, the page shows what is the case.
    let _ = changes.await;
    for status in server.registry.statuses() {
        page.wait_for_state(status.circuit, &status.state.to_string()).await;
    }
    assert_eq!(page.errors().await, []);
}
