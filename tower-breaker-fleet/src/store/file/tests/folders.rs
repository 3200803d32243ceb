use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn missing_folder_is_created_for_the_user_only() {
    let setup = Setup::new();
    let root = setup.root().join("a/b");
    FileStore::open(&root).unwrap();
    let mut session = connect(&root).await.unwrap();
    trip(&mut *session, "a").await.unwrap();
    let modes = ["", "test", "test/lock", "test/updates", "test/a.json"].map(|name| mode(&root.join(name)));
    assert_eq!(modes, [0o700, 0o700, 0o600, 0o600, 0o600]);
}

#[tokio::test]
async fn existing_folder_gives_its_permissions_to_new_files() {
    let setup = Setup::new();
    fs::set_permissions(setup.root(), Permissions::from_mode(0o2770)).unwrap();
    let mut session = setup.connect().await;
    trip(&mut *session, "a").await.unwrap();
    let modes = ["", "lock", "updates", "a.json"].map(|name| mode(&setup.file(name)));
    assert_eq!(modes, [0o2770, 0o660, 0o660, 0o660]);
}

#[tokio::test]
async fn deleted_folder_is_created_again_and_store_is_empty() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let before = trip(&mut *session, "a").await.unwrap().record;
    fs::remove_dir_all(setup.root()).unwrap();
    let mut request = heartbeat("p", "a");
    request.circuits[0].known = Some(before.clone());
    session.sync(&request).await.unwrap();
    let after = record(&mut *session, "a").await;
    assert_eq!((after.epoch, after.state), (before.epoch, before.state));
}

#[tokio::test]
async fn names_do_not_leave_the_folder() {
    let setup = Setup::new();
    let root = setup.root().join("root");
    let store = FileStore::open(&root).unwrap();
    let long = "é/".repeat(85);
    let names = [
        "../../x",
        "/etc/x",
        "",
        ".",
        "..",
        "\0",
        "Name",
        "name",
        "NAME",
        "a\nb",
        "🦀",
        &long,
        &long[1 + 1..],
    ];
    for namespace in ["../x", "..", ""] {
        let mut session = store.connect(namespace).await.unwrap();
        for name in names {
            session.operate(&operation(name, Action::ForceOpen)).await.unwrap();
        }
        let listed: Vec<_> =
            session.list(None, 100).await.unwrap().into_iter().map(|record| record.circuit).collect();
        let mut expected = names.to_vec();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }
    let outside: Vec<_> =
        fs::read_dir(setup.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["root"]);
    assert_eq!(fs::read_dir(&root).unwrap().count(), 3);
}

#[tokio::test]
async fn file_of_a_killed_writer_is_replaced() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    fs::write(setup.file("new"), "{\"format\":").unwrap();
    trip(&mut *session, "a").await.unwrap();
    assert!(!setup.file("new").exists());
    assert_eq!(session.list(None, 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn list_continues_after_a_name() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    // In the order of the names, and not of the file names.
    for name in ["b", "Z", "a", "ä"] {
        trip(&mut *session, name).await.unwrap();
    }
    let mut pages = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = session.list(after.as_deref(), 3).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.circuit.clone());
        pages.push(page.into_iter().map(|record| record.circuit).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec!["Z", "a", "b"], vec!["ä"]]);
}
