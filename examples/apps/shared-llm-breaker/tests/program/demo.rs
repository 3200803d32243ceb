//! The demo.

use super::support::run;

#[tokio::test]
async fn demo_opens_restarts_and_closes() {
    let finished = run(&["demo"], &[]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let mut rest = &*finished.stdout;
    let steps = [
        "1. The API works",
        "succeeded  closed",
        "2. The API fails",
        "The circuit is open in both workers after",
        "3. The first worker is killed",
        "first   started    open for",
        "The API got 0 requests meanwhile.",
        "4. The API works again",
        "half-open",
        "the circuit is closed in both workers.",
        "were rejected at once.",
    ];
    for step in steps {
        let (_, after) = rest.split_once(step).unwrap_or_else(|| panic!("{step}: {finished:?}"));
        rest = after;
    }
}
