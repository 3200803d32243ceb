//! Random histories of `poll_ready`, `call`, clone and drop, over a limit that records which
//! service holds or waits for its permit.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;
use tower::{BoxError, Layer, Service};
use tower_breaker::{CircuitState, Mode};
use tower_test::mock::Spawn;

use super::{BoxedLayer, Guarded, OPEN_FOR, config};

/// A fair limit of one concurrent call. It records which instances of the service are queued, and
/// which one holds the permit.
#[derive(Default)]
struct State {
    last_id: u64,
    holder: Option<u64>,
    queue: VecDeque<u64>,
    wakers: HashMap<u64, Waker>,
}

impl State {
    /// Removes an instance, and passes its permit to the next one in the queue.
    fn leave(&mut self, id: u64) -> Option<Waker> {
        self.queue.retain(|queued| *queued != id);
        self.wakers.remove(&id);
        if self.holder != Some(id) {
            return None;
        }
        self.holder = self.queue.pop_front();
        self.holder.and_then(|next| self.wakers.remove(&next))
    }
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, id: u64) {
        let waker = self.lock().leave(id);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn new_id(&self) -> u64 {
        let mut state = self.lock();
        state.last_id += 1;
        state.last_id
    }
}

/// One instance of the limited service.
struct Limited {
    shared: Arc<Shared>,
    id: u64,
}

impl Limited {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { id: shared.new_id(), shared: Arc::clone(shared) }
    }

    fn is_queued(&self) -> bool {
        self.shared.lock().queue.contains(&self.id)
    }

    fn is_idle(&self) -> bool {
        !self.is_queued() && !self.holds_permit()
    }

    fn holds_permit(&self) -> bool {
        self.shared.lock().holder == Some(self.id)
    }
}

impl Clone for Limited {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.shared.leave(self.id);
    }
}

impl Service<bool> for Limited {
    type Response = ();
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.shared.lock();
        if state.holder.is_none() {
            state.holder = Some(self.id);
        }
        if state.holder == Some(self.id) {
            return Poll::Ready(Ok(()));
        }
        if !state.queue.contains(&self.id) {
            state.queue.push_back(self.id);
        }
        state.wakers.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, succeeds: bool) -> Answer {
        assert!(self.holds_permit(), "called without a permit");
        // The permit moves to the call. The instance no longer holds it.
        let id = self.shared.new_id();
        self.shared.lock().holder = Some(id);
        Answer { permit: Self { shared: Arc::clone(&self.shared), id }, succeeds, polled: false }
    }
}

/// A call that completes at its second poll.
struct Answer {
    permit: Limited,
    succeeds: bool,
    polled: bool,
}

impl Future for Answer {
    type Output = Result<(), BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(self.permit.holds_permit());
        if !std::mem::replace(&mut self.polled, true) {
            return Poll::Pending;
        }
        Poll::Ready(if self.succeeds {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::ConnectionRefused).into())
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    PollReady(usize),
    Call(usize, bool),
    PollCall(usize),
    DropCall(usize),
    Replace(usize),
    CloneFrom(usize, usize),
    Trip,
    Reset,
    ForceOpen,
    ForceClosed,
    /// Ends at the next `OpenPeriodPasses`.
    ForceOpenFor,
    ForceClosedFor,
    ProbeNow,
    Release,
    Observe(bool),
    OpenPeriodPasses,
    /// Polls every waiting service that was not woken. It must still be pending.
    PollUnwoken,
}

const SERVICES: usize = 4;

