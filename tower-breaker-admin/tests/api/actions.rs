//! Actions in this process.

use std::time::Duration;

use serde_json::{Value, json};
use tower_breaker::CircuitState;

use super::harness::*;

fn order(for_seconds: f64) -> Value {
    json!({"reason": "test", "scope": "process", "for_seconds": for_seconds})
}

#[tokio::test]
async fn each_action_has_its_effect() {
    let (circuits, admin) = admin();
    let search = circuits.search();
    for (epoch, (name, state)) in (1..).zip([
        ("trip", CircuitState::Open),
        ("reset", CircuitState::Closed),
        ("force_open", CircuitState::ForcedOpen),
        ("release", CircuitState::HalfOpen),
        ("force_closed", CircuitState::ForcedClosed),
    ]) {
        let view = Call::act(action("search", name)).ok(&admin).await;
        assert_eq!(search.status().state, state, "{name}");
        assert_eq!((&view["local"]["state"], &view["epoch"]), (&state.as_str().into(), &epoch.into()));
        let entry = last_audit(&admin).await;
        assert_eq!(
            (&entry["action"], &entry["status"], &entry["error"]),
            (&name.into(), &200.into(), &Value::Null)
        );
        assert_eq!((&entry["epoch_before"], &entry["epoch_after"]), (&(epoch - 1).into(), &epoch.into()));
        assert_eq!((&entry["user"], &entry["role"]), (&"anna".into(), &"operator".into()));
        assert_eq!((&entry["reason"], &entry["scope"]), (&"test".into(), &"process".into()));
    }
}

#[tokio::test]
async fn action_reaches_circuits_of_every_kind() {
    let (circuits, admin) = admin();
    let label = format!("{HOSTILE:?}");
    let label = label.trim_matches('"');
    for path in [
        action("billing", "trip"),
        action(HOSTILE, "trip"),
        key_action("tenants", "acme", "trip"),
        key_action("tenants", label, "trip"),
    ] {
        assert_eq!(Call::act(&path).ok(&admin).await["local"]["state"], "open", "{path}");
    }
    assert_eq!(circuits.billing.status().state, CircuitState::Open);
    assert_eq!(circuits.registry.get(HOSTILE).unwrap().status().state, CircuitState::Open);
    for key in ["acme", HOSTILE] {
        assert_eq!(circuits.tenants.get(key).unwrap().status().state, CircuitState::Open);
    }
    let entry = last_audit(&admin).await;
    assert_eq!((&entry["circuit"], &entry["key"]), (&"tenants".into(), &label.into()));
}

#[tokio::test]
async fn duration_ends_the_override() {
    let (circuits, admin) = admin();
    let search = circuits.search();
    for (name, remaining) in [
        ("trip", (|status| status.retry_after) as fn(tower_breaker::Status) -> Option<Duration>),
        ("force_open", |status| status.override_ends_in),
        ("force_closed", |status| status.override_ends_in),
    ] {
        Call::act(action("search", name)).json(&order(3600.5)).ok(&admin).await;
        let remaining = remaining(search.status()).unwrap();
        let (low, high) = (Duration::from_secs(3590), Duration::from_millis(3_600_520));
        assert!((low..=high).contains(&remaining), "{name}: {remaining:?}");
        assert_eq!(last_audit(&admin).await["for_seconds"], 3600.5);
    }
    let until_released = json!({"reason": "test", "scope": "process", "for_seconds": null});
    Call::act(action("search", "force_open")).json(&until_released).ok(&admin).await;
    assert_eq!(search.status().override_ends_in, None);
}

#[tokio::test]
async fn forced_or_disabled_circuit_is_409() {
    let (circuits, admin) = admin();
    circuits.search().force_open().unwrap();
    for name in ["trip", "reset"] {
        let detail = Call::act(action("search", name)).fail(&admin, 409).await;
        assert_eq!(detail, "circuit breaker `search` is forced open; release it first");
        let entry = last_audit(&admin).await;
        assert_eq!((&entry["status"], &entry["error"]), (&409.into(), &detail.into()));
        assert_eq!((&entry["epoch_before"], &entry["epoch_after"]), (&1.into(), &Value::Null));
    }
    for name in ["trip", "reset", "force_open", "force_closed"] {
        let detail = Call::act(action("disabled", name)).fail(&admin, 409).await;
        assert_eq!(detail, "circuit breaker `disabled` is disabled; configure another mode first");
    }
    Call::act(action("disabled", "release")).ok(&admin).await;
}

