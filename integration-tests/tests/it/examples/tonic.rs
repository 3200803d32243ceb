use integration_tests::text_of_example;

#[test]
fn tonic_example_retries_opens_and_recovers() {
    let text = text_of_example("tonic");
    let (events, calls): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));

    assert_eq!(calls[0], "hello: HELLO (requests: 1, circuit: closed)");
    assert_eq!(calls[1], "busy: BUSY (requests: 3, circuit: closed)");
    let nonsense = "nonsense: InvalidArgument: scripted failure (requests: 1, circuit: closed)";
    assert_eq!(calls[2..8], [nonsense; 6]);
    let counted = "down: Unavailable: scripted failure (requests: 3, circuit: closed)";
    assert_eq!(calls[8..12], [counted; 4]);
    assert_eq!(calls[12], "down: Unavailable: scripted failure (requests: 1, circuit: open)");
    // The open time is 3 to 4.5 s.
    let rejected = "down: Unavailable: circuit breaker `echo` is open; retry after ";
    assert!(calls[13].starts_with(rejected), "{text}");
    assert!(calls[13].ends_with("(requests: 0, circuit: open)"), "{text}");
    assert_eq!(calls[14], "back: BACK (requests: 1, circuit: half_open)");
    assert_eq!(calls[15..], ["back: BACK (requests: 1, circuit: closed)"; 3]);

    let transitions: Vec<_> = events.iter().copied().filter(|event| event.contains("->")).collect();
    assert_eq!(
        transitions,
        [
            "#   closed -> open (consecutive_failures)",
            "#   open -> half_open (open_time_over)",
            "#   half_open -> closed (probes_succeeded)",
        ]
    );
    assert_eq!(events.iter().filter(|event| event.ends_with("failed: unavailable")).count(), 11);
    assert_eq!(events.iter().filter(|event| event.contains("made again in ")).count(), 1);
}
