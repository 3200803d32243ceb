//! Requests that read.

use http::Method;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tower_breaker::{BreakerConfig, CircuitState, Verdict};

use super::harness::*;

async fn names(admin: &tower_breaker_admin::Admin, query: &str) -> (Vec<String>, Value, Value) {
    let list = Call::get(format!("{API}/circuits?{query}")).ok(admin).await;
    let names = list["circuits"].as_array().unwrap().iter();
    let names = names.map(|view| view["circuit"].as_str().unwrap().to_owned()).collect();
    (names, list["next"].clone(), list["total"].clone())
}

#[tokio::test]
async fn list_is_filtered_and_split() {
    let (circuits, admin) = admin();
    let all = [HOSTILE, "billing", "disabled", "search", "tenants"];
    let (names_of_all, next, total) = names(&admin, "").await;
    assert_eq!((names_of_all, next, total), (all.map(str::to_owned).to_vec(), Value::Null, 5.into()));

    let first = names(&admin, "limit=2").await;
    assert_eq!(first, (vec![HOSTILE.into(), "billing".into()], "billing".into(), 5.into()));
    let second = names(&admin, "limit=2&after=billing").await;
    assert_eq!(second, (vec!["disabled".into(), "search".into()], "search".into(), 5.into()));
    assert_eq!(names(&admin, "after=search").await.0, ["tenants"]);
    assert_eq!(names(&admin, "after=zzz").await, (vec![], Value::Null, 5.into()));

    assert_eq!(names(&admin, "q=EA").await.0, ["search"]);
    assert_eq!(names(&admin, "q=%3CIMG").await.0, [HOSTILE]);
    circuits.search().trip().unwrap();
    assert_eq!(names(&admin, "state=open,disabled").await.0, ["disabled", "search"]);
    assert_eq!(names(&admin, "state=open&q=x").await, (vec![], Value::Null, 0.into()));
    circuits.tenants.circuit("acme").trip().unwrap();
    assert_eq!(names(&admin, "state=open").await.0, ["search", "tenants"]);
    assert_eq!(names(&admin, "state=closed").await.0, [HOSTILE, "billing"]);
}

#[tokio::test]
async fn wrong_query_is_400() {
    let (_circuits, admin) = admin();
    for (path, detail) in [
        ("circuits?limit=0", "`limit` is \"0\"; allowed is 1 to 1000"),
        (
            "circuits?stat=open",
            "unknown parameter `stat`; allowed is `state`, `q`, `after`, `limit` or `history`",
        ),
        ("circuits?state=ajar", "`state` is \"ajar\"; allowed is `closed`"),
        ("circuits?history=1", "`history` is \"1\"; allowed is true or false"),
        ("circuits?q=%", "the query has a `%` without two hexadecimal digits"),
        ("circuits?q=%FF", "the query is not percent-encoded UTF-8"),
        ("circuits/search?x=1", "unknown parameter `x`; allowed is no parameter"),
        ("circuits/search/config?x=1", "unknown parameter `x`"),
        ("circuits/tenants/keys?history=true", "unknown parameter `history`"),
        ("circuits/tenants/keys/acme?x=1", "unknown parameter `x`"),
        ("audit?after=x", "`after` is \"x\"; allowed is 0 to"),
        ("fleet?limit=1001", "`limit` is \"1001\"; allowed is 1 to 1000"),
        ("openapi.json?x=1", "unknown parameter `x`"),
        ("events?x=1", "unknown parameter `x`"),
        ("circuits/%zz", "the path has a `%` without two hexadecimal digits; write `%` as `%25`"),
        ("circuits/%C3", "the path is not percent-encoded UTF-8"),
        ("circuits/tenants/keys/%C3", "the path is not percent-encoded UTF-8"),
    ] {
        let found = Call::get(format!("{API}/{path}")).fail(&admin, 400).await;
        assert!(found.starts_with(detail), "{path}: {found}");
    }
}

