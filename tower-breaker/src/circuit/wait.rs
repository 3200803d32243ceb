//! The futures that wait for a circuit: [`Circuit::ready`] and [`Circuit::acquire`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::core::Denied;
use super::permit::{CircuitRef, Permit, Static};
use super::wakers::{WakeOn, WakerKey};
use super::{Arrival, Circuit};
use crate::timer::OpenTimer;

/// Waiting for the circuit.
impl<R: CircuitRef> Circuit<R> {
    /// Waits until the circuit admits a call, without taking a permit.
    ///
    /// Use it before the work of a call begins: a worker that takes no job from its queue while the
    /// circuit is open. The call may run through a service of the circuit's layer, or through any
    /// method of the circuit.
    ///
    /// | state of the circuit | resolves |
    /// |---|---|
    /// | closed, forced closed, or disabled by the configuration | immediately |
    /// | open, or forced open for a time | when the time is over |
    /// | [open until it is reset](crate::BreakerConfigBuilder::open_until_reset), or forced open | when the circuit is reset, released, or changed in another way that admits calls |
    /// | half-open | when a probe slot is free |
    /// | closed, in a slow start | when the slow start admits a call |
    /// | any, with [`Mode::ObserveOnly`](crate::Mode::ObserveOnly) | immediately |
    ///
    /// Like tower's `ServiceExt::ready`, it promises nothing: a call after it is rejected if the
    /// circuit has opened meanwhile, or another call has taken the slot. To wait for the permit
    /// itself, use [`acquire`](Self::acquire).
    ///
    /// The wait does not change the state: a circuit whose open time is over half-opens with the
    /// next call. It counts as no rejection. A slow start by time counts it as the arrival of a
    /// call, like a rejected call.
    ///
    /// # Examples
    ///
    /// ```
    /// use tower_breaker::{BreakerConfig, BreakerError, Circuit, Clock};
    ///
    /// # async fn import(item: u32) -> std::io::Result<u32> { Ok(item) }
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::builder().clock(Clock::tokio()).build()?);
    /// circuit.trip()?;
    /// let mut items = vec![3, 2, 1];
    /// while let Some(item) = items.pop() {
    ///     circuit.ready().await;
    ///     match circuit.call(import(item)).await {
    ///         Ok(_) => println!("{item} is imported"),
    ///         // Another worker has taken the probe slot.
    ///         Err(BreakerError::Rejected(_)) => items.push(item),
    ///         Err(error) => println!("{item}: {error}"),
    ///     }
    /// }
    /// # assert_eq!(circuit.status().rejected_calls, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the wait, and has no other effect. See [`acquire`](Self::acquire)
    /// for a future that is neither polled nor dropped, and for manual clocks.
    ///
    /// # Panics
    ///
    /// The future panics if it has to wait outside of a tokio runtime with an enabled timer.
    pub fn ready(&self) -> Ready<R> {
        Ready { wait: Wait::new(self) }
    }

    /// Waits until the circuit admits a call, and acquires a permit for it.
    ///
    /// It is [`try_acquire`](Self::try_acquire) for a caller that waits instead of being rejected.
    /// [`ready`](Self::ready) lists when each state admits a call. The wait has no limit: for one,
    /// use `tokio::time::timeout`. It counts as no rejection.
    ///
    /// A half-open circuit grants at most as many permits at a time as it has probe slots. A free
    /// slot wakes one task, the one that has waited longest. Calls that do not wait, such as those
    /// of `try_acquire`, may take the slot before.
    ///
    /// The future keeps its circuit alive, and keeps the circuit of a key from eviction.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_breaker::{BreakerConfig, Circuit, Clock, Verdict};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let circuit = Circuit::new(BreakerConfig::builder().clock(Clock::tokio()).build()?);
    /// circuit.trip_for(Duration::from_secs(30))?;
    ///
    /// // Resolves after 30 s: this call is the first probe.
    /// let permit = circuit.acquire().await;
    /// // ... the call ...
    /// permit.record(Verdict::Success);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the wait, and counts nothing. If it was woken for a free slot, it
    /// wakes the next task. In `tokio::select!`, no permit is lost when another branch is first.
    ///
    /// A future that is neither polled nor dropped after it was woken delays the next task: until
    /// another slot is free, or until the [lease](crate::BreakerConfigBuilder::probe_lease) of the
    /// slot would have ended.
    ///
    /// # Clocks
    ///
    /// A timer of tokio wakes the task at the end of an open time, and then the circuit's clock
    /// decides. In a test with tokio's paused time, use [`Clock::tokio`](crate::Clock::tokio): with
    /// another clock, the timer fires again and again until that clock has reached the end. A
    /// [manual clock](crate::Clock::manual) that is advanced wakes no task.
    ///
    /// # Panics
    ///
    /// The future panics if it has to wait outside of a tokio runtime with an enabled timer.
    pub fn acquire(&self) -> Acquire<R> {
        Acquire { wait: Wait::new(self) }
    }
}

/// The future of [`Circuit::ready`].
#[must_use = "futures do nothing unless polled"]
pub struct Ready<R: CircuitRef = Static> {
    wait: Wait<R>,
}

impl<R: CircuitRef> Future for Ready<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.wait.poll(cx, |owner, arrival| owner.would_admit(arrival))
    }
}

impl<R: CircuitRef> fmt::Debug for Ready<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("circuit", &self.wait.circuit.name()).finish_non_exhaustive()
    }
}

/// The future of [`Circuit::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct Acquire<R: CircuitRef = Static> {
    wait: Wait<R>,
}

impl<R: CircuitRef> Future for Acquire<R> {
    type Output = Permit<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit<R>> {
        self.wait.poll(cx, Permit::acquire_waiting)
    }
}

impl<R: CircuitRef> fmt::Debug for Acquire<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire").field("circuit", &self.wait.circuit.name()).finish_non_exhaustive()
    }
}

/// A wait for a decision of the circuit that is no rejection.
struct Wait<R: CircuitRef> {
    circuit: Circuit<R>,
    /// The registration of the task. `None`: it has not waited yet, or does not wait any more.
    waker_key: Option<WakerKey>,
    timer: OpenTimer,
}

impl<R: CircuitRef> Wait<R> {
    fn new(circuit: &Circuit<R>) -> Self {
        Self { circuit: circuit.clone(), waker_key: None, timer: OpenTimer::default() }
    }

    /// Polls the circuit for its decision.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        decide: impl Fn(&R::Owner, Arrival) -> Result<T, Denied>,
    ) -> Poll<T> {
        if self.waker_key.is_none()
            && let Ok(decision) = decide(&self.circuit.owner, Arrival::Now)
        {
            return Poll::Ready(decision);
        }
        // Before the decision, because an earlier change does not wake the task.
        self.circuit.owner.register_waker(&mut self.waker_key, cx.waker(), WakeOn::Turn);
        let mut arrival = Arrival::Again;
        loop {
            match decide(&self.circuit.owner, arrival) {
                Ok(decision) => {
                    self.end();
                    return Poll::Ready(decision);
                }
                Err(denied) => ready!(self.timer.poll(cx, self.circuit.retry_timer(denied))),
            }
            // In a slow start by time, the end of the timer counts as the arrival of a call.
            arrival = Arrival::Now;
        }
    }

    fn end(&mut self) {
        if let Some(waker_key) = self.waker_key.take() {
            self.circuit.owner.end_turn(waker_key);
        }
    }
}

impl<R: CircuitRef> Drop for Wait<R> {
    fn drop(&mut self) {
        self.end();
    }
}