fn event() -> impl Strategy<Value = Event> {
    let service = 0..SERVICES;
    prop_oneof![
        12 => service.clone().prop_map(Event::PollReady),
        6 => (service.clone(), any::<bool>()).prop_map(|(service, succeeds)| Event::Call(service, succeeds)),
        6 => (0..8_usize).prop_map(Event::PollCall),
        1 => (0..8_usize).prop_map(Event::DropCall),
        1 => service.clone().prop_map(Event::Replace),
        1 => (service.clone(), service).prop_map(|(from, to)| Event::CloneFrom(from, to)),
        1 => Just(Event::Trip),
        1 => Just(Event::Reset),
        1 => Just(Event::ForceOpen),
        1 => Just(Event::ForceClosed),
        1 => Just(Event::ForceOpenFor),
        1 => Just(Event::ForceClosedFor),
        1 => Just(Event::ProbeNow),
        2 => Just(Event::Release),
        1 => any::<bool>().prop_map(Event::Observe),
        2 => Just(Event::OpenPeriodPasses),
        4 => Just(Event::PollUnwoken),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    Unknown,
    Pending,
    Ready,
}

type Call = tokio_test::task::Spawn<<Guarded<Limited> as Service<bool>>::Future>;

struct Bench {
    not_ready: bool,
    observes: bool,
    layer: BoxedLayer,
    shared: Arc<Shared>,
    services: Vec<(Spawn<Guarded<Limited>>, Last)>,
    calls: Vec<Call>,
}

impl Bench {
    fn new(not_ready: bool) -> Self {
        let config = limits().build().unwrap();
        let layer = super::BreakerLayer::new(config);
        let layer = if not_ready { layer.not_ready_when_open() } else { layer };
        let shared = Arc::new(Shared::default());
        let services =
            (0..SERVICES).map(|_| (Spawn::new(layer.layer(Limited::new(&shared))), Last::Unknown)).collect();
        Self { not_ready, observes: false, layer, shared, services, calls: Vec::new() }
    }

    fn poll_ready(&mut self, index: usize) {
        let (service, last) = &mut self.services[index];
        *last = if service.poll_ready::<bool>().is_ready() { Last::Ready } else { Last::Pending };
        self.check(index);
        let state = self.layer.circuit().status().state;
        if !self.observes && matches!(state, CircuitState::Open | CircuitState::ForcedOpen) {
            let (service, last) = &self.services[index];
            assert!(service.get_ref().get_ref().is_idle(), "an open circuit reserves nothing");
            assert_eq!(*last == Last::Pending, self.not_ready);
        }
    }

    /// Asserts that the reservation of a service fits the result of its last poll.
    fn check(&self, index: usize) {
        let (service, last) = &self.services[index];
        let inner = service.get_ref().get_ref();
        match last {
            Last::Ready => assert!(!inner.is_queued(), "a ready service is not queued"),
            Last::Pending if self.not_ready => {}
            Last::Pending => assert!(inner.is_queued(), "a pending service is queued"),
            Last::Unknown => assert!(inner.is_idle(), "nothing is reserved before a poll"),
        }
    }

    async fn apply(&mut self, event: Event) {
        let circuit = self.layer.circuit();
        match event {
            Event::PollReady(index) => self.poll_ready(index),
            Event::Call(index, succeeds) => {
                let (service, last) = &mut self.services[index];
                if *last == Last::Ready {
                    self.calls.push(tokio_test::task::spawn(service.call(succeeds)));
                    *last = Last::Unknown;
                    self.check(index);
                }
            }
            Event::PollCall(index) => {
                if let Some(call) = self.calls.get_mut(index)
                    && call.poll().is_ready()
                {
                    drop(self.calls.remove(index));
                }
            }
            Event::DropCall(index) => {
                if index < self.calls.len() {
                    drop(self.calls.remove(index));
                }
            }
            Event::Replace(index) => {
                let service = self.layer.layer(Limited::new(&self.shared));
                self.services[index] = (Spawn::new(service), Last::Unknown);
            }
            Event::CloneFrom(from, to) => {
                let clone = self.services[from].0.clone();
                self.services[to] = (clone, Last::Unknown);
            }
            Event::Trip => _ = circuit.trip(),
            Event::Reset => _ = circuit.reset(),
            Event::ForceOpen => _ = circuit.force_open(),
            Event::ForceClosed => _ = circuit.force_closed(),
            Event::ForceOpenFor => _ = circuit.force_open_for(OPEN_FOR),
            Event::ForceClosedFor => _ = circuit.force_closed_for(OPEN_FOR),
            Event::ProbeNow => _ = circuit.probe_now(),
            Event::Release => circuit.release(),
            Event::Observe(observes) => {
                self.observes = observes;
                let mode = if observes { Mode::ObserveOnly } else { Mode::Enforce };
                circuit.reconfigure(limits().mode(mode).build().unwrap()).unwrap();
            }
            Event::OpenPeriodPasses => {
                tokio::time::advance(OPEN_FOR + super::SECOND).await;
            }
            Event::PollUnwoken => {
                for index in 0..SERVICES {
                    let (service, last) = &mut self.services[index];
                    if *last == Last::Pending && !service.is_woken() {
                        self.poll_ready(index);
                        assert_eq!(self.services[index].1, Last::Pending, "{index} was not woken");
                    }
                }
            }
        }
    }

    /// Forces the circuit open and polls each service once more. Afterwards no reservation may be
    /// left.
    async fn end(&mut self) {
        self.apply(Event::Observe(false)).await;
        self.apply(Event::ForceOpen).await;
        for index in 0..SERVICES {
            self.poll_ready(index);
        }
        self.calls.clear();
        let state = self.shared.lock();
        assert!(state.holder.is_none() && state.queue.is_empty(), "no reservation is left");
    }
}

fn limits() -> super::BreakerConfigBuilder {
    let year = std::time::Duration::from_secs(365 * 86_400);
    config().consecutive_failures(2).probes(2).successes_to_close(1).probe_lease(year)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn rejected_services_hold_no_reservation_and_changes_wake(
        not_ready in any::<bool>(),
        events in vec(event(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new(not_ready);
            for event in events {
                bench.apply(event).await;
            }
            bench.end().await;
        });
    }
}
