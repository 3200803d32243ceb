//! The program, its files and its clients.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use reqwest::{Client, Response};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_servers::install_ring;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than any step takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const OPERATOR: &str = "anna-0123456789abcdef";
pub(crate) const READER: &str = "wall-0123456789abcdef";

/// The files of a server, which outlive its process.
pub(crate) struct Files {
    folder: TempDir,
    /// The URL of the database. `None`: the server is embedded.
    database: Option<String>,
}

impl Files {
    /// Creates the files of an embedded server.
    pub(crate) fn embedded(config: &Value) -> Self {
        Self::new(config, None)
    }

    /// Creates the files of a server with a database.
    pub(crate) fn with_database(config: &Value, url: String) -> Self {
        Self::new(config, Some(url))
    }

    fn new(config: &Value, database: Option<String>) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), database };
        files.write("tokens", format!("operator anna {OPERATOR}\nreader wall {READER}\n"));
        files.write("config.json", config.to_string());
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<str>) {
        fs::write(self.path(name), content.as_ref()).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns the records of the audit file.
    pub(crate) fn audit(&self) -> Vec<Value> {
        self.read("audit").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts a server with these files.
    pub(crate) async fn start(&self) -> Server {
        self.start_with(&[]).await
    }

    /// Starts a server with these files and further arguments.
    pub(crate) async fn start_with(&self, arguments: &[&str]) -> Server {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--config", "config.json"];
        all.extend(["--token-file", "tokens", "--audit-file", "audit"]);
        match &self.database {
            Some(url) => all.extend(["--database", url]),
            None => all.extend(["--embedded", "circuits.json"]),
        }
        all.extend(arguments);
        self.spawn(self.command(&all)).await
    }

    /// Starts a server, and waits until it listens.
    pub(crate) async fn spawn(&self, mut command: Command) -> Server {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().unwrap();
        let mut line = String::new();
        timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("the server starts").unwrap();
        let Some(url) = line.find("http://").map(|start| &line[start..]) else {
            panic!("{line}{}", read_all(stderr).await);
        };
        let url = url.trim_end_matches(|end: char| !end.is_ascii_digit()).to_owned();
        Server { child, stdout, logs: Some(tokio::spawn(read_all(stderr))), url, client: client() }
    }

    /// Returns the program with these arguments. It starts in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_circuit-manager"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_LOG").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        timeout(DEADLINE, self.command(arguments).output()).await.expect("the program ends").unwrap()
    }
}

/// Returns a client that uses no proxy.
pub(crate) fn client() -> Client {
    install_ring();
    Client::builder().no_proxy().timeout(DEADLINE).build().unwrap()
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    // Closing it would break the server's pipe.
    #[expect(dead_code, reason = "it keeps the pipe open")]
    stdout: BufReader<ChildStdout>,
    logs: Option<JoinHandle<String>>,
    url: String,
    client: Client,
}

impl Server {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Returns the host and the port.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Sends a request of the operator, and returns the status and the body.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        self.send_as(Some(OPERATOR), method, path, body).await
    }

    pub(crate) async fn send_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&str>,
    ) -> (StatusCode, Value) {
        let mut request = self.client.request(method, self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        read(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None).await
    }

    /// Returns the circuit of an agent.
    pub(crate) async fn circuit(&self, agent: &str) -> Value {
        let (status, circuit) = self.get(&format!("/api/v1/circuits/{agent}")).await;
        assert_eq!(status, 200, "{circuit}");
        circuit
    }

    /// Applies an action of the API.
    pub(crate) async fn act(&self, agent: &str, action: &str) -> (StatusCode, Value) {
        let body = json!({ "action": action }).to_string();
        self.send(Method::POST, &format!("/api/v1/circuits/{agent}/action"), Some(&body)).await
    }

    /// Applies an action of the administration page.
    pub(crate) async fn administrate(&self, agent: &str, action: &str) {
        let url = self.url(&format!("/admin/api/v1/circuits/{agent}/actions/{action}"));
        let body = json!({ "reason": "a test", "scope": "process" });
        let request = self.client.post(url).bearer_auth(OPERATOR).header("x-tower-breaker", "1");
        let (status, answer) = read(request.json(&body).send().await.unwrap()).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until the circuit of an agent is in a state, and returns it.
    pub(crate) async fn wait_for_state(&self, agent: &str, state: &str) -> Value {
        let started = Instant::now();
        loop {
            let circuit = self.circuit(agent).await;
            if circuit["state"] == state {
                return circuit;
            }
            assert!(started.elapsed() < DEADLINE, "{state} is expected: {circuit}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Opens a WebSocket with the token of the reader, and waits for its first message.
    pub(crate) async fn websocket(&self) -> Socket {
        let mut socket = Socket::connect(self, Some(READER)).await.unwrap();
        assert_eq!(socket.next().await, json!({ "type": "subscribed", "data": {} }));
        socket
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills the server, and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops the server with a signal, and returns its exit code and its logs.
    pub(crate) async fn stop(mut self) -> (Option<i32>, String) {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for the end of the server, and returns its exit code and its logs.
    pub(crate) async fn ended(&mut self) -> (Option<i32>, String) {
        let logs = self.logs.take().unwrap();
        let logs = timeout(DEADLINE, logs).await.expect("the server ends").unwrap();
        let status = timeout(DEADLINE, self.child.wait()).await.expect("the server ends").unwrap();
        assert!(!logs.contains("panicked"), "{logs}");
        (status.code(), logs)
    }
}

async fn read_all(mut pipe: ChildStderr) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.unwrap();
    text
}

async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} {text}"));
    (status, body)
}

/// A WebSocket.
pub(crate) struct Socket(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn connect(server: &Server, token: Option<&str>) -> tungstenite::Result<Self> {
        let url = format!("ws://{}/api/v1/circuits/ws", server.address());
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        Ok(Self(connect_async(request).await?.0))
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// Returns the next message. Pings are answered.
    pub(crate) async fn next(&mut self) -> Value {
        match self.next_frame().await {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the server closes the connection, and returns its code and reason.
    pub(crate) async fn closed(&mut self) -> (CloseCode, String) {
        match self.next_frame().await {
            Some(Ok(Message::Close(Some(frame)))) => (frame.code, frame.reason.to_string()),
            other => panic!("{other:?}"),
        }
    }

    /// Returns the next frame that is neither ping nor pong.
    pub(crate) async fn next_frame(&mut self) -> Option<tungstenite::Result<Message>> {
        let is_content =
            |frame: &tungstenite::Result<Message>| !matches!(frame, Ok(Message::Ping(_) | Message::Pong(_)));
        let next = async {
            loop {
                match self.0.next().await {
                    Some(frame) if !is_content(&frame) => {}
                    other => return other,
                }
            }
        };
        timeout(DEADLINE, next).await.expect("a message arrives")
    }
}
