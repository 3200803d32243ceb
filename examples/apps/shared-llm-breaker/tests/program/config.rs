//! Flags, environment variables and files.

use std::time::Duration;

use clap::Parser;
use shared_llm_breaker::BreakerSettings;
use shared_llm_breaker::cli::{Cli, Command};
use shared_llm_breaker::config::{Options, WorkerConfig};
use shared_llm_breaker::llm::{ApiKey, LlmConfig};

use super::support::{Setup, run};

/// Returns how many calls fail before the circuit opens.
async fn failures(setup: &Setup, store: &str, arguments: &[&str], variables: &[(&str, &str)]) -> usize {
    let store = setup.store(store);
    let words = ["--redis", &store, "--calls", "8", "--reset-timeout", "600", "--json"];
    let finished = setup.run(&[&words[..], arguments].concat(), variables).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    finished.stdout.matches(r#""outcome":"failed""#).count()
}

#[tokio::test]
async fn flag_wins_over_variable_variable_over_file_and_file_over_default() {
    let setup = Setup::new().await;
    let toml = setup.write("worker.toml", "fail_max = 4");
    let json = setup.write("worker.json", r#"{ "fail_max": 4 }"#);
    let variable = [("CIRCUIT_BREAKER_FAIL_MAX", "3")];
    assert_eq!(failures(&setup, "1", &[], &[]).await, 5);
    assert_eq!(failures(&setup, "2", &["--config", &toml], &[]).await, 4);
    assert_eq!(failures(&setup, "3", &["--config", &json], &[]).await, 4);
    assert_eq!(failures(&setup, "4", &["--config", &toml], &variable).await, 3);
    assert_eq!(failures(&setup, "5", &["--config", &toml, "--fail-max", "2"], &variable).await, 2);
}

#[tokio::test]
async fn variables_name_store_breaker_and_api() {
    let setup = Setup::new().await;
    setup.llm.set_keys(["sk-1"]);
    setup.llm.set_models(["small"]);
    setup.llm.set_faults(|_, _| None);
    let (store, base_url) = (setup.store("store"), setup.base_url());
    let variables = [
        ("REDIS_URL", &*store),
        ("OPENAI_BASE_URL", &*base_url),
        ("OPENAI_API_KEY", "sk-1"),
        ("LLM_MODEL", "small"),
        ("CIRCUIT_BREAKER_NAME", "search"),
        ("WORKER_CALLS", "1"),
    ];
    let finished = run(&["run"], &variables).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("uses the circuit breaker search: closed"), "{finished:?}");
    assert!(finished.stdout.contains("call 1 succeeded, closed: "), "{finished:?}");
    assert!(finished.stdout.ends_with("1 calls: 1 succeeded, 0 failed, 0 rejected\n"), "{finished:?}");
}

#[test]
fn each_setting_of_a_file_is_used() {
    let text = r#"{
        "redis": "file:/folder", "namespace": "space", "name": "search", "instance": "first",
        "fail_max": 6, "reset_timeout": 7, "success_threshold": 8, "probes": 2, "probe_lease": 9,
        "heartbeat": 0.5, "takeover": 3, "ready_within": 4, "base_url": "http://host/v1",
        "model": "large", "stream": false, "timeout": 11, "max_attempts": 12, "max_retry_after": 13,
        "prompt": "Hello", "calls": 14, "concurrency": 15, "interval": 16
    }"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.json");
    std::fs::write(&file, text).unwrap();
    let seconds = Duration::from_secs;
    let expected = WorkerConfig {
        redis_url: "file:/folder".to_owned(),
        name: "search".to_owned(),
        breaker: BreakerSettings {
            fail_max: 6,
            reset_timeout: seconds(7),
            success_threshold: 8,
            probes: 2,
            probe_lease: Some(seconds(9)),
            instance: Some("first".to_owned()),
            namespace: "space".to_owned(),
            heartbeat: Duration::from_millis(500),
            takeover: seconds(3),
            ready_within: seconds(4),
        },
        llm: LlmConfig {
            base_url: "http://host/v1".to_owned(),
            key: ApiKey::default(),
            model: "large".to_owned(),
            stream: false,
            timeout: seconds(11),
            max_attempts: 12,
            max_retry_after: seconds(13),
        },
        prompt: "Hello".to_owned(),
        calls: Some(14),
        concurrency: 15,
        interval: seconds(16),
    };
    assert_eq!(Options::default().resolve(Some(&file)).unwrap(), expected);
}

