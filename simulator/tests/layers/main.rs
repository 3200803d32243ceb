//! A second driver runs the simulated traffic through the tower layers. Its counts are those of the
//! first driver.

mod driver;
mod host;

use simulator::client::Guard;
use simulator::client::guards::{both, breaker, naive, none, retry};
use simulator::run::run_in_steps;
use simulator::server::{Down, Outage, ServerConfig};
use simulator::setup::{Load, Setup, Timeout};
use simulator::time::{MILLISECOND, SECOND};

fn guards() -> [Guard; 5] {
    [none(), naive(), retry(), breaker(), both()]
}

/// Returns a run of 60 s with 70 calls/s. A circuit that opens in an outage closes again before the
/// end.
fn setup(guard: Guard, processes: u32, server: ServerConfig) -> Setup {
    Setup {
        seed: 1,
        processes,
        guard,
        load: Load::Open { per_second: 70 },
        timeout: Timeout::Inside(SECOND),
        server,
        until: 60 * SECOND,
    }
}

fn outage(down: Down) -> ServerConfig {
    ServerConfig { outage: Some(Outage::new(5 * SECOND..11 * SECOND, down)), ..ServerConfig::default() }
}

/// Asserts that both drivers have equal counts in each second.
fn check(setup: &Setup) {
    let (first, second) = (run_in_steps(setup, MILLISECOND), driver::run(setup));
    if setup.server.outage.is_some() && setup.guard.breaker.is_some() {
        assert!(first.total().rejected > 200, "circuits are open: {:?}", first.total());
        assert!(first.sum(50..60).answered > 350, "circuits close again: {:?}", first.sum(50..60));
    }
    for (number, (first, second)) in first.seconds.iter().zip(&second.seconds).enumerate() {
        let Setup { guard, processes, timeout, .. } = setup;
        let name = guard.name;
        assert_eq!(first, second, "second {number}, {name}, {processes} processes, {timeout:?}");
    }
    assert_eq!(first, second);
}

#[test]
fn outage_with_hanging_requests_has_equal_counts() {
    for guard in guards() {
        for processes in [1, 10] {
            check(&setup(guard.clone(), processes, outage(Down::Hangs)));
        }
    }
}

#[test]
fn outage_with_timeouts_outside_has_equal_counts() {
    for guard in guards() {
        for down in [Down::Hangs, Down::Refused] {
            let setup = setup(guard.clone(), 10, outage(down));
            check(&Setup { timeout: Timeout::Outside(SECOND), ..setup });
        }
    }
}

#[test]
fn random_failures_have_equal_counts() {
    for guard in guards() {
        let server = ServerConfig { rate: 10_000, failing_per_mille: 200, ..ServerConfig::default() };
        check(&setup(guard, 1, server));
    }
}

#[test]
fn refused_connections_have_equal_counts() {
    for guard in guards() {
        check(&setup(guard, 10, outage(Down::Refused)));
    }
}
