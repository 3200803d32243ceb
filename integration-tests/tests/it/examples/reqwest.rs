use integration_tests::text_of_example;

/// Returns the lines of the program's output before the error of the settings, and this error.
fn output() -> (Vec<String>, String) {
    let text = text_of_example("reqwest");
    let (lines, error) = text.split_once("invalid settings: ").expect("the bad value is an error");
    (lines.lines().map(ToOwned::to_owned).collect(), error.to_owned())
}

#[test]
fn reqwest_example_applies_settings_of_requests_and_hosts() {
    let (lines, error) = output();
    assert_eq!(
        lines[..6],
        [
            "GET /price: status 200, 3 attempt(s), 0 bytes",
            "PUT /archive: status 200, 1 attempt(s), 23 bytes",
            "POST /confirmation: status 200, 2 attempt(s), 0 bytes",
            "GET /report: no response in time",
            "POST /order: status 500, 1 attempt(s), 0 bytes",
            "POST /order: status 500, 1 attempt(s), 0 bytes",
        ]
    );
    let rejected = "POST /order: not sent: circuit breaker `shop` for key `orders.example` is open";
    assert!(lines[6].starts_with(rejected), "{lines:?}");
    assert_eq!(lines[7], "POST /confirmation: status 200, 1 attempt(s), 0 bytes");
    assert!(lines[8].starts_with("last failure: POST /order: "), "{lines:?}");
    assert_eq!(
        lines[9..],
        [
            "POST /order: status 200, 1 attempt(s), 0 bytes",
            "orders.example is half_open",
            "POST /order: status 200, 1 attempt(s), 0 bytes",
            "orders.example is closed",
        ]
    );
    assert!(error.contains("failure_rate = 1.5") && error.contains("0.0 to 1.0"), "{error}");
}
