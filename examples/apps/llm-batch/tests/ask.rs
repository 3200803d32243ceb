//! The banner and the question after a trip, as a person sees them.

use llm_batch::ask::{Choice, after_trip, check_in};
use llm_batch::checkpoint::Counts;
use llm_batch::engine::TripStatus;
use serde_json::{Value, json};

const QUESTION: &str = "[C]ontinue  [A]bort  [I]nspect details\n> ";

fn status(unit: Value) -> TripStatus {
    TripStatus {
        consecutive_failures: 3,
        threshold: 3,
        is_tripped: true,
        last_error_type: Some("AuthenticationError".to_owned()),
        last_error_message: Some("Incorrect API key".to_owned()),
        last_failed_unit: Some(unit),
    }
}

fn ask(input: &[u8], unit: Value) -> (Choice, String) {
    let mut output = Vec::new();
    let counts = Counts { total: 12, processed: 6, failed: 4 };
    let choice = after_trip(&mut &*input, &mut output, &status(unit), counts).unwrap();
    (choice, String::from_utf8(output).unwrap())
}

#[test]
fn banner_has_the_error_the_unit_and_the_progress() {
    let (_, output) = ask(b"a\n", json!({"id": 7, "text": "Zoë"}));
    let line = "=".repeat(60);
    let expected = format!(
        "\n{line}\n\
         ⚠️  Circuit breaker triggered: 3 consecutive failures\n\
         {line}\n\
         Last error: AuthenticationError\n\
         Message: Incorrect API key\n\
         Failed unit: {{\"id\":7,\"text\":\"Zoë\"}}\n\
         Processed: 6/12 | Failed: 4 | Success rate: 33.3%\n\n\
         {QUESTION}"
    );
    assert_eq!(output, expected);
}

#[test]
fn unit_in_the_banner_is_cut_at_100_characters() {
    let line = |unit: Value| {
        let (_, output) = ask(b"", unit);
        output.lines().find_map(|line| line.strip_prefix("Failed unit: ")).unwrap().to_owned()
    };
    // Two quotes, and the text.
    assert_eq!(line("é".repeat(98).into()), format!("\"{}\"", "é".repeat(98)));
    assert_eq!(line("é".repeat(99).into()), format!("\"{}...", "é".repeat(99)));
}

#[test]
fn answers_are_letters_in_either_case() {
    for (input, expected) in [
        ("c\n", Choice::Continue),
        (" C \r\n", Choice::Continue),
        ("a\n", Choice::Abort),
        ("A", Choice::Abort),
        ("\n", Choice::Abort),
        ("", Choice::Abort),
    ] {
        assert_eq!(ask(input.as_bytes(), json!({})).0, expected, "{input:?}");
    }
}

#[test]
fn continue_says_that_the_job_goes_on() {
    let (_, output) = ask(b"c\n", json!({}));
    assert!(output.ends_with("> Resuming processing...\n"), "{output}");
    assert!(!ask(b"a\n", json!({})).1.contains("Resuming"));
}

#[test]
fn inspect_shows_the_whole_unit_and_asks_again() {
    let text = "日本 ".repeat(50);
    let (choice, output) = ask(b"I\nc\n", json!({"id": 7, "text": text}));
    assert_eq!(choice, Choice::Continue);
    let details = format!(
        "> Error type: AuthenticationError\n\
         Message: Incorrect API key\n\
         Failed unit:\n{{\n  \"id\": 7,\n  \"text\": \"{text}\"\n}}\n\
         {}\n{QUESTION}Resuming",
        "-".repeat(40)
    );
    assert!(output.contains(&details), "{output}");
}

#[test]
fn other_answers_are_asked_again() {
    let (choice, output) = ask(b"x\n\xff\nyes\nc\n", json!({}));
    assert_eq!(choice, Choice::Continue);
    assert_eq!(output.matches(QUESTION).count(), 4);
    assert_eq!(output.matches("> Enter c, a or i\n").count(), 3);
}

fn ask_at_check_in(input: &[u8]) -> (Choice, String) {
    let mut output = Vec::new();
    let counts = Counts { total: 12, processed: 6, failed: 3 };
    let choice = check_in(&mut &*input, &mut output, counts).unwrap();
    (choice, String::from_utf8(output).unwrap())
}

#[test]
fn check_in_continues_with_enter_and_y_and_stops_with_n() {
    for input in ["\n", "y\n", "Yes\n", "x\ny"] {
        assert_eq!(ask_at_check_in(input.as_bytes()).0, Choice::Continue, "{input:?}");
    }
    for input in ["n\n", "NO\n", "", "x\n"] {
        assert_eq!(ask_at_check_in(input.as_bytes()).0, Choice::Abort, "{input:?}");
    }
    let (_, output) = ask_at_check_in(b"\xff\nn\n");
    let question = "Continue? [Y/n] ";
    let progress = "Processed: 6/12 | Failed: 3 | Success rate: 50.0%";
    assert_eq!(output, format!("{progress}\n{question}Enter y or n\n{question}"));
}
