//! Calls that wait for the inner service, and inner services that fail or panic.

use super::*;

/// A service of which some clones are never ready. Each clone takes the next value from the list,
/// at its first poll.
#[derive(Default)]
struct SometimesReady {
    ready: Arc<Mutex<VecDeque<bool>>>,
    own: Option<bool>,
}

impl Clone for SometimesReady {
    fn clone(&self) -> Self {
        Self { ready: Arc::clone(&self.ready), own: None }
    }
}

impl Service<Request> for SometimesReady {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<Result<(), io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        let Self { ready, own } = self;
        let is_ready = own.get_or_insert_with(|| ready.lock().unwrap().pop_front().unwrap_or(true));
        if *is_ready { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert_eq!(self.own.take(), Some(true), "called without being ready");
        respond(request)
    }
}

#[test]
fn key_with_unready_service_does_not_delay_others() {
    let bench = Bench::of(10);
    let inner = SometimesReady { ready: Arc::new(Mutex::new([false, true, false].into())), own: None };
    let mut service = bench.layer.layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |key| {
        assert!(service.poll_ready(&mut cx).is_ready(), "a keyed service is always ready");
        task::spawn(service.call((key, false)))
    };
    let mut first_waiting = call(0);
    assert_pending!(first_waiting.poll());
    assert_ready_ok!(call(1).poll());
    let mut second_waiting = call(2);
    assert_pending!(second_waiting.poll());
    (3..10).for_each(|key| assert_ready_ok!(call(key).poll()));
    assert_ready_ok!(call(0).poll(), "a later call of the same key is not delayed either");
    assert_pending!(first_waiting.poll());
}

#[test]
fn keyed_inner_service_is_never_called_unready() {
    let bench = Bench::of(10);
    // The limit panics if a clone is called without its own permit.
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(respond), 1));
    for key in 0..5 {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready() && service.poll_ready(&mut cx).is_ready());
        assert_ready_ok!(task::spawn(service.call((key, false))).poll());
        assert_ready_ok!(task::spawn(service.clone().call((key, false))).poll());
    }
}

#[test]
fn waiting_call_proceeds_when_inner_service_is_ready() {
    let bench = Bench::of(10);
    let inner = ConcurrencyLimit::new(service_fn(respond), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
    assert_pending!(waiting.poll());
    assert!(!waiting.is_woken());
    drop(other);
    assert!(waiting.is_woken());
    assert_ready_ok!(waiting.poll());
    assert_eq!(bench.circuit(0).status().window.calls, 1);
}

#[test]
fn waiting_call_is_rejected_only_when_its_circuit_opens() {
    let bench = Bench::of(10);
    let inner = ConcurrencyLimit::new(service_fn(respond), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let service = bench.layer.layer(inner.clone());
    let mut waiting = task::spawn(service.clone().call((0, false)));
    let mut other_key = task::spawn(service.clone().call((1, false)));
    assert_pending!(waiting.poll());
    assert_pending!(other_key.poll());
    bench.fail(0, 5);
    assert!(waiting.is_woken());
    assert!(matches!(assert_ready_err!(waiting.poll()), BreakerError::Rejected(_)));
    assert_pending!(other_key.poll());
    drop(waiting);
    drop(other);
    assert!(other_key.is_woken(), "the rejected call has left the queue, so this call is next");
    assert_ready_ok!(other_key.poll());
}

#[test]
fn waiting_call_proceeds_after_transition_that_does_not_reject() {
    type Change = fn(&KeyedCircuit<u64>);
    let changes: [(&str, BreakerConfigBuilder, Change); 4] = [
        ("observing", config().mode(Mode::ObserveOnly), |circuit| circuit.trip().unwrap()),
        ("disabled", config().mode(Mode::Disabled), |circuit| circuit.trip().map_or((), drop)),
        ("forced closed", config(), |circuit| circuit.force_closed().unwrap()),
        ("reset", config(), |circuit| circuit.reset().unwrap()),
    ];
    for (name, each, change) in changes {
        let bench = Bench::new(each, 10, Overflow::Unguarded);
        let inner = ConcurrencyLimit::new(service_fn(respond), 1);
        let mut other = tower_test::mock::Spawn::new(inner.clone());
        assert_ready_ok!(other.poll_ready::<Request>());
        let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
        assert_pending!(waiting.poll());
        change(&bench.circuit(0));
        assert_pending!(waiting.poll(), "{name}");
        drop(other);
        assert!(waiting.is_woken(), "{name}");
        assert_ready_ok!(waiting.poll(), "{name}");
    }
}

#[test]
fn waiting_probe_proceeds_when_circuit_closes() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    bench.time.advance(OPEN_FOR);
    let inner = ConcurrencyLimit::new(service_fn(respond), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
    assert_pending!(waiting.poll());
    bench.succeed(0);
    bench.succeed(0);
    assert_eq!(bench.state(0), CircuitState::Closed);
    assert_pending!(waiting.poll());
    drop(other);
    assert_ready_ok!(waiting.poll());
}

#[test]
fn rejected_call_reserves_nothing() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    let inner = ConcurrencyLimit::new(service_fn(respond), 1);
    let service = bench.layer.layer(inner.clone());
    let mut first = task::spawn(service.clone().call((0, false)));
    let mut second = task::spawn(service.clone().call((0, false)));
    assert!(matches!(assert_ready_err!(second.poll()), BreakerError::Rejected(_)));
    let mut other = tower_test::mock::Spawn::new(inner);
    assert_ready_ok!(other.poll_ready::<Request>());
    assert!(matches!(assert_ready_err!(first.poll()), BreakerError::Rejected(_)), "it needs no permit");
}

#[test]
fn dropped_waiting_call_frees_slot_and_counts_as_cancelled() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(respond), 0));
    let mut waker = task::spawn(());
    let mut call = Box::pin(service.call((0, false)));
    assert_pending!(waker.enter(|cx, _| call.as_mut().poll(cx)));
    drop(call);
    assert_eq!(waker.waker_ref_count(), 1, "the circuit has dropped the waker");
    let status = bench.circuit(0).status();
    assert_eq!((status.window.cancelled, status.window.calls), (1, 0));
    for _ in 0..8 {
        assert_pending!(task::spawn(service.call((0, false))).poll());
    }
    bench.time.advance(SECOND);
    assert_pending!(task::spawn(service.call((0, false))).poll());
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::NoneCompletes);

    bench.time.advance(OPEN_FOR);
    let probe =
        || task::spawn(bench.layer.layer(ConcurrencyLimit::new(service_fn(respond), 0)).call((0, false)));
    let mut probes = [probe(), probe(), probe()];
    for probe in &mut probes {
        assert_pending!(probe.poll());
    }
    assert!(bench.is_rejected(0));
    let [first, ..] = probes;
    drop(first);
    bench.succeed(0);
}

