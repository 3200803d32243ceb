//! Transitions as a stream.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

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
pub struct Transitions(BroadcastStream<Transition>);

impl Transitions {
    pub(super) fn new(receiver: Receiver<Transition>) -> Self {
        Self(BroadcastStream::new(receiver))
    }
}

/// Where the stream of transitions begins.
pub(super) fn source() -> Sender<Transition> {
    Sender::new(KEPT)
}

impl Stream for Transitions {
    type Item = Result<Transition, Missed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|next| {
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
        write!(f, "{} transitions were missed: read faster, or ask the status", self.transitions)
    }
}

impl Error for Missed {}
