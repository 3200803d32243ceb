//! Streams to a server that fails: what was partly sent is sent again from its beginning or not at
//! all, and never twice to one call.

use integration_tests::{TIMEOUT, echo_client, retry_at_once, words};
use tokio::time::timeout;
use tonic::{Code, Status};
use tower_breaker::{BreakerConfig, Circuit};
use tower_jitter_retry::RetryPolicyBuilder;

use super::all_listed;
use super::calls::{next, stream};
use super::echo_service::{Failure, Speaker};

fn circuit() -> Circuit {
    Circuit::new(BreakerConfig::builder().name("speaker").consecutive_failures(0).build().unwrap())
}

fn unavailable(hears: usize, says: usize) -> Failure {
    Failure { hears, says, status: Status::unavailable("going down") }
}

/// Says two words of a stream, after which the call fails, and then says the rest. What comes of
/// it, and what the server heard.
async fn broken_off(policy: RetryPolicyBuilder) -> (Result<String, Code>, Vec<String>) {
    let mut server = Speaker::start().await;
    server.fail([unavailable(2, 0)]);
    let (hand, stream) = stream();
    let circuit = circuit();
    let mut client = echo_client(&server.url, policy, &circuit);
    let mut heard = Vec::new();
    let answer = timeout(TIMEOUT, async {
        let call = client.gather(stream);
        let says = async {
            for text in ["one", "two"] {
                hand.send(words(text)).unwrap();
            }
            while heard.len() < 3 {
                heard.push(server.hears().await);
            }
            // Nobody may be left to hear it.
            let _ = hand.send(words("three"));
            drop(hand);
        };
        tokio::join!(call, says).0
    });
    let answer = answer.await.unwrap().map(|words| words.into_inner().text).map_err(|status| status.code());
    heard.extend(server.heard());
    (answer, heard)
}

#[tokio::test]
async fn stream_of_unlisted_method_is_not_replayed() {
    let (answer, heard) = broken_off(retry_at_once()).await;
    assert_eq!((answer, &*heard), (Err(Code::Unavailable), &["gather", "one", "two"].map(String::from)[..]));
}

#[tokio::test]
async fn stream_of_listed_method_is_replayed_and_continues() {
    let (answer, heard) = broken_off(all_listed()).await;
    assert_eq!(answer.as_deref(), Ok("one two three"));
    assert_eq!(heard, ["gather", "one", "two", "gather", "one", "two", "three", "."]);
}

#[tokio::test]
async fn bidirectional_stream_is_replayed_only_before_response() {
    let mut server = Speaker::start().await;
    let mut client = echo_client(&server.url, all_listed(), &circuit());
    timeout(TIMEOUT, async {
        server.fail([unavailable(1, 0)]);
        let (hand, talk) = stream();
        hand.send(words("one")).unwrap();
        let mut answer = client.talk(talk).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("ONE"));
        assert_eq!(server.heard(), ["talk", "one", "talk", "one"]);
        hand.send(words("two")).unwrap();
        assert_eq!(next(&mut answer).await.as_deref(), Some("TWO"));
        drop(hand);
        assert_eq!(next(&mut answer).await, None);
        assert_eq!(server.heard(), ["two", "."]);

        server.fail([unavailable(0, 1)]);
        let (hand, talk) = stream();
        hand.send(words("one")).unwrap();
        let mut answer = client.talk(talk).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("ONE"));
        assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
        drop(hand);
        assert_eq!(server.heard(), ["talk", "one"]);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn server_stream_that_broke_is_not_replayed() {
    let mut server = Speaker::start().await;
    let mut client = echo_client(&server.url, all_listed(), &circuit());
    server.fail([unavailable(1, 2)]);
    server.breath.add_permits(2);
    let mut answer = client.spell(words("abc")).await.unwrap().into_inner();
    assert_eq!(next(&mut answer).await.as_deref(), Some("a"));
    assert_eq!(next(&mut answer).await.as_deref(), Some("b"));
    assert_eq!(answer.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.heard(), ["spell", "abc"]);
}

#[tokio::test]
async fn stream_over_replay_limit_is_not_replayed() {
    for (limit, attempts) in [(3 << 10, 1), (64 << 10, 2)] {
        let mut server = Speaker::start().await;
        server.fail([unavailable(4, 0)]);
        let policy = all_listed().replay_limit(limit);
        let mut client = echo_client(&server.url, policy, &circuit());
        let texts = vec![words(&"x".repeat(1 << 10)); 4];
        let answer = client.gather(tokio_stream::iter(texts)).await;
        assert_eq!(answer.is_ok(), attempts == 2, "{answer:?}");
        let calls = server.heard().iter().filter(|what| *what == "gather").count();
        assert_eq!(calls, attempts);
    }
}