#[tokio::test]
async fn if_match_applies_only_in_its_epoch() {
    let (circuits, admin) = admin();
    let trip = Call::act(action("search", "trip"));
    let detail = trip.clone().header("if-match", "\"3\"").fail(&admin, 409).await;
    assert_eq!(detail, "the circuit is in epoch 0, not in 3; read it again");
    assert!(circuits.search().status().last_transition.is_none());
    trip.clone().header("if-match", "\"0\"").ok(&admin).await;
    trip.clone().header("if-match", "\"0\"").fail(&admin, 409).await;
    let reset = Call::act(action("search", "reset"));
    reset.clone().header("if-match", "*").ok(&admin).await;
    reset.header("if-match", "\"2\"").ok(&admin).await;
    for wrong in ["2", "\"+2\"", "W/\"2\"", "\"2\", \"3\"", "\"x\"", "\"-1\"", "\"\"", "", "\""] {
        let detail = trip.clone().header("if-match", wrong).fail(&admin, 400).await;
        assert!(detail.starts_with("`if-match` is \""), "{detail}");
        assert!(detail.ends_with("; allowed is `*`, or an epoch in quotes, such as `\"7\"`"), "{detail}");
    }
    for (first, second) in [("\"2\"", "\"3\""), ("*", "\"3\""), ("\"2\"", "*")] {
        trip.clone().header("if-match", first).header("if-match", second).fail(&admin, 400).await;
    }
}

#[tokio::test]
async fn keyed_circuit_has_no_actions_as_a_whole() {
    let (_circuits, admin) = admin();
    let detail = Call::act(action("tenants", "trip")).fail(&admin, 404).await;
    assert_eq!(detail, "circuit `tenants` has a circuit for each key; apply the action to a key");
}

#[tokio::test]
async fn unknown_action_is_404() {
    let (_circuits, admin) = admin();
    for name in ["probe_now", "Trip", "", "%74rip%00"] {
        let path = format!("{API}/circuits/search/actions/{name}");
        let detail = Call::act(path).fail(&admin, 404).await;
        assert!(detail.starts_with("no action is named `"), "{detail}");
        assert!(detail.ends_with("`; allowed is `trip`, `reset`, `force_open`, `force_closed`, `release`"));
    }
    Call::act(format!("{API}/circuits/search/actions/%74rip")).ok(&admin).await;
}

#[tokio::test]
async fn checks_have_an_order() {
    let (_circuits, admin) = admin();
    // Every check fails. Each step repairs the first of them.
    let long = "x".repeat(20_000);
    let wrong = Call::act(action("disable", "x"))
        .without("authorization")
        .without("x-tower-breaker")
        .without("content-type")
        .header("sec-fetch-site", "cross-site")
        .body(long);
    wrong.fail(&admin, 401).await;
    let wrong = wrong.token(READER);
    assert!(wrong.fail(&admin, 403).await.contains("is a reader"));
    let wrong = wrong.token(OPERATOR);
    assert!(wrong.fail(&admin, 403).await.contains("x-tower-breaker"));
    let wrong = wrong.header("x-tower-breaker", "1");
    assert!(wrong.fail(&admin, 403).await.contains("another origin"));
    let wrong = wrong.without("sec-fetch-site");
    wrong.fail(&admin, 415).await;
    let wrong = wrong.header("content-type", "application/json");
    wrong.fail(&admin, 413).await;
    let wrong = wrong.body("{");
    wrong.fail(&admin, 400).await;
    let wrong = wrong.json(&order(1.0));
    wrong.fail(&admin, 404).await;
    let on_circuit = Call::act(action("disable", "trip")).header("if-match", "\"9\"");
    on_circuit.fail(&admin, 404).await;
    Call::act(action("disabled", "trip")).header("if-match", "\"9\"").fail(&admin, 409).await;
}

