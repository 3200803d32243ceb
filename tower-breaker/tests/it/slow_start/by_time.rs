//! A slow start admits a growing share of the calls after the circuit has closed.

use std::time::Duration;

use tower_breaker::Verdict;

use crate::support::{circuit, config, send};

#[test]
fn slow_start_admits_share_of_sparse_calls() {
    let (circuit, time) = circuit(config().slow_start(Duration::from_secs(10)).successes_to_close(1));
    circuit.trip().unwrap();
    time.advance(Duration::from_secs(30));
    assert!(send(&circuit, Verdict::Success));
    assert_eq!(circuit.status().slow_start, Some(0.0));
    let mut admitted = Vec::new();
    for second in 0..20 {
        admitted.push(send(&circuit, Verdict::Success));
        assert_eq!(circuit.status().slow_start.is_some(), second < 10, "second {second}");
        time.advance(Duration::from_secs(1));
    }
    assert!(admitted[0], "the first call is always admitted");
    let half = admitted[..10].iter().filter(|admitted| **admitted).count();
    assert!((4..=6).contains(&half), "{half} of 10 calls while the share grows from 0 to 1");
    assert!(admitted[10..].iter().all(|admitted| *admitted), "all calls are admitted after the slow start");
}
