use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::record::FleetState;
use crate::store::StoreErrorKind;
use crate::store::StoreErrorKind::{Invalid, Refused};

/// The error of a heartbeat after `prepare` has changed the files of a tripped circuit.
async fn error_after(prepare: impl FnOnce(&Setup)) -> StoreError {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    trip(&mut *session, "a").await.unwrap();
    prepare(&setup);
    sync(&mut *session, "p", "a").await.expect_err("the file is not usable")
}

fn assert_error(error: &StoreError, kind: StoreErrorKind, texts: &[&str]) {
    assert_eq!(error.kind, kind, "{}", error.message);
    for text in texts {
        assert!(error.message.contains(text), "{:?} is not in {:?}", text, error.message);
    }
}

#[tokio::test]
async fn truncated_file_is_lost_data_at_each_length() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    trip(&mut *session, "a").await.unwrap();
    let path = setup.file("a.json");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        // A power cut can also leave zero bytes instead of the content.
        for end in [&b""[..], &[0; 8]] {
            fs::write(&path, [&whole[..length], end].concat()).unwrap();
            let reply = sync(&mut *session, "p", "a").await.unwrap();
            assert_eq!((reply.members, reply.record), (1, None), "{length}");
        }
    }
}

#[tokio::test]
async fn foreign_file_is_not_overwritten() {
    for content in ["[1, 2]", "{\"format\":\"other\",\"version\":1}", "\u{feff}", "precious"] {
        let setup = Setup::new();
        let mut session = setup.connect().await;
        fs::write(setup.file("a.json"), content).unwrap();
        let error = sync(&mut *session, "p", "a").await.unwrap_err();
        assert_error(&error, Invalid, &["a.json", "not a file of this store", "move it away or delete it"]);
        assert_eq!(fs::read_to_string(setup.file("a.json")).unwrap(), content);
        // Other circuits do not depend on it.
        trip(&mut *session, "b").await.unwrap();
    }
}

#[tokio::test]
async fn other_version_is_an_error_with_both_versions() {
    let content = "{\"format\":\"tower-breaker-fleet\",\"version\":7,\"circuit\":\"a\",\"data\":[]}";
    let error = error_after(|setup| fs::write(setup.file("a.json"), content).unwrap()).await;
    assert_error(&error, Refused, &["version 7", "version 1", "a.json"]);
}

#[tokio::test]
async fn invalid_value_is_an_error() {
    let edits = [
        ("\"state\":\"open\"", "\"state\":\"ajar\""),
        ("\"epoch\":", "\"epoch\":-"),
        ("\"epoch\":", "\"epoch\":9999"),
    ];
    for (from, to) in edits {
        let error = error_after(|setup| {
            let content = fs::read_to_string(setup.file("a.json")).unwrap();
            assert!(content.contains(from), "{content}");
            fs::write(setup.file("a.json"), content.replace(from, to)).unwrap();
        });
        assert_error(&error.await, Invalid, &["a.json", "invalid value"]);
    }
}

#[tokio::test]
async fn huge_file_is_an_error_and_not_read() {
    let error = error_after(|setup| {
        // A sparse file of 1 TiB.
        fs::OpenOptions::new().write(true).open(setup.file("a.json")).unwrap().set_len(1 << 40).unwrap();
    });
    assert_error(&error.await, Invalid, &["a.json", "more than 1048576 bytes"]);
}

#[tokio::test]
async fn too_large_data_is_not_written() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let mut operation = operation("a", Action::ForceOpen);
    operation.by = "x".repeat(1 << 20);
    // The rules cut texts, so only the serializer sees such data.
    session.operate(&operation).await.unwrap();
    let namespace = setup.namespace();
    let locked = namespace.try_lock().unwrap().unwrap();
    let error = locked.write("b", &operation.by).err().unwrap();
    assert_error(&error, Refused, &["b.json", "several namespaces"]);
    assert!(!setup.file("b.json").exists());
}

#[tokio::test]
async fn file_of_another_circuit_is_an_error() {
    let error = error_after(|setup| {
        let content = fs::read_to_string(setup.file("a.json")).unwrap();
        fs::write(setup.file("a.json"), content.replace("\"circuit\":\"a\"", "\"circuit\":\"other\""))
            .unwrap();
    });
    assert_error(&error.await, Invalid, &["a.json", "`other`"]);
}

#[tokio::test]
async fn symbolic_link_is_not_followed() {
    for name in ["a.json", "lock"] {
        let target = tempfile::NamedTempFile::new().unwrap();
        let error = error_after(|setup| {
            fs::remove_file(setup.file(name)).unwrap();
            symlink(target.path(), setup.file(name)).unwrap();
        });
        assert_error(&error.await, Refused, &[name, "symbolic link"]);
        assert_eq!(fs::read(target.path()).unwrap(), b"");
    }
}

#[tokio::test]
async fn symbolic_link_in_place_of_namespace_is_refused() {
    let (setup, other) = (Setup::new(), TempDir::new().unwrap());
    symlink(other.path(), setup.root().join("test")).unwrap();
    let error = connect(setup.root()).await.err().expect("the link is refused");
    assert_error(&error, Refused, &["test", "no folder"]);
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn pipe_or_folder_in_place_of_a_file_is_an_error() {
    for name in ["a.json", "updates"] {
        for is_pipe in [true, false] {
            let setup = Setup::new();
            let mut session = setup.connect().await;
            let path = setup.file(name);
            let _ = fs::remove_file(&path);
            if is_pipe {
                assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            } else {
                fs::create_dir(&path).unwrap();
            }
            let error = trip(&mut *session, "a").await.unwrap_err();
            assert_error(&error, Refused, &[name, "not a regular file"]);
        }
    }
}

#[tokio::test]
async fn garbage_in_the_log_is_skipped() {
    let setup = Setup::new();
    let (mut writer, mut reader) = (setup.connect().await, setup.connect().await);
    fs::write(setup.file("updates"), [&[0xff; 100][..], b"\n{}\nnull\n", &vec![b'['; 2 << 20]].concat())
        .unwrap();
    trip(&mut *writer, "a").await.unwrap();
    let record = super::updates::next_record(&mut *reader).await;
    assert_eq!((record.circuit.as_str(), record.state), ("a", FleetState::Open));
}
