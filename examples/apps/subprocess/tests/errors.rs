//! Programs that cannot be started.
#![cfg(unix)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use subprocess::{Subprocess, SubprocessError, find_program};
use tempfile::TempDir;

/// Writes a file by another process. A file that this process has open for writing, or a program
/// that another thread starts meanwhile, cannot be run.
fn file_with_mode(dir: &TempDir, content: &str, mode: &str) -> PathBuf {
    let file = dir.path().join("program");
    let script = r#"printf '%s' "$1" >"$2"; chmod "$3" "$2""#;
    let status = Command::new("sh").args(["-c", script, "sh", content]).arg(&file).arg(mode).status();
    assert!(status.unwrap().success());
    file
}

async fn error_of(program: impl AsRef<Path>) -> SubprocessError {
    let error = Subprocess::new(program.as_ref()).run().await.unwrap_err();
    assert!(error.source().is_some());
    error
}

#[tokio::test]
async fn unknown_name_is_not_found() {
    let error = error_of("no-such-program").await;
    assert!(matches!(error, SubprocessError::NotFound { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "program `no-such-program` is not found in PATH; install it or use its full path"
    );
    assert_eq!(find_program("no-such-program"), None);
}

#[tokio::test]
async fn unknown_path_is_not_found() {
    let error = error_of("/no/such/program").await;
    assert!(matches!(error, SubprocessError::NotFound { .. }), "{error:?}");
    assert_eq!(error.to_string(), "program `/no/such/program` is not found; correct the path");
    assert_eq!(find_program("/no/such/program"), None);
}

#[tokio::test]
async fn missing_interpreter_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_with_mode(&dir, "#!/no/such/interpreter\n", "755");
    let error = error_of(&file).await;
    assert!(matches!(error, SubprocessError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains("interpreter"), "{error}");
}

#[tokio::test]
async fn file_without_execute_bit_is_not_executable() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_with_mode(&dir, "#!/bin/sh\n", "644");
    let error = error_of(&file).await;
    assert!(matches!(error, SubprocessError::NotExecutable { .. }), "{error:?}");
    assert_eq!(find_program(&file), None);
}

#[tokio::test]
async fn directory_is_not_executable() {
    let dir = tempfile::tempdir().unwrap();
    let error = error_of(dir.path()).await;
    assert!(matches!(error, SubprocessError::NotExecutable { .. }), "{error:?}");
}

#[tokio::test]
async fn file_of_unknown_format_is_not_executable() {
    let dir = tempfile::tempdir().unwrap();
    let file = file_with_mode(&dir, "\u{7f}no program", "755");
    let error = error_of(&file).await;
    assert!(matches!(error, SubprocessError::NotExecutable { .. }), "{error:?}");
    assert!(error.to_string().contains("#!/bin/sh"), "{error}");
}

#[tokio::test]
async fn missing_directory_is_named() {
    let error = Subprocess::new("sh").current_dir("/no/such/dir").run().await.unwrap_err();
    assert!(matches!(error, SubprocessError::Directory { .. }), "{error:?}");
    assert_eq!(error.to_string(), "directory `/no/such/dir` cannot be entered; correct the path");
}

#[tokio::test]
async fn too_long_argument_and_nul_byte_are_invalid_arguments() {
    for argument in ["x".repeat(10_000_000), "\0".to_owned()] {
        let error = Subprocess::new("true").args([argument]).run().await.unwrap_err();
        assert!(matches!(error, SubprocessError::InvalidArguments { .. }), "{error:?}");
    }
}

#[test]
fn found_program_is_full_path() {
    let file = find_program("sh").unwrap();
    assert!(file.is_absolute() && file.ends_with("sh"), "{}", file.display());
    assert_eq!(find_program(&file), Some(file.clone()));
}

/// A relative path starts in the directory of the program.
#[tokio::test]
async fn relative_path_is_searched_in_directory_of_program() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("#!/bin/sh\n", "644", "is not an executable program; run `chmod +x`"),
        ("#!/no/such/interpreter\n", "755", "correct its first line"),
    ];
    for (content, mode, problem) in cases {
        let file = file_with_mode(&dir, content, mode);
        let error = Subprocess::new("./program").current_dir(dir.path()).run().await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        std::fs::remove_file(file).unwrap();
    }
    let error = Subprocess::new("./missing").current_dir(dir.path()).run().await.unwrap_err().to_string();
    let path = dir.path().join("./missing");
    assert_eq!(error, format!("program `{}` is not found; correct the path", path.display()));
}
