//! For a method, the compiler does not name the missing feature. The guide does.
//~ no method named `call_within` found for struct `Circuit<
//~ no method named `acquire` found for struct `Circuit<
//~ no method named `ready` found for struct `Circuit<
//~ no method named `transitions` found
//~ no method named `not_ready_when_open` found for struct `BreakerLayer<
//~ no method named `read_error_bodies` found for struct `FaultClassifyLayer<
//~ no method named `inspect_llm_events` found

use std::io;
use std::time::Duration;

use tower_breaker::{BreakerConfig, BreakerLayer, Circuit};
use tower_fault_classify::FaultClassifyLayer;

fn main() {
    let circuit = Circuit::new(BreakerConfig::default());
    let _ = circuit.call_within(Duration::from_secs(1), async { Ok::<_, io::Error>(7) });
    let _ = circuit.acquire();
    let _ = circuit.ready();
    let _ = circuit.transitions();
    let layer: BreakerLayer = BreakerLayer::with_circuit(circuit);
    let _ = layer.not_ready_when_open();
    let layer: FaultClassifyLayer = FaultClassifyLayer::new();
    let _ = layer.read_error_bodies(());
    let _ = layer.track_body(|_| ()).inspect_llm_events(());
}
