use integration_tests::text_of_example;

#[test]
fn shards_with_failed_shard_answers_from_the_others() {
    let text = text_of_example("shards");
    let summary: Vec<_> = text.lines().filter(|line| !line.starts_with("# ")).collect();
    assert_eq!(
        summary,
        [
            // Two attempts for each query: the archive refuses the connections of four queries.
            "archive: 4 answered, 4 failed, 0 rejected",
            "eu: 8 answered, 0 failed, 0 rejected",
            "us: 0 answered, 3 failed, 5 rejected",
            "archive is closed, last failure: SELECT id FROM orders: connection refused",
            "eu is closed, last failure: none",
            "us is open, last failure: SELECT id FROM orders: connection reset",
            "us is closed after its repair",
            "us returns 2 rows",
        ]
    );
    assert_eq!(text.lines().filter(|line| *line == "# us: connection reset").count(), 3);
}
