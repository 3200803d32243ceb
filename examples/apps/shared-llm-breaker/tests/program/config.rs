//! Flags, environment variables and files.

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

#[tokio::test]
async fn mistakes_end_the_program_with_their_place_and_the_allowed_values() {
    let setup = Setup::new().await;
    let store = setup.store("store");
    let unknown = setup.write("unknown.toml", "fail_max = 4\nfail_min = 3");
    let text = setup.write("text.toml", "reset_timeout = \"soon\"");
    let broken = setup.write("broken.toml", "fail_max = 4\nfail_max");
    let negative = setup.write("negative.json", r#"{ "interval": -1 }"#);
    let key = setup.write("key.toml", "api_key = \"sk-secret\"");
    let cases: [(&[&str], &str); 11] = [
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
        (&["--interval", "soon"], "it must be a number of seconds, such as 1.5"),
    ];
    for (arguments, expected) in cases {
        let finished = run(&[&["run", "--calls", "1", "--redis", &store], arguments].concat(), &[]).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
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
