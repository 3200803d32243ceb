use serde_json::json;

use super::*;

fn unit() -> Map<String, Value> {
    fields(json!({ "id": 7, "text": "old" }))
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is not an object"),
    }
}

fn result(reply: &str, config: &ProcessingConfig) -> Value {
    result_of(&unit(), reply, config).expect("the reply parses").into()
}

#[test]
fn reply_json_is_found() {
    let wanted = json!({ "a": [1, { "b": "}" }] });
    for reply in [
        r#"{"a":[1,{"b":"}"}]}"#,
        "\n {\"a\": [1, {\"b\": \"}\"}]} \n",
        "```json\n{\"a\": [1, {\"b\": \"}\"}]}\n```",
        "Sure:\n```\n{\"a\": [1, {\"b\": \"}\"}]}\n```\nDone [1].",
        "```sh\nls\n```\nand\n```JSON\n{\"a\": [1, {\"b\": \"}\"}]}\n```",
        "As in [1] and {2}: {\"a\": [1, {\"b\": \"}\"}]}. Is {it} [good]?",
        "```{\"a\":[1,{\"b\":\"}\"}]}```",
        "```json\n{\"a\": [1, {\"b\": \"}\"}]}",
    ] {
        assert_eq!(extract_json(reply), Ok(wanted.clone()), "{reply}");
    }
    assert_eq!(extract_json("rows: [{\"a\": 1}, {\"a\": 2}]"), Ok(json!([{ "a": 1 }, { "a": 2 }])));
    assert_eq!(extract_json("\"text\""), Ok(json!("text")));
    assert_eq!(extract_json("```\n42\n```"), Ok(json!(42)));
}

#[test]
fn reply_without_json_is_an_error() {
    for reply in ["", "Sorry, I cannot.", "{\"a\": ", "{a: 1}", "```json\n{\n```", "]["] {
        let error = extract_json(reply).expect_err(reply);
        assert!(error.to_string().starts_with("the reply contains no JSON: `"), "{error}");
    }
    let long = extract_json(&"no ".repeat(1000)).expect_err("it is no JSON");
    assert!(long.to_string().len() < 200, "{long}");
}

#[test]
fn reply_of_unclosed_brackets_is_an_error() {
    for piece in ["[", "{\"a\":", "[1,", "{\"[\":\""] {
        assert!(extract_json(&piece.repeat(5_000)).is_err(), "{piece}");
    }
}

#[test]
fn reply_object_is_merged() {
    let config = ProcessingConfig::default();
    assert_eq!(result("{\"text\": \"new\", \"b\": 2}", &config), json!({ "id": 7, "text": "new", "b": 2 }));
    assert_eq!(result("[1]", &config), json!({ "id": 7, "text": "old", "result": [1] }));
}

#[test]
fn reply_object_with_reserved_field_is_not_merged() {
    let config = ProcessingConfig::default();
    for field in RESERVED {
        let reply = json!({ field: "x", "b": 2 });
        let expected = json!({ "id": 7, "text": "old", "result": reply });
        assert_eq!(result(&reply.to_string(), &config), expected);
    }
}

#[test]
fn reply_is_not_merged_without_merge_results() {
    let config = ProcessingConfig { merge_results: false, ..ProcessingConfig::default() };
    assert_eq!(result("{\"b\": 2}", &config), json!({ "id": 7, "text": "old", "result": { "b": 2 } }));
}

#[test]
fn reply_is_kept_as_text_without_post_process() {
    let config = ProcessingConfig { post_process: false, ..ProcessingConfig::default() };
    assert_eq!(result("{\"b\": 2}", &config), json!({ "id": 7, "text": "old", "result": "{\"b\": 2}" }));
    assert_eq!(result("", &config), json!({ "id": 7, "text": "old", "result": "" }));
}

#[test]
fn reply_text_is_included_with_include_raw_result() {
    let config = ProcessingConfig { include_raw_result: true, ..ProcessingConfig::default() };
    assert_eq!(
        result("so: {\"b\": 2}", &config),
        json!({ "id": 7, "text": "old", "b": 2, "raw_result": "so: {\"b\": 2}" })
    );
}

#[test]
fn reply_unparsed_has_error_and_text() {
    let error = extract_json("no").expect_err("it is no JSON");
    let result = Value::from(unparsed(&unit(), "no", &error));
    let text = "the reply contains no JSON: `no`; ask for JSON or use --no-post-process";
    assert_eq!(result, json!({ "id": 7, "text": "old", "parse_error": text, "raw_result": "no" }));
}
