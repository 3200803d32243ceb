//! The demo.

use crate::support::Project;

#[tokio::test]
async fn demo_ends_as_it_explains() {
    let ended = Project::new().run(&["demo"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut expected = vec![
        ("code_quality", "passed"),
        ("type_safety", "passed"),
        ("lint", "failed"),
        ("security", "no verdict"),
        ("coverage", "no verdict"),
        ("visual", "passed"),
        ("behavioral", "no verdict"),
    ];
    if cfg!(feature = "resilience") {
        expected.extend([
            ("push 1, prometheus", "delivered"),
            ("push 1, questdb", "not delivered"),
            ("push 2, questdb", "not delivered"),
            ("push 3, questdb", "not delivered"),
            ("push 4, questdb", "delivered"),
        ]);
        for part in [
            "The push gateway received 3 requests.",
            "CircuitBreaker(questdb, state=closed, failures=3)",
            "CircuitBreaker(questdb, state=open, failures=5)",
            "circuit breaker `questdb` is open; retry after",
            "QuestDB received 7 rows.",
        ] {
            assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
        }
    } else {
        expected.extend([("push, questdb", "not delivered"), ("push, prometheus", "not delivered")]);
    }
    assert!(ended.stdout.contains("In the last 500 ms it wrote 0,"), "{}", ended.stdout);
    let (_, explanation) = ended.stdout.split_once("Why it ended so").expect(&ended.stdout);
    for (subject, result) in expected {
        let explained = explanation.lines().any(|line| {
            let cells: Vec<_> = line.split(['│', '┆']).map(str::trim).collect();
            matches!(cells[..], [_, first, second, _, _] if first == subject && second == result)
        });
        assert!(explained, "{subject}: {}", ended.stdout);
    }
}
