use integration_tests::text_of_example;

#[test]
fn hyper_example_replays_stream_and_opens_circuit() {
    let text = text_of_example("hyper");
    let said: Vec<_> = text.lines().collect();
    let read = "function: read 16 bytes, and failed";
    let wanted = [
        "hyper: attempt 3 of PUT was told \"to be sent again\"",
        "hyper: the circuit is closed",
        read,
        read,
        read,
        "function: PUT failed; the circuit is closed",
        read,
        "function: POST failed; the circuit is open",
        "function: POST failed; the circuit is open",
    ];
    assert_eq!(said, wanted);
}
