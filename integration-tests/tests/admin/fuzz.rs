//! Random requests from the OpenAPI document.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use serde_json::{Value, json};
use test_servers::install_ring;
use tokio::process::Command;
use tokio::time::timeout;
use tower_breaker::BreakerConfig;
use tower_breaker::keyed::{KeyedCircuits, KeyedConfig};
use tower_breaker_admin::{AdminBuilder, User};
use tower_breaker_fleet::MemoryStore;

use crate::fleet::join;
use crate::server::{OPERATOR, Server};
use crate::tools::tool;

/// Another token than those of the server, whose requests have no limit of their rate.
const TOKEN: &str = "token-of-many-operators";

/// Returns another operator for each request, because the rate of each is limited.
fn authorize(request: &Parts) -> Option<User> {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let is_valid = request.headers.get(AUTHORIZATION)?.as_bytes() == format!("Bearer {TOKEN}").as_bytes();
    is_valid.then(|| User::operator(format!("operator {}", REQUESTS.fetch_add(1, Relaxed))))
}

/// Reads the document, and adds names that exist to those that are random.
async fn document(server: &Server) -> Value {
    install_ring();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/api/v1/openapi.json", server.url())).bearer_auth(OPERATOR);
    let text = request.send().await.unwrap().text().await.unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    for (parameter, values) in [("Name", json!(["billing", "search", "tenants"])), ("Key", json!(["a", "b"]))]
    {
        let schema = &mut document["components"]["parameters"][parameter]["schema"];
        *schema = json!({ "anyOf": [{ "enum": values }, { "enum": values }, schema.take()] });
    }
    document
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_get_the_responses_of_the_document() {
    let config = BreakerConfig::builder().name("tenants").build().unwrap();
    let tenants = KeyedCircuits::<String>::new(KeyedConfig::builder(config).build().unwrap());
    for key in ["a", "b"] {
        tenants.get_or_insert(key.to_owned()).unwrap();
    }
    let fleet = join(&MemoryStore::new(), "here");
    let settings = |admin: AdminBuilder| admin.keyed(&tenants).fleet(&fleet).authorize(authorize);
    let server = Server::start_with(&["billing", "search"], settings).await;
    fleet.share_registry(&server.registry).unwrap();
    assert!(fleet.ready(Duration::from_secs(10)).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, document(&server).await.to_string()).unwrap();

    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admin/tools/schemathesis.toml");
    let mut command = Command::new(tool("python/bin/schemathesis"));
    command.kill_on_drop(true).current_dir(folder.path());
    command.arg("--config-file").arg(configuration).arg("run").arg(file);
    command.args(["--url", &server.url()]).env("ADMIN_TEST_TOKEN", TOKEN);
    command.args(["--max-examples", "100", "--seed", "1", "--generation-database", "none"]);
    command.args(["--no-color"]);
    let output = timeout(Duration::from_secs(180), command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let audit = server.take_audit();
    let applied = audit.iter().filter(|entry| entry.status == 200).count();
    println!("{} actions, {applied} applied", audit.len());
    assert!(applied > 0 && applied < audit.len());
    assert_eq!(server.registry.circuits().len(), 2, "no request has created a circuit");
    assert_eq!(tenants.len(), 2, "no request has created a key");
}
