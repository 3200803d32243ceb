//! The metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder,
};

use super::*;

/// A recorder that keeps the values of counters and gauges, the names of histograms, and the names
/// of all metrics with a description.
#[derive(Default)]
struct Values {
    values: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    described: Mutex<BTreeSet<String>>,
}

impl Values {
    fn value(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::clone(self.values.lock().unwrap().entry(name).or_default())
    }

    fn load(&self, name: &str) -> Option<u64> {
        self.values.lock().unwrap().get(name).map(|value| value.load(Ordering::Relaxed))
    }

    fn describe(&self, name: &KeyName, text: &str) {
        assert!(!text.is_empty());
        self.described.lock().unwrap().insert(name.as_str().to_owned());
    }

    fn gauge(&self, name: &str) -> Option<f64> {
        self.load(name).map(f64::from_bits)
    }
}

impl Recorder for Values {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, text: SharedString) {
        self.describe(&name, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.value(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.value(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.value(key);
        Histogram::noop()
    }
}

/// Runs a test with paused time, which reads its metrics.
fn with_metrics(test: impl AsyncFnOnce(&Values)) {
    let values = Values::default();
    with_local_recorder(&values, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test(&values));
    });
}

#[test]
fn metrics_show_the_connection_votes_probes_and_errors() {
    with_metrics(async |values| {
        let mut fleet = Processes::start(3).await;
        fleet.run(WARM_UP).await;
        assert_eq!(values.gauge("tower_breaker_fleet_attached{namespace=default}"), Some(1.0));
        assert_eq!(values.gauge("tower_breaker_fleet_members{circuit=search}"), Some(3.0));
        fleet.all[0].is_good = false;
        fleet.run(seconds(2)).await;
        assert_eq!(values.gauge("tower_breaker_fleet_open_members{circuit=search}"), Some(1.0));
        sleep(HEARTBEAT * 2).await;
        assert_eq!(values.gauge("tower_breaker_fleet_votes{circuit=search}"), Some(1.0));
        fleet.open().await;
        fleet.run(seconds(4)).await;
        let failed = "tower_breaker_fleet_probes_total{circuit=search,outcome=failure}";
        assert!(values.load(failed).is_some_and(|probes| probes >= 1));
        assert!(values.load("tower_breaker_fleet_sync_seconds{}").is_some());
        fleet.store.set_availability(Availability::Failing);
        sleep(seconds(1)).await;
        assert_eq!(values.gauge("tower_breaker_fleet_attached{namespace=default}"), Some(0.0));
        let errors = "tower_breaker_fleet_errors_total{kind=unreachable}";
        assert!(values.load(errors).is_some_and(|errors| errors >= 3));
        let described = values.described.lock().unwrap();
        for name in values.values.lock().unwrap().keys() {
            let (name, _) = name.split_once('{').unwrap();
            assert!(!name.starts_with("tower_breaker_fleet") || described.contains(name), "{name}");
        }
    });
}

#[test]
fn unused_reservations_are_no_probes_in_metrics() {
    with_metrics(async |values| {
        let neutral = "tower_breaker_fleet_probes_total{circuit=search,outcome=neutral}";
        let mut fleet = Processes::start(2).await;
        fleet.run(WARM_UP).await;
        fleet.open().await;
        sleep(OPEN).await;
        assert!(!fleet.all[0].call(true), "the call shows demand");
        fleet.settle().await;
        // A probe that is cancelled shows nothing about the server.
        let probe = fleet.all[0].circuit.try_acquire().unwrap();
        sleep(seconds(1)).await;
        drop(probe);
        fleet.settle().await;
        assert_eq!(values.load(neutral), Some(1));
        // The process asks for leases, and makes no call.
        sleep(seconds(20)).await;
        assert_eq!(values.load(neutral), Some(1));
    });
}

#[test]
fn gauges_of_an_ended_circuit_are_zero() {
    with_metrics(async |values| {
        let members = "tower_breaker_fleet_members{circuit=search}";
        let mut fleet = Processes::start(1).await;
        let process = fleet.all.pop().unwrap();
        assert_eq!(values.gauge(members), Some(1.0));
        drop(process.circuit);
        sleep(HEARTBEAT * 2).await;
        assert_eq!(values.gauge(members), Some(0.0));
        let circuit = Circuit::new(config().build().unwrap());
        process.fleet.share(&circuit).unwrap();
        sleep(HEARTBEAT * 2).await;
        assert_eq!(values.gauge(members), Some(1.0));
        process.fleet.leave().await;
        assert_eq!(values.gauge(members), Some(0.0));
    });
}
