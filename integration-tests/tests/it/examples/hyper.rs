use integration_tests::text_of_example;

#[test]
fn hyper_example_replays_stream_and_opens_circuit() {
    let text = text_of_example("hyper");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 9, "{text}");
    assert_eq!(lines[0], "client: attempt 3 uploaded \"to be sent again\"");
    assert_eq!(lines[1], "client: the circuit is closed");
    assert_eq!(lines[2..5], ["function: received 16 bytes"; 3]);
    assert_failed(lines[5], "function: PUT failed: ");
    assert_eq!(lines[6], "function: received 16 bytes");
    assert_failed(lines[7], "function: POST failed: ");
    assert!(lines[8].starts_with("function: POST not sent: circuit breaker `function` is open"), "{text}");
}

/// Checks that a line has the text and the root cause, with any text between them.
fn assert_failed(line: &str, start: &str) {
    assert!(line.starts_with(start) && line.ends_with(": connection reset"), "{line}");
}