#[test]
fn service_panic_while_call_waits_leaves_no_waker() {
    /// A service that panics when its readiness is polled the second time.
    #[derive(Clone)]
    struct PanicsAtSecondPoll(u32);

    impl Service<Request> for PanicsAtSecondPoll {
        type Response = ();
        type Error = io::Error;
        type Future = Ready<Result<(), io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
            self.0 += 1;
            assert!(self.0 < 2, "polled twice");
            Poll::Pending
        }

        fn call(&mut self, request: Request) -> Self::Future {
            respond(request)
        }
    }

    let bench = Bench::of(10);
    let mut waker = task::spawn(());
    let mut call = Box::pin(bench.layer.layer(PanicsAtSecondPoll(0)).call((0, false)));
    assert_pending!(waker.enter(|cx, _| call.as_mut().poll(cx)));
    let poll = AssertUnwindSafe(|| waker.enter(|cx, _| call.as_mut().poll(cx)).is_ready());
    assert!(catch_unwind(poll).is_err());
    drop(call);
    assert_eq!(waker.waker_ref_count(), 1, "the circuit has dropped the waker");
    assert_eq!(bench.circuit(0).status().window.failures, 1);
}

/// A service that fails or panics in the way that its name says.
#[derive(Clone)]
struct Broken(&'static str);

impl Service<Request> for Broken {
    type Response = ();
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), io::Error>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        assert_ne!(self.0, "poll_ready");
        if self.0 == "error" {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert_ne!(self.0, "call");
        Box::pin(async { panic!("future") })
    }
}

#[test]
fn keyed_readiness_error_counts_as_failure() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(Broken("error"));
    for failures in 1..=4 {
        assert!(is_inner(&call_once(&mut service, (0, false))));
        assert_eq!(bench.circuit(0).status().consecutive_failures, failures);
    }
    assert!(is_inner(&call_once(&mut service, (0, false))));
    assert!(matches!(call_once(&mut service, (0, false)), Err(BreakerError::Rejected(_))));
    assert!(!bench.is_rejected(1));
}

#[test]
fn keyed_service_panic_counts_as_failure_and_propagates() {
    for what in ["poll_ready", "call", "future"] {
        let bench = Bench::of(10);
        let mut service = bench.layer.layer(Broken(what));
        for failures in 1..=5 {
            catch_unwind(AssertUnwindSafe(|| call_once(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().state == CircuitState::Open, failures == 5, "{what}");
        }
        assert!(matches!(call_once(&mut service, (0, false)), Err(BreakerError::Rejected(_))), "{what}");
        bench.succeed(1);
        bench.time.advance(OPEN_FOR);
        for _ in 0..10 {
            catch_unwind(AssertUnwindSafe(|| call_once(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ProbeFailed, "{what}");
            bench.time.advance(OPEN_FOR);
        }
        bench.succeed(0);
        bench.succeed(0);
        assert_eq!(bench.state(0), CircuitState::Closed, "{what}: no slot was lost");
    }
}
