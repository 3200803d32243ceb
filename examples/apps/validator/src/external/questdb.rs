//! Results as lines of QuestDB's protocol (ILP), over TCP.

use std::fmt::Write;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::error::CheckError;
use crate::result::Report;

/// Returns a row of the table `validation` for each result. QuestDB sets the time of a row when
/// it receives the line.
pub(super) fn lines(report: &Report) -> String {
    let mut lines = String::new();
    for result in &report.results {
        let (tier, passed) = (result.tier, result.passed);
        let dimension = escape_symbol(&result.dimension);
        let message = escape_string(&result.message);
        // Writing to a string does not fail.
        let _ = writeln!(
            lines,
            "validation,dimension={dimension} tier={tier}i,passed={passed},message=\"{message}\""
        );
    }
    lines
}

/// Sends lines. The protocol has no answer, so a line that QuestDB refuses is not reported.
pub(super) async fn send(address: &str, lines: &str) -> Result<(), CheckError> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(lines.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Escapes a symbol: a space, a comma, an equals sign or a line break would end it.
fn escape_symbol(text: &str) -> String {
    escape(text, &['\\', ' ', ',', '=', '\n', '\r'])
}

/// Escapes the content of a quoted string.
fn escape_string(text: &str) -> String {
    escape(text, &['\\', '"', '\n', '\r'])
}

fn escape(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if special.contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Details, ValidationResult, Verdict};

    #[test]
    fn line_escapes_symbols_and_strings() {
        let verdict =
            Verdict { passed: false, message: "a \"b\", \\c\nd".to_owned(), details: Details::new() };
        let result = ValidationResult::from_verdict("code quality=1,x", 2, verdict);
        let lines = lines(&Report::new(vec![result]));
        assert_eq!(
            lines,
            "validation,dimension=code\\ quality\\=1\\,x tier=2i,passed=false,message=\"a \\\"b\\\", \\\\c\\\nd\"\n"
        );
    }
}
