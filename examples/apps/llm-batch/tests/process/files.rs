//! Files that cannot be written, and files of other jobs.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Setup, invalid_key};
use crate::trip::indices;

#[tokio::test]
async fn results_are_in_the_order_of_the_input() {
    let setup = Setup::new(25).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let results = setup.lines("out.jsonl");
    assert_eq!(indices(&results), (0..25).collect::<Vec<_>>());
    assert_eq!(results[7], json!({ "name": "item 7", "answer": 42, "_idx": 7 }));
    assert!(!setup.exists(".checkpoints/job.failures.jsonl"));
}

#[tokio::test]
async fn numbers_of_items_are_kept() {
    let setup = Setup::new(0).await;
    let numbers = "[0.47765259843376573,9494.066600157983,1e-7,18446744073709551615,-9223372036854775808]";
    setup.write("in.jsonl", &format!("{{\"name\":\"a\",\"numbers\":{numbers}}}\n"));
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    assert!(setup.read("out.jsonl").contains(numbers), "{}", setup.read("out.jsonl"));
}

#[tokio::test]
async fn integer_beyond_64_bits_becomes_a_float() {
    let setup = Setup::new(0).await;
    setup.write("in.jsonl", "{\"name\":\"a\",\"number\":18446744073709551616}\n");
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let output = setup.read("out.jsonl");
    assert!(output.contains("\"number\":1.8446744073709552e"), "{output}");
}

#[tokio::test]
async fn temporary_files_of_a_killed_process_do_not_accumulate() {
    let setup = Setup::new(1).await;
    std::fs::create_dir(setup.folder.path().join(".checkpoints")).unwrap();
    let left = [".checkpoints/job.checkpoint.json.agents.tmp", "out.jsonl.agents.tmp"];
    for name in left {
        setup.write(name, "{\"name\":");
    }
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    for name in left {
        assert!(!setup.exists(name), "{name}");
    }
    assert_eq!(setup.lines("out.jsonl").len(), 1);
}

#[tokio::test]
async fn resume_command_can_be_pasted_into_a_shell() {
    let setup = Setup::new(1).await;
    setup.api.set_default(invalid_key());
    let folder = "the user's files";
    let flags = ["--checkpoint-dir", folder, "--circuit-breaker", "1"];
    let program = setup.run(&setup.process(&flags), "a\n").await;
    program
        .expect_code(3)
        .expect_stdout(r"Aborted. To resume later: agents resume job --checkpoint-dir 'the user'\''s files'");
}

#[tokio::test]
async fn json_files_hold_arrays() {
    let setup = Setup::new(0).await;
    setup.write("in.json", "[{\"name\": \"a\"}, {\"name\": \"b\"}]");
    let words = ["process", "in.json", "out.json", "--prompt", "{name}"];
    setup.run(&setup.arguments(&words, &[]), "").await.expect_code(0);
    let output: Value = serde_json::from_str(&setup.read("out.json")).unwrap();
    assert_eq!(output[1], json!({ "name": "b", "answer": 42, "_idx": 1 }));
}

#[tokio::test]
async fn job_is_named_after_the_input_and_a_free_number() {
    let setup = Setup::new(1).await;
    let arguments = setup.arguments(&["process", "in.jsonl", "out.jsonl", "--prompt", "p"], &[]);
    setup.run(&arguments, "").await.expect_code(0);
    setup.run(&arguments, "").await.expect_code(0);
    assert!(setup.exists(".checkpoints/in-1.results.jsonl"));
    assert!(setup.exists(".checkpoints/in-2.results.jsonl"));
}

#[tokio::test]
async fn job_of_any_input_name_can_be_resumed() {
    let setup = Setup::new(1).await;
    for (input, job) in [("日本.jsonl", "job-1"), ("./-x.jsonl", "x-1"), ("größe 2.jsonl", "gr--e-2-1")] {
        setup.write(input, "{\"name\":\"a\"}\n");
        let words = ["process", input, "out.jsonl", "--prompt", "{name}"];
        let program = setup.run(&setup.arguments(&words, &[]), "").await;
        program.expect_code(0).expect_stdout(&format!("Job {job}: 1 item"));
        setup.run(&["resume", job].map(str::to_owned), "").await.expect_code(0);
    }
}

