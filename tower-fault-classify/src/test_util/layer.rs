//! The layer, its settings and its handle.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tower_layer::Layer;

use super::injection::Injection;
use super::schedule::{Calls, InjectionCounts, Plan};
use super::service::FaultInjection;
use crate::error::BoxError;

/// A layer that injects faults into some calls, and passes the other calls on.
///
/// # Settings
///
/// | method | **Default** | sets |
/// |---|---|---|
/// | [`inject`](Self::inject) | [`Injection::pass`] | the injection of the selected calls |
/// | [`rate`](Self::rate) | 1.0 | the share of the calls that are selected |
/// | [`after_calls`](Self::after_calls) | 0 | the number of calls before the first one that may be selected |
/// | [`every_nth`](Self::every_nth) | 1: each call | which of them may be selected |
/// | [`max_injections`](Self::max_injections) | no limit | the number of calls that are selected |
/// | [`script`](Self::script) | empty | the injections of the first calls, which the settings above do not select |
/// | [`matching`](Self::matching) | all requests | the requests whose calls are numbered |
/// | [`seed`](Self::seed) | random | the random numbers |
///
/// A call is selected if all settings select it. To inject faults of several kinds at their own
/// rates, use several layers.
///
/// The calls are numbered in the order of `call`. A layer, its clones, its services and its handles
/// share the numbers, the counts and the switch of the [handle](Self::handle).
///
/// # Error type
///
/// `K` names the error of the service: [`BoxErrors`], or [`TypedErrors`] for
/// [`typed`](FaultInjectionLayer::typed).
pub struct FaultInjectionLayer<K: ErrorType = BoxErrors, M = AllRequests> {
    plan: Plan<K::Error>,
    matches: M,
    calls: Arc<Calls>,
}

impl FaultInjectionLayer {
    /// Creates a layer that injects nothing yet, and whose services have a boxed error.
    ///
    /// tower's `Timeout`, `Buffer` and `LoadShed` box their errors, too.
    pub fn new() -> Self {
        Self::empty()
    }

    /// Creates a layer that injects nothing yet, and whose services have the error type `E`.
    ///
    /// The error of the inner service is converted into `E`. Use the error type of the inner
    /// service to keep it. With `Infallible`, as in axum's routes and tonic's server, only
    /// responses can be injected: [`Injection::status`], for example.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
    ///
    /// let layer = FaultInjectionLayer::typed::<Infallible>().inject(Injection::status(503));
    /// ```
    pub fn typed<E>() -> FaultInjectionLayer<TypedErrors<E>> {
        FaultInjectionLayer::empty()
    }
}

impl Default for FaultInjectionLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: ErrorType> FaultInjectionLayer<K> {
    fn empty() -> Self {
        Self { plan: Plan::new(), matches: AllRequests, calls: Arc::new(Calls::new()) }
    }

    /// Sets the requests whose calls are numbered. The calls of other requests are passed on.
    ///
    /// `matches` is called once for each call, and must not call the service itself.
    ///
    /// **Default**: all requests.
    ///
    /// ```
    /// use tower_fault_classify::test_util::{FaultInjectionLayer, Injection};
    ///
    /// fn is_search(request: &http::Request<String>) -> bool {
    ///     request.uri().path() == "/search"
    /// }
    ///
    /// let layer = FaultInjectionLayer::new().inject(Injection::status(503)).matching(is_search);
    /// ```
    pub fn matching<M>(self, matches: M) -> FaultInjectionLayer<K, M> {
        let Self { plan, calls, .. } = self;
        FaultInjectionLayer { plan, matches, calls }
    }
}

impl<K: ErrorType, M> FaultInjectionLayer<K, M> {
    /// Sets the injection of the selected calls after the script.
    ///
    /// **Default**: [`Injection::pass`].
    pub fn inject(mut self, injection: Injection<K::Error>) -> Self {
        self.plan.injection = injection;
        self
    }

    /// Sets the injections of the first calls, one for each call.
    ///
    /// [`Injection::pass`] is a step without a fault. After the last step, the other settings
    /// decide. They count calls from the end of the script.
    ///
    /// **Default**: empty.
    pub fn script(mut self, steps: impl IntoIterator<Item = Injection<K::Error>>) -> Self {
        self.plan.script = steps.into_iter().collect();
        self
    }

    /// Sets the share of the calls that are selected, 0.0 to 1.0.
    ///
    /// Each call is selected at random, by the seed and the number of the call.
    ///
    /// **Default**: 1.0.
    ///
    /// # Panics
    ///
    /// Panics if `rate` is not in 0.0..=1.0.
    pub fn rate(mut self, rate: f64) -> Self {
        assert!((0.0..=1.0).contains(&rate), "rate {rate} is not valid; use a rate in 0.0..=1.0");
        self.plan.schedule.rate = rate;
        self
    }

