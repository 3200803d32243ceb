use integration_tests::text_of_example;

#[test]
fn axum_gateway_with_failed_downstream_serves_the_other() {
    let text = text_of_example("axum_gateway");
    let lines: Vec<_> = text.lines().collect();
    let rejected = "PUT /prices: 503 Service Unavailable with Retry-After \"circuit breaker `downstreams`";
    assert!(lines[2].starts_with(rejected), "{text}");
    assert_eq!(
        lines[..2],
        ["PUT /orders: 200 OK \"order of 5 bytes accepted\"", "PUT /prices: 503 Service Unavailable \"\""]
    );
    assert_eq!(
        lines[3..],
        [
            "PUT /orders: 200 OK \"order of 5 bytes accepted\"",
            "PUT /ready: 200 OK \"open circuits: orders false, prices true\"",
            "PUT /report: 500 Internal Server Error \"\"",
            "PUT /report: 500 Internal Server Error \"\"",
            "PUT /report: 503 Service Unavailable with Retry-After \"\"",
            "an operator takes the orders out of service",
            "PUT /ready: 503 Service Unavailable \"open circuits: orders true, prices true\"",
            "the gateway shuts down while a request is running",
            "PUT /orders/slow: 200 OK \"slow order accepted\"",
        ]
    );
}
