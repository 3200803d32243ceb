//! The result of a unit.

use serde_json::{Value, json};

use crate::fake::{Fake, concurrent, engine, failed, good, run, sequential, unit};

/// Returns the result of one unit at position 7.
async fn result_of(client: &Fake, item: Value) -> Value {
    let engine = engine(client, &sequential(5)).model_field(Some("model".to_owned()));
    let mut outcome = run(&engine, vec![(7, unit(item))]).await;
    assert!(outcome.end.is_none());
    assert_eq!(outcome.results.len(), 1);
    outcome.results.remove(0)
}

#[tokio::test(start_paused = true)]
async fn reply_is_merged_into_the_unit() {
    let client = Fake::new(|_, _| good());
    let result = result_of(&client, json!({"id": "x", "q": "?"})).await;
    assert_eq!(result.to_string(), r#"{"id":"x","q":"?","answer":42,"_idx":7}"#);
}

#[tokio::test(start_paused = true)]
async fn failed_unit_has_its_fields_and_the_error() {
    let client = Fake::new(|_, _| Err(failed()));
    let result = result_of(&client, json!({"id": "x", "q": "?"})).await;
    assert_eq!(result, json!({"id": "x", "q": "?", "error": "InternalServerError: try later", "_idx": 7}));
    assert_eq!(client.log().prompts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reply_that_does_not_parse_is_asked_for_three_times() {
    let client = Fake::new(|_, _| Ok("no JSON".to_owned()));
    let result = result_of(&client, json!({"q": "?"})).await;
    assert_eq!(client.log().prompts, ["?", "?", "?"]);
    assert_eq!(result["_retries_exhausted"], true);
    assert_eq!(result["_attempts"], 3);
    assert_eq!(result["raw_result"], "no JSON");
    assert!(result["parse_error"].as_str().unwrap().contains("no JSON"), "{result}");
}

#[tokio::test(start_paused = true)]
async fn reply_that_parses_at_the_third_attempt_is_a_result() {
    let client = Fake::new(|_, earlier_calls| if earlier_calls < 2 { Ok(String::new()) } else { good() });
    let result = result_of(&client, json!({"q": "?"})).await;
    assert_eq!(result, json!({"q": "?", "answer": 42, "_idx": 7}));
}

#[tokio::test(start_paused = true)]
async fn zero_parse_error_retries_ask_once() {
    let client = Fake::new(|_, _| Ok("no JSON".to_owned()));
    let mut config = concurrent(2, 5);
    config.parse_error_retries = 0;
    let outcome = run(&engine(&client, &config), vec![(0, unit(json!({"q": "?"})))]).await;
    assert_eq!(outcome.results[0]["_attempts"], 1);
    assert_eq!(client.log().prompts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn unit_without_a_field_of_the_template_fails_without_a_call() {
    let client = Fake::new(|_, _| good());
    let result = result_of(&client, json!({"id": "x"})).await;
    assert!(result["error"].as_str().unwrap().contains("no field `q`"), "{result}");
    assert_eq!((&result["id"], &result["_idx"]), (&json!("x"), &json!(7)));
    assert!(client.log().prompts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn unit_names_its_model() {
    let client = Fake::new(|_, _| good());
    result_of(&client, json!({"q": "?", "model": "large"})).await;
    result_of(&client, json!({"q": "?", "model": null})).await;
    result_of(&client, json!({"q": "?"})).await;
    assert_eq!(client.log().models, [Some("large".to_owned()), None, None]);

    for model in [json!(3), json!("")] {
        let result = result_of(&client, json!({"q": "?", "model": model})).await;
        let expected = "the item's field `model` is not the name of a model; write a text, or remove it";
        assert_eq!(result["error"], expected);
    }
    assert_eq!(client.log().prompts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn fields_with_reserved_names_are_kept_apart() {
    let client = Fake::new(|ask, _| Ok(json!({"answer": ask.prompt}).to_string()));
    let item = json!({"q": "?", "_idx": "own", "error": "of the item"});
    let result = result_of(&client, item).await;
    let expected = json!({
        "q": "?", "_input": {"_idx": "own", "error": "of the item"}, "answer": "?", "_idx": 7,
    });
    assert_eq!(result, expected);
}
