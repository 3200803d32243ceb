//! The demo.

use crate::support::Workspace;

#[tokio::test]
async fn demo_ends_as_it_explains() {
    let ended = Workspace::new().run(&["demo"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let program = env!("CARGO_BIN_EXE_orchestrator");
    assert!(!ended.stdout.contains(program) && !ended.stderr.contains(program), "{}", ended.stdout);
    assert!(ended.stdout.contains("backend `codex` failed (exit status: 1): codex is"), "{}", ended.stdout);
    let expected = [
        ("outline", "completed"),
        ("code", "completed"),
        ("tests", "completed"),
        ("docs", "completed"),
        ("review", "failed"),
        ("audit", "failed"),
        ("fixes", "skipped"),
        ("summary", "skipped"),
        ("search", "failed"),
        ("translate", "completed"),
        ("proofread", "completed"),
        ("publish", "completed"),
    ];
    let (_, explanation) = ended.stdout.split_once("Why the tasks ended so").expect(&ended.stdout);
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = explanation.lines().map(words).collect();
    for (task, state) in expected {
        assert!(lines.contains(&vec![task.to_owned(), state.to_owned()]), "{task}: {}", ended.stdout);
    }
    for (circuit, state) in [("claude", "closed"), ("goose", "closed")] {
        assert!(lines.contains(&vec![circuit.to_owned(), state.to_owned()]), "{}", ended.stdout);
    }
    assert!(!lines.contains(&vec!["codex".to_owned(), "closed".to_owned()]), "{}", ended.stdout);
}
