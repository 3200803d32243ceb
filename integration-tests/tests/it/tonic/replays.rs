//! Request streams to a server that fails. A stream that was partly sent is sent again from its
//! beginning or not at all, and no call gets a message twice.

use integration_tests::{TIMEOUT, echo_client, retry_at_once, words};
use tokio::time::timeout;
use tonic::{Code, Status};
use tower_breaker::{BreakerConfig, Circuit};
use tower_jitter_retry::RetryPolicyBuilder;

use super::all_listed;
use super::calls::{next, stream};
use super::echo_service::{Failure, TestServer};

fn circuit() -> Circuit {
    Circuit::new(BreakerConfig::builder().name("speaker").consecutive_failures(0).build().unwrap())
}

fn unavailable(received: usize, sent: usize) -> Failure {
    Failure { received, sent, status: Status::unavailable("going down") }
}

/// Sends two messages of a stream, lets the call fail, and sends the last message.
///
/// Returns the result of the call and the events of the server.
async fn interrupted_stream(policy: RetryPolicyBuilder) -> (Result<String, Code>, Vec<String>) {
    let mut server = TestServer::start().await;
    server.fail([unavailable(2, 0)]);
    let (sender, stream) = stream();
    let circuit = circuit();
    let mut client = echo_client(&server.url, policy, &circuit);
    let mut events = Vec::new();
    let answer = timeout(TIMEOUT, async {
        let call = client.gather(stream);
        let messages = async {
            for text in ["one", "two"] {
                sender.send(words(text)).unwrap();
            }
            while events.len() < 3 {
                events.push(server.next_event().await);
            }
            // It fails if the call has ended without a retry.
            let _ = sender.send(words("three"));
            drop(sender);
        };
        tokio::join!(call, messages).0
    });
    let answer = answer.await.unwrap().map(|words| words.into_inner().text).map_err(|status| status.code());
    events.extend(server.take_events());
    (answer, events)
}

#[tokio::test]
async fn stream_of_unlisted_method_is_not_replayed() {
    let (answer, events) = interrupted_stream(retry_at_once()).await;
    assert_eq!((answer, &*events), (Err(Code::Unavailable), &["gather", "one", "two"].map(String::from)[..]));
}

#[tokio::test]
async fn stream_of_listed_method_is_replayed_and_continues() {
    let (answer, events) = interrupted_stream(all_listed()).await;
    assert_eq!(answer.as_deref(), Ok("one two three"));
    assert_eq!(events, ["gather", "one", "two", "gather", "one", "two", "three", "."]);
}

#[tokio::test]
async fn bidirectional_stream_is_replayed_only_before_response() {
    let mut server = TestServer::start().await;
    let mut client = echo_client(&server.url, all_listed(), &circuit());
    timeout(TIMEOUT, async {
        server.fail([unavailable(1, 0)]);
        let (sender, talk) = stream();
        sender.send(words("one")).unwrap();
        let mut answer = client.talk(talk).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("ONE"));
        assert_eq!(server.take_events(), ["talk", "one", "talk", "one"]);
        sender.send(words("two")).unwrap();
        assert_eq!(next(&mut answer).await.as_deref(), Some("TWO"));
        drop(sender);
        assert_eq!(next(&mut answer).await, None);
        assert_eq!(server.take_events(), ["two", "."]);

        server.fail([unavailable(0, 1)]);
        let (sender, talk) = stream();
        sender.send(words("one")).unwrap();
        let mut answer = client.talk(talk).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("ONE"));
        assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
        drop(sender);
        assert_eq!(server.take_events(), ["talk", "one"]);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn server_stream_that_broke_is_not_replayed() {
    let mut server = TestServer::start().await;
    let mut client = echo_client(&server.url, all_listed(), &circuit());
    server.fail([unavailable(1, 2)]);
    server.letter_permits.add_permits(2);
    let mut answer = client.spell(words("abc")).await.unwrap().into_inner();
    assert_eq!(next(&mut answer).await.as_deref(), Some("a"));
    assert_eq!(next(&mut answer).await.as_deref(), Some("b"));
    assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.take_events(), ["spell", "abc"]);
}

#[tokio::test]
async fn stream_over_replay_limit_is_not_replayed() {
    for (limit, attempts) in [(3 << 10, 1), (64 << 10, 2)] {
        let mut server = TestServer::start().await;
        server.fail([unavailable(4, 0)]);
        let policy = all_listed().replay_limit(limit);
        let mut client = echo_client(&server.url, policy, &circuit());
        let texts = vec![words(&"x".repeat(1 << 10)); 4];
        let answer = client.gather(tokio_stream::iter(texts)).await;
        assert_eq!(answer.is_ok(), attempts == 2, "{answer:?}");
        let calls = server.take_events().iter().filter(|event| *event == "gather").count();
        assert_eq!(calls, attempts);
    }
}
