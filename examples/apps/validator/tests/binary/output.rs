//! The report for people and for machines.

use std::fs::File;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Project, end, shell, validators};

#[tokio::test]
async fn json_report_is_documented() {
    let config = json!({
        "validators": [
            { "dimension": "lint", "tier": 2, "command": ["sh", "-c", "echo out; echo err >&2; exit 4"] },
            { "dimension": "visual", "command": ["sleep", "600"] },
        ],
        "timeouts": { "visual": 0.1 },
    });
    let ended = Project::with_config(&config).run_config(&["--json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let expected = json!({
        "results": [
            {
                "dimension": "lint",
                "tier": 2,
                "passed": false,
                "message": "`sh` failed: exit code 4",
                "details": {
                    "command": "sh -c echo out; echo err >&2; exit 4",
                    "exit_code": 4,
                    "stdout": "out\n",
                    "stderr": "err\n",
                },
            },
            {
                "dimension": "visual",
                "tier": 1,
                "passed": false,
                "message": "Timeout after 0.1s",
                "details": { "error": "timeout" },
            },
        ],
        "passed": false,
        "degraded": true,
        "deliveries": [],
        "interrupted": false,
    });
    // The fields have this order, too.
    assert_eq!(ended.report().to_string(), expected.to_string());
}

#[tokio::test]
async fn table_shows_results_and_output_of_failed_commands() {
    let script = "seq 1 100; echo 'main.c:3: unused' >&2; exit 3";
    let missing = json!({ "dimension": "security", "command": ["no-such-tool"] });
    let passes = shell("coverage", "echo not shown");
    let project = Project::with_config(&validators([passes, shell("lint", script), missing]));
    let ended = project.run_config(&[]).await;
    let row = |dimension: &str| {
        let row = ended.stdout.lines().find(|line| line.starts_with(&format!("│ {dimension}")));
        row.unwrap_or_else(|| panic!("no row `{dimension}`: {}", ended.stdout))
    };
    assert!(row("coverage").contains(" passed ") && row("coverage").contains("`sh` passed"));
    assert!(row("lint").contains(" failed ") && row("lint").contains("`sh` failed: exit code 3"));
    assert!(row("security").contains(" no verdict ") && row("security").contains("no-such-tool"));
    let shown = "lint: the end of stdout:\n    91\n";
    assert!(ended.stdout.contains(shown), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("    100\nlint: the end of stderr:\n    main.c:3: unused\n"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("not shown"), "{}", ended.stdout);
    assert!(ended.stdout.ends_with("\n1 passed, 1 failed, 1 without a verdict\n"), "{}", ended.stdout);
}

#[tokio::test]
async fn finished_validators_are_lines_on_stderr() {
    // The second command waits until the first one has finished.
    let waits = shell("lint", "until [ -e ended ]; do sleep 0.01; done; exit 1");
    let project = Project::with_config(&validators([waits, shell("visual", "true")]));
    let mut child = project.spawn(&["--config", "config.json"]);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "visual: `sh` passed");
    project.write("ended", "");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "lint: `sh` failed: exit code 1");
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(end(child).await.code, Some(1));
}

#[tokio::test]
async fn control_characters_do_not_reach_terminal() {
    let script = "printf '\\033[31mred\\r\\n'; exit 1";
    let project = Project::with_config(&validators([shell("li\u{1b}[2Jnt", script)]));
    let ended = project.run_config(&[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("[31mred") && ended.stderr.contains("[2Jnt"), "{}", ended.stdout);
    for text in [ended.stdout, ended.stderr] {
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }
}

#[tokio::test]
async fn closed_outputs_do_not_change_exit_code() {
    for script in ["true", "exit 1"] {
        let waits = format!("until [ -e closed ]; do sleep 0.01; done; {script}");
        let project = Project::with_config(&validators([shell("lint", &waits)]));
        let mut child = project.spawn(&["--config", "config.json"]);
        drop((child.stdout.take(), child.stderr.take()));
        project.write("closed", "");
        assert_eq!(end(child).await.code, Some((script != "true").into()));
    }
}

/// A write to this device fails, as on a full disk.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn report_that_is_not_written_is_an_error() {
    let project = Project::with_config(&validators([shell("lint", "true")]));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = project.command(&["--config", "config.json", "--json"]).stdout(full).spawn().unwrap();
    let ended = end(child).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let error = "error: standard output cannot be written; check the disk: No space left on device";
    assert!(ended.stderr.contains(error), "{}", ended.stderr);
}

/// A validator without a verdict is in the report. It is logged only if `RUST_LOG` selects it.
#[tokio::test]
async fn rust_log_selects_logs() {
    let missing = json!({ "dimension": "security", "command": ["no-such-tool"] });
    let project = Project::with_config(&validators([missing]));
    let ended = project.run_config(&[]).await;
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let child = project.command(&["--config", "config.json"]).env("RUST_LOG", "warn").spawn().unwrap();
    let ended = end(child).await;
    assert!(ended.stderr.contains("WARN the validator gave no verdict"), "{}", ended.stderr);
}
