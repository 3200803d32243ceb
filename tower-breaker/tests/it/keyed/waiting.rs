//! Calls that wait for the service behind their circuit, and services that break.

use super::*;

/// Each clone draws from the list whether it will ever be ready, when it is asked first.
#[derive(Default)]
struct Moody {
    moods: Arc<Mutex<VecDeque<bool>>>,
    mine: Option<bool>,
}

impl Clone for Moody {
    fn clone(&self) -> Self {
        Self { moods: Arc::clone(&self.moods), mine: None }
    }
}

impl Service<Request> for Moody {
    type Response = ();
    type Error = io::Error;
    type Future = Ready<Result<(), io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        let Self { moods, mine } = self;
        let mood = mine.get_or_insert_with(|| moods.lock().unwrap().pop_front().unwrap_or(true));
        if *mood { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        assert_eq!(self.mine.take(), Some(true), "called without being ready");
        answers(request)
    }
}

#[test]
fn key_with_unready_service_does_not_delay_others() {
    let bench = Bench::of(10);
    let moody = Moody { moods: Arc::new(Mutex::new([false, true, false].into())), mine: None };
    let mut service = bench.layer.layer(moody);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = |key| {
        assert!(service.poll_ready(&mut cx).is_ready(), "it is always ready");
        task::spawn(service.call((key, false)))
    };
    let mut dead = call(0);
    assert_pending!(dead.poll());
    assert_ready_ok!(call(1).poll());
    let mut dead_too = call(2);
    assert_pending!(dead_too.poll());
    (3..10).for_each(|key| assert_ready_ok!(call(key).poll()));
    assert_ready_ok!(call(0).poll(), "not even the same key");
    assert_pending!(dead.poll());
}

#[test]
fn keyed_inner_service_is_never_called_unready() {
    let bench = Bench::of(10);
    // It panics if it is called without a reservation of its own.
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 1));
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
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
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
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let mut other = tower_test::mock::Spawn::new(inner.clone());
    assert_ready_ok!(other.poll_ready::<Request>());
    let service = bench.layer.layer(inner.clone());
    let mut waiting = task::spawn(service.clone().call((0, false)));
    let mut bystander = task::spawn(service.clone().call((1, false)));
    assert_pending!(waiting.poll());
    assert_pending!(bystander.poll());
    bench.fail(0, 5);
    assert!(waiting.is_woken());
    assert!(matches!(assert_ready_err!(waiting.poll()), BreakerError::Rejected(_)));
    assert_pending!(bystander.poll());
    drop(waiting);
    drop(other);
    assert!(bystander.is_woken(), "the next in the queue, for the rejected call has left it");
    assert_ready_ok!(bystander.poll());
}

#[test]
fn waiting_call_survives_transitions_that_do_not_reject() {
    type Change = fn(&KeyedCircuit<u64>);
    let changes: [(&str, BreakerConfigBuilder, Change); 4] = [
        ("it only observes", config().mode(Mode::ObserveOnly), |circuit| circuit.trip().unwrap()),
        ("it is disabled", config().mode(Mode::Disabled), |circuit| circuit.trip().map_or((), drop)),
        ("it is forced closed", config(), |circuit| circuit.force_closed().unwrap()),
        ("it is reset", config(), |circuit| circuit.reset().unwrap()),
    ];
    for (what, each, change) in changes {
        let bench = Bench::new(each, 10, Overflow::Unguarded);
        let inner = ConcurrencyLimit::new(service_fn(answers), 1);
        let mut other = tower_test::mock::Spawn::new(inner.clone());
        assert_ready_ok!(other.poll_ready::<Request>());
        let mut waiting = task::spawn(bench.layer.layer(inner).call((0, false)));
        assert_pending!(waiting.poll());
        change(&bench.circuit(0));
        assert_pending!(waiting.poll(), "{what}");
        drop(other);
        assert!(waiting.is_woken(), "{what}");
        assert_ready_ok!(waiting.poll(), "{what}");
    }
}

