//! The stores with their servers, and their failures.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use test_servers::{FaultyProxy, Postgres, ProxyFault, Redis};
use tokio::time::{sleep, timeout};
use tower_breaker_fleet::{FileStore, Fleet, FleetBuilder, PostgresStore, RedisStore};

use crate::processes::{CIRCUIT, DEADLINE, millis};

/// A store, as a process opens it.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Redis(RedisStore),
    Postgres(PostgresStore),
    File(FileStore),
}

impl Store {
    pub(crate) fn builder(&self) -> FleetBuilder {
        match self {
            Self::Redis(store) => Fleet::builder(store.clone()),
            Self::Postgres(store) => Fleet::builder(store.clone()),
            Self::File(store) => Fleet::builder(store.clone()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Redis,
    Postgres,
    File,
}

/// How a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreFault {
    /// The server is stopped (SIGSTOP). Files: a process that has the lock is stopped.
    Pause,
    /// The server is killed. Files: the folder is gone.
    Kill,
    /// The network delivers nothing, and closes nothing.
    Cut,
    /// Each answer is late by 2 s.
    Delay,
    /// The answers are garbage. Files: their content is garbage.
    Garbage,
    /// An answer announces far more bytes than there are. Files: one is too large.
    Huge,
}

impl StoreFault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Pause, Self::Kill, Self::Cut, Self::Delay, Self::Garbage, Self::Huge];

    /// Whether the fault exists for this store. Files have no network.
    pub(crate) fn applies_to(self, kind: StoreKind) -> bool {
        kind != StoreKind::File || !matches!(self, Self::Cut | Self::Delay)
    }
}

enum Program {
    Redis(Redis),
    Postgres(Postgres),
    /// A folder, in a temporary folder.
    File {
        parent: TempDir,
        holders: Vec<Holder>,
    },
}

