//! The instructions of a call on a closed circuit, with and without an agent.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::fleet_bench::table::Row;

const FEW: u64 = 1000;
const MANY: u64 = 3000;

pub(super) async fn run() -> Result<Vec<Row>> {
    let without = per_call("without").await?;
    let with = per_call("with").await?;
    Ok(vec![Row::new(
        "closed path: instructions of a call with an agent",
        format!("{without:.2}, as without an agent"),
        format!("{with:.2}"),
        (with - without).abs() < 0.005,
    )])
}

/// Returns the instructions of one call: the difference of two runs with different numbers of
/// calls.
async fn per_call(agent: &str) -> Result<f64> {
    let (few, many) = (count(agent, FEW).await?, count(agent, MANY).await?);
    ensure!(many > few, "callgrind has counted {few} instructions for {FEW} calls, {many} for {MANY}");
    Ok((many - few) as f64 / (MANY - FEW) as f64)
}

async fn count(agent: &str, calls: u64) -> Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_calls*"]);
    command.arg(std::env::current_exe()?).args(["counted-calls", &calls.to_string(), agent]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.context("valgrind is missing: apt-get install valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {text}");
    let count = text.lines().find_map(|line| line.split_once("Collected :")).context("no count")?.1;
    count.trim().parse().with_context(|| format!("`{count}` is no count"))
}
