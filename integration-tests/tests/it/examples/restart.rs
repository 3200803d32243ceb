use integration_tests::text_of_example;

#[test]
fn restart_keeps_circuits_open_and_forced_open() {
    let text = text_of_example("restart");
    let lines: Vec<_> = text.lines().collect();
    let (last, before) = lines.split_last().unwrap();
    assert_eq!(
        before,
        [
            "-- the server is down",
            "circuits with a state to restore: 0",
            "search failed: connection refused",
            "search failed: connection refused",
            "# search: closed -> open (consecutive_failures)",
            "search failed: connection refused",
            "search is rejected: open",
            "-- the service restarts",
            "circuits with a state to restore: 1",
            "# search: closed -> open (restored)",
            "search is rejected: open",
            "the server was called 3 times",
            "# billing: closed -> forced_open (forced)",
            "-- the service was killed, and restarts; the server has recovered",
            "circuits with a state to restore: 2",
            "# billing: closed -> forced_open (restored)",
            "billing is forced_open",
            "# search: closed -> open (restored)",
            "search opened before the restarts: consecutive_failures",
            "# search: open -> half_open (open_time_over)",
            "# search: half_open -> closed (probes_succeeded)",
            "search: 3 results",
            "-- the file is damaged",
            "the circuits start closed: EOF while parsing a value at line 1 column 15",
        ]
    );
    assert_eq!(*last, "search: 3 results");
}
