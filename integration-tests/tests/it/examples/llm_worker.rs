use integration_tests::text_of_example;

/// Returns the lines that start with `name`, and the notifications on it.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.trim_start_matches("# ").starts_with(name)).collect()
}

#[test]
fn llm_worker_waits_resends_reports_and_stops() {
    let text = text_of_example("llm_worker");

    let mut small = lines(&text, "small: ");
    let broken = small.remove(5);
    assert!(broken.starts_with("small: break later: \"Once upon\", then: error decoding "), "{broken}");
    assert_eq!(
        small,
        [
            "small: answer: \"Once upon a time\", 1 attempt(s)",
            "# small: failure (timeout)",
            "# small: failure (transient)",
            "small: stall, break, answer: \"Once upon a time\", 3 attempt(s)",
            // The stream that breaks after its first event. It is not sent again.
            "# small: failure (transient)",
            // The row of `model_loading`: sent again, and no failure.
            "small: load, answer: \"Once upon a time\", 2 attempt(s)",
            "small: too long: client (origin: caller), set aside",
            "# small: failure (overloaded)",
            "small: error later: \"Once upon\", then: overloaded (origin: remote)",
            // The circuit counts the stall, and the reader gets what follows.
            "# small: failure (timeout)",
            "small: stall later: \"Once upon a time\", 1 attempt(s)",
        ]
    );

    let mut large = lines(&text, "large: ");
    let rejected = large.remove(5);
    let rejection =
        "large: overloaded three times: circuit breaker `llm` for key `large` is open; retry after ";
    assert!(rejected.starts_with(rejection), "{rejected}");
    assert_eq!(
        large,
        [
            "# large: failure (overloaded)",
            "# large: failure (overloaded)",
            "# large: closed -> open",
            "# large: failure (overloaded)",
            "large: overloaded three times: overloaded (origin: remote), will be sent later",
            "# large: open -> half_open",
            "large: overloaded three times: \"Once upon a time\", 1 attempt(s)",
            "# large: half_open -> closed",
            "large: answer: \"Once upon a time\", 1 attempt(s)",
            "large: no quota: quota (origin: remote), 2 prompt(s) left",
        ]
    );

    assert_eq!(
        lines(&text, "prompt-"),
        [
            "prompt-1: answered",
            "prompt-2: overloaded (origin: remote), next batch",
            "prompt-3: context_length_exceeded, set aside",
            "prompt-4: model_not_found, set aside",
        ]
    );
}
