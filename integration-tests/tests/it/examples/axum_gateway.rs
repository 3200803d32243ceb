use integration_tests::text_of_example;

/// Returns the lines of one part of the demonstration, which begins with its heading.
fn part<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert_eq!(lines.next(), Some(heading), "{text}");
    lines.take_while(|line| !line.is_empty()).collect()
}

fn assert_starts_with(line: &str, start: &str) {
    assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
}

#[test]
fn axum_gateway_reloads_settings_and_obeys_operator() {
    let text = text_of_example("axum_gateway");
    let rejected =
        "PUT /prices/1: 503 Service Unavailable with Retry-After \"circuit breaker `upstreams` is open";

    let down = part(&text, "the prices are down");
    assert_eq!(
        down[..8],
        [
            "PUT /orders/1: 200 OK \"order of 5 bytes accepted\"",
            "# prices: unavailable (origin: remote), 1 in a row",
            "PUT /prices/1: 503 Service Unavailable \"\"",
            "# prices: unavailable (origin: remote), 2 in a row",
            "PUT /prices/1: 503 Service Unavailable \"\"",
            "# prices: closed -> open (consecutive_failures)",
            "# prices: unavailable (origin: remote), 3 in a row",
            "PUT /prices/1: 503 Service Unavailable \"\"",
        ]
    );
    assert_starts_with(down[8], rejected);
    assert_eq!(down[9], "GET /ready: 200 OK \"open circuits: prices\"");
    assert_starts_with(down[10], "\"prices\" is \"open\", last failure: http://127.0.0.1:");
    assert!(down[10].ends_with("/1"), "{text}");

    let changed = part(&text, "the settings change while the gateway runs");
    assert_eq!(changed[0], "# the settings were reloaded");
    assert_starts_with(changed[1], rejected);

    let invalid = part(&text, "an invalid file changes nothing");
    assert!(invalid.iter().any(|line| line.contains("open_for` is \"10\"; allowed is")), "{text}");
    assert!(text.contains("\nmax_attempts is 2\n"), "{text}");

    let back =
        part(&text, "the prices are back, and the operator does not wait for the end of the open time");
    assert_eq!(
        back,
        [
            "# prices: open -> half_open (probe_requested)",
            "POST /upstreams/prices/probe_now: 200 OK, the circuit is \"half_open\"",
            "PUT /prices/1: 200 OK \"\"",
            "# prices: half_open -> closed (probes_succeeded)",
            "PUT /prices/1: 200 OK \"\"",
        ]
    );

    let maintenance = part(&text, "the operator takes the orders out of service");
    assert_starts_with(
        maintenance[2],
        "PUT /orders/1: 503 Service Unavailable with Retry-After \"circuit breaker `upstreams` is forced open",
    );
    assert_eq!(maintenance[3], "GET /ready: 503 Service Unavailable \"open circuits: orders\"");

    let shutdown = part(&text, "the gateway shuts down while a request is running");
    assert_eq!(shutdown, ["PUT /orders/slow: 200 OK \"slow order accepted\""]);
}
