//! A disk that is full, and has space again.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

use crate::support::Setup;
use crate::trip::indices;

/// Runs a test of this program as root of a user namespace, in which it can mount a file system.
fn run_in_namespace(test: &str) {
    let program = std::env::current_exe().unwrap();
    let unshare = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(program)
        .args(["--exact", test])
        .output();
    let output = unshare.expect("`unshare` is installed");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "the test failed in a user namespace; if the namespace cannot be created, run the test as root:\n\
         {stdout}{}",
        String::from_utf8_lossy(&output.stderr),
    );
}

/// A file system of 2 MiB, of which a file uses all but 64 KiB.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        std::fs::create_dir(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(path).output();
        let output = mount.expect("`mount` is installed");
        assert!(
            output.status.success(),
            "a tmpfs cannot be mounted; run this test with CAP_SYS_ADMIN: {output:?}"
        );
        let disk = Self(path);
        std::fs::write(disk.large_file(), vec![0; (2048 - 64) * 1024]).unwrap();
        disk
    }

    fn large_file(&self) -> PathBuf {
        self.0.join("large")
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test]
async fn full_disk_stops_the_job_and_loses_no_result() {
    if !geteuid().is_root() {
        return run_in_namespace("disk::full_disk_stops_the_job_and_loses_no_result");
    }
    let setup = Setup::new(0).await;
    let items: Vec<String> =
        (0..100).map(|number| format!("{{\"name\":\"{}\"}}\n", format!("{number} ").repeat(500))).collect();
    setup.write("in.jsonl", &items.concat());
    let path = setup.folder.path().join("disk");
    let disk = SmallDisk::mount(&path);

    let folder = ["--checkpoint-dir", "disk", "--batch-size", "2"];
    let program = setup.run(&setup.process(&folder), "").await;
    program
        .expect_code(5)
        .expect_stderr("disk/job.results.jsonl")
        .expect_stderr("No space left on device")
        .expect_stdout("agents resume job --checkpoint-dir disk");
    let written = setup.lines("disk/job.results.jsonl").len();
    assert!((1..100).contains(&written), "{written} results");

    // There is space again.
    std::fs::remove_file(disk.large_file()).unwrap();
    setup.run(&setup.resume(&folder), "").await.expect_code(0);
    assert_eq!(indices(&setup.lines("out.jsonl")), (0..100).collect::<Vec<_>>());
    let requests = setup.api.requests().len();
    assert!(requests <= 100 + 2, "{requests} requests: at most the items in flight are sent again");
}
