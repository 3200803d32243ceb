use integration_tests::text_of_example;

#[test]
fn hyper_example_replays_stream_and_opens_circuit() {
    let text = text_of_example("hyper");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 15, "{text}");
    assert_eq!(lines[0], "client: attempt 3 uploaded \"to be sent again\"");
    assert_eq!(lines[1], "client: the circuit is closed");
    assert_eq!(lines[2..5], ["function: received 16 bytes"; 3]);
    assert_failed(lines[5], "function: PUT failed: ");
    for post in lines[6..14].chunks(2) {
        assert_eq!(post[0], "function: received 16 bytes");
        assert_failed(post[1], "function: POST failed: ");
    }
    assert!(lines[14].starts_with("function: POST not sent: circuit breaker `function` is open"), "{text}");
}

/// Checks that a line has the text and the root cause, with any text between them.
fn assert_failed(line: &str, start: &str) {
    assert!(line.starts_with(start) && line.ends_with(": connection reset"), "{line}");
}
