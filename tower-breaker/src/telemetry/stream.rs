//! Transitions as a stream.

use std::error::Error;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::Transition;

/// How many transitions wait for a reader.
const KEPT: usize = 256;

/// The changes of a circuit's state, or of many circuits', from the time on when it was asked for.
///
/// It never holds a circuit up: the last 256 changes wait for a slow reader, and one that comes later still loses the oldest and is told how many
/// by a [`Missed`]. It ends when its circuit does, or all of them do. It runs on any executor.
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
    // After the stream, which has clones of it.
    relay: Arc<Relay>,
}

impl Transitions {
    pub(super) fn new(receiver: Receiver<Transition>) -> Self {
        Self { stream: BroadcastStream::new(receiver), relay: Arc::default() }
    }
}

/// Separates the channel from the reader's waker, which may run anything when it is cloned or
/// dropped: the channel clones wakers under its lock.
#[derive(Default)]
struct Relay(Mutex<Option<Waker>>);

impl Relay {
    /// Puts a waker in the place of another, which is returned so that it is dropped outside the
    /// lock.
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

/// Where the stream of transitions begins.
pub(super) fn source() -> Sender<Transition> {
    Sender::new(KEPT)
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

/// A reader of [`Transitions`] was too slow, and has missed the oldest that he had not read. The next ones follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    transitions: u64,
}

impl Missed {
    /// How many.
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
