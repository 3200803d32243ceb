//! Backends that run a command for each message.

use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::BoxFuture;
use subprocess::{Output, Subprocess, SubprocessError};
use tokio::time::timeout;

use crate::backend::{Backend, Backends, Message, Response, SendError};
use crate::plan::{BackendSettings, Plan};

/// The environment variable with the ID of the task.
pub const TASK_VARIABLE: &str = "ORCHESTRATOR_TASK";

/// The environment variable with the ID of the session.
pub const SESSION_VARIABLE: &str = "ORCHESTRATOR_SESSION";

/// How many characters of a command's error are reported.
const ERROR_LENGTH: usize = 500;

/// The number of sessions that this process has started.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

/// A backend that runs a command for each message.
///
/// The command reads the prompt from standard input, and writes its answer to standard output. The
/// environment variables [`TASK_VARIABLE`] and [`SESSION_VARIABLE`] contain the IDs of the task and
/// of the session.
///
/// | end of the command | result |
/// |---|---|
/// | exit code 0 | the answer, without the newlines at its end |
/// | an exit code of [`permanent_exit_codes`](BackendSettings::permanent_exit_codes) | a permanent error |
/// | another exit code, or a signal | a transient error |
/// | no end within the [`timeout`](BackendSettings::timeout) | a transient error |
/// | the command does not exist, or may not be run | a permanent error |
/// | the answer is longer than 16 MiB | a permanent error |
/// | this machine has too many processes or open files | an error that is retried, and that the circuit does not count |
///
/// When a send is dropped, or takes longer than the timeout, the command and its children are
/// killed.
#[derive(Clone, Debug)]
pub struct ProcessBackend {
    backend_type: String,
    settings: BackendSettings,
    session_id: String,
}

impl ProcessBackend {
    /// Creates the backend of a type, with a new session.
    pub fn new(backend_type: &str, settings: BackendSettings) -> Self {
        let session = SESSIONS.fetch_add(1, Ordering::Relaxed) + 1;
        let session_id = format!("{backend_type}-{}-{session}", std::process::id());
        Self { backend_type: backend_type.to_owned(), settings, session_id }
    }

    /// Runs the command within the time limit. At the limit, the command and its children are
    /// killed.
    async fn run_in_time(&self, message: &Message) -> Result<Response, SendError> {
        let Some(limit) = self.settings.timeout else {
            return self.run(message).await;
        };
        timeout(limit.into(), self.run(message)).await.unwrap_or_else(|_| {
            let name = &self.backend_type;
            Err(SendError::transient(format!(
                "backend `{name}` has not answered within {limit}; check its command, or raise \
                 `backends.{name}.timeout`"
            )))
        })
    }

    async fn run(&self, message: &Message) -> Result<Response, SendError> {
        let Some((program, args)) = self.settings.command.split_first() else {
            return Err(SendError::permanent("the command is empty; add the program to the plan"));
        };
        let output = Subprocess::new(program)
            .args(args)
            .env(TASK_VARIABLE, &message.task)
            .env(SESSION_VARIABLE, &self.session_id)
            .stdin(message.prompt.as_bytes())
            .run()
            .await
            .map_err(|error| self.start_error(error))?;
        self.read(&output)
    }

    /// Returns the answer of a command that has ended.
    fn read(&self, output: &Output) -> Result<Response, SendError> {
        if !output.status.success() {
            return Err(self.exit_error(output));
        }
        if output.stdout.discarded > 0 {
            let (name, length) = (&self.backend_type, output.stdout.bytes.len());
            return Err(SendError::permanent(format!(
                "the answer of backend `{name}` is longer than {length} bytes; ask for a shorter answer"
            )));
        }
        Ok(Response { text: output.stdout.text().trim_end_matches(['\r', '\n']).to_owned() })
    }

    /// Converts the error of a command that did not run.
    fn start_error(&self, error: SubprocessError) -> SendError {
        let new = match error {
            SubprocessError::NotFound { .. }
            | SubprocessError::NotExecutable { .. }
            | SubprocessError::PermissionDenied { .. }
            | SubprocessError::InvalidArguments { .. } => SendError::permanent,
            // The system may have too many processes or open files at this time.
            _ => SendError::local,
        };
        let (name, command) = (&self.backend_type, &self.settings.command);
        tracing::debug!(backend = name, ?command, "command did not run");
        new(format!("backend `{name}` could not be run")).with_source(error)
    }

    fn exit_error(&self, output: &Output) -> SendError {
        let (name, status) = (&self.backend_type, output.status);
        let is_permanent =
            output.status.code().is_some_and(|code| self.settings.permanent_exit_codes.contains(&code));
        let new = if is_permanent { SendError::permanent } else { SendError::transient };
        let stderr = output.stderr.text();
        tracing::debug!(backend = name, command = ?self.settings.command, %status, %stderr, "command failed");
        match stderr.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) => {
                let error: String = line.trim().chars().take(ERROR_LENGTH).collect();
                new(format!("backend `{name}` failed ({status})")).with_source(error)
            }
            None => new(format!(
                "backend `{name}` failed ({status}) and printed no error; run its command in a shell to see why"
            )),
        }
    }
}

impl Backend for ProcessBackend {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<Response, SendError>> {
        Box::pin(self.run_in_time(message))
    }

    fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Does nothing, because each command has ended or was killed with its send.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Creates the backends of a plan.
pub fn backends(plan: &Plan) -> Backends {
    plan.backends().iter().fold(Backends::new(), |backends, (name, settings)| {
        backends.with(name, ProcessBackend::new(name, settings.clone()))
    })
}
