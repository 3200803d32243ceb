//! The commands `status` and `reset`.

use serde_json::{Value, json};
use test_servers::{Redis, Tls};

use super::support::{Setup, run};

#[tokio::test]
async fn status_shows_open_breaker_and_reset_closes_it() {
    let (setup, redis) = (Setup::new().await, Redis::start());
    let url = redis.url();
    let status = async |arguments: &[&str]| {
        let finished = run(&[&["status", "--redis", &url], arguments].concat(), &[]).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    };
    assert_eq!(status(&[]).await, "no breaker has opened\n");
    assert_eq!(status(&["--name", "api"]).await, "api  closed\n");

    let open = ["--redis", &url, "--name", "api", "--instance", "a", "--reset-timeout", "600"];
    let finished = setup.run(&[&open[..], &["--calls", "6"]].concat(), &[]).await;
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let breakers: Value = serde_json::from_str(&status(&["--json"]).await).unwrap();
    let breaker = &breakers[0];
    assert_eq!(
        (&breaker["name"], &breaker["state"], &breaker["by"]),
        (&json!("api"), &json!("open"), &json!("a"))
    );
    let left = breaker["remaining_seconds"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 600.0, "{left}");
    let text = status(&[]).await;
    assert!(text.starts_with("api  open for ") && text.ends_with(", by a)\n"), "{text}");

    let reset = run(&["reset", "--redis", &url, "--name", "api"], &[]).await;
    assert_eq!((reset.code, &*reset.stdout), (Some(0), "api is closed\n"), "{reset:?}");
    assert!(status(&["--name", "api"]).await.starts_with("api  closed"));
    let before = setup.llm.all_counts().values().map(|counts| counts.requests).sum::<u32>();
    setup.run(&[&open[..], &["--calls", "1"]].concat(), &[]).await;
    let after = setup.llm.all_counts().values().map(|counts| counts.requests).sum::<u32>();
    assert_eq!(after, before + 1, "the breaker admits calls again");
}

#[tokio::test]
async fn reset_of_all_closes_each_breaker_of_the_namespace() {
    let (setup, redis) = (Setup::new().await, Redis::start());
    let url = redis.url();
    for name in ["first", "second"] {
        let arguments = ["--redis", &url, "--name", name, "--reset-timeout", "600", "--calls", "6"];
        assert_eq!(setup.run(&arguments, &[]).await.code, Some(1));
    }
    let reset = run(&["reset", "--redis", &url, "--all", "--json"], &[]).await;
    assert_eq!((reset.code, &*reset.stdout), (Some(0), "[\"first\",\"second\"]\n"), "{reset:?}");
    let status = run(&["status", "--redis", &url], &[]).await.stdout;
    assert!(status.contains("first   closed") && status.contains("second  closed"), "{status}");
}

#[tokio::test]
async fn store_that_does_not_answer_exits_with_3() {
    let mut redis = Redis::start();
    redis.kill();
    let url = redis.url();
    for arguments in [&["status"][..], &["reset", "--all"], &["reset", "--name", "api"]] {
        let finished = run(&[arguments, &["--redis", &url]].concat(), &[]).await;
        assert_eq!(finished.code, Some(3), "{finished:?}");
        assert!(finished.stderr.contains("error: the store of the fleet is unreachable"), "{finished:?}");
    }
}

#[tokio::test]
async fn worker_connects_to_redis_with_tls() {
    let setup = Setup::new().await;
    setup.llm.set_faults(|_, _| None);
    let tls = Tls::new();
    let redis = Redis::start_tls(&tls);
    let (url, authority) = (redis.tcp_url(), setup.write("authority.pem", &tls.ca_pem()));
    let arguments = ["--redis", &url, "--calls", "1", "--ready-within", "60", "--json"];
    let finished = setup.run(&arguments, &[("SSL_CERT_FILE", &authority)]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains(r#""attached":true"#), "{finished:?}");
}

#[tokio::test]
async fn worker_without_redis_makes_its_calls() {
    let setup = Setup::new().await;
    setup.llm.set_faults(|_, _| None);
    let mut redis = Redis::start();
    redis.kill();
    let url = redis.url();
    let finished = setup.run(&["--redis", &url, "--calls", "3", "--ready-within", "0.1"], &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("the store does not answer, so this worker decides for itself"));
    assert!(finished.stdout.contains("3 succeeded"), "{finished:?}");
}

#[tokio::test]
async fn wrong_password_is_reported_without_it_and_calls_go_on() {
    let setup = Setup::new().await;
    setup.llm.set_faults(|_, _| None);
    let redis = Redis::start();
    redis.command("CONFIG SET requirepass right");
    let url = format!("{}?pass=secret", redis.url());
    let finished = setup.run(&["--redis", &url, "--calls", "2", "--ready-within", "0.5"], &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.contains("the store does not answer"), "{finished:?}");
    let status = run(&["status", "--redis", &url], &[]).await;
    assert_eq!(status.code, Some(3), "{status:?}");
    assert!(!format!("{finished:?} {status:?}").contains("secret"), "{finished:?} {status:?}");
}
