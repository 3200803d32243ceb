//! The commands of the program.

mod error;
mod job;
mod output;
mod process;
mod resume;
mod run;
mod signals;

use std::env;
use std::path::{Path, PathBuf, absolute};

use tower_fault_classify::ErrorChain;

pub use self::error::CommandError;
pub(crate) use self::signals::INTERRUPTED;
use self::signals::cancel_on_signal;
use crate::checkpoint::JobFiles;
use crate::cli::{Command, CommonArgs, DEFAULT_CHECKPOINT_DIR};
use crate::config::{Api, JobConfig};
use crate::console::Console;
use crate::demo;
use crate::events::JobEvent;
use crate::files::FileError;
use crate::llm::{ApiKey, LlmClient};
use crate::text::shell_word;

/// Runs a command to its end, and returns the exit code of the program.
///
/// Errors are printed.
pub async fn run(command: Command) -> u8 {
    let interrupted = cancel_on_signal();
    let (console, result) = match command {
        Command::Process(args) => (Console::new(args.common.json), process::process(args, interrupted).await),
        Command::Resume(args) => (Console::new(args.common.json), resume::resume(args, interrupted).await),
        Command::Demo => return demo::run(interrupted).await,
    };
    let error = match result {
        Ok(exit_code) => return exit_code,
        Err(error) => error,
    };
    let exit_code = error.exit_code();
    let message = ErrorChain(&error).to_string();
    console.error(&message);
    console.event(&JobEvent::Error { exit_code, message: &message });
    exit_code
}

/// Returns a path that does not depend on the working folder.
fn absolute_path(path: &Path) -> Result<PathBuf, FileError> {
    absolute(path).map_err(|error| FileError::new("find", path, error))
}

/// Creates the client of the API.
fn client(args: &CommonArgs, config: &JobConfig) -> Result<LlmClient, CommandError> {
    Ok(LlmClient::new(config, api_key(args, config.llm.api)?)?)
}

/// Returns the key of the API from the flag, or from the variable that the SDK of the API reads.
fn api_key(args: &CommonArgs, api: Api) -> Result<ApiKey, CommandError> {
    let variable = match api {
        Api::OpenAi => "OPENAI_API_KEY",
        Api::Anthropic => "ANTHROPIC_API_KEY",
    };
    if let Some(key) = &args.api_key {
        return Ok(key.clone()?);
    }
    match env::var(variable) {
        Ok(key) if !key.is_empty() => Ok(ApiKey::new(&key)?),
        _ => Err(CommandError::usage(format!(
            "there is no API key; set {variable}, or give --api-key ('' for a server without keys)"
        ))),
    }
}

/// Returns the command that resumes a job.
fn resume_command(files: &JobFiles, folder: &Path) -> String {
    let job = files.job_id();
    if folder == Path::new(DEFAULT_CHECKPOINT_DIR) {
        format!("agents resume {job}")
    } else {
        let folder = shell_word(&folder.to_string_lossy());
        format!("agents resume {job} --checkpoint-dir {folder}")
    }
}
