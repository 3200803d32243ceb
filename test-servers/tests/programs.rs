//! Checks nginx and Prometheus: they answer while the handle exists, and end with it.
#![cfg(unix)]

use std::fs::write;
use std::net::TcpStream;

use test_servers::{Action, Http, Nginx, Prometheus, install_ring};

async fn get(url: &str) -> reqwest::Result<(u16, String)> {
    install_ring();
    let response = reqwest::Client::builder().no_proxy().build()?.get(url).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

#[tokio::test]
async fn nginx_forwards_until_it_ends() {
    let server = Http::start().await;
    server.set_default(Action::status(200).body("forwarded"));
    let nginx = Nginx::start(&format!("location /below/ {{ proxy_pass {}/; }}", server.url()));
    let url = format!("{}/below/x", nginx.url());
    assert_eq!(get(&url).await.unwrap(), (200, "forwarded".to_owned()));
    assert_eq!(server.requests()[0].path, "/x");
    assert_eq!(get(&nginx.url()).await.unwrap().0, 404);
    let address = nginx.address();
    drop(nginx);
    TcpStream::connect(address).unwrap_err();
}

#[test]
#[should_panic(expected = "unknown directive \"no_such_directive\"")]
fn nginx_unknown_directive_is_named() {
    Nginx::start("no_such_directive on;");
}

#[tokio::test]
async fn prometheus_scrapes_until_it_ends() {
    let server = Http::start().await;
    server.set_default(Action::status(200).header("content-type", "text/plain").body("answer 42\n"));
    let prometheus = Prometheus::start(&format!(
        "{{global: {{scrape_interval: 100ms}}, scrape_configs: [{{job_name: test, static_configs: [{{targets: ['{}']}}]}}]}}",
        server.address()
    ));
    let query = format!("{}/api/v1/query?query=answer", prometheus.url());
    // It stores a sample some time after the scrape.
    while !get(&query).await.unwrap().1.contains("\"42\"") {
        tokio::task::yield_now().await;
    }
    let address = prometheus.address();
    drop(prometheus);
    TcpStream::connect(address).unwrap_err();
}

#[test]
#[should_panic(expected = "no_such_field")]
fn prometheus_unknown_field_is_named() {
    Prometheus::start("no_such_field: 1");
}

#[test]
fn promtool_checks_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    let check = |expression: &str| {
        write(&file, format!("{{groups: [{{name: a, rules: [{{alert: B, expr: {expression}}}]}}]}}"))
            .unwrap();
        Prometheus::promtool(&["check", "rules", file.to_str().unwrap()])
    };
    let output = check("up > 0").unwrap();
    assert!(output.contains("1 rules found"), "{output}");
    let error = check("up >").unwrap_err();
    assert!(error.contains("could not parse expression"), "{error}");
}
