use integration_tests::text_of_example;

const COUNTED: &str = "#   the circuit counts a failure: ";

#[test]
fn tonic_example_retries_opens_and_recovers() {
    let text = text_of_example("tonic");
    let (events, calls): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));

    assert_eq!(calls[0], "hello: HELLO (requests: 1, circuit: closed)");
    assert_eq!(calls[1], "busy: BUSY (requests: 3, circuit: closed)");
    // The delay that the server asks for ends after the deadline.
    assert_eq!(calls[2], "urgent: Unavailable: scripted failure (requests: 1, circuit: closed)");
    assert_eq!(calls[3], "cat: CAT, complete (requests: 2)");
    assert_eq!(calls[4], "dog: D, Unavailable: scripted failure (requests: 1)");
    assert_eq!(calls[5], "owl: O, no message in time (requests: 1)");
    let nonsense = "nonsense: InvalidArgument: scripted failure (requests: 1, circuit: closed)";
    assert_eq!(calls[6..12], [nonsense; 6]);
    let counted = "down: Unavailable: scripted failure (requests: 3, circuit: closed)";
    assert_eq!(calls[12..16], [counted; 4]);
    assert_eq!(calls[16], "down: Unavailable: scripted failure (requests: 1, circuit: open)");
    // The open time is 3 to 4.5 s.
    let rejected = "down: Unavailable: circuit breaker `echo` is open; retry after ";
    assert!(calls[17].starts_with(rejected), "{text}");
    assert!(calls[17].ends_with("(requests: 0, circuit: open)"), "{text}");
    assert_eq!(calls[18], "back: BACK (requests: 1, circuit: half_open)");
    assert_eq!(calls[19..22], ["back: BACK (requests: 1, circuit: closed)"; 3]);
    let untrusted =
        "stranger: Unavailable: invalid peer certificate: UnknownIssuer (requests: 0, circuit: closed)";
    assert_eq!(calls[22..], [untrusted]);

    let transitions: Vec<_> = events.iter().copied().filter(|event| event.contains("->")).collect();
    assert_eq!(
        transitions,
        [
            "#   closed -> open (consecutive_failures)",
            "#   open -> half_open (open_time_over)",
            "#   half_open -> closed (probes_succeeded)",
        ]
    );
    // Before `down`: the first attempts of three calls, the broken stream, the stalled stream. The
    // last one is the certificate.
    let counted: Vec<_> = events.iter().filter_map(|event| event.strip_prefix(COUNTED)).collect();
    assert_eq!(counted[..5], ["unavailable", "unavailable", "unavailable", "unavailable", "timeout"]);
    assert_eq!(counted[5..10], ["unavailable"; 5]);
    assert_eq!(counted[10..], ["protocol"]);
    // No attempt of the stranger is repeated.
    assert_eq!(events.iter().filter(|event| event.contains("failed: ")).count(), 12);
    assert!(events.contains(&"#   the call may be made again in 10000 ms"), "{text}");
    assert_eq!(events.iter().filter(|event| event.contains("made again in ")).count(), 2);
}
