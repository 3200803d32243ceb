//! A run with agents that only pretend, and an explanation of its results.

use std::env;
use std::path::Path;

use anyhow::{Context, Result};
use indicatif::MultiProgress;
use orchestrator::plan::{Format, Plan};
use orchestrator::report::Report;
use orchestrator::runner::Runner;
use serde_json::{Value, json};

use crate::progress::Progress;
use crate::run::run_plan;
use crate::{INTERRUPTED, SUCCESS, print, table};

const INTRODUCTION: &str = "\
A plan of 12 tasks for three agents. Each agent is this program itself, in a hidden mode:

  claude  fails twice, and then works. An answer takes 1.2 s.
  codex   is dead: every call fails.
  goose   is down for its first 5 calls, and then works.

The settings of the plan: a failed send is sent again, first after 20 ms. 5 failures in a row open
the circuit of an agent for 3 s. After that, 3 successes close it.
";

struct DemoTask {
    id: &'static str,
    agent: &'static str,
    prompt: &'static str,
    depends_on: &'static [&'static str],
    /// Why the task ends as it does.
    explanation: &'static str,
}

const TASKS: [DemoTask; 12] = [
    DemoTask {
        id: "outline",
        agent: "claude",
        prompt: "write the outline",
        depends_on: &[],
        explanation: "claude failed twice. The third attempt succeeded, so no other task was affected.",
    },
    DemoTask {
        id: "code",
        agent: "claude",
        prompt: "write the code",
        depends_on: &["outline"],
        explanation: "Started when `outline` was completed.",
    },
    DemoTask {
        id: "tests",
        agent: "claude",
        prompt: "write the tests",
        depends_on: &["code"],
        explanation: "Completed, although tasks of the other agents failed meanwhile.",
    },
    DemoTask {
        id: "docs",
        agent: "claude",
        prompt: "write the docs",
        depends_on: &["tests"],
        explanation: "Completed 4.8 s after the start. Until then, no task used goose again.",
    },
    DemoTask {
        id: "review",
        agent: "codex",
        prompt: "review the idea",
        depends_on: &[],
        explanation: "codex failed 5 times in a row. The circuit opened, which ended the retries.",
    },
    DemoTask {
        id: "audit",
        agent: "codex",
        prompt: "audit the code",
        depends_on: &["code"],
        explanation: "The circuit of codex was open. The task failed at once, and nothing was sent.",
    },
    DemoTask {
        id: "fixes",
        agent: "claude",
        prompt: "fix this: {results.review}",
        depends_on: &["review"],
        explanation: "Not started, because it depends on `review`.",
    },
    DemoTask {
        id: "summary",
        agent: "claude",
        prompt: "summarize the work",
        depends_on: &["tests", "fixes"],
        explanation: "Not started, because `fixes` was skipped. `tests` alone is not enough.",
    },
    DemoTask {
        id: "search",
        agent: "goose",
        prompt: "search for sources",
        depends_on: &[],
        explanation: "goose failed 5 times in a row, and its circuit opened, too.",
    },
    DemoTask {
        id: "translate",
        agent: "goose",
        prompt: "translate this: {results.docs}",
        depends_on: &["docs"],
        explanation: "After 3 s, the circuit of goose was half-open and admitted this task as a probe.",
    },
    DemoTask {
        id: "proofread",
        agent: "goose",
        prompt: "proofread the docs",
        depends_on: &["docs"],
        explanation: "The second probe.",
    },
    DemoTask {
        id: "publish",
        agent: "goose",
        prompt: "publish the docs",
        depends_on: &["docs"],
        explanation: "The third probe. The third success closed the circuit of goose.",
    },
];

/// Runs the demo. The exit code is 0, although some of its tasks fail.
pub(crate) async fn run(bars: MultiProgress) -> Result<u8> {
    let state = tempfile::tempdir().context("no temporary directory can be created; set TMPDIR")?;
    let plan = plan(state.path())?;
    let runner = Runner::new(plan.retry(), plan.circuit())?;
    print(INTRODUCTION)?;
    let Some(report) = run_plan(&plan, &runner, Progress::text(&plan, bars)).await? else {
        return Ok(INTERRUPTED);
    };
    explain(&report)?;
    Ok(SUCCESS)
}

fn plan(state: &Path) -> Result<Plan> {
    let program = env::current_exe().context("the path of this program is unknown; reinstall it")?;
    let agent = |name: &str, failures: u32, milliseconds: u32| {
        json!({
            "command": [
                program, "demo-agent", name,
                "--state", state,
                "--failures", failures.to_string(),
                "--milliseconds", milliseconds.to_string(),
            ]
        })
    };
    let plan = json!({
        "backends": {
            "claude": agent("claude", 2, 1200),
            "codex": agent("codex", u32::MAX, 0),
            "goose": agent("goose", 5, 300),
        },
        "retry": { "initial_backoff": "20ms" },
        "circuit": { "open_for": "3s" },
        "tasks": TASKS.iter().map(task).collect::<Value>(),
    });
    Ok(Plan::parse("demo", &plan.to_string(), Format::Json)?)
}

fn task(task: &DemoTask) -> Value {
    json!({ "id": task.id, "agent": task.agent, "prompt": task.prompt, "depends_on": task.depends_on })
}

fn explain(report: &Report) -> Result<()> {
    print("\nWhy the tasks ended so:\n")?;
    for (task, result) in TASKS.iter().zip(&report.tasks) {
        let state = table::state(&result.outcome);
        print(format_args!("  {:<10}{state:<10} {}", task.id, task.explanation))?;
    }
    print("\nThe circuits at the end:\n")?;
    for circuit in &report.circuits {
        print(format_args!("  {:<10}{}", circuit.circuit, circuit.state.as_str()))?;
    }
    print("\nThe circuit of codex becomes half-open at the next send after its 3 s.")?;
    print("`run` with this plan exits with code 1, because some tasks failed.")
}
