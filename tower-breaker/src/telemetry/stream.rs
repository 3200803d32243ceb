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

/// Sends transitions to streams.
#[derive(Default)]
pub(super) struct Broadcast(OnceLock<Sender<Transition>>);

impl Broadcast {
    pub(super) fn send(&self, transition: &Transition) {
        if let Some(sender) = self.0.get() {
            // It fails if there is no stream at present.
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
