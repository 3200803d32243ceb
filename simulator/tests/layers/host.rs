//! The simulated server as a tower service on tokio's timers.
//!
//! The order in which tasks register timers is that of the first driver's events, because timers of
//! one millisecond fire in that order. So the server registers the timer of an answer itself, with
//! the waker of the task that waits for the answer.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Response;
use simulator::random::{Random, Stream};
use simulator::reply::Reply;
use simulator::report::Report;
use simulator::server::{AttemptId, Server};
use simulator::setup::Setup;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;
use tower_jitter_retry::{ManualClock, RequestInfo};

/// A request to a shard of the server.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) shard: u32,
}

impl RequestInfo for Request {}

pub(crate) type Timer = Pin<Box<Sleep>>;

/// A handle to the server and to the counts of the run.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<Mutex<State>>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) report: Report,
    start: Instant,
    /// The clock of the circuits, policies and budgets.
    clock: ManualClock,
    network: u64,
    server: Server,
    shards: Vec<Shard>,
    waiting: HashMap<AttemptId, Waiting>,
    sent: AttemptId,
}

/// The task that works on the requests of a shard.
#[derive(Debug)]
struct Shard {
    waker: Waker,
    work: Option<(AttemptId, Timer)>,
}

/// An attempt whose client waits.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    answer: Option<(Reply, Timer)>,
}

impl Host {
    pub(crate) fn new(setup: &Setup, clock: ManualClock) -> Self {
        let shard = |_| Shard { waker: Waker::noop().clone(), work: None };
        Self(Arc::new(Mutex::new(State {
            report: Report::default(),
            start: Instant::now(),
            clock,
            network: setup.server.network,
            server: Server::new(setup.server.clone(), Random::new(setup.seed, Stream::Server)),
            shards: (0..setup.server.shards).map(shard).collect(),
            waiting: HashMap::new(),
            sent: 0,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no task panics with the lock")
    }

    /// Spawns a task whose polls move the clock of the layers to tokio's time.
    pub(crate) fn spawn(
        &self,
        mut task: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> tokio::task::JoinHandle<()> {
        let host = self.clone();
        tokio::spawn(poll_fn(move |cx| {
            host.state().move_clock();
            task.as_mut().poll(cx)
        }))
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn exchange(self, request: Request) -> Result<Response<()>, BoxError> {
        let attempt = poll_fn(|cx| Poll::Ready(self.state().send(request.shard, cx.waker()))).await;
        let exchange = Exchange { host: self, attempt };
        let reply = poll_fn(|cx| exchange.host.state().poll_answer(attempt, cx)).await;
        Ok(reply.result()?)
    }

    /// Works on the requests of a shard, without an end.
    pub(crate) async fn work(self, shard: u32) {
        poll_fn(|cx| {
            let mut state = self.state();
            state.shards[shard as usize].waker.clone_from(cx.waker());
            while state.poll_work(shard, cx) {}
            Poll::<()>::Pending
        })
        .await;
    }
}

/// An exchange that is dropped when its client stops waiting.
struct Exchange {
    host: Host,
    attempt: AttemptId,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.host.state().waiting.remove(&self.attempt);
    }
}

impl State {
    /// Returns the nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(crate) fn move_clock(&self) {
        self.clock.set(self.start.elapsed());
    }

    /// Returns a timer that wakes a task at a time since the start.
    pub(crate) fn timer(&self, at: u64, waker: &Waker) -> Timer {
        let mut timer = Box::pin(sleep_until(self.start + Duration::from_nanos(at)));
        let polled = timer.as_mut().poll(&mut Context::from_waker(waker));
        assert!(polled.is_pending(), "a timer of zero wakes no task");
        timer
    }

    fn send(&mut self, shard: u32, waker: &Waker) -> AttemptId {
        let (now, attempt) = (self.now(), self.sent);
        self.sent += 1;
        self.report.add_sent(now);
        self.waiting.insert(attempt, Waiting { waker: waker.clone(), answer: None });
        match self.server.receive(now, shard, attempt) {
            Some(reply) => self.answer(attempt, reply),
            None => self.start_work(shard),
        }
        attempt
    }

    fn answer(&mut self, attempt: AttemptId, reply: Reply) {
        let at = self.now() + self.network;
        let Some(waker) = self.waiting.get(&attempt).map(|waiting| waiting.waker.clone()) else { return };
        let answer = Some((reply, self.timer(at, &waker)));
        self.waiting.insert(attempt, Waiting { waker, answer });
    }

    fn poll_answer(&mut self, attempt: AttemptId, cx: &mut Context<'_>) -> Poll<Reply> {
        let waiting = self.waiting.get_mut(&attempt).expect("the client waits");
        waiting.waker.clone_from(cx.waker());
        match &mut waiting.answer {
            Some((reply, timer)) => timer.as_mut().poll(cx).map(|()| *reply),
            None => Poll::Pending,
        }
    }

    fn start_work(&mut self, shard: u32) {
        let (now, waiting) = (self.now(), &self.waiting);
        let started = self.server.start(now, shard, |attempt| waiting.contains_key(&attempt));
        if let Some((attempt, end)) = started {
            let timer = self.timer(end, &self.shards[shard as usize].waker);
            self.shards[shard as usize].work = Some((attempt, timer));
        }
    }

    /// Ends the work of a shard if its time is over. Returns whether it was.
    fn poll_work(&mut self, shard: u32, cx: &mut Context<'_>) -> bool {
        let Some((attempt, timer)) = &mut self.shards[shard as usize].work else { return false };
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        let attempt = *attempt;
        self.shards[shard as usize].work = None;
        if let Some(reply) = self.server.finish(shard, attempt) {
            self.answer(attempt, reply);
        }
        self.start_work(shard);
        true
    }

    pub(crate) fn begin_outage(&mut self) {
        for attempt in self.server.begin_outage() {
            self.answer(attempt, Reply::Reset);
        }
    }

    pub(crate) fn end_outage(&mut self) {
        (0..self.shards.len() as u32).for_each(|shard| self.start_work(shard));
    }
}
