//! Calls while the store fails: none waits for it.

use std::time::Duration;

use anyhow::Result;
use test_servers::{FaultyProxy, ProxyFault};

use crate::fleet_bench::Options;
use crate::fleet_bench::calls::{CallRequest, Calls, SLOW};
use crate::fleet_bench::protocol::StoreAddress;
use crate::fleet_bench::stores::Store;
use crate::fleet_bench::table::Row;
use crate::fleet_bench::workers::LineProcess;

#[derive(Clone, Copy, Debug)]
enum Failure {
    None,
    Stopped,
    Slow,
    Silent,
    CutOff,
    Killed,
}

impl Failure {
    fn describe(self) -> &'static str {
        match self {
            Self::None => "answers",
            Self::Stopped => "is stopped (SIGSTOP)",
            Self::Slow => "is slow by 2 s",
            Self::Silent => "receives nothing, as behind a dropped route",
            Self::CutOff => "is cut off: connections are reset, then refused",
            Self::Killed => "is killed",
        }
    }

    async fn begin(self, store: &mut Store, proxy: &FaultyProxy) {
        let delay = Duration::from_secs(1);
        match self {
            Self::None => {}
            Self::Stopped => store.pause(),
            Self::Slow => proxy.set(ProxyFault::Delay { to_server: delay, to_client: delay }).await,
            Self::Silent => proxy.set(ProxyFault::Stall).await,
            Self::CutOff => {
                proxy.set(ProxyFault::Refuse).await;
                proxy.cut().await;
            }
            Self::Killed => store.kill(),
        }
    }

    async fn end(self, store: &mut Store, proxy: &FaultyProxy) {
        match self {
            Self::None | Self::Killed => {}
            Self::Stopped => store.resume(),
            Self::Slow | Self::Silent | Self::CutOff => proxy.set(ProxyFault::None).await,
        }
    }
}

pub(super) async fn run(options: &Options) -> Result<Vec<Row>> {
    let mut store = Store::start(options.store).await?;
    let mut bare = CallProcess::start(None)?;
    let Some(proxy) = store.proxy().await else {
        // The other stores are no servers.
        let mut shared = CallProcess::start(Some(&store.address()))?;
        return Ok(vec![measure(Failure::None, &mut shared, &mut bare, options).await?]);
    };
    let mut shared = CallProcess::start(Some(&store.address_behind(&proxy)))?;
    let mut rows = Vec::new();
    for failure in [
        Failure::None,
        Failure::Stopped,
        Failure::Slow,
        Failure::Silent,
        Failure::CutOff,
        // The last one: the store does not start again.
        Failure::Killed,
    ] {
        shared.request(CallRequest::Attach).await?;
        failure.begin(&mut store, &proxy).await;
        rows.push(measure(failure, &mut shared, &mut bare, options).await?);
        failure.end(&mut store, &proxy).await;
    }
    Ok(rows)
}

/// Measures calls of a circuit in a fleet, and then of a circuit without a fleet.
async fn measure(
    failure: Failure,
    shared: &mut CallProcess,
    bare: &mut CallProcess,
    options: &Options,
) -> Result<Row> {
    let ms = if options.quick { 100 } else { 2000 };
    let with = shared.request(CallRequest::Measure(ms)).await?;
    let without = bare.request(CallRequest::Measure(ms)).await?;
    let limit = SLOW.as_secs_f64() * 1e3;
    Ok(Row::new(
        format!("calls while the store {}", failure.describe()),
        if options.quick {
            "0 allocations".to_owned()
        } else {
            format!("none takes {limit} ms longer; 0 allocations")
        },
        format!(
            "longest {:.2} ms ({} above {limit} ms), {:.3} ms of it on a core; {} waits for a lock and \
             {} allocations in {} calls; without a fleet longest {:.2} ms ({} above {limit} ms)",
            with.longest_ms,
            with.slow,
            with.longest_cpu_ms,
            with.waits,
            with.allocations,
            with.count,
            without.longest_ms,
            without.slow,
        ),
        // A call that another process has preempted is slow with and without a fleet. It has not
        // waited.
        with.allocations == 0
            && (options.quick || with.waits == 0 || with.longest_ms < without.longest_ms + limit),
    ))
}

/// A process that measures calls.
struct CallProcess(LineProcess);

impl CallProcess {
    fn start(store: Option<&StoreAddress>) -> Result<Self> {
        Ok(Self(LineProcess::start(&["calls", &serde_json::to_string(&store)?])?))
    }

    async fn request(&mut self, request: CallRequest) -> Result<Calls> {
        self.0.send(&serde_json::to_string(&request)?).await?;
        Ok(serde_json::from_str(&self.0.receive().await?)?)
    }
}
