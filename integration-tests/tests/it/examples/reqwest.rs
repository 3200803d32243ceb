use integration_tests::text_of_example;

#[test]
fn reqwest_example_retries_opens_and_recovers() {
    let text = text_of_example("reqwest");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "GET /price: status 200, classified as success, 3 attempt(s), 5 bytes",
            "PUT /archive: status 200, classified as success, 1 attempt(s), 23 bytes",
        ]
    );
    assert_eq!(lines[2..7], ["POST /order: status 500, classified as server, 1 attempt(s), 0 bytes"; 5]);
    assert!(lines[7].starts_with("POST /order: not sent: circuit breaker `shop` is open"), "{text}");
    assert_eq!(
        lines[8..],
        [
            "the circuit is open",
            "PUT /archive: status 200, classified as success, 1 attempt(s), 23 bytes",
            "the circuit is half_open",
            "PUT /archive: status 200, classified as success, 1 attempt(s), 23 bytes",
            "the circuit is closed",
        ]
    );
}
