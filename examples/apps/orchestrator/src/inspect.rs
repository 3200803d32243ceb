//! The commands `validate` and `backends`.

use std::path::Path;

use anyhow::Result;
use orchestrator::plan::{BackendSettings, Plan};
use subprocess::find_program;

use crate::table::{new_table, one_line};
use crate::{SOME_FAILED, SUCCESS, print};

/// Checks a plan and the commands of its backends.
pub(crate) fn validate(path: &Path) -> Result<u8> {
    let plan = Plan::load(path)?;
    plan.check_commands()?;
    let (tasks, backends) = (plan.tasks().len(), plan.backends().len());
    print(format_args!(
        "{}: valid, with {} and {}",
        path.display(),
        count(tasks, "task"),
        count(backends, "backend")
    ))?;
    Ok(SUCCESS)
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Lists the backends of a plan.
pub(crate) fn backends(path: &Path) -> Result<u8> {
    let plan = Plan::load(path)?;
    let mut table = new_table(["backend", "command", "found", "tasks"]);
    let mut code = SUCCESS;
    for (name, settings) in plan.backends() {
        let found = found(settings);
        if found.is_none() {
            code = SOME_FAILED;
        }
        let tasks = plan.tasks().iter().filter(|task| task.agent == *name).count();
        table.add_row([
            one_line(name),
            one_line(&settings.command.join(" ")),
            found.unwrap_or_else(|| "not found".to_owned()),
            tasks.to_string(),
        ]);
    }
    print(table)?;
    Ok(code)
}

/// Returns the path of a backend's program.
fn found(settings: &BackendSettings) -> Option<String> {
    let program = settings.command.first()?;
    Some(find_program(program)?.display().to_string())
}
