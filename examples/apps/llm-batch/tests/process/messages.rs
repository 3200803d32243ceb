//! What the program prints for people.

use serde_json::Value;

use crate::support::{Setup, run};

#[tokio::test]
async fn logs_have_no_colours_without_a_terminal() {
    let setup = Setup::new(1).await;
    let mut command = setup.command(&setup.process(&[]));
    command.env("RUST_LOG", "debug").env_remove("NO_COLOR");
    let program = run(command, "").await;
    program.expect_code(0).expect_stderr("DEBUG");
    assert!(!program.stderr.contains('\u{1b}'), "{program:?}");
}

#[tokio::test]
async fn one_item_is_not_called_items() {
    let setup = Setup::new(1).await;
    setup
        .run(&setup.process(&[]), "")
        .await
        .expect_stdout("Job job: 1 item\n")
        .expect_stdout("finished: 1 item,");
    let setup = Setup::new(2).await;
    setup.run(&setup.process(&[]), "").await.expect_stdout("Job job: 2 items\n").expect_stdout("2 items,");
}

#[tokio::test]
async fn negative_number_names_flag_and_range() {
    let setup = Setup::new(1).await;
    for (flag, value, problem) in [
        ("--temperature", "-1", "`temperature` is -1.0; allowed is 0 to 2"),
        ("--batch-size", "-1", "'--batch-size <N>': allowed is 1 to 10000"),
        ("--max-tokens", "5000000000", "'--max-tokens <N>': allowed is 1 to 4294967295"),
        ("--max-retries", "-1", "'--max-retries <N>': allowed is 1 to 1000"),
        ("--parse-error-retries", "-1", "allowed is 0 to 100"),
        ("--checkin-interval", "-1", "allowed is 1 or more"),
        ("--circuit-breaker", "-1", "allowed is 0 to 4294967295"),
        ("--timeout", "-1", "not a time in seconds"),
    ] {
        setup.run(&setup.process(&[flag, value]), "").await.expect_code(2).expect_stderr(problem);
    }
    assert_eq!(setup.api.requests().len(), 0);
}

#[tokio::test]
async fn prompt_without_a_field_is_warned_of() {
    let setup = Setup::new(2).await;
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "Classify {{name}}."];
    let program = setup.run(&setup.arguments(&words, &["--json"]), "").await;
    program.expect_code(0).expect_stderr("warning: the prompt uses no field of the items");
    for line in program.stdout.lines() {
        serde_json::from_str::<Value>(line).expect(line);
    }
    let program = setup.run(&setup.process(&[]), "").await;
    assert!(!program.stderr.contains("warning"), "{program:?}");
}

#[tokio::test]
async fn model_field_that_no_item_has_is_warned_of() {
    let setup = Setup::new(2).await;
    let program = setup.run(&setup.process(&["--model-field", "llm"]), "").await;
    program
        .expect_code(0)
        .expect_stderr("warning: no item has the field `llm`")
        .expect_stderr("`gpt-4o-mini`");
    // One item with the field is enough.
    setup.write("in.jsonl", "{\"name\":\"a\",\"llm\":\"large\"}\n{\"name\":\"b\"}\n");
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "{name}", "--model-field", "llm"];
    let program = setup.run(&setup.arguments(&words, &[]), "").await;
    assert!(!program.stderr.contains("warning"), "{program:?}");
}
