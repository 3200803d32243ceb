use integration_tests::text_of_example;

#[test]
fn reqwest_middleware_example_counts_calls_and_attempts() {
    let text = text_of_example("reqwest_middleware");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), &lines[..2]), (8, &["over: 503", "over: 503"][..]));
    assert!(lines[2].starts_with("over: circuit breaker `over` is open"), "{text}");
    assert_eq!(lines[3..6], ["over: 6 requests passed the chain", "inside: 503", "inside: 503"]);
    assert!(lines[6].starts_with("inside: rejected (circuit breaker `inside` is open"), "{text}");
    assert_eq!(lines[7], "inside: 3 calls, 6 requests passed the rest of the chain");
}
