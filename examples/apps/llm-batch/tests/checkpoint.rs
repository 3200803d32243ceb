//! The checkpoint and the lock of a job, and files that are replaced in one step.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread;

use llm_batch::checkpoint::{Checkpoint, Counts, JobError, JobFiles, JobLock, ProgressTracker};
use llm_batch::config::JobConfig;
use llm_batch::files;
use llm_batch::writer::IncrementalWriter;
use serde_json::{Value, json};
use tempfile::TempDir;

fn job() -> (TempDir, JobFiles) {
    let folder = TempDir::new().unwrap();
    let files = JobFiles::new(&folder.path().join("checkpoints"), "job-1").unwrap();
    files.create_folder().unwrap();
    (folder, files)
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        job_id: "job-1".to_owned(),
        input: "in.jsonl".into(),
        fingerprint: "12-ab".to_owned(),
        output: "out.json".into(),
        prompt: "Translate {text}".to_owned(),
        config: JobConfig::default(),
        counts: Counts { total: 4, processed: 0, failed: 0 },
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn checkpoint_is_read_as_it_was_written() {
    let (_folder, job) = job();
    let mut expected = checkpoint();
    expected.config.llm.model = "large".to_owned();
    expected.write(&job).unwrap();
    expected.counts.processed = 2;
    expected.write(&job).unwrap();
    assert_eq!(Checkpoint::read(&job).unwrap(), expected);
    assert_eq!(names(job.checkpoint().parent().unwrap()), ["job-1.checkpoint.json"]);
}

#[test]
fn tracker_counts_the_latest_results() {
    let (_folder, job) = job();
    let mut writer = IncrementalWriter::open(&job).unwrap();
    let mut tracker = ProgressTracker::new(job.clone(), checkpoint());
    for result in [json!({"_idx": 0}), json!({"_idx": 1, "error": "x"}), json!({"_idx": 2, "error": "x"})] {
        writer.write_result(result.as_object().unwrap()).unwrap();
    }
    tracker.update(&writer);
    assert_eq!(tracker.counts(), Counts { total: 4, processed: 3, failed: 2 });
    writer.write_result(json!({"_idx": 2}).as_object().unwrap()).unwrap();
    tracker.save(&writer).unwrap();
    assert_eq!(Checkpoint::read(&job).unwrap().counts, Counts { total: 4, processed: 3, failed: 1 });
}

#[test]
fn counts_have_a_success_rate() {
    let counts = Counts { total: 10, processed: 3, failed: 1 };
    assert_eq!((format!("{:.1}", counts.success_rate()), counts.remaining()), ("66.7".to_owned(), 7));
    assert!(Counts::default().success_rate().abs() < f64::EPSILON);
}

#[test]
fn missing_checkpoint_is_an_unknown_job() {
    let (_folder, job) = job();
    let error = Checkpoint::read(&job).unwrap_err();
    assert!(matches!(error, JobError::Unknown { .. }));
    assert!(error.to_string().starts_with("there is no job `job-1`: `"), "{error}");
}

#[test]
fn checkpoint_of_another_version_is_refused() {
    let (_folder, job) = job();
    checkpoint().write(&job).unwrap();
    let mut content: Value = serde_json::from_slice(&fs::read(job.checkpoint()).unwrap()).unwrap();
    content["version"] = 2.into();
    content["config"] = json!({"unknown": true});
    fs::write(job.checkpoint(), content.to_string()).unwrap();
    let error = Checkpoint::read(&job).unwrap_err();
    assert!(matches!(error, JobError::OtherVersion { version: 2, .. }), "{error}");
}

#[test]
fn malformed_checkpoint_names_file_and_line() {
    let (_folder, job) = job();
    fs::write(job.checkpoint(), "{\n\"version\": 1,\n").unwrap();
    let error = Checkpoint::read(&job).unwrap_err();
    assert!(error.to_string().contains("job-1.checkpoint.json"), "{error}");
    assert!(error.source().unwrap().to_string().contains("line 3"), "{error:?}");
}

#[test]
fn job_is_locked_until_the_lock_is_dropped() {
    let (_folder, job) = job();
    let lock = JobLock::acquire(&job).unwrap();
    let error = JobLock::acquire(&job).unwrap_err();
    let process = std::process::id();
    let expected = format!("job `job-1` is already running in process {process}; wait until that ends");
    assert_eq!(error.to_string(), expected);
    drop(lock);
    JobLock::acquire(&job).unwrap();
}

#[test]
fn job_id_is_part_of_a_file_name() {
    for id in ["a", "job_2.b-c"] {
        assert_eq!(
            JobFiles::new(Path::new("x"), id).unwrap().results(),
            Path::new(&format!("x/{id}.results.jsonl"))
        );
    }
    for id in ["", "../a", "a/b", ".a", "-a", "a b", "é", &"a".repeat(101)] {
        let error = JobFiles::new(Path::new("x"), id).unwrap_err();
        assert!(matches!(error, JobError::InvalidId { .. }), "{id}");
    }
}

#[test]
fn failed_replacement_leaves_the_old_content() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out");
    fs::write(&path, "old").unwrap();
    let error = files::replace(&path, |file| {
        file.write_all(b"new")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot write `{}`; free space on its file system", path.display())
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(names(folder.path()), ["out"]);
}

/// A process that is killed leaves the temporary file.
#[test]
fn temporary_file_has_a_fixed_name_and_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out");
    fs::write(folder.path().join("out.agents.tmp"), "part of an earlier content").unwrap();
    files::replace(&path, |file| {
        assert_eq!(names(folder.path()), ["out.agents.tmp"]);
        file.write_all(b"new")
    })
    .unwrap();
    assert_eq!(names(folder.path()), ["out"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
}

#[test]
fn replacement_keeps_permissions_and_links() {
    let folder = TempDir::new().unwrap();
    let (path, link) = (folder.path().join("out"), folder.path().join("link"));
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&path, &link).unwrap();
    files::replace(&link, |file| file.write_all(b"new")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn pipe_is_written_and_not_replaced() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let reader = thread::spawn({
        let path = path.clone();
        move || fs::read_to_string(path).unwrap()
    });
    files::replace(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!(reader.join().unwrap(), "new");
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
}

#[test]
fn folder_is_not_replaced() {
    let folder = TempDir::new().unwrap();
    let error = files::replace(folder.path(), |file| file.write_all(b"new")).unwrap_err();
    assert!(error.to_string().ends_with("; choose the path of a file"), "{error}");
}
