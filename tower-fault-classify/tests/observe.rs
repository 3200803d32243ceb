//! Every fault that the layer judges is counted.
#![cfg(feature = "metrics")]

use std::io;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_fault_classify::FaultClassifyLayer;

#[test]
fn faults_are_counted_by_kind_and_origin_and_successes_are_not() {
    let recorder = DebuggingRecorder::new();
    let told = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        tokio_test::block_on(async {
            let answer = async |status: u16| match status {
                0 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                status => Ok(http::Response::builder().status(status).body(()).unwrap()),
            };
            let mut wrapping = FaultClassifyLayer::new().layer(service_fn(answer));
            for status in [200, 503, 503, 404, 0] {
                let _ = wrapping.ready().await.unwrap().call(status).await;
            }
            let mut keeping = FaultClassifyLayer::new().keep_errors().layer(service_fn(answer));
            keeping.ready().await.unwrap().call(0).await.unwrap_err();
        });
    });
    let mut counts: Vec<_> = told
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            assert_eq!(key.key().name(), "tower_fault_classify_faults_total");
            let labels = key.key().labels().map(|label| format!("{}={}", label.key(), label.value()));
            let DebugValue::Counter(count) = value else { panic!("it is a counter") };
            (labels.collect::<Vec<_>>().join(" "), count)
        })
        .collect();
    counts.sort();
    let expected = [
        ("error.type=client fault.origin=caller", 1),
        ("error.type=unavailable fault.origin=remote", 2),
        ("error.type=unavailable fault.origin=transport", 2),
    ];
    assert_eq!(counts, expected.map(|(labels, count)| (labels.to_owned(), count)));
}
