//! File systems that are full, read-only, or of another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::geteuid;

use super::*;
use crate::store::StoreErrorKind::Refused;
use crate::store::file::circuits::apply;

/// A file system in memory.
struct Mount {
    path: PathBuf,
}

impl Mount {
    /// Returns `None`, with a message, if this process must not mount.
    fn new(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&path).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self { path }),
            failed => {
                eprintln!("skipped: a file system cannot be mounted; run as root: {failed:?}");
                None
            }
        }
    }

    fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

#[tokio::test]
async fn full_disk_is_an_error_and_keeps_the_last_record() {
    let setup = Setup::new();
    let Some(disk) = Mount::new(setup.root().join("disk")) else { return };
    let mut session = connect(&disk.path).await.unwrap();
    let before = trip(&mut *session, "a").await.unwrap().record;
    let large = disk.path.join("large");
    // The write ends when the disk is full.
    fs::write(&large, vec![0; 1 << 20]).unwrap_err();

    let error = trip(&mut *session, "a").await.unwrap_err();
    assert_eq!(error.kind, Refused, "{}", error.message);
    assert!(error.message.contains("no space left"), "{}", error.message);
    assert_eq!(record(&mut *session, "a").await.epoch, before.epoch);

    fs::remove_file(&large).unwrap();
    let after = trip(&mut *session, "a").await.unwrap().record;
    assert!(after.epoch > before.epoch);
}

#[tokio::test]
async fn read_only_file_system_is_an_error() {
    let setup = Setup::new();
    let Some(disk) = Mount::new(setup.root().join("disk")) else { return };
    let mut session = connect(&disk.path).await.unwrap();
    let before = trip(&mut *session, "a").await.unwrap().record;
    disk.make_read_only();

    for error in [sync(&mut *session, "p", "a").await.err(), connect(&disk.path).await.err()] {
        let error = error.expect("nothing can be written");
        assert_eq!(error.kind, Refused, "{}", error.message);
        assert!(error.message.contains("read-only"), "{}", error.message);
    }
    assert_eq!(record(&mut *session, "a").await.epoch, before.epoch);
}

#[test]
fn only_decisions_are_synchronized_to_the_disk() {
    let setup = Setup::new();
    let namespace = setup.namespace();
    let locked = namespace.try_lock().unwrap().unwrap();
    let now = wall_clock::now_ms();
    let request = heartbeat("p", "a");
    let (_, unsynced) =
        apply(&locked, "a", now, |data, now| data.sync(&request, &request.circuits[0], now)).unwrap();
    assert!(unsynced.is_none(), "a heartbeat");
    let trip = operation("a", Action::Trip);
    let (_, unsynced) = apply(&locked, "a", now, |data, now| data.operate(&trip, now)).unwrap();
    unsynced.expect("a decision").finish().unwrap();
}

#[test]
fn folder_of_another_user_is_an_error() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a process of another user");
        return;
    }
    let setup = Setup::new();
    fs::set_permissions(setup.root(), Permissions::from_mode(0o755)).unwrap();
    // The other user may not reach the test program where it is.
    let program = setup.root().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut test = Command::new(program);
    test.args(["--exact", "store::file::tests::disk::other_user", "--ignored", "--nocapture"]);
    let output = test.env(FOLDER, setup.root()).uid(65_534).gid(65_534).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

const FOLDER: &str = "FILE_STORE_TEST_FOLDER";

#[tokio::test]
#[ignore = "another test runs it as another user"]
async fn other_user() {
    let Some(root) = std::env::var_os(FOLDER) else { return };
    let error = connect(Path::new(&root)).await.err().expect("the folder belongs to another user");
    assert_eq!(error.kind, Refused, "{}", error.message);
    assert!(error.message.contains("permission denied"), "{}", error.message);
    assert!(FileStore::open(Path::new(&root).join("new")).is_err());
}
