//! One run: the loop over the events.

mod attempts;

use std::time::Duration;

use tower_breaker::{Clock, ManualClock, Verdict};
use tower_jitter_retry::decision::{CallOptions, Decision};

use self::attempts::{Attempt, Attempts, Call};
use crate::client::Clients;
use crate::events::Events;
use crate::random::{Random, Stream};
use crate::reply::Reply;
use crate::report::Report;
use crate::server::{AttemptId, Server};
use crate::setup::{Load, Setup, Timeout};
use crate::time::{SECOND, nanos};

/// Runs a simulation until all calls have ended.
pub fn run(setup: &Setup) -> Report {
    run_in_steps(setup, 1)
}

/// Runs a simulation in which everything happens at multiples of `step`, in nanoseconds.
///
/// Each time of an event is rounded up, as tokio rounds the times of its timers up to milliseconds.
///
/// # Panics
///
/// Panics if `step` is 0.
pub fn run_in_steps(setup: &Setup, step: u64) -> Report {
    let mut world = World::new(setup, step);
    world.begin();
    while let Some((now, event)) = world.events.pop() {
        world.time.set(Duration::from_nanos(now));
        world.now = now;
        world.handle(event);
    }
    world.report.left = world.open_items;
    world.report
}

/// The number of a process.
type ProcessId = u32;

#[derive(Debug)]
enum Event {
    /// An item or a call arrives.
    Arrival,
    /// A worker of this process is ready for an item.
    Ready(ProcessId),
    /// The delay of a retry is over.
    Resend(Box<Call>),
    /// The server has finished the work on a request.
    Finished {
        shard: u32,
        attempt: AttemptId,
    },
    /// The answer arrives at the client.
    Answer(AttemptId),
    /// The client stops waiting for the attempt.
    Timeout(AttemptId),
    OutageBegins,
    OutageEnds,
}

#[derive(Clone, Copy, Debug)]
struct Backlog {
    items: u64,
    idle: u32,
}

