//! Validators: the interface, a validator that runs a command, and those of a Rust package.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use futures::FutureExt;
use futures::future::BoxFuture;
use subprocess::{Captured, Output, Subprocess};

use crate::error::CheckError;
use crate::result::{Details, Verdict};

/// How many bytes of each output of a command are kept in memory while it runs.
const CAPTURE_LIMIT: usize = 16 * 1024 * 1024;

/// How many bytes of each output of a command the details contain.
const OUTPUT_LIMIT: usize = 16 * 1024;

/// A check of one dimension of a project.
pub trait Validator: fmt::Debug + Send + Sync {
    /// Returns what the validator checks, such as `lint`. It selects the time limit.
    fn dimension(&self) -> &str;

    /// Returns the importance of the validator. Tier 1 is the most important one.
    fn tier(&self) -> u8;

    /// Checks the project.
    ///
    /// The future must not block its thread, because a time limit cannot end it then. When the time
    /// is over, the future is dropped.
    ///
    /// An error means that the validator has no verdict.
    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>>;
}

/// Runs a command in a folder. Its exit code decides whether the check passed.
///
/// At the time limit, the command and the processes that it has started are killed.
#[derive(Clone, Debug)]
pub struct CommandValidator {
    dimension: String,
    tier: u8,
    program: String,
    args: Vec<String>,
    dir: PathBuf,
    success_exit_codes: Vec<i32>,
}

impl CommandValidator {
    /// Creates a validator whose check passes if `program` exits with code 0.
    pub fn new(
        dimension: impl Into<String>,
        tier: u8,
        program: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
        dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            dimension: dimension.into(),
            tier,
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            dir: dir.into(),
            success_exit_codes: vec![0],
        }
    }

    /// Sets the exit codes with which the check passes.
    pub fn success_exit_codes(mut self, codes: impl Into<Vec<i32>>) -> Self {
        self.success_exit_codes = codes.into();
        self
    }

    /// Returns the program and its arguments in one line.
    fn command_line(&self) -> String {
        let words = [&self.program].into_iter().chain(&self.args);
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    async fn run(&self) -> Result<Verdict, CheckError> {
        let command = Subprocess::new(&self.program)
            .args(&self.args)
            .current_dir(&self.dir)
            .output_limit(CAPTURE_LIMIT);
        Ok(self.verdict(&command.run().await?))
    }

    fn verdict(&self, output: &Output) -> Verdict {
        let exit_code = output.status.code();
        let passed = exit_code.is_some_and(|code| self.success_exit_codes.contains(&code));
        let message = if passed {
            format!("`{}` passed", self.program_name())
        } else {
            format!("`{}` failed: {}", self.program_name(), describe(output.status))
        };
        let details = Details::from_iter([
            ("command".to_owned(), self.command_line().into()),
            ("exit_code".to_owned(), exit_code.into()),
            ("stdout".to_owned(), captured_text(&output.stdout).into()),
            ("stderr".to_owned(), captured_text(&output.stderr).into()),
        ]);
        Verdict { passed, message, details }
    }

    /// Returns the program and its first argument, which is often a subcommand.
    fn program_name(&self) -> String {
        match self.args.first() {
            Some(subcommand) if !subcommand.starts_with('-') => format!("{} {subcommand}", self.program),
            _ => self.program.clone(),
        }
    }
}

impl Validator for CommandValidator {
    fn dimension(&self) -> &str {
        &self.dimension
    }

    fn tier(&self) -> u8 {
        self.tier
    }

    fn validate(&self) -> BoxFuture<'_, Result<Verdict, CheckError>> {
        self.run().boxed()
    }
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        // The text names the signal.
        None => status.to_string(),
    }
}

/// Returns the end of an output, and how many bytes are left out. The reason of a failure is often
/// at the end.
fn captured_text(output: &Captured) -> String {
    let skipped = output.bytes.len().saturating_sub(OUTPUT_LIMIT);
    let text = String::from_utf8_lossy(&output.bytes[skipped..]);
    let before = if skipped > 0 { format!("… {skipped} bytes\n") } else { String::new() };
    let after =
        if output.discarded > 0 { format!("\n… {} bytes", output.discarded) } else { String::new() };
    format!("{before}{text}{after}")
}

/// The text that a secret begins with: private keys, and tokens of AWS, GitHub, Slack and Stripe.
const SECRETS: &str = concat!(
    "-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "|AKIA[0-9A-Z]{16}",
    "|gh[pousr]_[A-Za-z0-9]{36}",
    "|xox[baprs]-[A-Za-z0-9-]{10}",
    "|sk_live_[A-Za-z0-9]{24}",
);

/// Returns the validators of a Rust package, for a run without a configuration.
///
/// | dimension | tier | command |
/// |---|---|---|
/// | `code_quality` | 1 | `cargo fmt --all --check` |
/// | `lint` | 1 | `cargo clippy --all-targets -- -D warnings` |
/// | `type_safety` | 1 | `cargo check --all-targets` |
/// | `coverage` | 1 | `cargo test` |
/// | `security` | 1 | `grep` for secrets; the details list the files |
///
/// Commands of cargo wait for each other's builds. The wait is in their time limits, so a first run
/// may need longer ones.
///
/// `visual` and `behavioral` need commands or tools of the project, so they have none.
pub fn rust_validators(dir: &Path) -> Vec<CommandValidator> {
    let cargo = |dimension: &str, args: &str| {
        CommandValidator::new(dimension, 1, "cargo", args.split_whitespace(), dir)
    };
    vec![
        cargo("code_quality", "fmt --all --check"),
        cargo("lint", "clippy --all-targets -- -D warnings"),
        cargo("type_safety", "check --all-targets"),
        cargo("coverage", "test"),
        secrets(dir),
    ]
}

/// Searches for secrets. `grep` exits with 1 if it finds nothing, and with 2 after an error.
fn secrets(dir: &Path) -> CommandValidator {
    // The names of the files only, so that a report does not contain the secrets.
    let args = ["-rlIE", "--exclude-dir=.git", "--exclude-dir=target", "-e", SECRETS, "."];
    CommandValidator::new("security", 1, "grep", args, dir).success_exit_codes([1])
}
