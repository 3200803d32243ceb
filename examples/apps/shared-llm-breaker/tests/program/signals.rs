//! SIGTERM at moments other than between two calls.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::support::{PATIENCE, command, terminate};

#[tokio::test]
async fn worker_that_waits_for_its_store_ends_at_a_signal() {
    let store = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", store.local_addr().unwrap());
    let arguments = ["run", "--redis", &url, "--ready-within", "600", "--calls", "1"];
    let worker = command(&arguments, &[]).spawn().unwrap();
    let _connection = store.accept().await.unwrap();
    assert_eq!(terminate(worker).await, Some(130));
}

/// Returns whether a process has this text in its command line. Without `/proc`, no process has.
fn runs_with(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    commands.any(|command| String::from_utf8_lossy(&command).contains(text))
}

#[tokio::test]
async fn demo_ends_at_a_signal_with_its_workers_and_its_folder() {
    let mut demo = command(&["demo"], &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut folder = None;
    loop {
        let line = lines.next_line().await.unwrap().expect("the demo goes on");
        if let Some((_, rest)) = line.split_once("share files in ") {
            folder = rest.split_once(',').map(|(folder, _)| folder.to_owned());
        }
        if line.contains("second  started") {
            break;
        }
    }
    let folder = folder.expect("the demo prints its folder");
    assert_eq!(terminate(demo).await, Some(130));
    assert!(!PathBuf::from(&folder).exists());
    // The system may need a moment to end a process that was killed.
    let ended = async {
        while runs_with(&folder) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("a worker goes on");
}
