//! Prompts that contain the results of other tasks.
//!
//! `{results.ID}` in a prompt is replaced by the answer of the task `ID`. The prompt's task must
//! depend on that task. An answer is inserted unchanged: a placeholder in it is not replaced.

const START: &str = "{results.";

/// Returns the IDs of the tasks whose results a prompt contains.
pub fn references(prompt: &str) -> Vec<&str> {
    let mut ids = Vec::new();
    let mut rest = prompt;
    while let Some((_, id, after)) = split_placeholder(rest) {
        ids.push(id);
        rest = after;
    }
    ids
}

/// Replaces the placeholders of a prompt. A placeholder without a result stays unchanged.
pub fn fill<'a>(prompt: &str, result: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut filled = String::new();
    let mut rest = prompt;
    while let Some((before, id, after)) = split_placeholder(rest) {
        filled.push_str(before);
        match result(id) {
            Some(text) => filled.push_str(text),
            None => filled.push_str(&rest[before.len()..rest.len() - after.len()]),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Splits a text into the part before its first placeholder, the ID, and the rest.
fn split_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(START)?;
    let (id, after) = rest.split_once('}')?;
    Some((before, id, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once() {
        let result = |id: &str| match id {
            "a" => Some("{results.b}"),
            "b" => Some("two"),
            _ => None,
        };
        let prompt = "1: {results.a} 2: {results.b} 3: {results.c} {results.a";
        assert_eq!(references(prompt), ["a", "b", "c"]);
        assert_eq!(fill(prompt, result), "1: {results.b} 2: two 3: {results.c} {results.a");
    }
}
