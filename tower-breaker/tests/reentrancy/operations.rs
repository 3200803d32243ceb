//! Every operation of the public interface.

use std::future::{Future, Pending, Ready, pending, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::runtime::Builder;
use tower::{Layer, Service, service_fn};
use tower_breaker::control::{Command, Signal};
use tower_breaker::fault_classify::classifiers::ErrorsOnly;
use tower_breaker::fault_classify::{Origin, Retryable};
use tower_breaker::keyed::{ByValue, KeyedBreakerLayer, KeyedCircuit, KeyedCircuits, KeyedConfig, Overflow};
use tower_breaker::{
    BreakerConfig, BreakerConfigBuilder, BreakerLayer, Circuit, CircuitRegistry, Clock, Fault, Health,
    HealthReport, Kind, ManualClock, Mode, Verdict,
};

use super::hooks::{Hook, HostileError, HostileKey, HostileSubject, observer, waker};

const FAILURE: Verdict =
    Verdict::Fault(Fault::new(Kind::Server, Retryable::Never, Health::Unhealthy, Origin::Remote));

const KEPT: usize = 4;

type Keyed = KeyedBreakerLayer<ByValue<fn(&u64) -> HostileKey>, HostileKey>;

/// The circuits on which the operations work, and into which the hooks call back.
#[derive(Clone)]
pub(crate) struct Target {
    circuit: Circuit,
    registry: CircuitRegistry,
    keyed: Keyed,
    clock: Clock,
    time: Arc<ManualClock>,
}

fn config(clock: Clock) -> BreakerConfigBuilder {
    BreakerConfig::builder()
        .name(fresh_name())
        .consecutive_failures(2)
        .consecutive_failures_span(Duration::ZERO)
        .open_for(Duration::from_secs(30))
        .open_jitter(0.0)
        .slow_call_rate(Duration::from_secs(1), 0.5)
        .minimum_calls(2)
        .clock(clock)
}

/// Returns a name that no circuit has had, so that its instruments are registered.
fn fresh_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("hostile {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns a key that no call has had.
fn fresh_key() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(KEPT as u64);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Target {
    pub(crate) fn new() -> Self {
        let (clock, time) = Clock::manual();
        time.set(Duration::from_secs(1_000));
        let each = config(clock).build().expect("valid configuration");
        let default = each.clone();
        let circuit = Circuit::new(config(clock).build().expect("valid configuration"));
        circuit.on_transition(observer());
        let registry = CircuitRegistry::new(default);
        registry.on_transition(observer());
        let keyed = KeyedConfig::builder(each).max_keys(KEPT).overflow(Overflow::Shared);
        let key: fn(&u64) -> HostileKey = |number| HostileKey::new(*number);
        let keyed = KeyedBreakerLayer::new(keyed.build().expect("valid configuration"), key)
            .on_transition(observer());
        Self { circuit, registry, keyed, clock, time: Arc::new(time) }
    }

    fn circuits(&self) -> KeyedCircuits<HostileKey> {
        self.keyed.circuits()
    }

    fn of_key(&self) -> Option<KeyedCircuit<HostileKey>> {
        self.circuits().get_or_insert(HostileKey::new(0))
    }
}

/// The name of an operation, and the operation.
type Operation = (&'static str, fn(&Target));

/// All operations. The result of each depends on what the others have done, and is ignored.
pub(crate) const OPERATIONS: &[Operation] = &[
    ("Circuit::new", |target| drop(Circuit::new(config(target.clock).build().expect("valid configuration")))),
    ("Circuit::status", |target| drop(target.circuit.status())),
    ("Circuit debug", |target| drop(format!("{:?}", target.circuit))),
    ("Circuit::on_transition", |target| {
        let id = target.circuit.on_transition(observer());
        ignore(target.circuit.reset());
        target.circuit.remove_observer(id);
    }),
    ("Circuit::on_failure", |target| {
        let id = target.circuit.on_failure(observer());
        if let Ok(permit) = target.circuit.try_acquire() {
            permit.record(FAILURE);
        }
        target.circuit.remove_observer(id);
        drop(target.circuit.config());
    }),
    ("Circuit::downgrade", |target| {
        let weak = target.circuit.downgrade();
        drop(weak.upgrade());
        let _ = weak.name();
    }),
    ("Circuit calls", |target| {
        for verdict in [FAILURE, Verdict::Success, FAILURE] {
            if let Ok(permit) = target.circuit.try_acquire() {
                permit.record(verdict);
            }
        }
    }),
    ("Permit::fail", |target| {
        if let Ok(permit) = target.circuit.try_acquire() {
            permit.fail(&HostileError, HostileSubject);
        }
        if let (Ok(permit), Verdict::Fault(fault)) = (target.circuit.try_acquire(), FAILURE) {
            permit.fail_as(fault, &HostileError, HostileSubject);
        }
        ignore(target.circuit.reset());
    }),
    ("Circuit::record", |target| {
        for verdict in [FAILURE, FAILURE, Verdict::Success] {
            target.circuit.record(verdict);
            target.circuit.record_with_duration(verdict, Duration::ZERO);
            target.time.advance(Duration::from_secs(30));
        }
        if let Ok(permit) = target.circuit.try_acquire() {
            permit.record_with_duration(FAILURE, Duration::ZERO);
        }
    }),
    ("Circuit retries", |target| {
        for verdict in [FAILURE, Verdict::Success] {
            if let Ok(permit) = target.circuit.try_acquire() {
                permit.retry().record(verdict);
            }
        }
    }),
    ("Circuit slow calls", |target| {
        for _ in 0..3 {
            if let Ok(permit) = target.circuit.try_acquire() {
                target.time.advance(Duration::from_secs(2));
                permit.record(Verdict::Success);
            }
        }
    }),
    ("Circuit probes", |target| {
        ignore(target.circuit.trip());
        target.time.advance(Duration::from_secs(60));
        if let Ok(permit) = target.circuit.try_acquire() {
            target.time.advance(Duration::from_secs(2));
            permit.record(Verdict::Success);
        }
        target.time.advance(Duration::from_secs(60));
        drop(target.circuit.try_acquire());
        if let Ok(permit) = target.circuit.try_acquire() {
            permit.cancel();
        }
    }),
    ("Circuit::call", |target| {
        let mut call = Box::pin(target.circuit.call(ready(Err::<(), _>(HostileError))));
        ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        let mut call = Box::pin(target.circuit.call(pending::<Result<(), HostileError>>()));
        ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
    }),
    ("Circuit::call_blocking", |target| drop(target.circuit.call_blocking(|| Err::<(), _>(HostileError)))),
    ("Guard::keep_last_failure", |target| {
        let guard = target.circuit.keep_last_failure(HostileSubject);
        drop(guard.call_blocking(|| Err::<(), _>(HostileError)));
        let mut call = Box::pin(guard.call(ready(Err::<(), _>(HostileError))));
        ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
    }),
    ("Guard calls", |target| {
        let guard = target.circuit.rule(hostile_rule).health(hostile_health);
        drop(guard.call_blocking(|| Err::<(), _>(HostileError)));
        let function = guard.protect(|()| ready(Err::<(), _>(HostileError)));
        let mut call = Box::pin(function(()));
        ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
        let entered = runtime.enter();
        let mut call = Box::pin(guard.call_within(Duration::ZERO, pending::<Result<(), HostileError>>()));
        ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        drop(call);
        drop(entered);
        let guard = target.circuit.classify(ErrorsOnly::new()).keep_last_failure(HostileSubject);
        drop(guard.call_blocking(|| Err::<u8, _>(HostileError)));
    }),
    ("KeyedCircuit guard calls", |target| {
        let Some(circuit) = target.of_key() else { return };
        let guard = circuit.errors_only().rule(hostile_rule).keep_last_failure(HostileSubject);
        drop(guard.call_blocking(|| Err::<u8, _>(HostileError)));
        if let Ok(permit) = circuit.try_acquire() {
            permit.fail(&HostileError, HostileSubject);
        }
        circuit.record(FAILURE);
        circuit.record_with_duration(FAILURE, Duration::ZERO);
        ignore(circuit.reset());
    }),
    ("KeyedCircuit overrides that end", |target| {
        let Some(circuit) = target.of_key() else { return };
        for force in [KeyedCircuit::force_open_for, KeyedCircuit::force_closed_for] {
            ignore(force(&circuit, Duration::from_secs(1)));
            target.time.advance(Duration::from_secs(2));
            drop(circuit.try_acquire());
        }
        ignore(circuit.trip_for(Duration::from_secs(1)));
        ignore(circuit.probe_now());
        ignore(circuit.reset());
    }),
    ("Circuit::trip", |target| ignore(target.circuit.trip())),
    ("Circuit::reset", |target| ignore(target.circuit.reset())),
    ("Circuit::force_open", |target| ignore(target.circuit.force_open())),
    ("Circuit::force_closed", |target| ignore(target.circuit.force_closed())),
    ("Circuit::trip_for", |target| {
        ignore(target.circuit.trip_for(Duration::from_secs(90)));
        ignore(target.circuit.trip_for(Duration::from_secs(1)));
    }),
    ("Circuit::probe_now", |target| ignore(target.circuit.probe_now())),
    ("Circuit overrides that end", |target| {
        for force in [Circuit::force_open_for, Circuit::force_closed_for] {
            ignore(force(&target.circuit, Duration::from_secs(90)));
            ignore(force(&target.circuit, Duration::from_secs(1)));
            target.time.advance(Duration::from_secs(2));
            drop(target.circuit.try_acquire());
            ignore(force(&target.circuit, Duration::from_secs(1)));
            target.time.advance(Duration::from_secs(2));
            ignore(target.circuit.reset());
        }
    }),
    ("Circuit::release", |target| target.circuit.release()),
    ("Circuit::report", |target| {
        target.circuit.report(HealthReport::Critical);
        target.circuit.report(HealthReport::Recovered);
    }),
    ("Circuit::reconfigure", |target| {
        for mode in [Mode::ObserveOnly, Mode::Disabled, Mode::Enforce] {
            let config = config(target.clock).name(target.circuit.name()).mode(mode);
            target
                .circuit
                .reconfigure(config.build().expect("valid configuration"))
                .expect("same name and clock");
        }
    }),
    ("Circuit::restore", |target| {
        ignore(target.circuit.trip());
        let circuit = Circuit::new(target.circuit.config());
        circuit.on_transition(observer());
        ignore(circuit.restore(&target.circuit.snapshot()));
    }),
    ("Circuit::transitions", |target| {
        let mut transitions = target.circuit.transitions();
        poll_stream(&mut transitions);
        ignore(target.circuit.reset());
        poll_stream(&mut transitions);
        poll_stream(&mut transitions);
        poll_stream(&mut transitions);
    }),
    ("Breaker calls", |target| {
        let layer = BreakerLayer::with_circuit(target.circuit.clone())
            .errors_only()
            .keep_last_failure_by(|_: &u64| HostileSubject);
        let mut service = layer.layer(service_fn(fails));
        for _ in 0..3 {
            if let Poll::Ready(Ok(())) = service.poll_ready(&mut Context::from_waker(&waker())) {
                let mut call = Box::pin(service.call(0));
                ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
            }
        }
        drop(target.circuit.status());
    }),
    ("Breaker waits", |target| {
        ignore(target.circuit.reset());
        let mut service = BreakerLayer::with_circuit(target.circuit.clone()).errors_only().layer(Never);
        for _ in 0..3 {
            ignore(service.poll_ready(&mut Context::from_waker(&waker())));
        }
        ignore(target.circuit.trip());
        ignore(service.poll_ready(&mut Context::from_waker(&waker())));
        target.time.advance(Duration::from_secs(60));
        ignore(service.poll_ready(&mut Context::from_waker(&waker())));
        ignore(service.poll_ready(&mut Context::from_waker(&waker())));
    }),
    ("Breaker that is not ready waits", |target| {
        ignore(target.circuit.force_open());
        let layer = BreakerLayer::with_circuit(target.circuit.clone()).errors_only().not_ready_when_open();
        let mut service = layer.layer(service_fn(fails));
        for _ in 0..3 {
            ignore(service.poll_ready(&mut Context::from_waker(&waker())));
        }
        target.circuit.release();
        ignore(service.poll_ready(&mut Context::from_waker(&waker())));
        drop(service);
        ignore(target.circuit.reset());
    }),
    ("Circuit waits", |target| {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime can be built");
        let _entered = runtime.enter();
        ignore(target.circuit.reset());
        ignore(target.circuit.trip());
        let mut ready = Box::pin(target.circuit.ready());
        let mut acquire = Box::pin(target.circuit.acquire());
        for _ in 0..3 {
            ignore(ready.as_mut().poll(&mut Context::from_waker(&waker())));
            ignore(acquire.as_mut().poll(&mut Context::from_waker(&waker())));
        }
        drop(ready);
        target.time.advance(Duration::from_secs(60));
        ignore(acquire.as_mut().poll(&mut Context::from_waker(&waker())));
    }),
    ("Circuit commands", |target| {
        let listener = observer();
        let id = target.circuit.on_signal(move |signal| listener(&signal));
        let (second, probe) = (Duration::from_secs(1), Duration::from_secs(9));
        let commands = [
            Command::Open { remaining: Some(second), takeover: second },
            Command::Open { remaining: None, takeover: second },
            Command::Probe { start_within: probe, remaining: probe },
            Command::Probe { start_within: probe, remaining: probe },
            Command::Close,
        ];
        for command in commands {
            target.circuit.apply(command);
            for signal in [Signal::Failure, Signal::Demand] {
                target.circuit.rearm(signal);
            }
            for verdict in [FAILURE, Verdict::Success] {
                if let Ok(permit) = target.circuit.try_acquire() {
                    permit.record(verdict);
                }
            }
        }
        let _ = (target.circuit.next_open_time(), target.circuit.override_count());
        target.circuit.remove_observer(id);
    }),
    ("CircuitRegistry::on_create", |target| {
        let id = target.registry.on_create(observer());
        let circuit = target.registry.circuit(fresh_name());
        drop(target.registry.circuit(circuit.name()));
        drop(target.registry.remove(circuit.name()));
        target.registry.remove_observer(id);
    }),
    ("CircuitRegistry::circuit", |target| {
        let circuit = target.registry.circuit(fresh_name());
        drop(target.registry.remove(circuit.name()));
    }),
    ("CircuitRegistry::configure", |target| {
        let named = |name: String| config(target.clock).name(name).build().expect("valid configuration");
        let name = fresh_name();
        ignore(target.registry.configure(named(name.clone())));
        drop(target.registry.circuit(name.clone()));
        ignore(target.registry.configure(named(name.clone())));
        drop(target.registry.remove(&name));
    }),
    ("CircuitRegistry::remove", |target| {
        let circuit = target.registry.circuit(fresh_name());
        let name = circuit.name();
        drop(circuit);
        drop(target.registry.remove(name));
    }),
    ("CircuitRegistry::restore", |target| {
        let name = fresh_name();
        let open = target.registry.circuit(name.clone());
        ignore(open.trip());
        let snapshots = target.registry.snapshots();
        drop(target.registry.remove(&name));
        // Restored when the circuit is created.
        drop(target.registry.restore(snapshots));
        drop(target.registry.circuit(name.clone()));
        drop(target.registry.remove(&name));
    }),
    ("CircuitRegistry readers", |target| {
        drop(target.registry.get("kept"));
        drop(target.registry.circuits());
        drop(target.registry.statuses());
        drop(format!("{:?}", target.registry));
    }),
    ("CircuitRegistry::on_transition", |target| {
        let id = target.registry.on_transition(observer());
        target.registry.reset_all();
        target.registry.remove_observer(id);
    }),
    ("CircuitRegistry::on_failure", |target| {
        let id = target.registry.on_failure(observer());
        if let Ok(permit) = target.registry.circuit("kept").try_acquire() {
            permit.record(FAILURE);
        }
        target.registry.remove_observer(id);
    }),
    ("CircuitRegistry::transitions", |target| {
        let mut transitions = target.registry.transitions();
        poll_stream(&mut transitions);
        target.registry.reset_all();
        poll_stream(&mut transitions);
    }),
    ("CircuitRegistry controls", |target| {
        let name = target.registry.circuit("kept").name();
        ignore(target.registry.trip(name));
        ignore(target.registry.reset(name));
        ignore(target.registry.force_open(name));
        ignore(target.registry.force_closed(name));
        ignore(target.registry.release(name));
        ignore(target.registry.trip_for(name, Duration::from_secs(1)));
        ignore(target.registry.probe_now(name));
        ignore(target.registry.force_open_for(name, Duration::from_secs(1)));
        ignore(target.registry.force_closed_for(name, Duration::from_secs(1)));
        target.time.advance(Duration::from_secs(2));
        ignore(target.registry.report(name, HealthReport::Critical));
        ignore(target.registry.record(name, FAILURE));
        ignore(target.registry.record_with_duration(name, FAILURE, Duration::ZERO));
        target.registry.reset_all();
    }),
    ("KeyedBreakerLayer::new", |target| {
        let each = config(target.clock).build().expect("valid configuration");
        let config = KeyedConfig::builder(each).build().expect("valid configuration");
        let layer = KeyedBreakerLayer::<_, _>::new(config, |number: &u64| HostileKey::new(*number));
        drop(layer.circuits().get_or_insert(HostileKey::new(0)));
    }),
    ("KeyedBreaker calls", |target| {
        let layer = target.keyed.clone().errors_only().keep_last_failure_by(|_: &u64| HostileSubject);
        let mut service = layer.layer(service_fn(fails));
        // All keys that can be kept; then a known key again; then new keys, which evict others or
        // overflow.
        for key in (0..KEPT as u64).chain([0, 0, fresh_key(), fresh_key()]) {
            let mut call = Box::pin(service.call(key));
            ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        }
        target.time.advance(Duration::from_secs(1_000));
        for _ in 0..KEPT {
            let mut call = Box::pin(service.call(fresh_key()));
            ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        }
    }),
    ("KeyedBreaker waits", |target| {
        let mut service = target.keyed.clone().errors_only().layer(Never);
        let mut call = Box::pin(service.call(0));
        for _ in 0..3 {
            ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
        }
        if let Some(circuit) = target.circuits().get(&HostileKey::new(0)) {
            ignore(circuit.trip());
            ignore(call.as_mut().poll(&mut Context::from_waker(&waker())));
            drop(call);
            ignore(circuit.reset());
        }
    }),
    ("KeyedCircuits::get", |target| {
        for key in 0..KEPT as u64 {
            drop(target.circuits().get(&HostileKey::new(key)));
        }
    }),
    ("KeyedCircuits::get_or_insert", |target| {
        target.time.advance(Duration::from_secs(1_000));
        for _ in 0..2 * KEPT {
            drop(target.circuits().get_or_insert(HostileKey::new(fresh_key())));
        }
    }),
    ("KeyedCircuits::circuit", |target| {
        for key in [0, fresh_key(), fresh_key()] {
            drop(target.circuits().circuit(&HostileKey::new(key)));
            for verdict in [FAILURE, FAILURE, Verdict::Success] {
                if let Ok(permit) = target.circuits().try_acquire(&HostileKey::new(key)) {
                    permit.record(verdict);
                }
            }
        }
    }),
    ("KeyedCircuits::remove", |target| {
        drop(target.of_key());
        drop(target.circuits().remove(&HostileKey::new(0)));
        drop(target.circuits().remove(&HostileKey::new(fresh_key())));
    }),
    ("KeyedCircuits::clear", |target| {
        drop(target.of_key());
        target.circuits().clear();
    }),
    ("KeyedCircuits::restore", |target| {
        if let Some(circuit) = target.circuits().get_or_insert(HostileKey::new(fresh_key())) {
            ignore(circuit.trip());
        }
        let snapshots = target.circuits().snapshots();
        target.circuits().clear();
        drop(target.circuits().restore(snapshots));
    }),
    ("KeyedCircuits::reconfigure", |target| {
        let circuits = target.circuits();
        drop(target.of_key());
        for (max_keys, mode) in [(KEPT, Mode::Disabled), (1, Mode::ObserveOnly), (KEPT, Mode::Enforce)] {
            let each = config(target.clock).name(circuits.name()).mode(mode).build();
            let config = KeyedConfig::builder(each.expect("valid configuration")).max_keys(max_keys);
            let own = BreakerConfig::builder().mode(Mode::Disabled).build().expect("valid configuration");
            for overflow in [Overflow::Unguarded, Overflow::Shared] {
                let config = config.clone().key("0", own.clone()).overflow(overflow);
                circuits
                    .reconfigure(config.build().expect("valid configuration"))
                    .expect("same name and clock");
                drop(circuits.circuit(&HostileKey::new(fresh_key())));
            }
        }
    }),
    ("KeyedCircuits::configure", |target| {
        let circuits = target.circuits();
        drop(target.of_key());
        for mode in [Mode::Disabled, Mode::Enforce] {
            let own = BreakerConfig::builder().mode(mode).build().expect("valid configuration");
            circuits.configure(&HostileKey::new(0), own).expect("default name and clock");
            drop(circuits.circuit(&HostileKey::new(fresh_key())));
        }
        let _ = circuits.unconfigure(&HostileKey::new(0));
        drop(circuits.config());
    }),
    ("KeyedCircuits readers", |target| {
        let circuits = target.circuits();
        for circuit in circuits.circuits() {
            drop(format!("{:?} {circuit:?}", circuit.key()));
        }
        let _ = (circuits.len(), circuits.is_empty(), circuits.not_closed());
        let _ = (circuits.evicted(), circuits.overflowed());
        drop(circuits.overflow().map(|circuit| circuit.status()));
        drop(circuits.statuses());
        drop(format!("{circuits:?}"));
    }),
    ("KeyedCircuits::reset_all", |target| target.circuits().reset_all()),
    ("KeyedCircuits::on_transition", |target| {
        let id = target.circuits().on_transition(observer());
        drop(target.of_key().map(|circuit| circuit.reset()));
        target.circuits().remove_observer(id);
        drop(target.of_key().map(|circuit| circuit.downgrade().upgrade()));
    }),
    ("KeyedCircuits::on_create", |target| {
        let listener = observer();
        let id = target.circuits().on_create(move |circuit| listener(circuit));
        drop(target.circuits().remove(&HostileKey::new(1)));
        drop(target.of_key());
        drop(target.circuits().downgrade().upgrade());
        target.circuits().clear();
        target.circuits().remove_observer(id);
    }),
    ("KeyedCircuits::on_signal, on_key_transition", |target| {
        let (listener, other) = (observer(), observer());
        let signals = target.circuits().on_signal(move |_, signal| listener(&signal));
        let transitions = target.circuits().on_key_transition(move |_, transition| other(transition));
        if let Some(circuit) = target.of_key() {
            circuit.record(FAILURE);
            circuit.rearm(Signal::Failure);
            circuit.apply(Command::Open { remaining: None, takeover: Duration::ZERO });
            drop(circuit.try_acquire());
            circuit.apply(Command::Close);
        }
        target.circuits().remove_observer(signals);
        target.circuits().remove_observer(transitions);
    }),
    ("KeyedCircuits::on_failure", |target| {
        let id = target.circuits().on_failure(observer());
        if let Some(permit) = target.of_key().and_then(|circuit| circuit.try_acquire().ok()) {
            permit.record(FAILURE);
        }
        target.circuits().remove_observer(id);
    }),
    ("KeyedCircuits::transitions", |target| {
        let mut transitions = target.circuits().transitions();
        poll_stream(&mut transitions);
        ignore(target.of_key().map(|circuit| circuit.trip()));
        poll_stream(&mut transitions);
        poll_stream(&mut transitions);
    }),
    ("KeyedCircuit controls", |target| {
        let Some(circuit) = target.of_key() else { return };
        ignore(circuit.trip());
        ignore(circuit.reset());
        ignore(circuit.force_open());
        ignore(circuit.force_closed());
        circuit.release();
        circuit.report(HealthReport::Critical);
        circuit.report(HealthReport::Recovered);
        drop(circuit.try_acquire());
        ignore(circuit.reset());
        drop(circuit.status());
    }),
    // Creates the labels of circuits that have none yet.
    ("KeyedCircuit labels", |target| {
        let circuits = target.circuits();
        (0..KEPT).for_each(|_| drop(circuits.get_or_insert(HostileKey::new(fresh_key()))));
        for circuit in circuits.circuits() {
            drop(circuit.status());
            drop(circuit.try_acquire());
        }
    }),
];

/// A rule that calls back, and has no verdict.
fn hostile_rule<T>(_: Result<&T, &HostileError>) -> Option<Verdict> {
    Hook::ClassifierCall.call_back();
    None
}

fn hostile_health(fault: &Fault) -> Health {
    Hook::ClassifierCall.call_back();
    fault.health()
}

/// Ignores a result, which depends on what other operations have done to the circuit.
fn ignore<T>(_result: T) {}

fn poll_stream(stream: &mut (impl Stream + Unpin)) {
    ignore(Pin::new(stream).poll_next(&mut Context::from_waker(&waker())));
}

fn fails(_: u64) -> Ready<Result<(), HostileError>> {
    ready(Err(HostileError))
}

/// A service that is never ready.
#[derive(Clone)]
struct Never;

impl Service<u64> for Never {
    type Response = ();
    type Error = HostileError;
    type Future = Pending<Result<(), HostileError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HostileError>> {
        Poll::Pending
    }

    fn call(&mut self, _: u64) -> Self::Future {
        pending()
    }
}
