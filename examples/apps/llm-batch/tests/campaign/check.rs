//! Checks the files of a campaign and the counts of its API, and reports them.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Map, Value, json};
use test_servers::PromptCounts;

use crate::style::STYLES;
use crate::{Campaign, MAX_RETRIES, PARSE_ERROR_RETRIES};

type Unit = Map<String, Value>;

impl Campaign {
    /// Checks that no item was sent after its result was written, and notes the items that are
    /// finished now.
    ///
    /// Only the last line may be broken, because the killed process may have begun it.
    pub(crate) fn check_finished_items(&mut self) {
        let text = fs::read(self.results_file()).unwrap();
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        for result in parse_lines(str::from_utf8(&text[..end]).unwrap()) {
            if is_good(&result) {
                let prompt = format!("Item {}", result["_idx"]);
                let counts = self.llm.counts(&prompt);
                let noted = *self.finished.entry(prompt.clone()).or_insert(counts);
                assert_eq!(counts, noted, "{prompt} was sent after its result was written");
            }
        }
    }

    /// Checks that no result is lost or repeated, and that no item was sent too often.
    pub(crate) fn check(&mut self) {
        self.check_finished_items();
        self.check_output();
        self.check_good_lines();
        self.check_requests();
        assert!(self.results.iter().all(|count| *count > 0), "results in each style: {:?}", self.results);
    }

    /// The output has one good result for each item, in the order of the input.
    fn check_output(&self) {
        let results = parse_lines(&fs::read_to_string(self.folder.path().join("output.jsonl")).unwrap());
        assert_eq!(results.len(), self.plan.items);
        for (id, result) in results.into_iter().enumerate() {
            let expected = json!({ "id": id, "echo": format!("Item {id}"), "_idx": id });
            assert_eq!(Value::from(result), expected);
        }
    }

    /// The results file has one good line for each item, and it is the last one of the item.
    fn check_good_lines(&self) {
        let text = fs::read_to_string(self.results_file()).unwrap();
        assert!(text.ends_with('\n'));
        let mut lines: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for result in parse_lines(&text) {
            lines.entry(result["_idx"].as_u64().unwrap()).or_default().push(is_good(&result));
        }
        assert_eq!(lines.len(), self.plan.items);
        for (id, lines) in lines {
            let good = lines.iter().filter(|is_good| **is_good).count();
            assert_eq!((good, lines.last()), (1, Some(&true)), "item {id}");
        }
    }

    fn check_requests(&self) {
        assert!(self.kills > 0, "the process was killed before it had finished");
        // An answer is repeated only if its call was in flight when the process was killed.
        assert!(self.repeated_answers() <= self.kills * self.plan.batch_size, "{}", self.repeated_answers());
        // An open circuit ends the attempts of a call. The engine then makes the call again.
        let calls = (1 + PARSE_ERROR_RETRIES) as usize * self.runs + self.openings;
        let most = calls * MAX_RETRIES as usize;
        for (prompt, counts) in self.llm.all_counts() {
            assert!(counts.answered >= 1, "{prompt}");
            assert!(counts.requests as usize <= most, "{prompt}: {counts:?}, at most {most}");
        }
    }

    /// Returns the number of lines of the results file.
    fn lines(&self) -> usize {
        fs::read_to_string(self.results_file()).unwrap().lines().count()
    }

    fn repeated_answers(&self) -> usize {
        self.llm.all_counts().values().map(|counts| counts.answered.saturating_sub(1) as usize).sum()
    }

    /// Prints the rows of tables in Markdown.
    pub(crate) fn print_report(&self, time: Duration) {
        let counts = self.llm.all_counts();
        let sum = |count: fn(&PromptCounts) -> u32| counts.values().map(count).sum::<u32>();
        let largest = counts.values().map(|counts| counts.requests).max().unwrap_or_default();
        println!("| what | number |\n|---|---|");
        println!("| seed | {} |", self.plan.seed);
        println!("| items | {} |", self.plan.items);
        println!("| concurrent calls | {} |", self.plan.batch_size);
        println!("| runs of the program | {} |", self.runs);
        println!("| runs that were killed | {} |", self.kills);
        println!("| openings of the model's circuit | {} |", self.openings);
        println!("| requests | {} |", sum(|counts| counts.requests));
        println!("| most requests of an item | {largest} |");
        println!("| answers | {} |", sum(|counts| counts.answered));
        println!("| repeated answers, in flight at a kill | {} |", self.repeated_answers());
        println!("| results | {} |", self.plan.items);
        println!("| failures that were retried | {} |", self.lines() - self.plan.items);
        println!("| minutes | {:.1} |", time.as_secs_f64() / 60.0);
        println!("\n| API | streamed | requests | results |\n|---|---|---|---|");
        for (style, results) in STYLES.iter().zip(self.results) {
            let streamed = if style.is_streamed { "yes" } else { "no" };
            println!("| `{}` | {streamed} | {} | {results} |", style.api, style.requests(&self.llm));
        }
        println!("\n| fault | requests |\n|---|---|");
        for (fault, count) in self.faults.lock().unwrap().iter() {
            println!("| `{fault}` | {count} |");
        }
    }
}

fn is_good(result: &Unit) -> bool {
    !result.contains_key("error") && !result.contains_key("parse_error")
}

/// Parses each line as an object.
fn parse_lines(text: &str) -> Vec<Unit> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}