#[tokio::test]
async fn job_id_that_exists_is_refused() {
    let setup = Setup::new(1).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let program = setup.run(&setup.process(&[]), "").await;
    program.expect_code(2).expect_stderr("job `job` exists already").expect_stderr("agents resume job");
    assert_eq!(setup.api.requests().len(), 1);
}

#[tokio::test]
async fn job_id_cannot_leave_the_folder() {
    let setup = Setup::new(1).await;
    for job_id in ["../job", "folder/job"] {
        let words = ["process", "in.jsonl", "out.jsonl", "--prompt", "p", "--job-id", job_id];
        setup.run(&setup.arguments(&words, &[]), "").await.expect_code(2).expect_stderr(job_id);
    }
    assert_eq!(setup.api.requests().len(), 0);
}

#[tokio::test]
async fn key_is_in_no_file_and_no_output() {
    let setup = Setup::new(2).await;
    let program = setup.run(&setup.process(&["--json"]), "").await;
    program.expect_code(0);
    assert!(!format!("{program:?}").contains("sk-secret"));
    for file in ["checkpoint.json", "results.jsonl", "lock"] {
        assert!(!setup.read(&format!(".checkpoints/job.{file}")).contains("sk-secret"), "{file}");
    }
    assert!(!setup.read("out.jsonl").contains("sk-secret"));
}

#[tokio::test]
async fn unwritable_output_is_found_before_the_first_request() {
    let setup = Setup::new(1).await;
    std::fs::create_dir(setup.folder.path().join("folder")).unwrap();
    // No process can create a file in /proc, not even root.
    for output in ["/proc/out.jsonl", "missing/out.jsonl", "folder"] {
        let words = ["process", "in.jsonl", output, "--prompt", "p"];
        let program = setup.run(&setup.arguments(&words, &[]), "").await;
        program.expect_code(5).expect_stderr(output);
    }
    assert_eq!(setup.api.requests().len(), 0);
}

#[tokio::test]
async fn unwritable_checkpoint_folder_is_found_before_the_first_request() {
    let setup = Setup::new(1).await;
    let program = setup.run(&setup.process(&["--checkpoint-dir", "/proc/checkpoints"]), "").await;
    program.expect_code(5).expect_stderr("/proc/checkpoints");
    assert_eq!(setup.api.requests().len(), 0);
}

#[tokio::test]
async fn full_device_as_output_loses_no_result() {
    let setup = Setup::new(3).await;
    let words = ["process", "in.jsonl", "/dev/full", "--prompt", "p", "--job-id", "job"];
    let program = setup.run(&setup.arguments(&words, &[]), "").await;
    program
        .expect_code(5)
        .expect_stderr("/dev/full")
        .expect_stderr("No space left on device")
        .expect_stdout("agents resume job --output");
    assert!(Path::new("/dev/full").exists());
    let program = setup.run(&setup.resume(&["--output", "out.jsonl"]), "").await;
    program.expect_code(0);
    assert_eq!(setup.lines("out.jsonl").len(), 3);
    assert_eq!(setup.api.requests().len(), 3);
}

#[tokio::test]
async fn checkpoint_of_another_version_is_refused() {
    let setup = Setup::new(1).await;
    setup.run(&setup.process(&[]), "").await.expect_code(0);
    let path = ".checkpoints/job.checkpoint.json";
    let mut checkpoint: Value = serde_json::from_str(&setup.read(path)).unwrap();
    checkpoint["version"] = 99.into();
    setup.write(path, &checkpoint.to_string());
    setup.run(&setup.resume(&[]), "").await.expect_code(2).expect_stderr("version 99");
    setup.write(path, "{");
    setup.run(&setup.resume(&[]), "").await.expect_code(2).expect_stderr("job.checkpoint.json");
}

#[tokio::test]
async fn job_of_another_process_is_refused() {
    let setup = Setup::new(1).await;
    setup.api.set_default(test_servers::Action::Hang);
    let program = setup.start(&setup.process(&[]));
    setup.api.wait_for_requests(1).await;
    let id = program.child.id().unwrap().to_string();
    setup.run(&setup.resume(&[]), "").await.expect_code(2).expect_stderr(&id);
    setup.run(&setup.process(&[]), "").await.expect_code(2).expect_stderr(&id);
    assert_eq!(setup.api.requests().len(), 1);
}
