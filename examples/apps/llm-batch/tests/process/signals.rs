//! Signals and closed pipes.

use rustix::process::Signal;
use serde_json::{Value, json};
use test_servers::Action;

use crate::support::{Setup, invalid_key, reply};
use crate::trip::indices;

async fn interrupt_and_resume(signal: Signal) {
    let setup = Setup::new(10).await;
    let good = || reply("{\"answer\": 42}");
    setup.api.script([good(), good(), good(), Action::Hang]);
    let program = setup.start(&setup.process(&["--batch-size", "1"]));
    setup.api.wait_for_requests(4).await;
    program.signal(signal);
    let program = program.finish().await;
    program.expect_code(130).expect_stdout("agents resume job");
    let checkpoint: Value = serde_json::from_str(&setup.read(".checkpoints/job.checkpoint.json")).unwrap();
    assert_eq!(checkpoint["counts"], json!({ "total": 10, "processed": 3, "failed": 0 }));
    assert_eq!(setup.lines("out.jsonl").len(), 3);

    setup.run(&setup.resume(&[]), "").await.expect_code(0);
    assert_eq!(indices(&setup.lines("out.jsonl")), (0..10).collect::<Vec<_>>());
    assert_eq!(setup.api.requests().len(), 11);
}

#[tokio::test]
async fn interrupt_saves_checkpoint_and_job_resumes() {
    interrupt_and_resume(Signal::INT).await;
}

#[tokio::test]
async fn terminate_saves_checkpoint_and_job_resumes() {
    interrupt_and_resume(Signal::TERM).await;
}

#[tokio::test]
async fn signal_during_the_question_ends_the_program() {
    for signal in [Signal::INT, Signal::TERM] {
        let setup = Setup::new(3).await;
        setup.api.set_default(invalid_key());
        let mut program = setup.start(&setup.process(&["--circuit-breaker", "1", "--batch-size", "1"]));
        program.wait_for("[I]nspect").await;
        program.signal(signal);
        program.wait_for("agents resume job").await;
        program.finish().await.expect_code(130);
        assert_eq!(setup.lines("out.jsonl").len(), 1);
    }
}

#[tokio::test]
async fn second_interrupt_ends_the_program_at_once() {
    let setup = Setup::new(3).await;
    // The output is a pipe without a reader, so writing it at the end blocks.
    let pipe = setup.folder.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success());
    let words = ["process", "in.jsonl", "pipe", "--prompt", "p", "--job-id", "job"];
    let program = setup.start(&setup.arguments(&words, &[]));
    setup.wait_for_lines(".checkpoints/job.results.jsonl", 3).await;
    program.signal(Signal::INT);
    program.signal(Signal::TERM);
    program.finish().await.expect_code(130);
    assert_eq!(setup.lines(".checkpoints/job.results.jsonl").len(), 3);
}

#[tokio::test]
async fn closed_stdout_does_not_stop_the_job() {
    let setup = Setup::new(5).await;
    for (flags, output) in [(&["--json"][..], "json.jsonl"), (&[], "text.jsonl")] {
        let words = ["process", "in.jsonl", output, "--prompt", "p"];
        let mut child = setup.command(&setup.arguments(&words, flags)).spawn().unwrap();
        drop(child.stdout.take());
        drop(child.stderr.take());
        assert_eq!(child.wait().await.unwrap().code(), Some(0), "{flags:?}");
        assert_eq!(setup.lines(output).len(), 5);
    }
}
