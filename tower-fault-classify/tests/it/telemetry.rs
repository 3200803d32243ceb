//! The metrics of the layer count every fault.

use std::future::ready;
use std::io;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_test::{assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_fault_classify::FaultClassifyLayer;

#[test]
fn metrics_count_faults_by_kind_and_origin() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        tokio_test::block_on(async {
            let respond = async |status: u16| match status {
                0 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                status => Ok(http::Response::builder().status(status).body(()).unwrap()),
            };
            let mut wrapping = FaultClassifyLayer::new().layer(service_fn(respond));
            for status in [200, 503, 503, 404, 0] {
                let _ = wrapping.ready().await.unwrap().call(status).await;
            }
            let mut keeping =
                FaultClassifyLayer::new().name("search".to_owned()).keep_errors().layer(service_fn(respond));
            keeping.ready().await.unwrap().call(0).await.unwrap_err();
        });
    });
    let mut counts: Vec<_> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, unit, text, value)| {
            assert_eq!(key.key().name(), "tower_fault_classify_faults_total");
            assert_eq!(unit, Some(metrics::Unit::Count));
            assert!(text.is_some_and(|text| text.ends_with('.')));
            let labels = key.key().labels().map(|label| format!("{}={}", label.key(), label.value()));
            let DebugValue::Counter(count) = value else { panic!("the metric is not a counter") };
            (labels.collect::<Vec<_>>().join(" "), count)
        })
        .collect();
    counts.sort();
    let expected = [
        ("layer=classify error.type=client fault.origin=caller", 1),
        ("layer=classify error.type=unavailable fault.origin=remote", 2),
        ("layer=classify error.type=unavailable fault.origin=transport", 1),
        ("layer=search error.type=unavailable fault.origin=transport", 1),
    ];
    assert_eq!(counts, expected.map(|(labels, count)| (labels.to_owned(), count)));
}

#[test]
fn end_of_tracked_body_is_counted_with_name_of_layer() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let respond = async |()| {
            let response = http::Response::builder().header("content-type", "application/grpc");
            Ok::<_, io::Error>(response.body(String::new()).unwrap())
        };
        let layer =
            FaultClassifyLayer::new().name("streams").track_body(|_: tower_fault_classify::Verdict| ());
        let response = tokio_test::block_on(layer.layer(service_fn(respond)).oneshot(())).unwrap();
        // The call has no gRPC status, which is a fault at the end of its body.
        tokio_test::block_on(http_body_util::BodyExt::collect(response)).unwrap();
    });
    let counted: Vec<_> = snapshotter.snapshot().into_vec();
    let [(key, ..)] = &counted[..] else { panic!("{counted:?}") };
    assert!(key.key().labels().any(|label| (label.key(), label.value()) == ("layer", "streams")), "{key:?}");
}

/// A recorder that makes a call for each count, like a recorder that sends its counts to a server.
mod recorder {
    use std::cell::Cell;
    use std::sync::Arc;

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    pub(crate) struct Calls(pub(crate) fn());

    struct Count(fn());

    impl CounterFn for Count {
        fn increment(&self, _: u64) {
            thread_local! {
                /// Whether the recorder's own call is being counted. It makes no further call.
                static WITHIN: Cell<bool> = const { Cell::new(false) };
            }
            if !WITHIN.replace(true) {
                (self.0)();
                WITHIN.set(false);
            }
        }

        fn absolute(&self, _: u64) {}
    }

    impl Recorder for Calls {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, _: &Key, metadata: &Metadata<'_>) -> Counter {
            assert_eq!(metadata.target(), "tower_fault_classify");
            Counter::from_arc(Arc::new(Count(self.0)))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
}

#[test]
fn metrics_recorder_making_calls_is_counted() {
    fn call() {
        let refused =
            |()| ready(Err::<http::Response<()>, _>(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let mut call = task::spawn(FaultClassifyLayer::new().layer(service_fn(refused)).oneshot(()));
        assert_ready!(call.poll()).unwrap_err();
    }
    metrics::with_local_recorder(&recorder::Calls(call), call);
}