#[tokio::test]
async fn circuit_is_shown_with_its_epoch() {
    let (circuits, admin) = admin();
    let search = circuits.search();
    search.record(Verdict::Success);
    let path = format!("{API}/circuits/search");
    let answer = Call::get(&path).send(&admin).await;
    assert_eq!((answer.header("etag"), answer.header("content-type")), ("\"0\"", "application/json"));
    let view = answer.json();
    assert_eq!((&view["circuit"], &view["key"], &view["epoch"]), (&"search".into(), &Value::Null, &0.into()));
    assert_eq!(view["local"]["window"]["calls"], 1);
    assert_eq!((&view["mode"], &view["rejects_calls"]), (&"enforce".into(), &false.into()));
    assert_eq!((&view["keys"], &view["fleet"]), (&Value::Null, &Value::Null));

    search.trip().unwrap();
    let answer = Call::get(&path).send(&admin).await;
    let view = answer.json();
    assert_eq!((answer.header("etag"), &view["epoch"]), ("\"1\"", &1.into()));
    assert_eq!((&view["local"]["state"], &view["rejects_calls"]), (&"open".into(), &true.into()));
    assert_eq!(view["local"]["last_trip"]["reason"], "tripped");
}

#[tokio::test]
async fn hostile_name_is_text() {
    let (_circuits, admin) = admin();
    let view = Call::get(format!("{API}/circuits/{}", encoded(HOSTILE))).ok(&admin).await;
    assert_eq!(view["circuit"], HOSTILE);
    let label = format!("{HOSTILE:?}");
    let label = label.trim_matches('"');
    let view = Call::get(format!("{API}/circuits/tenants/keys/{}", encoded(label))).ok(&admin).await;
    assert_eq!(view["key"], label, "the label of a key is its debug text");
}

#[tokio::test]
async fn keyed_circuit_is_shown_as_a_whole_and_by_key() {
    let (circuits, admin) = admin();
    circuits.tenants.circuit("acme").trip().unwrap();
    let path = format!("{API}/circuits/tenants");
    let view = Call::get(&path).ok(&admin).await;
    assert_eq!((&view["local"], &view["key"], &view["epoch"]), (&Value::Null, &Value::Null, &0.into()));
    assert_eq!(view["keys"], serde_json::json!({"count": 2, "not_closed": 1, "evicted": 0, "overflowed": 0}));

    let list = Call::get(format!("{path}/keys")).ok(&admin).await;
    assert_eq!((list["keys"].as_array().unwrap().len(), &list["total"]), (2, &2.into()));
    let open = Call::get(format!("{path}/keys?state=open&q=CM")).ok(&admin).await;
    assert_eq!(open["keys"][0]["key"], "acme");
    assert_eq!(open["total"], 1);

    let answer = Call::get(format!("{path}/keys/acme")).send(&admin).await;
    let key = answer.json();
    assert_eq!((answer.header("etag"), &key["local"]["state"]), ("\"1\"", &"open".into()));
    assert_eq!((&key["keys"], &key["history"]), (&Value::Null, &Value::Null));
    drop(key);
    // No handle is left: the circuit of a key without trouble can be evicted.
    circuits.tenants.circuit("another");
    assert_eq!(circuits.tenants.evicted(), 1);
}

#[tokio::test]
async fn unknown_names_are_404_and_create_nothing() {
    let (circuits, admin) = admin();
    let before = circuits.count();
    for (path, detail) in [
        ("circuits/serch", "no circuit is named `serch`"),
        ("circuits/serch/config", "no circuit is named `serch`"),
        ("circuits/serch/keys", "no circuit is named `serch`"),
        ("circuits/serch/keys/a", "no circuit is named `serch`"),
        ("circuits/", "no circuit is named ``"),
        ("circuits/search/keys", "circuit `search` has no keys"),
        ("circuits/search/keys/a", "circuit `search` has no keys"),
        ("circuits/search/keys/a/config", "circuit `search` has no keys"),
        ("circuits/tenants/keys/acm", "circuit `tenants` has no key with the label `acm`"),
        ("circuits/tenants/keys/acm/config", "circuit `tenants` has no key with the label `acm`"),
        ("circuits/tenants/keys/", "circuit `tenants` has no key with the label ``"),
        ("fleet", "there is no fleet"),
    ] {
        assert_eq!(Call::get(format!("{API}/{path}")).fail(&admin, 404).await, detail);
    }
    for path in [action("serch", "trip"), key_action("tenants", "acm", "trip"), key_action("x", "y", "reset")]
    {
        Call::act(path).fail(&admin, 404).await;
    }
    assert_eq!(circuits.count(), before);
    assert_eq!(circuits.tenants.overflowed(), 0);
}

