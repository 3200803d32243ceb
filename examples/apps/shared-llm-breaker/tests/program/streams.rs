//! Output that nothing reads, and text that could control a terminal.

use std::process::Stdio;

use super::support::{Setup, command};

#[tokio::test]
async fn worker_with_a_closed_log_makes_and_reports_its_calls() {
    let setup = Setup::new().await;
    let (base_url, store) = (setup.base_url(), setup.store("store"));
    let arguments = ["run", "--redis", &store, "--base-url", &base_url, "--interval", "0", "--json"];
    let arguments = [&arguments[..], &["--max-attempts", "1", "--calls", "3"]].concat();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let worker = command(&arguments, &[]).stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    let output = worker.wait_with_output().await.unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    assert!(stdout.contains(r#""calls":3,"succeeded":0,"failed":3"#), "{stdout}");
}

#[tokio::test]
async fn worker_with_a_closed_stdout_makes_its_calls() {
    let setup = Setup::new().await;
    let (base_url, store) = (setup.base_url(), setup.store("store"));
    let arguments = ["run", "--redis", &store, "--base-url", &base_url, "--interval", "0"];
    let arguments = [&arguments[..], &["--max-attempts", "1", "--calls", "3"]].concat();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut worker = command(&arguments, &[]).stdout(writer).spawn().unwrap();
    assert_eq!(worker.wait().await.unwrap().code(), Some(1));
    assert_eq!(setup.llm.all_counts().values().map(|counts| counts.requests).sum::<u32>(), 3);
}

#[tokio::test]
async fn control_characters_of_a_reply_do_not_reach_the_terminal() {
    let setup = Setup::new().await;
    setup.llm.set_faults(|_, _| None);
    setup.llm.set_reply(|_| "one\r\ntwo \u{1b}[2Jthree\u{9b}1m".to_owned());
    let store = setup.store("store");
    let finished = setup.run(&["--redis", &store, "--calls", "1"], &[]).await;
    assert!(finished.stdout.contains("closed: one / two \u{fffd}[2Jthree\u{fffd}1m\n"), "{finished:?}");
    let finished = setup.run(&["--redis", &store, "--calls", "1", "--json"], &[]).await;
    assert!(finished.stdout.contains(r"one\r\ntwo \u001b[2Jthree"), "{finished:?}");
}
