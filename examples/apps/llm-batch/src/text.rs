//! Texts in messages.

/// The largest number of characters of a text in a message.
const EXCERPT: usize = 100;

/// Returns the beginning of a text in one line, cut at 100 characters and `...`.
pub(crate) fn excerpt(text: &str) -> String {
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if let Some((end, _)) = words.char_indices().nth(EXCERPT) {
            words.truncate(end);
            words.push_str("...");
            break;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpt_is_one_line_cut_at_100_characters() {
        assert_eq!(excerpt(" <html>\r\n  <body> "), "<html> <body>");
        assert_eq!(excerpt(&"é".repeat(100)), "é".repeat(100));
        assert_eq!(excerpt(&"é".repeat(101)), format!("{}...", "é".repeat(100)));
        assert_eq!(excerpt(&"a ".repeat(99)).len(), 103);
        assert_eq!(excerpt(""), "");
    }
}
