//! How a session receives what other processes have changed: with LISTEN, or by polling.

use std::collections::{HashMap, VecDeque};
use std::future::{pending, poll_fn};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_postgres::types::Type;

use super::Settings;
use super::failure::quoted;
use super::link::Link;
use super::wire::WireUpdate;
use crate::store::{StoreError, StoreFuture, Update};

/// How often a session without LISTEN asks for changes.
const POLL: Duration = Duration::from_secs(1);
/// The same while a circuit of the process has failures or is not closed.
const POLL_BUSY: Duration = Duration::from_millis(100);
/// How far a poll looks back beyond the previous one.
///
/// A change becomes visible when its transaction commits, after the time that it is stored with. A
/// transaction takes at most the lock timeout of the functions, 1 s, and then a short work.
const OVERLAP: Duration = Duration::from_secs(2);
/// How long the notification of a test may take.
const TEST: Duration = Duration::from_secs(1);
/// How long a session polls after LISTEN has failed, until it tries LISTEN again.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Updates {
    settings: Arc<Settings>,
    namespace: String,
    listener: Listener,
    next_poll: Instant,
    /// When the last answered poll started. It has all older changes.
    polled: Instant,
    /// The changes of the last poll, by circuit: epoch and time. The next poll repeats some.
    seen: HashMap<String, (i64, i64)>,
    queue: VecDeque<Update>,
}

enum Listener {
    /// There is no direct URL, or LISTEN has failed and is tried again at this time.
    Off(Option<Instant>),
    /// Connects, and runs LISTEN.
    Starting(StoreFuture<'static, Listening>),
    /// LISTEN has succeeded. Behind a pooler of transactions it succeeds, too, but nothing arrives:
    /// a notification of the other connection is the proof.
    Testing {
        listening: Listening,
        sent: bool,
        until: Instant,
    },
    /// Changes from before LISTEN are still to be polled.
    CatchingUp(Listening),
    On(Listening),
}

struct Listening {
    link: Link,
    /// The channel of the test, which only this session listens to.
    test: String,
}

/// What ends the wait of a session without LISTEN.
enum Event {
    Poll,
    Started(Result<Listening, StoreError>),
    Notified(String),
    Failed(StoreError),
    ListenAgain,
}

impl Updates {
    pub(super) fn new(settings: Arc<Settings>, namespace: String) -> Self {
        let now = Instant::now();
        let listen_at = settings.direct.is_some().then_some(now);
        Self {
            settings,
            namespace,
            listener: Listener::Off(listen_at),
            next_poll: now + POLL,
            polled: now,
            seen: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// Polls soon if the process has just become busy.
    pub(super) fn hurry(&mut self) {
        self.next_poll = self.next_poll.min(Instant::now() + POLL_BUSY);
    }

    /// Waits for the next update. `commands` is the connection for statements.
    pub(super) async fn next(&mut self, commands: &mut Link, busy: bool) -> Result<Update, StoreError> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                return Ok(update);
            }
            match &mut self.listener {
                Listener::On(listening) => {
                    let payload = tokio::select! {
                        error = ended(commands, &self.settings) => return Err(error),
                        payload = notification(&mut listening.link, &self.settings) => payload?.1,
                    };
                    self.receive(&payload);
                }
                Listener::CatchingUp(_) => {
                    self.poll(commands, POLL).await?;
                    let listener = mem::replace(&mut self.listener, Listener::Off(None));
                    if let Listener::CatchingUp(listening) = listener {
                        self.listener = Listener::On(listening);
                    }
                }
                Listener::Testing { listening, sent: sent @ false, .. } => {
                    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] =
                        [(&listening.test, Type::TEXT)];
                    let result = commands.query("SELECT pg_notify($1, '')", &parameters).await;
                    result.map_err(|error| self.settings.target.failure(error))?;
                    *sent = true;
                }
                _ => self.wait(commands, busy).await?,
            }
        }
    }

    /// Waits until a poll is due, or the listener has made progress.
    async fn wait(&mut self, commands: &mut Link, busy: bool) -> Result<(), StoreError> {
        let event = tokio::select! {
            error = ended(commands, &self.settings) => return Err(error),
            event = self.listener.progress(&self.settings) => event,
            () = sleep_until(self.next_poll) => Event::Poll,
        };
        match event {
            Event::Poll => return self.poll(commands, if busy { POLL_BUSY } else { POLL }).await,
            Event::ListenAgain => {
                let start = start(Arc::clone(&self.settings), self.namespace.clone());
                self.listener = Listener::Starting(Box::pin(start));
            }
            Event::Started(Ok(listening)) => {
                self.listener = Listener::Testing { listening, sent: false, until: Instant::now() + TEST };
            }
            Event::Started(Err(error)) | Event::Failed(error) => {
                self.settings.polls_because(&error);
                self.listener = Listener::Off(Some(Instant::now() + LISTEN_AGAIN));
            }
            Event::Notified(channel) => {
                let listener = mem::replace(&mut self.listener, Listener::Off(None));
                self.listener = match listener {
                    Listener::Testing { listening, .. } if channel == listening.test => {
                        self.settings.listens();
                        Listener::CatchingUp(listening)
                    }
                    // The poll has the update, too.
                    listener => listener,
                };
            }
        }
        Ok(())
    }

    /// Asks for the changes since the last poll. Safe to cancel: the next poll looks back as far.
    async fn poll(&mut self, commands: &mut Link, interval: Duration) -> Result<(), StoreError> {
        let start = Instant::now();
        self.next_poll = start + interval;
        let within = (start - self.polled + OVERLAP).as_millis() as i64;
        let sql = format!(
            "SELECT circuit, epoch, changed_ms, updates FROM {}.breaker_changes($1, $2)",
            quoted(&self.settings.target.schema)
        );
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&self.namespace, Type::TEXT), (&within, Type::INT8)];
        let target = &self.settings.target;
        let rows = commands.query(&sql, &parameters).await.map_err(|error| target.failure(error))?;

        let mut seen = HashMap::new();
        for row in &rows {
            let column = |error| target.invalid(error);
            let circuit: String = row.try_get(0).map_err(column)?;
            let change: (i64, i64) = (row.try_get(1).map_err(column)?, row.try_get(2).map_err(column)?);
            if self.seen.get(&circuit) != Some(&change) {
                let updates: Vec<&str> = row.try_get(3).map_err(column)?;
                for update in updates {
                    self.queue.push_back(read(update, &self.settings)?);
                }
            }
            seen.insert(circuit, change);
        }
        self.seen = seen;
        self.polled = start;
        Ok(())
    }

    /// Takes a notification. One that is no update is ignored, such as the late notification of the
    /// test: a later version may publish other kinds. The next heartbeat has what it said about a
    /// circuit.
    fn receive(&mut self, payload: &str) {
        self.queue.extend(read(payload, &self.settings));
    }
}

