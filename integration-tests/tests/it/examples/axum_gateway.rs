//! The example, as its users run it.

use integration_tests::text_of_example;

#[test]
fn one_downstream_is_dead_and_the_rest_goes_on_until_it_is_told_to_stop() {
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
