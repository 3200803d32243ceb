//! `openapi.json` agrees with the API.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tower_breaker::{BreakerConfig, CancelledPolicy, Verdict};
use tower_breaker_admin::Admin;
use tower_breaker_fleet::{Fleet, KeyedSharing, MemoryStore};

use super::harness::*;

fn document() -> Value {
    serde_json::from_str(include_str!("../../src/openapi.json")).unwrap()
}

/// Follows a reference within the document.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).expect(reference),
        None => value,
    }
}

/// Forbids properties that the schemas do not have, so that a new field must be documented.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.entry("additionalProperties").or_insert(false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// The document, and which parts of it were seen in responses.
struct Checker {
    document: Value,
    seen: BTreeSet<(String, String, u16)>,
}

impl Checker {
    fn new() -> Self {
        Self { document: document(), seen: BTreeSet::new() }
    }

    /// Sends a request to the path of this template, and checks the response.
    async fn check(&mut self, admin: &Admin, template: &str, method: Method, call: Call) -> Value {
        let answer = call.send(admin).await;
        let operation = &self.document["paths"][template][method.as_str().to_lowercase()];
        assert!(operation.is_object(), "{method} {template} is not documented");
        let status = answer.status.as_u16();
        let documented = &operation["responses"][status.to_string()];
        assert!(!documented.is_null(), "{method} {template}: {status} is not documented: {answer:?}");
        let documented = resolve(&self.document, documented);
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            assert!(answer.headers.contains_key(name), "{template}: {header} is missing");
        }
        self.seen.insert((template.to_owned(), method.to_string(), status));
        let Some(content) = documented["content"].as_object() else {
            assert!(answer.body.is_empty());
            return Value::Null;
        };
        let content_type = answer.header("content-type").split(';').next().unwrap();
        let schema =
            &content.get(content_type).unwrap_or_else(|| panic!("{template}: {content_type}"))["schema"];
        if !content_type.contains("json") {
            return Value::Null;
        }
        let body = answer.json();
        let mut schema = json!({"allOf": [schema], "components": self.document["components"]});
        close(&mut schema);
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> =
            validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{method} {template} {status}: {errors:#?}\n{body:#}");
        body
    }

    async fn get(&mut self, admin: &Admin, template: &str, path: &str) -> Value {
        self.check(admin, template, Method::GET, Call::get(path)).await
    }
}

/// Circuits in every state, with everything that a status can have.
async fn eventful() -> (Circuits, Fleet, tokio::task::JoinHandle<()>, Admin) {
    let circuits = Circuits::new();
    let slow = BreakerConfig::builder()
        .name("configured")
        .failure_rate(None)
        .slow_call_rate(Duration::from_secs(1), 0.5)
        .count_window(10)
        .cancelled(CancelledPolicy::FailureAfter(Duration::from_secs(1)))
        .open_backoff(2.0, Duration::from_secs(60))
        .slow_start_successes(5)
        .seed(7);
    circuits.registry.configure(slow.build().unwrap()).unwrap();
    circuits.registry.circuit("configured").force_closed().unwrap();

    let (fleet, agent) = Fleet::builder(MemoryStore::new()).build().unwrap();
    fleet.share_registry(&circuits.registry).unwrap();
    fleet.share_keyed(&circuits.tenants, KeyedSharing::new()).unwrap();
    let agent = tokio::spawn(agent);
    assert!(fleet.ready(Duration::from_secs(10)).await);
    let admin = circuits.builder().fleet(&fleet).build().unwrap();

    let search = circuits.search();
    let result = search
        .keep_last_failure("test")
        .call(async { Err::<(), _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) })
        .await;
    assert!(result.is_err());
    search.trip().unwrap();
    search.probe_now().unwrap();
    let probe = search.try_acquire().unwrap();
    circuits.billing.trip_for(Duration::from_secs(60)).unwrap();
    assert!(circuits.billing.try_acquire().is_err());
    circuits.tenants.circuit("acme").force_open_for(Duration::from_secs(60)).unwrap();
    probe.record(Verdict::Success);
    (circuits, fleet, agent, admin)
}

