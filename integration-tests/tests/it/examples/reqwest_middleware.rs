use integration_tests::text_of_example;

#[test]
fn reqwest_middleware_example_counts_calls_and_attempts() {
    let text = text_of_example("reqwest_middleware");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 8, "{text}");
    assert_eq!(lines[..2], ["around: status 503", "around: status 503"]);
    assert!(lines[2].starts_with("around: circuit breaker `around` is open"), "{text}");
    assert_eq!(lines[3], "around: the middleware counted 6 attempts");
    assert_eq!(lines[4..6], ["inside: status 503", "inside: status 503"]);
    assert!(lines[6].starts_with("inside: rejected: circuit breaker `inside` is open"), "{text}");
    assert_eq!(lines[7], "inside: the middleware counted 3 calls and 6 attempts");
}