#[test]
fn waiting_probe_proceeds_when_circuit_closes() {
    let bench = Bench::of(10);
    bench.fail(0, 5);
    bench.hand.advance(OPEN_FOR);
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
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
    let inner = ConcurrencyLimit::new(service_fn(answers), 1);
    let service = bench.layer.layer(inner.clone());
    let mut kept = task::spawn(service.clone().call((0, false)));
    let mut over = task::spawn(service.clone().call((0, false)));
    assert!(matches!(assert_ready_err!(over.poll()), BreakerError::Rejected(_)));
    let mut other = tower_test::mock::Spawn::new(inner);
    assert_ready_ok!(other.poll_ready::<Request>());
    assert!(matches!(assert_ready_err!(kept.poll()), BreakerError::Rejected(_)), "it needs no place either");
}

#[test]
fn dropped_waiting_call_frees_slot_and_counts_as_cancelled() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 0));
    let mut waker = task::spawn(());
    let mut call = Box::pin(service.call((0, false)));
    assert_pending!(waker.enter(|cx, _| call.as_mut().poll(cx)));
    drop(call);
    assert_eq!(waker.waker_ref_count(), 1, "the circuit has let go of it");
    let status = bench.circuit(0).status();
    assert_eq!((status.window.cancelled, status.window.calls), (1, 0));
    for _ in 0..9 {
        assert_pending!(task::spawn(service.call((0, false))).poll());
    }
    assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::NoneCompletes);

    bench.hand.advance(OPEN_FOR);
    let probe =
        || task::spawn(bench.layer.layer(ConcurrencyLimit::new(service_fn(answers), 0)).call((0, false)));
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
    /// Is asked for its readiness twice.
    #[derive(Clone)]
    struct Panics(u32);

    impl Service<Request> for Panics {
        type Response = ();
        type Error = io::Error;
        type Future = Ready<Result<(), io::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
            self.0 += 1;
            assert!(self.0 < 2, "asked twice");
            Poll::Pending
        }

        fn call(&mut self, request: Request) -> Self::Future {
            answers(request)
        }
    }

    let bench = Bench::of(10);
    let mut waker = task::spawn(());
    let mut call = Box::pin(bench.layer.layer(Panics(0)).call((0, false)));
    assert_pending!(waker.enter(|cx, _| call.as_mut().poll(cx)));
    let poll = AssertUnwindSafe(|| waker.enter(|cx, _| call.as_mut().poll(cx)).is_ready());
    assert!(catch_unwind(poll).is_err());
    drop(call);
    assert_eq!(waker.waker_ref_count(), 1, "the circuit has let go of it");
    assert_eq!(bench.circuit(0).status().window.failures, 1);
}

/// It goes wrong in the way that the request says.
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
fn keyed_readiness_error_counts_failure() {
    let bench = Bench::of(10);
    let mut service = bench.layer.layer(Broken("error"));
    for failures in 1..=4 {
        assert!(is_inner(&answer(&mut service, (0, false))));
        assert_eq!(bench.circuit(0).status().consecutive_failures, failures);
    }
    assert!(is_inner(&answer(&mut service, (0, false))));
    assert!(matches!(answer(&mut service, (0, false)), Err(BreakerError::Rejected(_))));
    assert!(!bench.is_rejected(1));
}

#[test]
fn keyed_service_panic_counts_failure_and_propagates() {
    for what in ["poll_ready", "call", "future"] {
        let bench = Bench::of(10);
        let mut service = bench.layer.layer(Broken(what));
        for failures in 1..=5 {
            catch_unwind(AssertUnwindSafe(|| answer(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().state == CircuitState::Open, failures == 5, "{what}");
        }
        assert!(matches!(answer(&mut service, (0, false)), Err(BreakerError::Rejected(_))), "{what}");
        bench.succeed(1);
        bench.hand.advance(OPEN_FOR);
        for _ in 0..10 {
            catch_unwind(AssertUnwindSafe(|| answer(&mut service, (0, false)))).unwrap_err();
            assert_eq!(bench.circuit(0).status().last_trip.unwrap().reason, Reason::ProbeFailed, "{what}");
            bench.hand.advance(OPEN_FOR);
        }
        bench.succeed(0);
        bench.succeed(0);
        assert_eq!(bench.state(0), CircuitState::Closed, "{what}: no place was lost");
    }
}
