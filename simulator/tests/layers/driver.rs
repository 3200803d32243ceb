//! The second driver: the shipped layers on tokio's paused clock.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http::{Response, StatusCode};
use simulator::client::Clients;
use simulator::random::{Random, Stream};
use simulator::report::Report;
use simulator::setup::{Load, Setup, Timeout};
use simulator::time::SECOND;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tower::timeout::TimeoutLayer;
use tower::util::{BoxCloneService, ServiceExt};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_breaker::{BreakerLayer, Circuit, Clock, Rejection};
use tower_jitter_retry::{JitterRetryLayer, RetryPolicy};

use crate::host::{Host, Request, Timer};

type Stack = BoxCloneService<Request, Response<()>, BoxError>;

/// Runs the calls of a setup through the layers, until all calls have ended.
pub(crate) fn run(setup: &Setup) -> Report {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(run_on_tokio(setup.clone()))
}

async fn run_on_tokio(setup: Setup) -> Report {
    let (clock, time) = Clock::manual();
    let host = Host::new(&setup, time);
    let clients =
        Clients::new(&setup.guard, setup.processes, clock, &mut Random::new(setup.seed, Stream::Seeds));
    let stacks = (0..setup.processes)
        .map(|process| stack(&host, setup.timeout, clients.policy(process), clients.circuit(process)));
    let stacks = stacks.collect();
    for shard in 0..setup.server.shards {
        host.spawn(Box::pin(host.clone().work(shard)));
    }
    if let Some(outage) = &setup.server.outage {
        host.spawn(Box::pin(at(host.clone(), outage.during.start, |host| host.state().begin_outage())));
        host.spawn(Box::pin(at(host.clone(), outage.during.end, |host| host.state().end_outage())));
    }
    let arrivals = Arrivals {
        times: Random::new(setup.seed, Stream::Arrivals),
        choices: Random::new(setup.seed, Stream::Choices),
        host: host.clone(),
        stacks,
        setup,
    };
    for call in tokio::spawn(arrivals.run()).await.unwrap() {
        call.await.unwrap();
    }
    std::mem::take(&mut host.state().report)
}

/// Returns the layers of a process, over the server.
fn stack(host: &Host, timeout: Timeout, policy: Option<&RetryPolicy>, circuit: Option<&Circuit>) -> Stack {
    let (inside, outside) = match timeout {
        Timeout::Inside(timeout) => (Some(timeout), None),
        Timeout::Outside(timeout) => (None, Some(timeout)),
    };
    let timeout = |time: Option<u64>| time.map(|time| TimeoutLayer::new(Duration::from_nanos(time)));
    let host = host.clone();
    let stack = ServiceBuilder::new()
        .option_layer(timeout(outside))
        .option_layer(policy.cloned().map(|policy| JitterRetryLayer::new(policy).clone_requests()))
        .option_layer(circuit.cloned().map(BreakerLayer::with_circuit))
        .option_layer(timeout(inside))
        .service(service_fn(move |request| host.clone().exchange(request)));
    BoxCloneService::new(stack)
}

/// Waits until a time since the start, and then calls `event`.
async fn at(host: Host, at: u64, event: fn(&Host)) {
    timer(&host, at).await.await;
    event(&host);
}

/// Registers a timer of this task.
async fn timer(host: &Host, at: u64) -> Timer {
    poll_fn(|cx| Poll::Ready(host.state().timer(at, cx.waker()))).await
}

/// The calls, as they arrive.
struct Arrivals {
    setup: Setup,
    host: Host,
    stacks: Vec<Stack>,
    times: Random,
    choices: Random,
}

impl Arrivals {
    async fn run(mut self) -> Vec<JoinHandle<()>> {
        let mut calls = Vec::new();
        let mut next = self.next().await;
        while let Some(arrival) = next {
            arrival.await;
            self.host.state().move_clock();
            next = self.next().await;
            let mut call = self.call();
            // The call begins here: other tasks may be polled before its own.
            if poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await {
                calls.push(self.host.spawn(call));
            }
        }
        calls
    }

    /// Returns the timer of the next arrival, if it is before the end.
    async fn next(&mut self) -> Option<Timer> {
        let Load::Open { per_second } = self.setup.load else { panic!("only an open load has arrivals") };
        let at = self.host.state().now() + self.times.exponential(SECOND / u64::from(per_second));
        if at < self.setup.until { Some(timer(&self.host, at).await) } else { None }
    }

    fn call(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let process = self.choices.below(self.setup.processes.into()) as usize;
        let shard = self.choices.below(self.setup.server.shards.into()) as u32;
        let result = self.stacks[process].clone().oneshot(Request { shard });
        let host = self.host.clone();
        Box::pin(async move {
            let began = host.state().now();
            host.state().report.second(began).asked += 1;
            let result = result.await;
            let mut state = host.state();
            let counts = state.report.second(began);
            match result {
                Ok(response) if response.status() == StatusCode::OK => counts.answered += 1,
                Err(error) if error.is::<Rejection>() => counts.rejected += 1,
                Ok(_) | Err(_) => counts.failed += 1,
            }
        })
    }
}
