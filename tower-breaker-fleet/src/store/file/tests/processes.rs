//! Processes that share a folder. The test program starts itself.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, timeout};

use super::*;
use crate::rules::CircuitData;
use crate::store::StoreErrorKind;
use crate::store::file::folder::read_file;

const ROLE: &str = "FILE_STORE_TEST_ROLE";
const FOLDER: &str = "FILE_STORE_TEST_FOLDER";

/// A process that runs [`process`]. It is killed when it is dropped.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(setup: &Setup, role: &str) -> Self {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "store::file::tests::processes::process", "--ignored", "--nocapture"]);
        test.env(ROLE, role).env(FOLDER, setup.root()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = test.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for a line of the process.
    fn wait_for(&mut self, expected: &str) {
        let lines = self.output.by_ref().lines().map(Result::unwrap);
        assert!(lines.into_iter().any(|line| line.contains(expected)), "the process ended");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the epochs that the process has printed until its end.
    fn epochs(mut self) -> Vec<u64> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        self.child.wait().unwrap();
        // A killed process may have printed a part of its last line.
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().filter_map(|line| line.strip_prefix("epoch ")?.parse().ok()).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "other tests start it as a process"]
async fn process() {
    let (Ok(role), Some(root)) = (std::env::var(ROLE), std::env::var_os(FOLDER)) else { return };
    let root = PathBuf::from(root);
    let (role, count) = role.split_once(' ').unwrap();
    match role {
        "lock" => {
            let namespace = Folder::new(root, "test");
            let locked = namespace.try_lock().unwrap().unwrap();
            println!("locked");
            std::future::pending::<()>().await;
            drop(locked);
        }
        "write" => {
            let mut session = connect_patiently(&root).await;
            let instance = std::process::id().to_string();
            for _ in 0..count.parse().unwrap() {
                // The only error is a lock that is not free in time.
                if let Ok(reply) = trip(&mut *session, "a").await {
                    println!("epoch {}", reply.record.epoch);
                }
                let _ = sync(&mut *session, &instance, "a").await;
            }
        }
        other => panic!("unknown role {other}"),
    }
}

/// Connects while many processes connect at the same time.
async fn connect_patiently(root: &Path) -> Box<dyn Session> {
    loop {
        match connect(root).await {
            Ok(session) => return session,
            Err(error) => assert_eq!(error.kind, StoreErrorKind::Unreachable, "{}", error.message),
        }
    }
}

#[tokio::test]
async fn eight_writers_lose_no_decision() {
    let setup = Setup::new();
    let processes: Vec<_> = (0..8).map(|_| Process::start(&setup, "write 40")).collect();
    let epochs: Vec<u64> = processes.into_iter().flat_map(Process::epochs).collect();
    // Two writers with the same last record would have decided on the same epoch.
    let different: HashSet<_> = epochs.iter().collect();
    assert_eq!(different.len(), epochs.len());
    assert!(epochs.len() >= 8 * 20, "{} of {} were written", epochs.len(), 8 * 40);
    let mut session = setup.connect().await;
    assert_eq!(record(&mut *session, "a").await.epoch, *epochs.iter().max().unwrap());
    assert_eq!(sync(&mut *session, "last", "a").await.unwrap().members, 9);
}

#[tokio::test]
async fn killed_writers_leave_a_complete_record() {
    let setup = Setup::new();
    let end = Instant::now() + 3 * SECOND;
    let (mut rounds, mut last) = (0_u32, 0);
    while Instant::now() < end {
        let mut processes = [0; 2].map(|_| Process::start(&setup, "write 1000000"));
        for process in &mut processes {
            process.wait_for("epoch ");
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(..5_000))).await;
        for process in &processes {
            process.signal(Signal::KILL);
        }
        let confirmed = processes.into_iter().flat_map(Process::epochs).max();

        let (_, data) =
            read_file::<CircuitData>(&setup.file("a.json")).unwrap().expect("the file is complete");
        let epoch = data.record("a", wall_clock::now_ms()).epoch;
        assert!(epoch >= confirmed.unwrap_or(last).max(last), "{epoch} {confirmed:?} {last}");
        (rounds, last) = (rounds + 1, epoch);
    }
    assert!(rounds >= 5, "{rounds}");
    // The lock of a killed process is free, and its files are deleted.
    let mut session = setup.connect().await;
    assert!(trip(&mut *session, "a").await.unwrap().record.epoch > last);
    let mut files: Vec<_> =
        std::fs::read_dir(setup.file("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort_unstable();
    assert_eq!(files, ["a.json", "lock", "updates"]);
}

#[tokio::test]
async fn stopped_lock_holder_does_not_block_others_for_ever() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let mut holder = Process::start(&setup, "lock 1");
    holder.wait_for("locked");
    holder.signal(Signal::STOP);
    for _ in 0..2 {
        let request = timeout(5 * SECOND, trip(&mut *session, "a")).await;
        let error = request.expect("the wait has a limit").unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unreachable);
    }
    // Reading needs no lock.
    assert_eq!(session.list(None, 10).await.unwrap(), []);
    holder.signal(Signal::KILL);
    holder.child.wait().unwrap();
    trip(&mut *session, "a").await.unwrap();
}
