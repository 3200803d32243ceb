//! Arguments, configuration and input that cannot be used: exit code 2, and no request.

use serde_json::{Value, json};

use crate::support::{Finished, Setup, error, run};

/// Runs the program with this input. Nothing may be sent or left behind.
async fn refused(setup: &Setup, arguments: &[String]) -> Finished {
    let program = setup.run(arguments, "").await;
    program.expect_code(2);
    assert_eq!(setup.api.requests().len(), 0, "{program:#?}");
    assert!(!setup.exists("out.jsonl"));
    assert!(!setup.exists(".checkpoints/job.checkpoint.json"));
    program
}

#[tokio::test]
async fn missing_input_is_named() {
    let setup = Setup::new(0).await;
    let arguments = setup.arguments(&["process", "missing.jsonl", "out.jsonl", "--prompt", "p"], &[]);
    refused(&setup, &arguments).await.expect_stderr("`missing.jsonl`").expect_stderr("No such file");
}

#[tokio::test]
async fn directory_as_input_is_named() {
    let setup = Setup::new(0).await;
    let arguments = setup.arguments(&["process", ".", "out.jsonl", "--prompt", "p"], &[]);
    refused(&setup, &arguments).await.expect_stderr("`.`").expect_stderr("Is a directory");
}

#[tokio::test]
async fn empty_input_is_an_error() {
    let setup = Setup::new(0).await;
    refused(&setup, &setup.process(&[])).await.expect_stderr("the file has no item");
}

#[tokio::test]
async fn invalid_json_on_line_7_is_named() {
    let setup = Setup::new(0).await;
    let line = |number| if number == 7 { "{\"name\": \"x\"\n" } else { "{\"name\": \"x\"}\n" };
    setup.write("in.jsonl", &(1..=10).map(line).collect::<String>());
    refused(&setup, &setup.process(&[])).await.expect_stderr("`in.jsonl` cannot be used: line 7, column 12");
}

#[tokio::test]
async fn item_without_field_of_prompt_is_named() {
    let setup = Setup::new(0).await;
    setup.write("in.jsonl", "{\"name\": \"x\"}\n{\"nam\": \"x\"}\n");
    let program = refused(&setup, &setup.process(&[])).await;
    program.expect_stderr("`in.jsonl` cannot be used: line 2").expect_stderr("field `name`");
}

#[tokio::test]
async fn invalid_prompt_is_refused() {
    let setup = Setup::new(1).await;
    let process = |prompt| setup.arguments(&["process", "in.jsonl", "out.jsonl", "--prompt", prompt], &[]);
    refused(&setup, &process("{name")).await.expect_stderr("`{`");
    refused(&setup, &process("@missing.txt")).await.expect_stderr("`missing.txt`");
}

#[tokio::test]
async fn invalid_configuration_is_refused() {
    let setup = Setup::new(1).await;
    setup.write("unknown.toml", "[processing]\nbatchsize = 3\n");
    setup.write("range.json", "{\"processing\": {\"max_retries\": 0}}");
    let config = |path| setup.process(&["--config", path]);
    refused(&setup, &config("unknown.toml")).await.expect_stderr("`unknown.toml`").expect_stderr("batchsize");
    refused(&setup, &config("range.json")).await.expect_stderr("max_retries").expect_stderr("1 to 1000");
    refused(&setup, &config("missing.toml")).await.expect_stderr("`missing.toml`");
    refused(&setup, &setup.process(&["--batch-size", "0"])).await.expect_stderr("batch_size");
    refused(&setup, &setup.process(&["--batch-size", "many"])).await.expect_stderr("--batch-size");
}

#[tokio::test]
async fn missing_key_names_the_variable_of_the_api() {
    let setup = Setup::new(1).await;
    let words = |api| ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--api", api].map(str::to_owned);
    refused(&setup, &words("openai")).await.expect_stderr("OPENAI_API_KEY");
    refused(&setup, &words("anthropic")).await.expect_stderr("ANTHROPIC_API_KEY");
}

#[tokio::test]
async fn empty_variable_is_no_key_and_empty_flag_is() {
    let setup = Setup::new(1).await;
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--base-url"].map(str::to_owned);
    let mut command = setup.command(&words);
    command.arg(setup.api.url().trim_end_matches('/')).env("OPENAI_API_KEY", "");
    run(command, "").await.expect_code(2).expect_stderr("OPENAI_API_KEY");
    let mut command = setup.command(&words);
    command.arg(setup.api.url().trim_end_matches('/')).args(["--api-key", ""]);
    run(command, "").await.expect_code(0);
    assert!(!setup.api.requests()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn invalid_key_is_not_printed() {
    let setup = Setup::new(1).await;
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--api-key", "sk-\u{1}secret"];
    let program = refused(&setup, &words.map(str::to_owned)).await;
    program.expect_stderr("the API key");
    assert!(!program.stderr.contains("secret"), "{program:#?}");
}

#[tokio::test]
async fn input_as_output_is_refused() {
    let setup = Setup::new(1).await;
    let before = setup.read("in.jsonl");
    let words = ["process", "in.jsonl", "./in.jsonl", "--prompt", "p"];
    refused(&setup, &setup.arguments(&words, &[])).await.expect_stderr("`./in.jsonl` is the input");
    assert_eq!(setup.read("in.jsonl"), before);
}

#[tokio::test]
async fn key_is_read_from_the_environment_and_prompt_from_a_file() {
    let setup = Setup::new(1).await;
    setup.write("prompt.txt", "Describe {name}: {{}}");
    let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "@prompt.txt", "--base-url"];
    let mut command = setup.command(&words.map(str::to_owned));
    command.arg(setup.api.url().trim_end_matches('/')).env("OPENAI_API_KEY", "sk-environment");
    run(command, "").await.expect_code(0);
    let requests = setup.api.requests();
    assert_eq!(requests[0].headers["authorization"], "Bearer sk-environment");
    let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(body["messages"], json!([{ "role": "user", "content": "Describe item 0: {}" }]));
}

#[tokio::test]
async fn flag_wins_over_file_and_file_over_default() {
    let setup = Setup::new(1).await;
    setup.write("agents.toml", "[llm]\nmodel = \"of the file\"\ntemperature = 0.1\n");
    let arguments = setup.process(&["--config", "agents.toml", "--model", "of the flag"]);
    setup.run(&arguments, "").await.expect_code(0);
    let body: Value = serde_json::from_slice(&setup.api.requests()[0].body).unwrap();
    assert_eq!(body["model"], "of the flag");
    assert_eq!(body["temperature"], 0.1);
    assert_eq!(body["max_tokens"], 1500);
}

#[tokio::test]
async fn unknown_model_is_named_and_trips() {
    let setup = Setup::new(5).await;
    setup.api.set_default(error(404, "model_not_found", "The model `gpt-0` does not exist"));
    let arguments = setup.process(&["--model", "gpt-0", "--circuit-breaker", "2", "--batch-size", "1"]);
    let program = setup.run(&arguments, "a\n").await;
    program.expect_code(3).expect_stdout("NotFoundError").expect_stdout("The model `gpt-0` does not exist");
    assert_eq!(setup.api.requests().len(), 2);
}

#[tokio::test]
async fn used_up_quota_stops_at_once() {
    let setup = Setup::new(5).await;
    setup.api.set_default(error(429, "insufficient_quota", "You exceeded your current quota"));
    let program = setup.run(&setup.process(&["--batch-size", "1"]), "").await;
    program
        .expect_code(4)
        .expect_stdout("You exceeded your current quota")
        .expect_stdout("agents resume job");
    assert_eq!(setup.api.requests().len(), 1);
}