    /// Selects no call before this number of calls.
    ///
    /// **Default**: 0.
    pub fn after_calls(mut self, calls: u64) -> Self {
        self.plan.schedule.after_calls = calls;
        self
    }

    /// Selects each `n`th call only: for 3, the third call, the sixth, and so on.
    ///
    /// Calls are counted after those of [`after_calls`](Self::after_calls).
    ///
    /// **Default**: 1, each call.
    ///
    /// # Panics
    ///
    /// Panics if `n` is 0.
    pub fn every_nth(mut self, n: u64) -> Self {
        assert!(n > 0, "every 0th call is not valid; use at least 1");
        self.plan.schedule.every_nth = n;
        self
    }

    /// Limits the number of calls that are selected. Steps of the script do not count.
    ///
    /// `max_injections(3)` alone selects the first three calls.
    ///
    /// **Default**: no limit.
    pub fn max_injections(mut self, injections: u64) -> Self {
        self.plan.schedule.max_injections = injections;
        self
    }

    /// Sets the seed of the [rate](Self::rate) and of [random delays](Injection::delay_between).
    ///
    /// A call's random numbers depend on the seed and on the call's number only. So each run of a
    /// test selects the same calls by their numbers. Concurrent calls get their numbers in the
    /// order in which they begin.
    ///
    /// The random numbers of a seed can change in any release.
    ///
    /// **Default**: random. `Debug` of the layer prints it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.plan.schedule.seed = seed;
        self
    }

    /// Returns a handle that switches the layer off and on, and reads its counts.
    pub fn handle(&self) -> FaultInjectionHandle {
        FaultInjectionHandle(Arc::clone(&self.calls))
    }
}

impl<S, K: ErrorType, M: Clone> Layer<S> for FaultInjectionLayer<K, M> {
    type Service = FaultInjection<S, K, M>;

    fn layer(&self, inner: S) -> Self::Service {
        FaultInjection::new(inner, Arc::new(self.plan.clone()), self.matches.clone(), Arc::clone(&self.calls))
    }
}

impl<K: ErrorType, M: Clone> Clone for FaultInjectionLayer<K, M> {
    fn clone(&self) -> Self {
        let Self { plan, matches, calls } = self;
        Self { plan: plan.clone(), matches: matches.clone(), calls: Arc::clone(calls) }
    }
}

impl<K: ErrorType, M> fmt::Debug for FaultInjectionLayer<K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultInjectionLayer")
            .field("plan", &self.plan)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

/// Switches a [`FaultInjectionLayer`] off and on while it runs, and reads its counts.
///
/// A handle works for all clones and services of its layer.
#[derive(Clone, Debug)]
pub struct FaultInjectionHandle(Arc<Calls>);

impl FaultInjectionHandle {
    /// Injects faults again, from the next call on.
    pub fn enable(&self) {
        self.0.set_enabled(true);
    }

    /// Passes all calls on, from the next call on.
    ///
    /// These calls are not numbered, so the schedule continues when the layer is enabled again.
    /// Calls and bodies that have got a fault keep it.
    pub fn disable(&self) {
        self.0.set_enabled(false);
    }

    /// Returns whether the layer injects faults. A new layer does.
    pub fn is_enabled(&self) -> bool {
        self.0.is_enabled()
    }

    /// Returns the number of calls that were passed on unchanged, and of those with an injection.
    ///
    /// A call that does not match, and a call while the layer is disabled, is passed on.
    pub fn counts(&self) -> InjectionCounts {
        self.0.counts()
    }
}

/// Names the error type of a service.
///
/// It is a type of its own, because the compiler cannot always see that a future can be sent to
/// another thread if `Box<dyn Error>` is a type parameter of the service.
pub trait ErrorType {
    /// The error of the service.
    type Error;
}

/// The errors of the service are boxed: [`BoxError`].
#[derive(Clone, Copy, Debug)]
pub struct BoxErrors;

impl ErrorType for BoxErrors {
    type Error = BoxError;
}

/// The errors of the service have the type `E`.
#[derive(Clone, Copy, Debug)]
pub struct TypedErrors<E>(PhantomData<fn() -> E>);

impl<E> ErrorType for TypedErrors<E> {
    type Error = E;
}

/// Decides by the request whether a call is numbered.
///
/// Functions and closures from `&Request` to `bool` implement it.
pub trait MatchRequest<Req> {
    /// Returns whether the call may get an injection.
    fn matches(&self, request: &Req) -> bool;
}

impl<Req, F: Fn(&Req) -> bool> MatchRequest<Req> for F {
    fn matches(&self, request: &Req) -> bool {
        self(request)
    }
}

/// Matches all requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllRequests;

impl<Req> MatchRequest<Req> for AllRequests {
    fn matches(&self, _: &Req) -> bool {
        true
    }
}
