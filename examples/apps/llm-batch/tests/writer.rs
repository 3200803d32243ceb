//! The results file of a job: reading, appending, and what is left after a kill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use llm_batch::checkpoint::JobFiles;
use llm_batch::unit::Unit;
use llm_batch::writer::IncrementalWriter;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Job {
    files: JobFiles,
    _folder: TempDir,
}

impl Job {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self { files: JobFiles::new(folder.path(), "job").unwrap(), _folder: folder }
    }

    fn open(&self) -> IncrementalWriter {
        IncrementalWriter::open(&self.files).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.files.results()).unwrap()
    }

    fn append(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.files.results()).unwrap();
        file.write_all(bytes).unwrap();
    }
}

fn unit(value: Value) -> Unit {
    serde_json::from_value(value).unwrap()
}

fn write(writer: &mut IncrementalWriter, results: impl IntoIterator<Item = Value>) {
    for result in results {
        writer.write_result(&unit(result)).unwrap();
    }
}

fn all(writer: &IncrementalWriter) -> Vec<Value> {
    writer.read_all_results().unwrap().into_iter().map(Value::Object).collect()
}

/// Returns the content of a file with these results.
fn lines(results: impl IntoIterator<Item = Value>) -> String {
    results.into_iter().flat_map(|result| [result.to_string(), "\n".to_owned()]).collect()
}

fn set(indices: &[usize]) -> BTreeSet<usize> {
    indices.iter().copied().collect()
}

#[test]
fn get_failed_indices_returns_empty_for_new_job() {
    let job = Job::new();
    let writer = job.open();
    assert_eq!((writer.failed_indices(), writer.completed_indices()), (&set(&[]), &set(&[])));
    assert_eq!(all(&writer), [] as [Value; 0]);
}

#[test]
fn get_failed_indices_finds_errors() {
    let job = Job::new();
    let mut writer = job.open();
    let good = json!({"_idx": 0, "text": "error"});
    let failed = [json!({"_idx": 1, "error": "x"}), json!({"_idx": 3, "parse_error": "y"})];
    write(&mut writer, [good, failed[0].clone(), failed[1].clone(), json!({"error": "without an index"})]);
    for writer in [writer, job.open()] {
        assert_eq!(writer.failed_indices(), &set(&[1, 3]));
        assert_eq!(writer.completed_indices(), &set(&[0, 1, 3]));
    }
}

#[test]
fn failed_item_that_succeeds_later_is_not_failed() {
    let job = Job::new();
    let mut writer = job.open();
    write(&mut writer, [json!({"_idx": 1, "error": "x"}), json!({"_idx": 1, "a": 2})]);
    assert_eq!(writer.failed_indices(), &set(&[]));
    assert_eq!(job.open().failed_indices(), &set(&[]));
    write(&mut writer, [json!({"_idx": 1, "error": "again"})]);
    assert_eq!(job.open().failed_indices(), &set(&[1]));
}

#[test]
fn read_all_results_deduplicates_by_idx() {
    let job = Job::new();
    let mut writer = job.open();
    write(&mut writer, [json!({"_idx": 2, "a": 1}), json!({"a": 0}), json!({"_idx": 0, "a": 2})]);
    write(&mut writer, [json!({"_idx": 2, "a": 3})]);
    assert_eq!(all(&writer), [json!({"_idx": 0, "a": 2}), json!({"_idx": 2, "a": 3}), json!({"a": 0})]);
}

#[test]
fn read_all_results_handles_multiple_retries() {
    let job = Job::new();
    let mut writer = job.open();
    for attempt in 1..4 {
        write(&mut writer, [json!({"_idx": 0, "error": attempt}), json!({"_idx": 1, "error": attempt})]);
    }
    write(&mut writer, [json!({"_idx": 0, "answer": "ok"})]);
    let expected = [json!({"_idx": 0, "answer": "ok"}), json!({"_idx": 1, "error": 3})];
    assert_eq!(all(&writer), expected);
    assert_eq!(all(&job.open()), expected);
}

