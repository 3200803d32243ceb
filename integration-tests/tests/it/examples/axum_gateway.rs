use integration_tests::text_of_example;

#[test]
fn axum_gateway_with_failed_downstream_serves_the_other() {
    let text = text_of_example("axum_gateway");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "PUT /orders: 200 OK \"order of 5 bytes accepted\"");
    for failed in lines[1..11].chunks(2) {
        assert_eq!(
            failed,
            ["PUT /prices: 503 Service Unavailable \"\"", "PUT /report: 500 Internal Server Error \"\""]
        );
    }
    let rejected = "PUT /prices: 503 Service Unavailable with Retry-After \"circuit breaker `downstreams`";
    assert!(lines[11].starts_with(rejected), "{text}");
    assert_eq!(
        lines[12..],
        [
            "PUT /report: 503 Service Unavailable with Retry-After \"\"",
            "PUT /orders: 200 OK \"order of 5 bytes accepted\"",
            "PUT /ready: 200 OK \"open circuits: orders false, prices true\"",
            "an operator takes the orders out of service",
            "PUT /ready: 503 Service Unavailable \"open circuits: orders true, prices true\"",
            "the gateway shuts down while a request is running",
            "PUT /orders/slow: 200 OK \"slow order accepted\"",
        ]
    );
}
