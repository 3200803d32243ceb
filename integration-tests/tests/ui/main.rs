//! The compiler's messages for wrong uses of the crates. Each message names the cause and the fix.
//!
//! Each file in `cases` and `without_features` is a program. A line `//~ TEXT` is a text that the
//! compiler's errors must contain. A program without such a line must compile. The programs in
//! `without_features` use the crates without cargo features. The programs of the guide to compile
//! errors are checked, too: each must cause the message that the guide quotes below it.
//!
//! The texts are attributes of the crates' traits. Which of them is printed depends on the
//! compiler, so that older compilers skip these tests, with a notice.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The oldest Rust 1 whose messages are checked.
const MINIMUM_RUST: u32 = 95;

const DEPENDENCIES: &str = r#"
[workspace]
[package]
name = "ui"
edition = "2024"
[dependencies]
axum = { version = "0.8", default-features = false }
bytes = "1"
http = "1"
http-body-util = "0.1"
reqwest = { version = "0.13", default-features = false }
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
tonic = { version = "0.14", default-features = false }
tower = { version = "0.5", features = ["buffer", "util"] }
"#;

#[test]
fn compiler_messages_name_cause_and_fix() {
    let programs = root().join("integration-tests/tests/ui/cases");
    check("cases", &programs, "'keyed', 'reqwest'", "'error-body', 'reqwest'", "'axum', 'reqwest', 'tonic'");
}

#[test]
fn compiler_messages_name_missing_features() {
    let programs = root().join("integration-tests/tests/ui/without_features");
    check("without_features", &programs, "", "", "");
}

#[test]
fn compiler_messages_are_those_of_the_guide() {
    check("guide", &programs_of_guide(), "", "", "");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member is below the root")
}

/// Writes the programs of the guide that must not compile to files, and returns their folder.
///
/// The `text` block that follows a program is its message. `…` stands for any text.
fn programs_of_guide() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui/programs_of_guide");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    let guide = fs::read_to_string(root().join("docs/compile-errors.md")).unwrap();
    for (index, program) in guide.split("\n```compile_fail\n").skip(1).enumerate() {
        let (code, rest) = program.split_once("\n```\n").unwrap();
        let (_, message) = rest.split_once("\n```text\n").expect("a message follows the program");
        let (message, _) = message.split_once("\n```\n").unwrap();
        let texts = message.lines().flat_map(|line| line.split('…')).map(str::trim);
        let expected: Vec<_> =
            texts.filter(|text| !text.is_empty()).map(|text| format!("//~ {text}\n")).collect();
        fs::write(folder.join(format!("program_{}.rs", index + 1)), expected.concat() + code).unwrap();
    }
    folder
}

/// Compiles the programs of a folder, with features of the three crates, and checks the messages.
fn check(name_of_check: &str, folder: &Path, breaker: &str, classify: &str, retry: &str) {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().expect("`rustc` runs").stdout;
    let version = String::from_utf8(version).unwrap();
    let version = version.trim();
    if version.split('.').nth(1).unwrap().parse::<u32>().unwrap() < MINIMUM_RUST {
        #[expect(clippy::explicit_write, reason = "the test runner hides the output of `eprintln!`")]
        writeln!(io::stderr(), "skipped {name_of_check}: needs Rust 1.{MINIMUM_RUST}, not {version}")
            .unwrap();
        return;
    }
    let mut manifest = DEPENDENCIES.to_owned();
    for (name, features) in
        [("tower-breaker", breaker), ("tower-fault-classify", classify), ("tower-jitter-retry", retry)]
    {
        let path = quoted(&root().join(name));
        writeln!(manifest, "{name} = {{ path = {path}, features = [{features}] }}").unwrap();
    }
    let mut programs = BTreeMap::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // Editors leave other files.
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        writeln!(manifest, "[[bin]]\nname = '{name}'\npath = {}", quoted(&path)).unwrap();
        programs.insert(name, Program { source: fs::read_to_string(path).unwrap(), ..Program::default() });
    }
    assert!(!programs.is_empty(), "no programs in {}", folder.display());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ui");
    let package = target.join(name_of_check);
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    let cargo = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--bins", "--keep-going", "--message-format=json", "--target-dir"])
        .arg(target)
        .current_dir(&package)
        // Flags such as `-D warnings` would make errors of the programs' warnings.
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .output()
        .expect("`cargo check` runs");
    for report in String::from_utf8(cargo.stdout).unwrap().lines() {
        let report: Value = serde_json::from_str(report).unwrap();
        let Some(program) = programs.get_mut(report["target"]["name"].as_str().unwrap_or_default()) else {
            continue;
        };
        program.compiles |= report["reason"] == "compiler-artifact";
        if report["message"]["level"] == "error" {
            program.errors.push_str(report["message"]["rendered"].as_str().unwrap());
        }
    }
    let mut failures = String::new();
    for (name, Program { source, compiles, errors }) in &programs {
        let mut expected = source.lines().filter_map(|line| line.strip_prefix("//~ ")).peekable();
        let should_compile = expected.peek().is_none();
        let missing: Vec<_> = expected.filter(|text| !errors.contains(text)).collect();
        if *compiles != should_compile || !missing.is_empty() {
            writeln!(
                failures,
                "{name_of_check}/{name}: compiles: {compiles}; missing: {missing:#?}\n{errors}"
            )
            .unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}{}", String::from_utf8_lossy(&cargo.stderr));
}

/// Returns a path as a string of TOML. The escapes of JSON are valid in TOML, too.
fn quoted(path: &Path) -> Value {
    Value::from(path.to_str().expect("the path is UTF-8"))
}

#[derive(Default)]
struct Program {
    source: String,
    compiles: bool,
    errors: String,
}