#[test]
fn blank_and_broken_lines_are_skipped_and_kept() {
    let job = Job::new();
    let content = b"\n{\"_idx\":0}\n  \n{\"_idx\":1,\n[1]\n\xff\xfe\n{\"_idx\":2}\r\n";
    job.append(content);
    let mut writer = job.open();
    assert_eq!(writer.completed_indices(), &set(&[0, 2]));
    write(&mut writer, [json!({"_idx": 3})]);
    assert_eq!(all(&writer), [json!({"_idx": 0}), json!({"_idx": 2}), json!({"_idx": 3})]);
    assert_eq!(job.content(), [&content[..], b"{\"_idx\":3}\n"].concat());
}

#[test]
fn last_line_without_newline_is_cut() {
    let job = Job::new();
    // The second object is whole, but its line is not: the item was never finished.
    job.append(b"{\"_idx\":0}\n{\"_idx\":1}");
    let mut writer = job.open();
    assert_eq!(job.content(), b"{\"_idx\":0}\n");
    assert_eq!(writer.completed_indices(), &set(&[0]));
    write(&mut writer, [json!({"_idx": 1, "a": 1})]);
    assert_eq!(job.content(), b"{\"_idx\":0}\n{\"_idx\":1,\"a\":1}\n");
}

#[test]
fn large_and_foreign_texts_are_one_line_each() {
    let job = Job::new();
    let texts =
        ["x".repeat(1 << 20), "a\u{2028}b\u{2029}c\u{85}d\r\n\u{0}".to_owned(), "日本語 🦀".to_owned()];
    let results: Vec<Value> =
        texts.iter().enumerate().map(|(index, text)| json!({"_idx": index, "text": text})).collect();
    let mut writer = job.open();
    write(&mut writer, results.clone());
    assert_eq!(all(&writer), results);
    assert_eq!(all(&job.open()), results);
    let text = String::from_utf8(job.content()).unwrap();
    assert_eq!(text.matches('\n').count(), 3);
    assert!(text.contains("日本語 🦀"), "non-ASCII text is not escaped");
}

#[test]
fn failures_file_has_the_latest_failures() {
    let job = Job::new();
    let mut writer = job.open();
    write(
        &mut writer,
        [json!({"_idx": 1, "error": "old"}), json!({"_idx": 0, "error": "x"}), json!({"_idx": 2})],
    );
    let path = writer.write_failures_file().unwrap();
    assert_eq!(path, job.files.failures());
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\"_idx\":0,\"error\":\"x\"}\n{\"_idx\":1,\"error\":\"old\"}\n"
    );
    write(&mut writer, [json!({"_idx": 0, "a": 1}), json!({"_idx": 1, "a": 1})]);
    writer.write_failures_file().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn missing_folder_is_named() {
    let job = Job::new();
    let files = JobFiles::new(&job.files.results().with_file_name("missing"), "job").unwrap();
    let error = IncrementalWriter::open(&files).unwrap_err();
    let expected = format!("cannot open `{}`; create its folder", files.results().display());
    assert_eq!(error.to_string(), expected);
}

/// The folder of a job whose file cannot grow, for [`write_until_the_file_is_full`].
const FULL_FOLDER: &str = "LLM_BATCH_TEST_FULL_FOLDER";

