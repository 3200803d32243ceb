use integration_tests::text_of_example;

#[test]
fn reqwest_middleware_example_counts_calls_and_attempts() {
    let text = text_of_example("reqwest_middleware");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 14, "{text}");
    assert_eq!(lines[..5], ["around: status 503"; 5]);
    assert!(lines[5].starts_with("around: circuit breaker `around` is open"), "{text}");
    // Three attempts of each of the first four calls, and one of the fifth.
    assert_eq!(lines[6], "around: the middleware counted 13 attempts");
    assert_eq!(lines[7..12], ["inside: status 503"; 5]);
    assert!(lines[12].starts_with("inside: rejected: circuit breaker `inside` is open"), "{text}");
    assert_eq!(lines[13], "inside: the middleware counted 6 calls and 13 attempts");
}