#[tokio::test(start_paused = true)]
async fn every_documented_response_is_as_documented() {
    let (circuits, _fleet, _agent, admin) = eventful().await;
    let mut checker = Checker::new();
    let circuit = "/api/v1/circuits/{name}";
    let key = "/api/v1/circuits/{name}/keys/{key}";
    let on_circuit = "/api/v1/circuits/{name}/actions/{action}";
    let on_key = "/api/v1/circuits/{name}/keys/{key}/actions/{action}";

    // Reads.
    let list = checker.get(&admin, "/api/v1/circuits", "/api/v1/circuits?history=true").await;
    assert_eq!(list["total"], 6);
    for name in ["search", "billing", "disabled", "tenants", "configured", &encoded(HOSTILE)] {
        checker.get(&admin, circuit, &format!("/api/v1/circuits/{name}")).await;
        let config = format!("{circuit}/config");
        checker.get(&admin, &config, &format!("/api/v1/circuits/{name}/config")).await;
    }
    let acme = "/api/v1/circuits/tenants/keys/acme";
    checker.get(&admin, &format!("{circuit}/keys"), "/api/v1/circuits/tenants/keys").await;
    checker.get(&admin, key, acme).await;
    checker.get(&admin, &format!("{key}/config"), &format!("{acme}/config")).await;
    let served = checker.get(&admin, "/api/v1/openapi.json", "/api/v1/openapi.json").await;
    assert_eq!(served, document());
    checker.get(&admin, "/api/v1/events", "/api/v1/events").await;
    let page = Call::get("/").send(&admin).await;
    checker.get(&admin, "/", "/").await;
    let known = Call::get("/").header("if-none-match", page.header("etag"));
    checker.check(&admin, "/", Method::GET, known).await;

    // Actions, and the lists that show them.
    let fleet_order = json!({"reason": "test", "scope": "fleet", "for_seconds": 60});
    for (template, path) in
        [(on_circuit, action("search", "force_open")), (on_key, key_action("tenants", "acme", "force_open"))]
    {
        let post = |call| (template, Method::POST, call);
        let act = Call::act(&path);
        for (template, method, call) in [
            post(act.clone()),
            post(act.clone().json(&fleet_order)),
            post(act.clone().body("{")),
            post(act.clone().token("wrong-0123456789abc")),
            post(act.clone().token(READER)),
            post(act.clone().header("if-match", "\"99\"")),
            post(act.clone().body("x".repeat(20_000))),
            post(act.clone().without("content-type")),
            post(Call::act(path.replace("search", "serch").replace("acme", "acm"))),
            post(Call::act(path.replace("search", &"x".repeat(5000)).replace("acme", &"x".repeat(5000)))),
        ] {
            checker.check(&admin, template, method, call).await;
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..21 {
            checker.check(&admin, template, Method::POST, act.clone().json(&fleet_order)).await;
        }
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    checker.get(&admin, "/api/v1/fleet", "/api/v1/fleet").await;
    checker.get(&admin, "/api/v1/audit", "/api/v1/audit?limit=3").await;
    checker.get(&admin, "/api/v1/audit", "/api/v1/audit").await;

    // Errors of reads.
    let reads = [
        ("/api/v1/circuits", "/api/v1/circuits"),
        (circuit, "/api/v1/circuits/serch"),
        ("/api/v1/circuits/{name}/config", "/api/v1/circuits/serch/config"),
        ("/api/v1/circuits/{name}/keys", "/api/v1/circuits/serch/keys"),
        (key, "/api/v1/circuits/tenants/keys/acm"),
        ("/api/v1/circuits/{name}/keys/{key}/config", "/api/v1/circuits/tenants/keys/acm/config"),
        ("/api/v1/fleet", "/api/v1/fleet"),
        ("/api/v1/audit", "/api/v1/audit"),
        ("/api/v1/openapi.json", "/api/v1/openapi.json"),
        ("/api/v1/events", "/api/v1/events"),
    ];
    for (template, path) in reads {
        checker.get(&admin, template, path).await;
        checker.get(&admin, template, &format!("{path}?x=1")).await;
        checker.get(&admin, template, &format!("{path}?x={}", "1".repeat(5000))).await;
        let unknown = Call::get(path).without("authorization");
        checker.check(&admin, template, Method::GET, unknown).await;
    }
    while Call::get("/api/v1/audit?limit=1").send(&admin).await.status != 429 {}
    for (template, path) in reads {
        checker.get(&admin, template, path).await;
    }
    let cross_site = Call::get("/api/v1/events").header("sec-fetch-site", "cross-site");
    checker.check(&admin, "/api/v1/events", Method::GET, cross_site).await;
    drop(circuits);

    // All statuses, except for those that need another body, method, fleet or number of streams.
    let elsewhere = [405, 408, 503];
    let mut documented = BTreeSet::new();
    for (template, operations) in checker.document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                documented.insert((template.clone(), method.to_uppercase(), status.parse::<u16>().unwrap()));
            }
        }
    }
    documented.retain(|(template, _, status)| {
        !elsewhere.contains(status) && (template.as_str(), *status) != ("/api/v1/fleet", 404)
    });
    let missing: Vec<_> = documented.difference(&checker.seen).collect();
    assert!(missing.is_empty(), "no response was checked for {missing:#?}");
}

#[test]
fn document_is_consistent() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut ids = BTreeSet::new();
    let mut references = vec![&document];
    while let Some(value) = references.pop() {
        match value {
            Value::Object(object) => {
                resolve(&document, value);
                references.extend(object.values());
            }
            Value::Array(values) => references.extend(values),
            _ => {}
        }
    }
    for (template, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{template}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path = parameters.map(|parameter| resolve(&document, parameter));
            let in_path: BTreeSet<_> = in_path
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                .collect();
            let in_template = template.split('/').filter(|segment| segment.starts_with('{'));
            assert_eq!(in_path, in_template.map(str::to_owned).collect(), "{template}");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        jsonschema::draft202012::new(&json!({"allOf": [schema], "components": document["components"]}))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn schema_of_an_order_accepts_what_the_api_accepts() {
    let document = document();
    let schema = json!({"$ref": "#/components/schemas/Order", "components": document["components"]});
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for (order, is_valid) in [
        (json!({"reason": "größer als € 5", "scope": "process"}), true),
        (json!({"reason": " x ", "scope": "fleet", "for_seconds": 0.001}), true),
        (json!({"reason": "x", "scope": "fleet", "for_seconds": null}), true),
        (json!({"reason": "", "scope": "process"}), false),
        (json!({"reason": "  ", "scope": "process"}), false),
        (json!({"reason": "a\nb", "scope": "process"}), false),
        (json!({"reason": "x".repeat(201), "scope": "process"}), false),
        (json!({"reason": "x", "scope": "all"}), false),
        (json!({"reason": "x", "scope": "process", "for_seconds": 0}), false),
        (json!({"reason": "x", "scope": "process", "more": 1}), false),
        (json!({"scope": "process"}), false),
    ] {
        assert_eq!(validator.is_valid(&order), is_valid, "{order}");
    }
}