/// A write that stops in the middle of a line, as on a full disk. A limit of the shell on the size
/// of files causes it, because a full disk needs root.
#[test]
fn short_write_leaves_only_whole_lines() {
    let job = Job::new();
    let folder = job.files.results().parent().unwrap().to_owned();
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact --ignored write_until_the_file_is_full";
    let status = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(FULL_FOLDER, &folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(folder.join("done").exists(), "the inner test has run");

    let before = job.content();
    let mut writer = job.open();
    let finished = writer.completed_indices().len();
    assert_eq!(job.content(), before);
    write(&mut writer, [big_result(finished)]);
    let expected: Vec<Value> = (0..=finished).map(big_result).collect();
    assert_eq!(all(&writer), expected);
}

#[test]
#[ignore = "runs in the process that `short_write_leaves_only_whole_lines` starts"]
fn write_until_the_file_is_full() {
    let folder = std::env::var(FULL_FOLDER).expect("started by another test");
    let files = JobFiles::new(Path::new(&folder), "job").unwrap();
    let mut writer = IncrementalWriter::open(&files).unwrap();
    let mut finished = 0;
    let error = loop {
        match writer.write_result(&unit(big_result(finished))) {
            Ok(()) => finished += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("job.results.jsonl"), "{error}");
    let whole_lines = lines((0..finished).map(big_result));
    assert!(finished > 0);
    assert_eq!(fs::read_to_string(files.results()).unwrap(), whole_lines);
    // It fails again, and the item stays unfinished.
    writer.write_result(&unit(big_result(finished))).unwrap_err();
    assert_eq!(writer.completed_indices().len(), finished);
    assert_eq!(fs::read_to_string(files.results()).unwrap(), whole_lines);
    fs::write(Path::new(&folder).join("done"), "").unwrap();
}

fn big_result(index: usize) -> Value {
    json!({"_idx": index, "text": "x".repeat(1500)})
}

#[derive(Clone, Debug)]
enum Step {
    Write(Value),
    Reopen,
    /// Kills the process: only this part of the file is written.
    Cut(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = prop_oneof![4 => (0_usize..6).prop_map(Some), 1 => Just(None)];
    let content = prop_oneof![
        Just(json!({"text": "a"})),
        Just(json!({"error": "e\u{2028}\n"})),
        Just(json!({"parse_error": "é"})),
        Just(json!({"text": "{\"_idx\": 9}\n"})),
    ];
    let result = (index, content).prop_map(|(index, mut content)| {
        if let Some(index) = index {
            content["_idx"] = index.into();
        }
        Step::Write(content)
    });
    prop_oneof![5 => result, 1 => Just(Step::Reopen), 1 => any::<prop::sample::Index>().prop_map(Step::Cut)]
}

/// The lines that must be in the file.
#[derive(Default)]
struct Model {
    lines: Vec<Value>,
}

impl Model {
    fn cut(&mut self, len: usize) {
        let mut end = 0;
        self.lines.retain(|line| {
            end += line.to_string().len() + 1;
            end <= len
        });
    }

    fn latest(&self) -> BTreeMap<u64, &Value> {
        self.lines.iter().filter_map(|line| Some((line["_idx"].as_u64()?, line))).collect()
    }

    fn check(&self, job: &Job, writer: &IncrementalWriter) {
        assert_eq!(String::from_utf8(job.content()).unwrap(), lines(self.lines.clone()));

        let latest = self.latest();
        let without_index = self.lines.iter().filter(|line| line.get("_idx").is_none());
        let expected: Vec<Value> = latest.values().copied().chain(without_index).cloned().collect();
        assert_eq!(all(writer), expected);

        let completed: Vec<u64> = writer.completed_indices().iter().map(|index| *index as u64).collect();
        assert_eq!(completed, latest.keys().copied().collect::<Vec<u64>>());
        let failed: Vec<u64> = writer.failed_indices().iter().map(|index| *index as u64).collect();
        let is_failed = |line: &Value| line.get("error").or(line.get("parse_error")).is_some();
        let expected: Vec<u64> =
            latest.iter().filter(|(_, line)| is_failed(line)).map(|(index, _)| *index).collect();
        assert_eq!(failed, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn writes_reopenings_and_cuts_lose_no_whole_line(steps in prop::collection::vec(step(), 0..40)) {
        let job = Job::new();
        let mut model = Model::default();
        let mut writer = job.open();
        for step in steps {
            match step {
                Step::Write(result) => {
                    writer.write_result(&unit(result.clone())).unwrap();
                    model.lines.push(result);
                }
                Step::Reopen => writer = job.open(),
                Step::Cut(at) => {
                    let len = at.index(job.content().len() + 1);
                    OpenOptions::new().write(true).open(job.files.results()).unwrap().set_len(len as u64).unwrap();
                    model.cut(len);
                    writer = job.open();
                }
            }
            model.check(&job, &writer);
        }
    }
}
