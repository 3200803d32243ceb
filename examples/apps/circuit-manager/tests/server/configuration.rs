//! The command line, the configuration, and the exit codes.

use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::Files;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn assert_fails(output: &Output, code: i32, message: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(message), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn invalid_settings_exit_with_2_and_name_the_problem() {
    let files = Files::embedded(&json!({}));
    files.write("empty-tokens", "# no user\n");
    files.write("bad.toml", "[circuit]\nfailure_threshold = 0\n");
    files.write("unknown.json", r#"{ "agents": { "a": { "uri": "http://a/" } } }"#);
    files.write("health.json", r#"{ "health": { "critical_error_rate": 2 } }"#);
    files.write("nan.toml", "[circuit]\nwindow_seconds = nan\n");
    files.write("simulate.toml", "simulate = 1001\n");
    files.write("dots.json", r#"{ "agents": { "..": {} } }"#);
    files.write("twice.json", r#"{ "simulate": 1, "agents": { "simulated-1": { "url": "http://a/" } } }"#);
    let store = ["--embedded", "circuits.json"];
    let tokens = ["--token-file", "tokens"];
    for (arguments, message) in [
        ([&["serve"][..], &tokens].concat(), "no store is set; use `--database URL` or `--embedded FILE`"),
        ([&["serve"][..], &store].concat(), "no users are set; use `--token-file FILE`"),
        ([&["serve", "--database", "postgres://x"][..], &store, &tokens].concat(), "two stores are set"),
        ([&["serve", "--token-file", "none"][..], &store].concat(), "token file `none` cannot be read"),
        ([&["serve", "--token-file", "empty-tokens"][..], &store].concat(), "has no user"),
        ([&["serve", "--config", "bad.toml"][..], &store, &tokens].concat(), "`failure_threshold` is 0"),
        ([&["serve", "--config", "unknown.json"][..], &store, &tokens].concat(), "agents.a.uri"),
        ([&["serve", "--config", "health.json"][..], &store, &tokens].concat(), "`critical_error_rate` is 2"),
        ([&["serve", "--config", "tokens"][..], &store, &tokens].concat(), "has no known format"),
        ([&["serve", "--listen", "here"][..], &store, &tokens].concat(), "--listen"),
        ([&["serve", "--audit-file", "none/audit"][..], &store, &tokens].concat(), "audit file `none/audit`"),
        (
            [&["serve", "--config", "nan.toml"][..], &store, &tokens].concat(),
            "`circuit.window_seconds` is `null, NaN or infinite`",
        ),
        (
            [&["serve", "--config", "simulate.toml"][..], &store, &tokens].concat(),
            "`simulate` is `1001`; allowed is 0 to 1000",
        ),
        ([&["serve", "--config", "dots.json"][..], &store, &tokens].concat(), "`agents` is `..`; allowed is"),
        ([&["serve", "--config", "twice.json"][..], &store, &tokens].concat(), "`agents` is `simulated-1`"),
        (vec!["sell"], "unrecognized subcommand"),
    ] {
        assert_fails(&files.run(&arguments).await, 2, message);
    }
}

#[tokio::test]
async fn secrets_are_in_no_error() {
    let files = Files::embedded(&json!({}));
    files.write("open.toml", "listen = '127.0.0.1:0'\ndatabase = 'postgres://user:secret@host/\n");
    files.write("list.toml", "database = ['postgres://user:secret@host/']\n");
    files.write("swapped-tokens", "secret-0123456789abcdef anna operator\n");
    for (arguments, message) in [
        (["--config", "open.toml", "--token-file", "tokens"], "line 2, column"),
        (["--config", "list.toml", "--token-file", "tokens"], "line 1, column 12: invalid type: sequence"),
        (["--embedded", "a.json", "--token-file", "swapped-tokens"], "in line 1: the role is unknown"),
    ] {
        let output = files.run(&[&["serve"][..], &arguments].concat()).await;
        assert_fails(&output, 2, message);
        assert!(!text(&output.stderr).contains("secret"), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn used_address_exits_with_1() {
    let files = Files::embedded(&json!({}));
    let server = files.start().await;
    let arguments =
        ["serve", "--listen", server.address(), "--embedded", "other.json", "--token-file", "tokens"];
    let output = files.run(&arguments).await;
    assert_fails(&output, 1, "cannot be bound; choose another one");
}

#[tokio::test]
async fn environment_takes_precedence_over_file_and_flag_over_both() {
    let files = Files::embedded(
        &json!({ "embedded": "from-file.json", "audit_file": "from-file", "agents": { "a": {} } }),
    );
    let mut command = files.command(&["serve", "--config", "config.json", "--embedded", "from-flag.json"]);
    command.env("CIRCUIT_MANAGER_EMBEDDED", "from-environment.json");
    command.env("CIRCUIT_MANAGER_AUDIT_FILE", "from-environment");
    command.env("CIRCUIT_MANAGER_LISTEN", "127.0.0.1:0");
    command.env("CIRCUIT_MANAGER_TOKEN_FILE", "tokens");
    let server = files.spawn(command).await;
    server.stop().await;
    let exists = |name: &str| files.path(name).exists();
    assert!(exists("from-environment") && !exists("from-file"));
    assert!(exists("from-flag.json") && !exists("from-environment.json") && !exists("from-file.json"));
}

#[tokio::test]
async fn settings_of_toml_file_apply() {
    let files = Files::embedded(&json!({}));
    files.write(
        "settings.toml",
        "listen = '127.0.0.1:0'\nembedded = 'circuits.json'\ntoken_file = 'tokens'\n[agents.search]\n",
    );
    let server = files.spawn(files.command(&["serve", "--config", "settings.toml"])).await;
    assert_eq!(server.circuit("search").await["state"], "closed");
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn json_output_is_lines_of_json() {
    let files = Files::embedded(&json!({ "agents": { "search": {} } }));
    let server = files.start_with(&["--json"]).await;
    server.act("search", "open").await;
    let (code, logs) = server.stop().await;
    assert_eq!(code, Some(0));
    let logs: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(logs.iter().any(|log| log["fields"]["message"] == "an action was applied"), "{logs:?}");
}

#[tokio::test]
async fn ctrl_c_stops_server_with_0() {
    let mut server = Files::embedded(&json!({})).start().await;
    server.signal(Signal::INT);
    let (code, logs) = server.ended().await;
    assert_eq!(code, Some(0), "{logs}");
}

#[tokio::test]
async fn openapi_subcommand_prints_document_of_server() {
    let files = Files::embedded(&json!({}));
    let printed: Value = serde_json::from_slice(&files.run(&["openapi"]).await.stdout).unwrap();
    let server = files.start().await;
    assert_eq!(server.get("/api/v1/openapi.json").await.1, printed);
}