#[tokio::test(start_paused = true)]
async fn rate_of_actions_is_limited_per_user() {
    let circuits = Circuits::new();
    let other = "another-operator-01";
    let user = tower_breaker_admin::User::operator("cleo");
    let (builder, observed) = observed(circuits.builder().bearer(other, user));
    let admin = builder.build().unwrap();
    let reset = Call::act(action("search", "reset"));
    for _ in 0..20 {
        reset.ok(&admin).await;
    }
    for _ in 0..5 {
        let answer = reset.send(&admin).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
        assert_eq!(answer.detail(), "`anna` has sent too many actions; retry after 1 s");
    }
    reset.clone().token(other).ok(&admin).await;
    Call::get(format!("{API}/circuits")).ok(&admin).await;
    tokio::time::advance(Duration::from_millis(100)).await;
    reset.ok(&admin).await;
    reset.fail(&admin, 429).await;

    let statuses: Vec<_> = audit(&admin).await.iter().map(|entry| entry["status"].clone()).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((statuses.len(), refused), (24, 2), "the first of several refused attempts is kept");
    assert_eq!(observed.lock().unwrap().len(), 28, "the observer gets all of them");
}

#[tokio::test]
async fn refused_attempts_use_up_the_rate() {
    let (_circuits, admin) = admin();
    // Not those that a page of another site may have sent with the user's credential.
    for _ in 0..30 {
        Call::act(action("search", "reset")).token(READER).without("x-tower-breaker").fail(&admin, 403).await;
    }
    let forbidden = Call::act(action("search", "reset")).token(READER);
    for _ in 0..20 {
        forbidden.fail(&admin, 403).await;
    }
    forbidden.fail(&admin, 429).await;
}

#[tokio::test]
async fn attempts_without_a_credential_use_up_no_rate_of_a_user_without_a_name() {
    let circuits = Circuits::new();
    let token = "token-0123456789ab";
    let user = tower_breaker_admin::User::operator("");
    let admin = circuits.builder().bearer(token, user).build().unwrap();
    let reset = Call::act(action("search", "reset"));
    for _ in 0..100 {
        reset.clone().without("authorization").fail(&admin, 401).await;
    }
    reset.token(token).ok(&admin).await;
}

/// A key whose `Debug` text has no secret, and so is no label of one key.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Secret(u8);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 == 0 { "(overflow)" } else { "***" })
    }
}

#[tokio::test]
async fn action_on_one_of_several_keys_with_the_label_is_409() {
    let secrets = keyed::<Secret>("secrets");
    let admin = Circuits::new().builder().keyed(&secrets).build().unwrap();
    secrets.get_or_insert(Secret(1)).unwrap();
    Call::act(key_action("secrets", "***", "trip")).ok(&admin).await;
    secrets.circuit(&Secret(2));
    let detail = Call::act(key_action("secrets", "***", "reset")).fail(&admin, 409).await;
    let expected = "several keys of circuit `secrets` have the label `***`; give each its own `Debug` text";
    assert_eq!((detail.as_str(), last_audit(&admin).await["status"].as_u64()), (expected, Some(409)));
    let path = format!("{API}/circuits/secrets/keys/%2A%2A%2A");
    Call::get(&path).ok(&admin).await;
    Call::get(format!("{path}/config")).ok(&admin).await;
}

#[tokio::test]
async fn action_on_a_key_with_the_label_of_the_overflow_circuit_is_409() {
    let secrets = keyed::<Secret>("secrets");
    let admin = Circuits::new().builder().keyed(&secrets).build().unwrap();
    let overflow = key_action("secrets", "(overflow)", "trip");
    let _held = [0, 1].map(|key| secrets.get_or_insert(Secret(key)).unwrap());
    Call::act(&overflow).ok(&admin).await;
    secrets.circuit(&Secret(2)).trip().unwrap();
    Call::act(&overflow).fail(&admin, 409).await;
}
