use integration_tests::text_of_example;

#[test]
fn axum_gateway_with_dead_downstream_serves_the_rest() {
    let text = text_of_example("axum_gateway");
    let said: Vec<_> = text.lines().collect();
    let wanted = [
        "/orders/1: took 5 bytes",
        "/prices/1: 503 Service Unavailable",
        "/prices/1: 503 Service Unavailable, come again later",
        "/orders/2: took 5 bytes",
        "/ready: open: orders false, prices true",
        "/report: 500 Internal Server Error",
        "/report: 500 Internal Server Error",
        "/report: 503 Service Unavailable, come again later",
        "/ready: 503 Service Unavailable",
        "told to stop, and then /orders/slow: slow, and whole",
    ];
    assert_eq!(said, wanted);
}