impl Listener {
    /// Waits until a listener that does not listen yet makes progress. Safe to cancel.
    async fn progress(&mut self, settings: &Settings) -> Event {
        match self {
            Self::Off(Some(again)) => {
                sleep_until(*again).await;
                Event::ListenAgain
            }
            Self::Starting(start) => Event::Started(start.await),
            Self::Testing { listening, until, .. } => tokio::select! {
                notified = notification(&mut listening.link, settings) => match notified {
                    Ok((channel, _)) => Event::Notified(channel),
                    Err(error) => Event::Failed(error),
                },
                () = sleep_until(*until) => Event::Failed(settings.direct_target().refused(
                    "LISTEN receives nothing; the URL of `listen_at` goes through a pooler in transaction mode, \
                     or names another database; use the URL of the server itself",
                )),
            },
            Self::Off(None) | Self::CatchingUp(_) | Self::On(_) => pending().await,
        }
    }
}

/// Connects directly, and listens to the changes of the namespace and to a channel for the test.
async fn start(settings: Arc<Settings>, namespace: String) -> Result<Listening, StoreError> {
    let mut link = settings.connect_directly().await?;
    let target = settings.direct_target();
    let sql = format!("SELECT {}.breaker_channel($1)", quoted(&target.schema));
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&namespace, Type::TEXT)];
    let rows = link.query(&sql, &parameters).await.map_err(|error| target.failure(error))?;
    let channel = rows.first().map(|row| row.try_get::<_, String>(0));
    let channel = channel.and_then(Result::ok).ok_or_else(|| target.invalid("the channel is missing"))?;
    let test = format!("breaker_test_{:032x}", fastrand::u128(..));
    let sql = format!("LISTEN {}; LISTEN {}", quoted(&channel), quoted(&test));
    link.run(&sql).await.map_err(|error| target.failure(error))?;
    Ok(Listening { link, test })
}

/// Returns the next notification of a connection: its channel and its payload. Safe to cancel.
async fn notification(link: &mut Link, settings: &Settings) -> Result<(String, String), StoreError> {
    let target = settings.direct_target();
    let result = poll_fn(|context| link.poll_notification(context)).await;
    result.map_err(|error| error.map_or_else(|| target.closed(), |error| target.failure(error)))
}

/// Waits until the connection for statements ends.
async fn ended(link: &mut Link, settings: &Settings) -> StoreError {
    loop {
        if let Err(error) = poll_fn(|context| link.poll_notification(context)).await {
            return error.map_or_else(|| settings.target.closed(), |error| settings.target.failure(error));
        }
    }
}

fn read(text: &str, settings: &Settings) -> Result<Update, StoreError> {
    let update: Result<WireUpdate, _> = serde_json::from_str(text);
    let update = update.map_err(|error| error.to_string()).and_then(WireUpdate::read);
    update.map_err(|problem| settings.target.invalid(problem))
}
