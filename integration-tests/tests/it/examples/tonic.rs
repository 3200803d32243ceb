use integration_tests::text_of_example;

#[test]
fn tonic_example_retries_opens_and_recovers() {
    let text = text_of_example("tonic");
    let (notes, calls): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let rejected = "Unavailable: circuit breaker `echo` is open; retry after 10 s";
    let nonsense = "nonsense: InvalidArgument: not now (asked: 1, circuit: closed)";
    assert_eq!(
        calls[..2],
        ["hello: HELLO (asked: 1, circuit: closed)", "busy: BUSY (asked: 3, circuit: closed)"]
    );
    assert_eq!(calls[2..8], [nonsense; 6]);
    assert_eq!(
        calls[8..11],
        [
            "down: Unavailable: not now (asked: 3, circuit: closed)".to_owned(),
            "down: Unavailable: not now (asked: 2, circuit: open)".to_owned(),
            format!("down: {rejected} (asked: 0, circuit: open)"),
        ]
    );
    assert_eq!(calls[11], "back: BACK (asked: 1, circuit: half_open)");
    assert_eq!(calls[12..], ["back: BACK (asked: 1, circuit: closed)"; 3]);
    let changes: Vec<_> = notes.iter().filter(|note| note.contains("->")).collect();
    assert_eq!(
        changes,
        [
            "#   closed -> open (consecutive_failures)",
            "#   open -> half_open (open_time_over)",
            "#   half_open -> closed (probes_succeeded)"
        ]
        .each_ref()
    );
    assert_eq!(notes.iter().filter(|note| note.ends_with("failed: unavailable")).count(), 6);
    assert_eq!(notes.iter().filter(|note| note.ends_with("come again in 10000 ms")).count(), 1);
}
