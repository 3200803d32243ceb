//! Transitions as a stream.

use std::error::Error;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use tokio::sync::broadcast::Sender;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::Transition;

/// How many transitions are kept for a slow reader.
const KEPT: usize = 256;

/// A stream of the transitions of one circuit or of several circuits.
///
/// It starts with the first transition after its creation. It ends when its circuit ends, or when
/// all of its circuits have ended. It runs on any executor.
///
/// The stream never blocks a circuit. The last 256 transitions are kept for a slow reader. A reader
/// that falls further behind loses the oldest ones, and receives their number as a [`Missed`]
/// error; the stream then continues.
///
/// # Example
///
/// ```
/// use futures::StreamExt;
/// use tower_breaker::{BreakerConfig, Circuit};
///
/// # tokio_test::block_on(async {
/// let circuit = Circuit::new(BreakerConfig::default());
/// let mut transitions = circuit.transitions();
/// circuit.trip().unwrap();
/// match transitions.next().await {
///     Some(Ok(transition)) => println!("{} is {}: {}", transition.circuit, transition.to, transition.reason),
///     Some(Err(missed)) => println!("{missed}"),
///     None => println!("the circuit has ended"),
/// }
/// # });
/// ```
pub struct Transitions {
    stream: BroadcastStream<Transition>,
    // After the stream, which contains clones of it.
    relay: Arc<Relay>,
}

/// Separates the channel from the reader's waker. The channel clones wakers under its lock, and
/// cloning or dropping a user's waker may run any code.
#[derive(Default)]
struct Relay(Mutex<Option<Waker>>);

impl Relay {
    /// Replaces the waker. The former waker is returned, so that it is dropped outside of the lock.
    fn replace(&self, waker: Option<Waker>) -> Option<Waker> {
        mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), waker)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        let waker = self.replace(None);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Sends transitions to streams.
#[derive(Default)]
pub(super) struct Broadcast(OnceLock<Sender<Transition>>);

impl Broadcast {
    pub(super) fn send(&self, transition: &Transition) {
        if let Some(sender) = self.0.get() {
            // Sending fails if there is no stream at present.
            let _ = sender.send(transition.clone());
        }
    }

    pub(super) fn subscribe(&self) -> Transitions {
        let sender = self.0.get_or_init(|| Sender::new(KEPT));
        Transitions { stream: BroadcastStream::new(sender.subscribe()), relay: Arc::default() }
    }
}

impl Stream for Transitions {
    type Item = Result<Transition, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let former = self.relay.replace(Some(cx.waker().clone()));
        drop(former);
        let relay = Waker::from(Arc::clone(&self.relay));
        Pin::new(&mut self.stream).poll_next(&mut Context::from_waker(&relay)).map(|next| {
            next.map(|next| {
                next.map_err(|BroadcastStreamRecvError::Lagged(transitions)| Missed { transitions })
            })
        })
    }
}

impl fmt::Debug for Transitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transitions")
    }
}

/// The error of a [`Transitions`] stream whose reader was too slow: it lost the oldest transitions.
///
/// The stream continues with the oldest transition that is still kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    transitions: u64,
}

impl Missed {
    /// Returns how many transitions were lost.
    pub const fn transitions(&self) -> u64 {
        self.transitions
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transitions were missed; read the circuit's status for its current state",
            self.transitions
        )
    }
}

impl Error for Missed {}
