//! Random requests from the OpenAPI document.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{DEADLINE, Files, OPERATOR};

/// Returns the program that `./test` installs in the target directory.
fn schemathesis() -> PathBuf {
    // The folder of temporary files is in the target directory.
    let tools = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("admin-tools");
    let program = tools.join("python/bin/schemathesis");
    assert!(program.exists(), "{} is missing; ./test installs it", program.display());
    program
}

/// Adds names and actions that exist to those that are random.
fn with_known_values(mut document: Value) -> Value {
    let agents = json!({ "enum": ["mail", "search"] });
    for operations in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in operations.as_object_mut().unwrap().values_mut() {
            for parameter in
                operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten()
            {
                let schema = &mut parameter["schema"];
                *schema = json!({ "anyOf": [agents, agents, schema.take()] });
            }
        }
    }
    let action = &mut document["components"]["schemas"]["ActionRequest"]["properties"]["action"];
    *action = json!({ "anyOf": [{ "enum": ["open", "close", "reset"] }, action.take()] });
    document
}

#[tokio::test]
async fn random_requests_get_the_responses_of_the_document() {
    let files = Files::embedded(&json!({ "agents": { "mail": {}, "search": {} } }));
    let server = files.start().await;
    let (_, document) = server.send_as(None, Method::GET, "/api/v1/openapi.json", None).await;
    files.write("openapi.json", with_known_values(document).to_string());

    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/schemathesis.toml");
    let mut command = Command::new(schemathesis());
    command.kill_on_drop(true).current_dir(files.path(""));
    command.arg("--config-file").arg(configuration).args(["run", "openapi.json"]);
    command.args(["--url", &server.url("")]).env("CIRCUIT_MANAGER_TEST_TOKEN", OPERATOR);
    command.args(["--max-examples", "60", "--seed", "1", "--generation-database", "none", "--no-color"]);
    let output = timeout(DEADLINE * 3, command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let audit = files.audit();
    let applied = audit.iter().filter(|record| record["status"] == 200).count();
    println!("{} attempts, {applied} applied", audit.len());
    assert!(applied > 0 && applied < audit.len());
    let all = server.get("/api/v1/circuits/").await.1;
    assert_eq!(all.as_object().unwrap().len(), 2, "no request has created a circuit");
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0), "{logs}");
}