#[tokio::test]
async fn configuration_can_be_read_back() {
    let (circuits, admin) = admin();
    let own = BreakerConfig::builder().name("tenants").probes(7).build().unwrap();
    circuits.tenants.configure("acme", own).unwrap();
    assert_ne!(circuits.tenants.config().each().probes(), 7);
    for (path, expected) in [
        ("search", circuits.search().config()),
        ("disabled", circuits.registry.get("disabled").unwrap().config()),
        ("tenants", circuits.tenants.config().each().clone()),
        ("tenants/keys/acme", circuits.tenants.circuit("acme").config()),
    ] {
        let config = Call::get(format!("{API}/circuits/{path}/config")).ok(&admin).await;
        let read: BreakerConfig = serde_json::from_value(config.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&expected).unwrap());
        assert_eq!(config["probes"], expected.probes());
    }
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let (_circuits, admin) = admin();
    // Responses that do not contain times.
    for path in ["circuits?q=none", "circuits/search/config", "audit", "openapi.json", "circuits/x", "events"]
    {
        let path = format!("{API}/{path}");
        let get = Call::get(&path).send(&admin).await;
        let head = Call::new(Method::HEAD, &path).send(&admin).await;
        assert!(head.body.is_empty());
        assert_eq!((head.status, head.header("content-type")), (get.status, get.header("content-type")));
        if !path.ends_with("events") {
            assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        }
    }
}

#[tokio::test]
async fn stream_above_the_limit_is_503() {
    let (_circuits, admin) = admin();
    let events = Call::get(format!("{API}/events"));
    let mut streams = Vec::new();
    for _ in 0..1024 {
        let stream = admin.clone().oneshot(events.request()).await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(events.fail(&admin, 503).await, "too many event streams are open");
    drop(streams.pop());
    assert_eq!(events.send(&admin).await.status, 200);
}

#[tokio::test]
async fn stream_begins_with_the_user() {
    let (_circuits, admin) = admin();
    let events = Call::get(format!("{API}/events")).token(READER).header("last-event-id", "\u{e4}");
    let response = admin.clone().oneshot(events.request()).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let first = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    assert!(first.starts_with("event: hello\n") && first.contains("\"user\":\"ben\""), "{first}");
}

#[tokio::test]
async fn later_circuits_are_shown() {
    let (circuits, admin) = admin();
    circuits.registry.circuit("later").force_closed().unwrap();
    let view = Call::get(format!("{API}/circuits/later")).ok(&admin).await;
    assert_eq!(view["local"]["state"], CircuitState::ForcedClosed.as_str());
    circuits.registry.remove("later");
    Call::get(format!("{API}/circuits/later")).fail(&admin, 404).await;
}

#[tokio::test]
async fn readers_leave_streams_to_operators() {
    let (_circuits, admin) = admin();
    let events = Call::get(format!("{API}/events"));
    let mut streams = Vec::new();
    for _ in 0..960 {
        let stream = admin.clone().oneshot(events.clone().token(READER).request()).await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    assert_eq!(events.clone().token(READER).fail(&admin, 503).await, "too many event streams are open");
    assert_eq!(events.send(&admin).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn rate_of_reads_is_limited_per_user() {
    let (_circuits, admin) = admin();
    let read = Call::get(format!("{API}/audit")).token(READER);
    for _ in 0..1000 {
        read.ok(&admin).await;
    }
    let answer = read.send(&admin).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, "1"));
    assert_eq!(answer.detail(), "`ben` has sent too many requests; retry after 1 s");
    Call::new(Method::HEAD, format!("{API}/audit")).token(READER).send(&admin).await;
    // Neither streams, other users nor actions.
    assert_eq!(Call::get(format!("{API}/events")).token(READER).send(&admin).await.status, 200);
    Call::get(format!("{API}/audit")).ok(&admin).await;
    Call::act(action("search", "trip")).token(READER).fail(&admin, 403).await;
    tokio::time::advance(std::time::Duration::from_millis(10)).await;
    read.ok(&admin).await;
    read.fail(&admin, 429).await;
}

#[tokio::test(start_paused = true)]
async fn history_is_shown_if_it_is_asked_for() {
    let (_circuits, admin) = admin();
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let search = Call::get(format!("{API}/circuits/search")).ok(&admin).await;
    assert_eq!(search["history"]["states"], "cc");
    for (query, states) in
        [("", Value::Null), ("&history=false", Value::Null), ("&history=true", "cc".into())]
    {
        let list = Call::get(format!("{API}/circuits?q=search{query}")).ok(&admin).await;
        assert_eq!(list["circuits"][0]["history"]["states"], states, "{query}");
    }
}
