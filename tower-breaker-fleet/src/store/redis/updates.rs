//! The updates that the server has sent and the agent has not read yet.

use std::sync::{Arc, Mutex, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::wire;
use crate::store::StoreErrorKind::{self, Unreachable};
use crate::store::Update;

/// The most updates that wait for the agent. One update has less than 1 kB.
const CAPACITY: usize = 4096;

/// Why no more updates come.
pub(super) type Ended = (StoreErrorKind, &'static str);

const DISCONNECTED: Ended = (Unreachable, "the connection for updates is broken");
const OVERFLOWN: Ended = (
    Unreachable,
    "updates arrive faster than this process reads them; give its runtime more time, or use several namespaces",
);
const UNSUBSCRIBED: Ended = (Unreachable, "it has ended the subscription, because the slot has moved");

/// Creates a queue. It never drops an update silently: when one cannot be stored, the queue ends,
/// and the agent connects and synchronizes again.
pub(super) fn queue() -> (UpdateSender, UpdateReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let state = Arc::new(Mutex::new(State { sender: Some(sender), ended: DISCONNECTED }));
    (UpdateSender { state: state.clone() }, UpdateReceiver { receiver, state })
}

struct State {
    /// `None`: the queue has ended.
    sender: Option<Sender<Update>>,
    ended: Ended,
}

/// Takes the messages of the server, in the driver's task.
#[derive(Clone)]
pub(super) struct UpdateSender {
    state: Arc<Mutex<State>>,
}

impl UpdateSender {
    pub(super) fn push(&self, message: &PushInfo) {
        match message.kind {
            PushKind::Message | PushKind::SMessage => {
                // A message that is no update is ignored: a later version may publish other kinds.
                // The next heartbeat has what it said about a circuit.
                if let Some(update) = decode(&message.data) {
                    self.send(update);
                }
            }
            PushKind::Unsubscribe | PushKind::SUnsubscribe => self.end(UNSUBSCRIBED),
            PushKind::Disconnection => self.end(DISCONNECTED),
            _ => {}
        }
    }

    fn send(&self, update: Update) {
        let is_full = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A receiver that is gone needs nothing.
            state.sender.as_ref().is_some_and(|sender| sender.try_send(update).is_err())
        };
        if is_full {
            self.end(OVERFLOWN);
        }
    }

    fn end(&self, ended: Ended) {
        let sender = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let sender = state.sender.take();
            if sender.is_some() {
                state.ended = ended;
            }
            sender
        };
        // Dropped without the lock, because it wakes the agent.
        drop(sender);
    }
}

fn decode(data: &[Value]) -> Option<Update> {
    match data {
        [_, Value::BulkString(payload)] => wire::update(payload),
        _ => None,
    }
}

pub(super) struct UpdateReceiver {
    receiver: Receiver<Update>,
    state: Arc<Mutex<State>>,
}

impl UpdateReceiver {
    /// Waits for the next update. Cancellation-safe. `Err`: no more updates come.
    pub(super) async fn next(&mut self) -> Result<Update, Ended> {
        match self.receiver.recv().await {
            Some(update) => Ok(update),
            None => Err(self.state.lock().unwrap_or_else(PoisonError::into_inner).ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &str) -> PushInfo {
        let data =
            vec![Value::BulkString(b"tb1:{a}".to_vec()), Value::BulkString(payload.as_bytes().to_vec())];
        PushInfo { kind: PushKind::Message, data }
    }

    #[tokio::test]
    async fn full_queue_delivers_what_it_has_and_ends() {
        let (sender, mut receiver) = queue();
        for epoch in 0..=CAPACITY {
            sender.push(&message(&format!("{epoch}\tslots_taken\t5\tname")));
        }
        for _ in 0..CAPACITY {
            receiver.next().await.unwrap();
        }
        assert_eq!(receiver.next().await, Err(OVERFLOWN));
        sender.push(&message("1\tslots_taken\t5\tname"));
        assert_eq!(receiver.next().await, Err(OVERFLOWN));
    }

    #[tokio::test]
    async fn first_reason_ends_the_queue() {
        for (kind, ended, later) in [
            (PushKind::SUnsubscribe, UNSUBSCRIBED, PushKind::Disconnection),
            (PushKind::Disconnection, DISCONNECTED, PushKind::SUnsubscribe),
        ] {
            let (sender, mut receiver) = queue();
            sender.push(&PushInfo { kind, data: Vec::new() });
            sender.push(&PushInfo { kind: later, data: Vec::new() });
            assert_eq!(receiver.next().await, Err(ended));
        }
        let (sender, mut receiver) = queue();
        drop(sender);
        drop(receiver.state.lock().unwrap().sender.take());
        assert_eq!(receiver.next().await, Err(DISCONNECTED));
    }
}
