//! Runs to the end, and their exit codes.

use std::time::Duration;

use serde_json::json;

use crate::support::{Workspace, fast_retry, is_alive, shell, wait_until, waits_for_go};

#[tokio::test]
async fn completed_plan_exits_with_0() {
    let workspace = Workspace::new();
    workspace.write(
        "plan.toml",
        r#"
        [[tasks]]
        id = "first"
        agent = "cat"
        prompt = "hello"

        [[tasks]]
        id = "second"
        agent = "cat"
        prompt = "<{results.first}>"
        depends_on = ["first"]

        [backends.cat]
        command = ["cat"]
        "#,
    );
    let ended = workspace.run(&["run", "plan.toml"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // The table contains the answers.
    assert!(ended.stdout.contains(" hello "), "{}", ended.stdout);
    assert!(ended.stdout.contains("<hello>"), "{}", ended.stdout);
    // Standard error has a line for each event.
    let mut lines: Vec<&str> = ended.stderr.lines().map(|line| line.split(" at ").next().unwrap()).collect();
    lines.dedup();
    assert_eq!(lines, ["first: started", "first: completed", "second: started", "second: completed"]);
}

#[tokio::test]
async fn failed_task_exits_with_1() {
    let workspace = Workspace::new();
    let mut backend = shell("echo 'the key is invalid' >&2; exit 9");
    backend["permanent_exit_codes"] = json!([9]);
    workspace.write_plan(&json!({
        "tasks": [
            { "id": "fails", "agent": "agent", "prompt": "" },
            { "id": "depends", "agent": "agent", "prompt": "", "depends_on": ["fails"] },
        ],
        "backends": { "agent": backend },
    }));
    let ended = workspace.run(&["run", "plan.json"]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let rows: Vec<&str> = ended.stdout.lines().filter(|line| line.contains("agent")).collect();
    assert_eq!(rows.len(), 2, "{}", ended.stdout);
    assert!(rows[0].contains("failed") && rows[1].contains("skipped"), "{}", ended.stdout);
    assert!(ended.stderr.contains("the key is invalid"), "{}", ended.stderr);
}

#[tokio::test]
async fn two_backends_one_dead_other_completes() {
    let workspace = Workspace::new();
    let task = |id: &str, agent: &str, depends_on: &[&str]| json!({ "id": id, "agent": agent, "prompt": id, "depends_on": depends_on });
    let plan = json!({
        "tasks": [
            task("dead1", "dead", &[]),
            task("good1", "good", &[]),
            task("good2", "good", &["good1"]),
            // Starts when the circuit of `dead` is open.
            task("dead2", "dead", &["waits"]),
            task("waits", "waits", &[]),
            task("dead3", "dead", &["dead2"]),
        ],
        "backends": {
            "dead": shell("echo >>sends; exit 1"),
            "good": shell("cat"),
            "waits": waits_for_go(),
        },
        "retry": fast_retry(),
    });
    let ended = workspace.run_plan_until_failed(&plan, Duration::ZERO).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for task in ["good1", "good2"] {
        assert_eq!(ended.result(task)["state"], "completed");
        assert_eq!(ended.result(task)["response"], task);
    }
    let dead = ended.result("dead1");
    assert_eq!((&dead["state"], &dead["attempts"]), (&json!("failed"), &json!(5)));
    assert_eq!(dead["circuit"], json!({ "reason": "consecutive_failures", "consecutive_failures": 5 }));
    let rejected = ended.result("dead2");
    assert_eq!((&rejected["state"], &rejected["attempts"]), (&json!("failed"), &json!(0)));
    assert!(rejected["error"].as_str().unwrap().contains("is open"), "{rejected}");
    assert_eq!(ended.result("dead3")["state"], "skipped");
    assert_eq!(ended.result("dead3")["because"], "dead2");
    let sends = std::fs::read_to_string(workspace.path("sends")).unwrap();
    assert_eq!(sends.lines().count(), 5);
}

#[tokio::test]
async fn open_circuit_half_opens_and_third_success_closes_it() {
    let workspace = Workspace::new();
    // Fails five times, and then works.
    let script = "echo >>calls; [ $(wc -l <calls) -gt 5 ]";
    let probe = |id: &str| json!({ "id": id, "agent": "agent", "prompt": "", "depends_on": ["waits"] });
    let plan = json!({
        "tasks": [
            { "id": "fails", "agent": "agent", "prompt": "" },
            { "id": "waits", "agent": "waits", "prompt": "" },
            probe("probe1"), probe("probe2"), probe("probe3"),
        ],
        "backends": {
            "agent": shell(script),
            "waits": waits_for_go(),
        },
        "retry": fast_retry(),
        "circuit": { "open_for": "1s" },
    });
    let ended = workspace.run_plan_until_failed(&plan, Duration::from_secs(1)).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.result("fails")["attempts"], 5);
    for task in ["probe1", "probe2", "probe3"] {
        assert_eq!(ended.result(task)["state"], "completed", "{}", ended.stdout);
    }
    let finished = ended.events().pop().unwrap();
    assert_eq!(finished["circuits"][0]["circuit"], "agent");
    assert_eq!(finished["circuits"][0]["state"], "closed");
    // The log has one line for each transition, without colors.
    let transitions = [("WARN", "to=\"open\""), ("INFO", "to=\"half_open\""), ("INFO", "to=\"closed\"")];
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("circuit")).collect();
    assert_eq!(lines.len(), transitions.len(), "{}", ended.stderr);
    for (line, (level, to)) in lines.iter().zip(transitions) {
        assert!(line.trim_start().starts_with(level) && line.contains(to), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn hung_command_is_killed_at_timeout_and_sent_again() {
    let workspace = Workspace::new();
    // The first send that comes so far hangs.
    let script = "if [ -e hung ]; then echo done; exit; fi
        sleep 600 & echo $! >child; echo $$ >leader; touch hung; wait";
    let mut backend = shell(script);
    backend["timeout"] = json!("1s");
    let ended = workspace
        .run_plan(&json!({
            "tasks": [{ "id": "task", "agent": "slow", "prompt": "" }],
            "backends": { "slow": backend },
            "retry": fast_retry(),
        }))
        .await;
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ended.result("task")["response"], "done");
    let events = ended.events();
    let failed = events.iter().find(|event| event["event"] == "attempt_failed").expect(&ended.stdout);
    let expected = "backend `slow` has not answered within 1s; check its command, or raise \
                    `backends.slow.timeout`";
    assert_eq!(failed["error"], expected);
    for name in ["leader", "child"] {
        let pid = workspace.pid(name).await;
        wait_until("the end of the hung command", || !is_alive(pid)).await;
    }
}

#[tokio::test]
async fn invalid_command_line_exits_with_2() {
    let workspace = Workspace::new();
    for args in [&["run"][..], &["run", "plan.json", "--concurrency", "0"], &["start"], &[]] {
        let ended = workspace.run(args).await;
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--help"), "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn concurrency_flag_limits_running_tasks() {
    let workspace = Workspace::new();
    let tasks: Vec<_> =
        (0..6).map(|number| json!({ "id": number.to_string(), "agent": "agent", "prompt": "" })).collect();
    // `mkdir` fails if another task runs.
    let mut backend = shell("mkdir running || exit 9; sleep 0.05; rmdir running");
    backend["permanent_exit_codes"] = json!([9]);
    workspace.write_plan(&json!({ "tasks": tasks, "backends": { "agent": backend } }));
    let ended = workspace.run(&["run", "plan.json", "--concurrency", "1"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    // A task ends only if all of them run at the same time.
    let script = "touch run-$ORCHESTRATOR_TASK; until [ $(ls run-* | wc -l) -eq 6 ]; do sleep 0.01; done";
    workspace.write_plan(&json!({ "tasks": tasks, "backends": { "agent": shell(script) } }));
    let ended = workspace.run(&["run", "plan.json", "--concurrency", "6"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}
