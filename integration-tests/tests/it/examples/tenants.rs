use integration_tests::text_of_example;

#[test]
fn tenants_with_failed_backend_answers_from_fallback() {
    let text = text_of_example("tenants");
    let transitions: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    assert_eq!(
        transitions,
        [
            "globex: closed -> open (consecutive_failures)",
            "globex: open -> half_open (reported_recovered)",
            "globex: half_open -> open (probe_failed)",
        ]
    );
    let summary: Vec<_> = text.lines().rev().take(3).collect();
    assert_eq!(
        summary,
        [
            "initech: 7 answered, 0 failed, its circuit is closed",
            "globex: 2 answered, 5 failed, its circuit is open",
            "acme: 7 answered, 0 failed, its circuit is closed",
        ]
    );
}
