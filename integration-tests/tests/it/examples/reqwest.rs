use integration_tests::text_of_example;

#[test]
fn reqwest_example_retries_opens_and_recovers() {
    let text = text_of_example("reqwest");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "price: 200, 5 bytes, 3 attempt(s), judged as success",
            "archive: 200, 23 bytes, 1 attempt(s), judged as success",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
            "order: 500, 0 bytes, 1 attempt(s), judged as server",
        ]
    );
    assert!(lines[5].starts_with("order: not sent, circuit breaker `shop` is open"), "{text}");
    assert_eq!(
        lines[6..],
        [
            "the circuit is open",
            "archive: 200, 0 bytes, 1 attempt(s), judged as success",
            "the circuit is closed",
        ]
    );
}
