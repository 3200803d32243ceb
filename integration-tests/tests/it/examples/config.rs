use integration_tests::text_of_example;

#[test]
fn config_example_applies_file_and_rejects_bad_value() {
    let text = text_of_example("config");
    let (valid, invalid) = text.split_once("invalid settings: ").expect("the bad value is an error");
    let lines: Vec<_> = valid.lines().collect();
    assert_eq!(
        lines[..2],
        ["breaker `search` stays open for at least 10s", "each request is sent at most 2 times"]
    );
    assert_eq!(lines[2..6], ["status 503"; 4]);
    assert!(lines[6].starts_with("not sent: circuit breaker `search` is open"), "{text}");
    assert_eq!(lines.len(), 7, "{text}");
    assert!(invalid.contains("failure_rate = 1.5") && invalid.contains("0.0 to 1.0"), "{text}");
}
