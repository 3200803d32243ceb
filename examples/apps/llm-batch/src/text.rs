//! Texts in messages.

/// The largest number of characters of a text in a message.
const EXCERPT: usize = 100;

/// Returns a word of a command line as a shell reads it: in single quotes if it needs them.
pub(crate) fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns a number of items, such as `1 item`.
pub(crate) fn items(number: usize) -> String {
    let noun = if number == 1 { "item" } else { "items" };
    format!("{number} {noun}")
}

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
    use std::process::Command;

    use super::*;

    #[test]
    fn shell_reads_the_words_that_were_given() {
        for word in ["plain-1_a/b.c", "two words", "it's", "$HOME", "a;b", "", "größe", "~", "\n"] {
            let command = format!("printf %s {}", shell_word(word));
            let output = Command::new("sh").args(["-c", &command]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{command}");
        }
        assert_eq!(shell_word(".checkpoints/a-1"), ".checkpoints/a-1");
    }

    #[test]
    fn excerpt_is_one_line_cut_at_100_characters() {
        assert_eq!(excerpt(" <html>\r\n  <body> "), "<html> <body>");
        assert_eq!(excerpt(&"é".repeat(100)), "é".repeat(100));
        assert_eq!(excerpt(&"é".repeat(101)), format!("{}...", "é".repeat(100)));
        assert_eq!(excerpt(&"a ".repeat(99)).len(), 103);
        assert_eq!(excerpt(""), "");
    }
}
