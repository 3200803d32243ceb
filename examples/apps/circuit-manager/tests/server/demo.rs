//! The demo.

use serde_json::{Value, json};

use crate::support::Files;

/// Checks that the texts follow each other in the output.
fn assert_in_order(output: &str, texts: &[&str]) {
    let mut rest = output;
    for text in texts {
        let (_, after) =
            rest.split_once(text).unwrap_or_else(|| panic!("{text} is missing in {rest}\n{output}"));
        rest = after;
    }
}

#[tokio::test]
async fn demo_ends_as_it_explains() {
    let output = Files::embedded(&json!({})).run(&["demo"]).await;
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert_in_order(
        &stdout,
        &[
            "1. billing fails",
            "billing  circuit open",
            "0 calls reached billing",
            "2. An operator",
            "403 ",
            r#"200 {"status":"opened","agent_id":"mail"}"#,
            "3. The server is killed",
            "GET /api/v1/circuits/billing",
            "200 open since ",
            "GET /api/v1/circuits/mail",
            "200 open since ",
            "4. billing works again",
            "circuit half_open",
            "circuit closed",
            "circuit closed",
            "5. The server has stopped",
            "wall  -     mail  403",
            "anna  open  mail  200",
        ],
    );
}

#[tokio::test]
async fn demo_prints_json_lines() {
    let output = Files::embedded(&json!({})).run(&["demo", "--json"]).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().filter(|line| line["step"].is_string()).count(), 5, "{stdout}");
    let states: Vec<_> = lines
        .iter()
        .map(|line| &line["event"]["data"])
        .filter(|data| data["agent_id"] == "mail" && data.get("health").is_none())
        .map(|data| data["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["half_open", "closed"]);
}