struct World<'a> {
    setup: &'a Setup,
    now: u64,
    time: ManualClock,
    events: Events<Event>,
    clients: Clients,
    backlogs: Vec<Backlog>,
    /// The items that are not answered.
    open_items: u64,
    attempts: Attempts,
    server: Server,
    report: Report,
    arrivals: Random,
    choices: Random,
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup, step: u64) -> Self {
        let (clock, time) = Clock::manual();
        let random = |stream| Random::new(setup.seed, stream);
        let mut seeds = random(Stream::Seeds);
        let backlog = match setup.load {
            Load::Open { .. } => None,
            Load::Backlog { initial, workers, .. } => Some(Backlog { items: initial, idle: workers }),
        };
        let backlogs: Vec<Backlog> = vec![backlog; setup.processes as usize].into_iter().flatten().collect();
        Self {
            setup,
            now: 0,
            time,
            events: Events::new(step),
            clients: Clients::new(&setup.guard, setup.processes, clock, &mut seeds),
            open_items: backlogs.iter().map(|backlog| backlog.items).sum(),
            backlogs,
            attempts: Attempts::default(),
            server: Server::new(setup.server.clone(), random(Stream::Server)),
            report: Report::default(),
            arrivals: random(Stream::Arrivals),
            choices: random(Stream::Choices),
        }
    }

    /// Adds the first events.
    fn begin(&mut self) {
        if let Some(outage) = &self.setup.server.outage {
            self.events.add(outage.during.start, Event::OutageBegins);
            self.events.add(outage.during.end, Event::OutageEnds);
        }
        self.add_arrival();
        self.report.items = self.open_items;
        for process in 0..self.backlogs.len() as ProcessId {
            self.wake_workers(process);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrival => {
                self.add_arrival();
                self.arrive();
            }
            Event::Ready(process) => {
                self.backlogs[process as usize].idle += 1;
                self.wake_workers(process);
            }
            Event::Resend(call) if self.now >= self.deadline(&call) => self.end_call(&call, false),
            Event::Resend(call) => self.attempt(call),
            Event::Finished { shard, attempt } => {
                if let Some(reply) = self.server.finish(shard, attempt) {
                    self.answer(attempt, reply);
                }
                self.start_work(shard);
            }
            Event::Answer(attempt) | Event::Timeout(attempt) => self.end_attempt(attempt),
            Event::OutageBegins => {
                for attempt in self.server.begin_outage() {
                    self.answer(attempt, Reply::Reset);
                }
            }
            Event::OutageEnds => (0..self.setup.server.shards).for_each(|shard| self.start_work(shard)),
        }
    }

    /// Adds the next arrival, if it is before the end.
    fn add_arrival(&mut self) {
        let per_second = self.setup.load.per_second();
        if per_second == 0 {
            return;
        }
        let at = self.now + self.arrivals.exponential(SECOND / u64::from(per_second));
        if at < self.setup.until {
            self.events.add(at, Event::Arrival);
        }
    }

    fn arrive(&mut self) {
        let process = self.choices.below(self.setup.processes.into()) as ProcessId;
        match self.setup.load {
            Load::Open { .. } => self.begin_call(process),
            Load::Backlog { .. } => {
                self.report.items += 1;
                self.open_items += 1;
                self.backlogs[process as usize].items += 1;
                self.wake_workers(process);
            }
        }
    }

    /// Begins calls while the process has items and idle workers.
    fn wake_workers(&mut self, process: ProcessId) {
        while self.now < self.setup.until {
            let backlog = &mut self.backlogs[process as usize];
            if backlog.items == 0 || backlog.idle == 0 {
                return;
            }
            backlog.items -= 1;
            backlog.idle -= 1;
            self.begin_call(process);
        }
    }

    fn begin_call(&mut self, process: ProcessId) {
        self.report.second(self.now).asked += 1;
        let shard = self.choices.below(self.setup.server.shards.into()) as u32;
        let retry = self
            .clients
            .policy(process)
            .map(|policy| policy.begin(CallOptions::new(), Duration::from_nanos(self.now)));
        self.attempt(Box::new(Call { process, shard, began: self.now, sent: false, retry }));
    }

    /// Sends an attempt, unless the breaker rejects it.
    fn attempt(&mut self, mut call: Box<Call>) {
        let is_retry = call.retry.as_ref().is_some_and(|retry| retry.attempts() > 1);
        let permit = match self.clients.try_acquire(call.process, self.now) {
            Ok(permit) if is_retry => permit.retry(),
            Ok(permit) => permit,
            Err(verdict) => return self.end_or_retry(call, &verdict),
        };
        self.report.add_sent(self.now);
        call.sent = true;
        let shard = call.shard;
        let timeout = match self.setup.timeout {
            Timeout::Inside(timeout) => self.now + timeout,
            Timeout::Outside(_) => self.deadline(&call),
        };
        let attempt = self.attempts.add(Attempt { call, permit, answer: None });
        match self.server.receive(self.now, shard, attempt) {
            Some(reply) => self.answer(attempt, reply),
            None => self.start_work(shard),
        }
        self.events.add(timeout, Event::Timeout(attempt));
    }

    fn answer(&mut self, attempt: AttemptId, reply: Reply) {
        let at = self.events.add(self.now + self.setup.server.network, Event::Answer(attempt));
        self.attempts.set_answer(attempt, at, reply);
    }

    fn start_work(&mut self, shard: u32) {
        let attempts = &self.attempts;
        if let Some((attempt, end)) = self.server.start(self.now, shard, |attempt| attempts.waits(attempt)) {
            self.events.add(end, Event::Finished { shard, attempt });
        }
    }

    /// Ends an attempt, unless it has ended: an answer may arrive after the timeout.
    ///
    /// An answer that arrives at the time of the timeout is in time, as with the timeouts of tower
    /// and tokio.
    fn end_attempt(&mut self, attempt: AttemptId) {
        let Some(Attempt { call, permit, answer }) = self.attempts.remove(attempt) else { return };
        let answer = answer.filter(|&(at, _)| at <= self.now).map(|(_, reply)| reply);
        let reply = match (answer, self.setup.timeout) {
            (Some(reply), _) => reply,
            (None, Timeout::Inside(_)) => Reply::TimedOut,
            (None, Timeout::Outside(_)) => {
                // The breaker records a permit that is dropped as a cancelled call.
                drop(permit);
                return self.end_call(&call, false);
            }
        };
        let verdict = reply.verdict();
        self.clients.record(call.process, permit, verdict, self.now);
        self.end_or_retry(call, &verdict);
    }

    fn end_or_retry(&mut self, mut call: Box<Call>, verdict: &Verdict) {
        if let Some(retry) = &mut call.retry
            && let Decision::Retry { delay } = retry.record(verdict, Duration::from_nanos(self.now))
        {
            let at = (self.now + nanos(delay)).min(self.deadline(&call));
            self.events.add(at, Event::Resend(call));
            return;
        }
        self.end_call(&call, verdict.is_success());
    }

    /// Returns when the caller stops waiting for the call.
    fn deadline(&self, call: &Call) -> u64 {
        match self.setup.timeout {
            Timeout::Inside(_) => u64::MAX,
            Timeout::Outside(timeout) => call.began + timeout,
        }
    }

    /// Counts the result of a call.
    fn end_call(&mut self, call: &Call, answered: bool) {
        let counts = self.report.second(call.began);
        match (answered, call.sent) {
            (true, _) => counts.answered += 1,
            (false, false) => counts.rejected += 1,
            (false, true) => counts.failed += 1,
        }
        if let Load::Backlog { pause, .. } = self.setup.load {
            self.end_item(call.process, answered, pause);
        }
    }

    /// Ends the call of a worker.
    fn end_item(&mut self, process: ProcessId, answered: bool, pause: u64) {
        let ready = if answered {
            self.open_items -= 1;
            let outage = self.setup.server.outage.as_ref();
            let over = outage.is_none_or(|outage| self.now >= outage.during.end);
            if self.open_items == 0 && over {
                self.report.drained.get_or_insert(self.now);
            }
            self.now
        } else {
            self.backlogs[process as usize].items += 1;
            self.now + pause
        };
        self.events.add(ready, Event::Ready(process));
    }
}

#[cfg(test)]
mod tests;
