//! The plan file: its tasks, its backends, and the settings of retries and circuits.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use subprocess::find_program;
use tower_breaker::HumanDuration;
use tower_breaker::fault_classify::BoxError;

use crate::dag::Dag;
use crate::prompt;
use crate::resilience::{CircuitSettings, RetrySettings};

/// A task of a plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The ID, which is unique in the plan.
    pub id: String,
    /// The type of the backend that performs the task.
    pub agent: String,
    /// The prompt. `{results.ID}` is replaced by the answer of the dependency `ID`.
    pub prompt: String,
    /// The IDs of the tasks that must be completed before this one starts.
    #[serde(default)]
    pub depends_on: Vec<String>,
}

/// The settings of a backend.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSettings {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The exit codes after which a task is not sent again. **Default**: none.
    #[serde(default)]
    pub permanent_exit_codes: Vec<i32>,
    /// The longest time that a send may take. **Default**: no limit.
    #[serde(default)]
    pub timeout: Option<HumanDuration>,
}

impl BackendSettings {
    fn check(&self) -> Result<(), &'static str> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err("`command` is empty; add the program");
        }
        if self.timeout == Some(HumanDuration(Duration::ZERO)) {
            return Err("`timeout` is 0s; set a longer time, or remove it for no limit");
        }
        Ok(())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    tasks: Vec<Task>,
    backends: BTreeMap<String, BackendSettings>,
    #[serde(default)]
    retry: RetrySettings,
    #[serde(default)]
    circuit: CircuitSettings,
}

/// The format of a plan file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, in files that end in `.json`.
    Json,
    /// TOML, in files that end in `.toml`.
    Toml,
}

/// A valid plan.
#[derive(Debug)]
pub struct Plan {
    /// The name of the file.
    name: String,
    file: PlanFile,
    dag: Dag,
}

impl Plan {
    /// Reads a plan from a JSON or TOML file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, or if the plan is invalid.
    pub fn load(path: &Path) -> Result<Self, PlanError> {
        let name = path.display().to_string();
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Format::Json,
            Some("toml") => Format::Toml,
            _ => return Err(PlanError::new(&name, "the format is unknown; name the file .json or .toml")),
        };
        let text = fs::read_to_string(path).map_err(|error| {
            PlanError::new(&name, "the plan cannot be read; check the path").with_source(error)
        })?;
        Self::parse(&name, &text, format)
    }

    /// Reads a plan from a text. Errors contain `name`, the name of the file.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan is invalid.
    pub fn parse(name: &str, text: &str, format: Format) -> Result<Self, PlanError> {
        let file = match format {
            Format::Json => serde_json::from_str(text).map_err(BoxError::from),
            Format::Toml => toml::from_str(text).map_err(BoxError::from),
        };
        let file: PlanFile = file.map_err(|error| {
            PlanError::new(name, "the plan is malformed; correct the file").with_source(error)
        })?;
        check_names(&file).map_err(|problem| PlanError::new(name, problem))?;
        let tasks = file.tasks.iter().map(|task| (task.id.as_str(), task.depends_on.as_slice()));
        let dag = Dag::new(tasks).map_err(|error| PlanError::new(name, error.to_string()))?;
        let plan = Self { name: name.to_owned(), file, dag };
        plan.check().map_err(|problem| PlanError::new(name, problem))?;
        Ok(plan)
    }

    /// Checks that the commands of the backends exist.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first backend whose command does not exist.
    pub fn check_commands(&self) -> Result<(), PlanError> {
        let Some((name, program)) = self.missing_programs().next() else { return Ok(()) };
        let problem = format!(
            "backend `{name}`: `command` names the program `{program}`, which is not found or not \
             executable; install it, or correct the path"
        );
        Err(PlanError::new(&self.name, problem))
    }

    /// Returns each backend whose program is not found or not executable, with the program.
    pub fn missing_programs(&self) -> impl Iterator<Item = (&str, &str)> {
        let programs =
            self.file.backends.iter().map(|(name, settings)| (name.as_str(), settings.command[0].as_str()));
        programs.filter(|(_, program)| find_program(program).is_none())
    }

    /// Returns the tasks.
    pub fn tasks(&self) -> &[Task] {
        &self.file.tasks
    }

    /// Returns the settings of the backends, by type.
    pub fn backends(&self) -> &BTreeMap<String, BackendSettings> {
        &self.file.backends
    }

    /// Returns the settings of the retries.
    pub fn retry(&self) -> &RetrySettings {
        &self.file.retry
    }

    /// Returns the settings of the circuits.
    pub fn circuit(&self) -> &CircuitSettings {
        &self.file.circuit
    }

    /// Returns the graph of the tasks, none of which has started.
    pub fn dag(&self) -> &Dag {
        &self.dag
    }

    /// Returns the first problem that the file's syntax does not show.
    fn check(&self) -> Result<(), String> {
        let PlanFile { tasks, backends, retry, circuit } = &self.file;
        if tasks.is_empty() {
            return Err("`tasks` is empty; add a task".to_owned());
        }
        for (name, settings) in backends {
            settings.check().map_err(|problem| format!("backend `{name}`: {problem}"))?;
        }
        for task in tasks {
            self.check_task(task).map_err(|problem| format!("task `{}`: {problem}", task.id))?;
        }
        retry.policy().map_err(|error| format!("`retry`: {error}"))?;
        circuit.config().map_err(|error| format!("`circuit`: {error}"))?;
        Ok(())
    }

    fn check_task(&self, task: &Task) -> Result<(), String> {
        if !self.file.backends.contains_key(&task.agent) {
            return Err(format!(
                "`agent` names the unknown backend `{}`; add it to `backends`, or correct the name",
                task.agent
            ));
        }
        for id in prompt::references(&task.prompt) {
            if !task.depends_on.iter().any(|dependency| dependency == id) {
                return Err(self.reference_problem(task, id));
            }
        }
        Ok(())
    }

    /// Returns the error of a placeholder that refers to no dependency.
    fn reference_problem(&self, task: &Task, id: &str) -> String {
        let is_task = self.tasks().iter().any(|other| other.id == id && other.id != task.id);
        let step = if is_task { format!("add `{id}` to `depends_on`") } else { "correct the ID".to_owned() };
        let allowed = match task.depends_on.as_slice() {
            [] => "no ID, because `depends_on` is empty".to_owned(),
            ids => format!("`{}`", ids.join("`, `")),
        };
        format!("`prompt` contains `{{results.{id}}}`; allowed is {allowed}; {step}")
    }
}

/// Checks that each task and each backend has a name. Other errors contain the names.
fn check_names(file: &PlanFile) -> Result<(), String> {
    if file.backends.keys().any(|name| name.trim().is_empty()) {
        return Err("`backends` contains an empty name; name the backend".to_owned());
    }
    for (number, task) in (1..).zip(&file.tasks) {
        if task.id.trim().is_empty() {
            return Err(format!("task {number}: `id` is empty; name the task"));
        }
        if task.agent.trim().is_empty() {
            return Err(format!("task {number}: `agent` is empty; name a backend"));
        }
    }
    Ok(())
}

/// The error of a plan. The text names the file, the task or backend, and the field.
#[derive(Debug)]
pub struct PlanError {
    file: String,
    problem: String,
    source: Option<BoxError>,
}

impl PlanError {
    fn new(file: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into(), source: None }
    }

    fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl Error for PlanError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let source = self.source.as_deref()?;
        Some(source)
    }
}
