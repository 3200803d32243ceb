//! The units of a job: its items, and their results.

use serde_json::{Map, Value};

/// An item of the input, or the result of an item.
pub type Unit = Map<String, Value>;

/// The field of a result with the position of its item in the input, from 0.
pub const IDX: &str = "_idx";

/// The field of a result whose item was not answered. Its value is the error's text.
pub const ERROR: &str = "error";

/// The field of a result whose reply does not parse. Its value is the reason.
pub const PARSE_ERROR: &str = "parse_error";

/// The field of a result with the number of replies, if none of them parses.
pub const ATTEMPTS: &str = "_attempts";

/// The field of a result that is `true` if no reply parses and the item is not asked again.
pub const RETRIES_EXHAUSTED: &str = "_retries_exhausted";

/// The field of a result with those fields of its item that have reserved names.
pub const INPUT: &str = "_input";

/// The fields that only the program sets. A reply with one of them is not merged into its item.
pub(crate) const RESERVED: [&str; 6] = [IDX, ERROR, PARSE_ERROR, ATTEMPTS, RETRIES_EXHAUSTED, INPUT];

/// Returns the position of the result's item in the input.
pub fn index(result: &Unit) -> Option<usize> {
    usize::try_from(result.get(IDX)?.as_u64()?).ok()
}

/// Returns whether the item of the result failed: whether the result has an `error` or a
/// `parse_error`.
pub fn is_failed(result: &Unit) -> bool {
    [ERROR, PARSE_ERROR].iter().any(|name| result.get(*name).is_some_and(|value| !value.is_null()))
}

/// Moves the fields with reserved names into the field `_input`.
///
/// An item with a field `error` of its own is therefore no failed item, and nothing of it is lost.
pub fn move_reserved_fields(item: &mut Unit) {
    let mut moved = Unit::new();
    for name in RESERVED {
        if let Some(value) = item.shift_remove(name) {
            moved.insert(name.to_owned(), value);
        }
    }
    if !moved.is_empty() {
        item.insert(INPUT.to_owned(), moved.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn unit(value: Value) -> Unit {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn index_is_a_whole_number() {
        assert_eq!(index(&unit(json!({"_idx": 7}))), Some(7));
        for value in [json!({}), json!({"_idx": -1}), json!({"_idx": 1.5}), json!({"_idx": "7"})] {
            assert_eq!(index(&unit(value.clone())), None, "{value}");
        }
    }

    #[test]
    fn error_and_parse_error_are_failures() {
        assert!(is_failed(&unit(json!({"error": "x"}))));
        assert!(is_failed(&unit(json!({"parse_error": "x"}))));
        assert!(!is_failed(&unit(json!({"error": null, "text": "error"}))));
    }

    #[test]
    fn reserved_fields_of_an_item_are_moved_and_kept() {
        let mut item = unit(json!({"a": 1, "_idx": "x", "error": "of the item", "_input": 2, "b": 3}));
        move_reserved_fields(&mut item);
        let expected = json!({"a": 1, "b": 3, "_input": {"_idx": "x", "error": "of the item", "_input": 2}});
        assert_eq!(Value::from(item.clone()).to_string(), expected.to_string());
        assert!(!is_failed(&item));
    }

    #[test]
    fn item_without_reserved_fields_is_unchanged() {
        let mut item = unit(json!({"a": 1}));
        move_reserved_fields(&mut item);
        assert_eq!(item, unit(json!({"a": 1})));
    }
}
