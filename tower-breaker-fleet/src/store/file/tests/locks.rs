use super::*;
use crate::store::StoreErrorKind;

#[tokio::test]
async fn held_lock_fails_request_within_its_wait() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let namespace = setup.namespace();
    let locked = namespace.try_lock().unwrap().unwrap();
    let waited = tokio::time::timeout(5 * SECOND, sync(&mut *session, "p", "a")).await;
    let error = waited.expect("the wait has a limit").unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.message.contains(setup.file("lock").to_str().unwrap()), "{}", error.message);
    drop(locked);
    assert_eq!(sync(&mut *session, "p", "a").await.unwrap().members, 1);
}

#[tokio::test]
async fn request_waits_for_lock_of_another_session() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let namespace = setup.namespace();
    let locked = namespace.try_lock().unwrap().unwrap();
    let mut request = Box::pin(sync(&mut *session, "p", "a"));
    let early = tokio::time::timeout(Duration::from_millis(20), &mut request).await;
    assert!(early.is_err(), "the lock is held");
    drop(locked);
    assert_eq!(request.await.unwrap().members, 1);
}

#[tokio::test]
async fn dropped_request_does_not_write_later() {
    let setup = Setup::new();
    let mut session = setup.connect().await;
    let namespace = setup.namespace();
    let locked = namespace.try_lock().unwrap().unwrap();
    let abandoned = tokio::time::timeout(Duration::from_millis(20), trip(&mut *session, "a")).await;
    assert!(abandoned.is_err());
    drop(locked);
    // A later request is processed after all attempts of the first one.
    trip(&mut *session, "b").await.unwrap();
    assert!(!setup.file("a.json").exists());
}

#[test]
fn dropped_request_that_waits_for_a_thread_does_not_write_later() {
    let setup = Setup::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let mut session = setup.connect().await;
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        let abandoned = tokio::time::timeout(Duration::from_millis(20), trip(&mut *session, "a")).await;
        assert!(abandoned.is_err());
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        trip(&mut *session, "b").await.unwrap();
        assert!(!setup.file("a.json").exists());
    });
}

#[test]
fn lock_excludes_other_lock_of_the_same_process() {
    let setup = Setup::new();
    let (first, second) = (setup.namespace(), setup.namespace());
    let locked = first.try_lock().unwrap().unwrap();
    assert!(second.try_lock().unwrap().is_none());
    drop(locked);
    assert!(second.try_lock().unwrap().is_some());
}

#[test]
fn deleted_lock_file_is_created_again() {
    let setup = Setup::new();
    let namespace = setup.namespace();
    drop(namespace.try_lock().unwrap().unwrap());
    std::fs::remove_file(setup.file("lock")).unwrap();
    assert!(namespace.try_lock().unwrap().is_some());
    assert!(setup.file("lock").exists());
}

#[test]
fn lock_on_deleted_file_does_not_count() {
    let setup = Setup::new();
    let namespace = setup.namespace();
    drop(namespace.try_lock().unwrap().unwrap());
    let open = || std::fs::File::open(setup.file("lock")).unwrap();
    let deleted = [open(), open()];
    std::fs::remove_file(setup.file("lock")).unwrap();
    let [first, second] = deleted;
    assert!(namespace.lock_file(first).unwrap().is_none());
    drop(namespace.try_lock().unwrap().unwrap());
    assert!(namespace.lock_file(second).unwrap().is_none());
    assert!(namespace.lock_file(open()).unwrap().is_some());
}