#[tokio::test]
async fn proxy_is_not_used_for_an_api_on_loopback() {
    let setup = Setup::new().await;
    setup.llm.set_faults(|_, _| None);
    let store = setup.store("store");
    // Port 1 refuses connections.
    let proxy = [("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")];
    let proxy = [&proxy[..], &[("NO_PROXY", ""), ("no_proxy", "")]].concat();
    let finished = setup.run(&["--redis", &store, "--calls", "1"], &proxy).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[tokio::test]
async fn mistakes_end_the_program_with_their_place_and_the_allowed_values() {
    let setup = Setup::new().await;
    let store = setup.store("store");
    let unknown = setup.write("unknown.toml", "fail_max = 4\nfail_min = 3");
    let text = setup.write("text.toml", "reset_timeout = \"soon\"");
    let broken = setup.write("broken.toml", "fail_max = 4\nfail_max");
    let negative = setup.write("negative.json", r#"{ "interval": -1 }"#);
    let key = setup.write("key.toml", "api_key = \"sk-secret\"");
    let cases: [(&[&str], &str); 18] = [
        (&["--config", &unknown], "unknown field `fail_min`"),
        (&["--config", &text], "reset_timeout: invalid type"),
        (&["--config", &broken], "line 2"),
        (&["--config", &negative], "interval: -1 is not a number of seconds, such as 1.5"),
        (&["--config", &key], "unknown field `api_key`"),
        (&["--config", "missing.toml"], "cannot read the configuration `missing.toml`"),
        (&["--config", "worker.yaml"], "`worker.yaml`"),
        (&["--concurrency", "0"], "`concurrency` is 0; allowed is 1 to 1000"),
        (&["--fail-max", "0"], "`fail_max` is 0; allowed is 1 to 4294967295"),
        (&["--base-url", "ftp://example.com"], "`base_url` is `ftp://example.com`; it must be an address"),
        (&["--reset-timeout", "0"], "`reset_timeout` is 0ns; allowed is 1ms to 31536000s"),
        (&["--heartbeat", "0"], "`heartbeat` is 0ns; allowed is 250ms to 600s"),
        (&["--ready-within", "1e9"], "`ready_within` is 1000000000s; allowed is 0ns to 600s"),
        (&["--probes", "3"], "`probes` is 3; allowed is 1 to 2"),
        (&["--max-attempts", "0"], "`max_attempts` is 0; allowed is 1 to 100"),
        (&["--name", ""], "`name` is \"\"; allowed is 1 to 256 bytes without control characters"),
        (&["--name", "a\u{1b}"], "`name` is \"a\\u{1b}\"; allowed is"),
        (&["--interval", "soon"], "it must be a number of seconds, such as 1.5"),
    ];
    for (arguments, expected) in cases {
        let finished = setup.refused(&[&["--redis", &store], arguments].concat(), &[]).await;
        assert!(finished.stderr.contains(expected), "{expected}: {finished:?}");
        assert!(!finished.stderr.contains("sk-secret"), "{finished:?}");
    }
    assert!(setup.llm.all_counts().is_empty());
}

#[tokio::test]
async fn password_of_store_is_in_no_message() {
    for url in ["http://user:secret@localhost", "redis://user:secret@localhost:port"] {
        let finished = run(&["run", "--calls", "1", "--redis", url], &[]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(!finished.stderr.contains("secret"), "{finished:?}");
    }
}

#[tokio::test]
async fn store_in_a_folder_that_is_not_absolute_is_an_error() {
    for url in ["file:", "file://", "file:folder"] {
        let finished = run(&["status", "--redis", url], &[]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("allowed is an absolute folder"), "{finished:?}");
    }
}

#[tokio::test]
async fn invalid_key_is_in_no_message() {
    for key in ["sk-secr\u{e9}t", "sk-secr\nt"] {
        let finished = run(&["run", "--calls", "1"], &[("OPENAI_API_KEY", key)]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        assert!(finished.stderr.contains("error: the API key contains"), "{finished:?}");
        assert!(!finished.stderr.contains("sk-secr"), "{finished:?}");
    }
}

#[tokio::test]
async fn secrets_of_base_url_are_in_no_message() {
    let setup = Setup::new().await;
    let store = setup.store("store");
    let user = ["http://user:secret@localhost/v1", "http://user:secret@local host", "user:secret@localhost"];
    for url in user {
        let finished = setup.refused(&["--redis", &store, "--base-url", url], &[]).await;
        assert!(finished.stderr.contains("`base_url` is"), "{finished:?}");
        assert!(!finished.stderr.contains("secret"), "{finished:?}");
    }
    // Port 1 refuses connections.
    let arguments = ["--redis", &store, "--calls", "1", "--base-url", "http://127.0.0.1:1/v1?key=secret"];
    let finished = run(&[&["run", "--max-attempts", "1"][..], &arguments].concat(), &[]).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("(http://127.0.0.1:1/v1/chat/completions)"), "{finished:?}");
    assert!(!format!("{finished:?}").contains("secret"), "{finished:?}");
}

#[test]
fn debug_output_of_configuration_has_no_secret() {
    let words = ["worker", "run", "--redis", "redis://user:secret@localhost", "--api-key", "sk-secret"];
    let words = [&words[..], &["--base-url", "http://localhost/v1?key=secret"]].concat();
    let cli = Cli::try_parse_from(words).unwrap();
    let debug = format!("{cli:?}");
    assert!(debug.contains("Options") && !debug.contains("secret"), "{debug}");
    let Command::Run(arguments) = cli.command else { panic!("{debug}") };
    let debug = format!("{:?}", arguments.options.resolve(None).unwrap());
    assert!(debug.contains("http://localhost/v1") && !debug.contains("secret"), "{debug}");
}
