//! The breakers of the process by name.

use shared_llm_breaker::{
    BreakerSettings, CircuitBreaker, CircuitState, SetupError, get_circuit_breaker, reset_all_breakers,
};
use test_servers::Redis;

use super::support::{fail_times, settings, start, succeed, until, until_state};

#[tokio::test]
async fn factory_returns_one_breaker_for_a_name_until_all_are_reset() {
    let server = Redis::start();
    let url = server.url();
    let breaker = get_circuit_breaker(&url, "api", settings("a")).await.unwrap();
    let same = get_circuit_breaker(&url, "api", settings("a")).await.unwrap();
    fail_times(&breaker, 5).await;
    assert_eq!((same.state(), same.fail_counter()), (CircuitState::Open, 5));
    let other_settings = BreakerSettings { fail_max: 3, ..settings("a") };
    let error = get_circuit_breaker(&url, "api", other_settings).await.unwrap_err();
    assert!(matches!(error, SetupError::Exists { .. }), "{error}");

    let second = get_circuit_breaker(&url, "second", settings("a")).await.unwrap();
    let other_worker = start(&url, "api", settings("b")).await;
    until_state(&other_worker, CircuitState::Open).await;
    reset_all_breakers().await.unwrap();
    // They are reset, also in other workers, and closed.
    assert_eq!((breaker.state(), breaker.fail_counter()), (CircuitState::Closed, 0));
    until_state(&other_worker, CircuitState::Closed).await;
    assert!(second.reset().await.is_err(), "it has left the fleet");

    let new = get_circuit_breaker(&url, "api", settings("a")).await.unwrap();
    fail_times(&new, 1).await;
    assert_eq!((new.fail_counter(), breaker.fail_counter()), (1, 0));
    reset_all_breakers().await.unwrap();
}

#[tokio::test]
async fn closed_breaker_releases_its_connections_and_decides_alone() {
    let server = Redis::start();
    let breaker = start(&server.url(), "api", settings("a")).await;
    let clients = || server.command("CLIENT LIST TYPE normal").lines().count();
    assert!(clients() > 1);
    breaker.close().await;
    breaker.close().await;
    until("the connections are closed", || clients() == 1).await;
    succeed(&breaker).await.unwrap();
    fail_times(&breaker, 5).await;
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn breaker_has_one_command_connection_for_all_calls() {
    let server = Redis::start();
    let breaker = start(&server.url(), "api", settings("a")).await;
    let clients = || {
        let all = server.command("CLIENT LIST");
        all.lines().filter(|line| !line.contains("cmd=client")).count()
    };
    let before = clients();
    for _ in 0..100 {
        succeed(&breaker).await.unwrap();
        fail_times(&breaker, 1).await;
    }
    assert_eq!(clients(), before);
    assert_eq!(before, 2, "one for commands, one for updates");
}

#[tokio::test]
async fn invalid_settings_are_errors_with_field_value_and_range() {
    let error =
        |settings| CircuitBreaker::start("redis://localhost", "api", settings).unwrap_err().to_string();
    let default = BreakerSettings::default();
    assert_eq!(
        error(BreakerSettings { fail_max: 0, ..default.clone() }),
        "`fail_max` is 0; allowed is 1 to 4294967295"
    );
    let text = error(BreakerSettings { probes: 3, ..default.clone() });
    assert!(text.starts_with("`probes` is 3; allowed is 1 to 2"), "{text}");
    let text = error(BreakerSettings { success_threshold: 0, ..default });
    assert!(text.starts_with("`success_threshold` is 0"), "{text}");
    let error = CircuitBreaker::start("http://localhost", "api", BreakerSettings::default()).unwrap_err();
    assert!(error.to_string().contains("redis://"), "{error}");
}

#[test]
fn defaults_are_five_failures_thirty_seconds_and_two_successes() {
    let settings = BreakerSettings::default();
    assert_eq!(
        (settings.fail_max, settings.reset_timeout.as_secs(), settings.success_threshold, settings.probes),
        (5, 30, 2, 1)
    );
    assert_eq!(CircuitBreaker::DEFAULT_NAME, "claude_api");
    assert_eq!(CircuitBreaker::DEFAULT_REDIS_URL, "redis://localhost:6379/0");
}
