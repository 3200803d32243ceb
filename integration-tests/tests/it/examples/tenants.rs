use integration_tests::text_of_example;

#[test]
fn tenants_with_dead_tenant_answers_after_three_failures() {
    let text = text_of_example("tenants");
    let changes: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let opens = "globex: closed -> open (consecutive_failures)";
    let probes = "globex: open -> half_open (reported_recovered)";
    assert_eq!(changes, [opens, probes, "globex: half_open -> open (probe_failed)"]);
    let end: Vec<_> = text.lines().rev().take(3).collect();
    let answered = |tenant: &str| format!("{tenant}: 6 answered, 0 failed, its circuit is closed");
    let globex = "globex: 3 answered, 3 failed, its circuit is open";
    assert_eq!(end, [&*answered("initech"), globex, &answered("acme")]);
}