/// A store with its server, behind a proxy.
pub(crate) struct Server {
    program: Program,
    proxy: Option<FaultyProxy>,
    pub(crate) store: Store,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Server {
    pub(crate) async fn start(kind: StoreKind) -> Self {
        match kind {
            StoreKind::Redis => {
                let server = Redis::start();
                let proxy = FaultyProxy::start(&server).await;
                let store = RedisStore::open(&format!("redis://{}", proxy.address())).unwrap();
                Self { program: Program::Redis(server), proxy: Some(proxy), store: Store::Redis(store) }
            }
            StoreKind::Postgres => {
                let server = Postgres::start_with(&["max_connections=200"]);
                // With the feature `postgres-tls`, a connection over TCP needs cryptography.
                test_servers::install_ring();
                let proxy = FaultyProxy::start(&server).await;
                let url = server.url_at(proxy.address());
                let store = PostgresStore::open(&url).unwrap().listen_at(&url).unwrap();
                store.migrate().await.unwrap();
                Self { program: Program::Postgres(server), proxy: Some(proxy), store: Store::Postgres(store) }
            }
            StoreKind::File => {
                let parent = TempDir::with_prefix("fleet-").unwrap();
                let store = FileStore::open(parent.path().join("store")).unwrap();
                let program = Program::File { parent, holders: Vec::new() };
                Self { program, proxy: None, store: Store::File(store) }
            }
        }
    }

    /// Lets the store fail for all processes of these namespaces.
    pub(crate) async fn fail(&mut self, fault: StoreFault, namespaces: &[String]) {
        let proxy_fault = match (fault, &mut self.program) {
            (StoreFault::Pause, Program::Redis(server)) => return server.pause(),
            (StoreFault::Pause, Program::Postgres(server)) => return server.pause(),
            (StoreFault::Kill, Program::Redis(server)) => return server.kill(),
            (StoreFault::Kill, Program::Postgres(server)) => return server.kill(),
            (fault, Program::File { parent, holders }) => {
                return fail_files(fault, &parent.path().join("store"), namespaces, holders).await;
            }
            (StoreFault::Cut, _) => ProxyFault::Stall,
            (StoreFault::Delay, _) => {
                ProxyFault::Delay { to_server: Duration::ZERO, to_client: Duration::from_secs(2) }
            }
            (StoreFault::Garbage, _) => {
                ProxyFault::Garbage(Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
            }
            (StoreFault::Huge, Program::Redis(_)) => huge(b"*1\r\n$500000000\r\n"),
            // A row of data of 1 GiB.
            (StoreFault::Huge, Program::Postgres(_)) => huge(b"D\x3f\xff\xff\xff"),
        };
        self.proxy.as_ref().expect("a store with a server").set(proxy_fault).await;
    }

    /// Ends the failure.
    pub(crate) async fn heal(&mut self, fault: StoreFault, namespaces: &[String]) {
        match (fault, &mut self.program) {
            (StoreFault::Pause, Program::Redis(server)) => server.resume(),
            (StoreFault::Pause, Program::Postgres(server)) => server.resume(),
            (StoreFault::Kill, Program::Redis(server)) => server.restart_with(&[]),
            (StoreFault::Kill, Program::Postgres(server)) => server.restart(),
            (fault, Program::File { parent, holders }) => {
                heal_files(fault, &parent.path().join("store"), namespaces, holders);
            }
            _ => self.proxy.as_ref().expect("a store with a server").set(ProxyFault::None).await,
        }
    }

    /// Deletes all data of a Redis server.
    pub(crate) fn flush(&self) {
        let Program::Redis(server) = &self.program else { panic!("{self:?} is no Redis server") };
        server.command("FLUSHALL");
    }
}

fn huge(head: &'static [u8]) -> ProxyFault {
    let mut bytes = head.to_vec();
    bytes.resize(4 << 20, b'x');
    ProxyFault::Garbage(bytes.into())
}

/// Returns the file of the circuit, and the file that processes lock.
fn files(store: &Path, namespace: &str) -> (PathBuf, PathBuf) {
    let folder = store.join(namespace);
    (folder.join(format!("{CIRCUIT}.json")), folder.join("lock"))
}

async fn fail_files(fault: StoreFault, store: &Path, namespaces: &[String], holders: &mut Vec<Holder>) {
    if fault == StoreFault::Kill {
        fs::rename(store, store.with_extension("gone")).unwrap();
        fs::write(store, "no folder").unwrap();
        return;
    }
    for namespace in namespaces {
        let (file, lock) = files(store, namespace);
        match fault {
            StoreFault::Pause => holders.push(stopped_holder(&lock).await),
            StoreFault::Garbage => replace(&file, &lock, b"garbage").await,
            _ => replace(&file, &lock, &vec![b'x'; 2 << 20]).await,
        }
    }
}

fn heal_files(fault: StoreFault, store: &Path, namespaces: &[String], holders: &mut Vec<Holder>) {
    match fault {
        StoreFault::Kill => {
            fs::remove_file(store).unwrap();
            fs::rename(store.with_extension("gone"), store).unwrap();
        }
        StoreFault::Pause => holders.clear(),
        _ => namespaces.iter().for_each(|namespace| fs::remove_file(files(store, namespace).0).unwrap()),
    }
}

/// Changes the file of a circuit while no process writes it.
pub(crate) async fn change_file(file: &Path, change: impl FnOnce(&str) -> String) {
    let _lock = lock(&file.with_file_name("lock")).await;
    let content = fs::read_to_string(file).unwrap();
    fs::write(file, change(&content)).unwrap();
}

/// Replaces a file while no process writes it.
async fn replace(file: &Path, lock: &Path, content: &[u8]) {
    let _lock = self::lock(lock).await;
    fs::write(file, content).unwrap();
}

/// Locks a file until the returned value is dropped.
async fn lock(lock: &Path) -> File {
    let lock = File::options().read(true).write(true).open(lock).unwrap();
    let locked = async {
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            sleep(millis(1)).await;
        }
    };
    timeout(DEADLINE, locked).await.expect("the lock becomes free");
    lock
}

/// Executes SQL over a connection of its own.
pub(crate) async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

/// A stopped process that has a lock. Dropping it kills it, because no other signal ends it.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // Errors: the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that locks the file, and stops it when it has the lock.
async fn stopped_holder(lock: &Path) -> Holder {
    // `flock` of util-linux waits for the lock, and then becomes `cat`.
    let mut command = Command::new("flock");
    command.args(["--no-fork", "--exclusive"]).arg(lock).args(["sh", "-c", "echo locked; exec cat"]);
    let mut holder = Holder(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = holder.0.stdout.take().unwrap();
    let locked = tokio::task::spawn_blocking(move || std::io::Read::read(&mut output, &mut [0; 16]).unwrap());
    assert_ne!(locked.await.unwrap(), 0, "flock has the lock");
    kill_process(Pid::from_child(&holder.0), Signal::STOP).unwrap();
    holder
}
