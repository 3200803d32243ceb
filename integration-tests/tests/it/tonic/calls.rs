//! Each kind of call through all layers: each message arrives once, when it is sent, and a status
//! arrives unchanged.

use integration_tests::echo::Words;
use integration_tests::{TIMEOUT, echo_client, words};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use tower_breaker::{BreakerConfig, Circuit};

use super::all_listed;
use super::echo_service::{Failure, TestServer};

fn circuit() -> Circuit {
    Circuit::new(BreakerConfig::builder().name("speaker").build().unwrap())
}

/// Returns a stream of messages and its sender.
pub(crate) fn stream() -> (mpsc::UnboundedSender<Words>, UnboundedReceiverStream<Words>) {
    let (sender, stream) = mpsc::unbounded_channel();
    (sender, UnboundedReceiverStream::new(stream))
}

/// Returns the text of the next message of an answer.
pub(crate) async fn next(answer: &mut Streaming<Words>) -> Option<String> {
    answer.message().await.unwrap().map(|words| words.text)
}

#[tokio::test]
async fn unary_call_carries_metadata_both_ways() {
    let mut server = TestServer::start().await;
    let circuit = circuit();
    let mut request = Request::new(words("hello"));
    request.metadata_mut().insert("x-tag", MetadataValue::from_static("seven"));
    let answer = echo_client(&server.url, all_listed(), &circuit).say(request).await.unwrap();
    assert_eq!(answer.metadata().get("x-tag").unwrap(), "seven");
    assert_eq!(
        answer.metadata().get("grpc-status").unwrap(),
        "0",
        "the trailers are merged into the metadata"
    );
    assert_eq!(answer.into_inner().text, "HELLO");
    assert_eq!(server.take_events(), ["say", "hello"]);
    assert_eq!(circuit.status().window.calls, 1);
}

#[tokio::test]
async fn client_stream_arrives_message_by_message() {
    let mut server = TestServer::start().await;
    let circuit = circuit();
    let (sender, stream) = stream();
    let mut client = echo_client(&server.url, all_listed(), &circuit);
    let call = client.gather(stream);
    let messages = async {
        assert_eq!(server.next_event().await, "gather");
        for text in ["one", "two", "three"] {
            sender.send(words(text)).unwrap();
            assert_eq!(server.next_event().await, text);
        }
        assert_eq!(circuit.status().window.calls, 0, "the call has not ended");
        drop(sender);
    };
    let (answer, ()) = timeout(TIMEOUT, async { tokio::join!(call, messages) }).await.unwrap();
    assert_eq!(answer.unwrap().into_inner().text, "one two three");
    assert_eq!(server.take_events(), ["."]);
    assert_eq!(circuit.status().window.calls, 1);
}

#[tokio::test]
async fn server_stream_arrives_message_by_message() {
    let mut server = TestServer::start().await;
    let circuit = circuit();
    let mut client = echo_client(&server.url, all_listed(), &circuit);
    timeout(TIMEOUT, async {
        let mut answer = client.spell(words("abc")).await.unwrap().into_inner();
        for letter in ["a", "b", "c"] {
            server.letter_permits.add_permits(1);
            assert_eq!(next(&mut answer).await.as_deref(), Some(letter));
            assert_eq!(circuit.status().window.calls, 0, "the call has not ended");
        }
        assert_eq!(next(&mut answer).await, None);
    })
    .await
    .unwrap();
    assert_eq!(server.take_events(), ["spell", "abc"]);
    assert_eq!(circuit.status().window.calls, 1);
}

#[tokio::test]
async fn bidirectional_stream_alternates_messages() {
    let mut server = TestServer::start().await;
    let circuit = circuit();
    let (sender, stream) = stream();
    let mut client = echo_client(&server.url, all_listed(), &circuit);
    let mut events = vec!["talk".to_owned()];
    timeout(TIMEOUT, async {
        let mut answer = client.talk(stream).await.unwrap().into_inner();
        for number in 0..100 {
            sender.send(words(&format!("ping {number}"))).unwrap();
            assert_eq!(next(&mut answer).await, Some(format!("PING {number}")));
            events.push(format!("ping {number}"));
        }
        assert_eq!(circuit.status().window.calls, 0, "the call has not ended");
        drop(sender);
        assert_eq!(next(&mut answer).await, None);
    })
    .await
    .unwrap();
    events.push(".".to_owned());
    assert_eq!(server.take_events(), events);
    assert_eq!(circuit.status().window.calls, 1);
}

#[tokio::test]
async fn long_streams_arrive_whole_and_in_order() {
    let mut server = TestServer::start().await;
    let (sender, stream) = stream();
    // More than every default window of HTTP/2 and the replay limit.
    let texts: Vec<_> = (0..64).map(|number| format!("{number:02} {}", "x".repeat(32 << 10))).collect();
    for text in &texts {
        sender.send(words(text)).unwrap();
    }
    drop(sender);
    timeout(TIMEOUT, async {
        let mut answer =
            echo_client(&server.url, all_listed(), &circuit()).talk(stream).await.unwrap().into_inner();
        for text in &texts {
            assert!(next(&mut answer).await.is_some_and(|answer| answer == text.to_uppercase()));
        }
        assert_eq!(next(&mut answer).await, None);
    })
    .await
    .unwrap();
    let events = server.take_events();
    assert!(events[1..=64] == texts && events.len() == 66, "{} events", events.len());
}

/// Returns a status with message, details and metadata.
fn full_status(code: Code) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-limit", MetadataValue::from_static("7"));
    metadata.append("x-limit", MetadataValue::from_static("8"));
    metadata.insert_bin("x-trace-bin", MetadataValue::from_bytes(b"\0\xff"));
    Status::with_details_and_metadata(code, "50 % of `ä`\n", (&b"\x08\x0d\xff"[..]).into(), metadata)
}

fn assert_same(status: &Status, given: &Status) {
    assert_eq!((status.code(), status.message()), (given.code(), given.message()));
    assert_eq!(status.details(), given.details());
    let all = |status: &Status| -> Vec<_> { status.metadata().get_all("x-limit").iter().cloned().collect() };
    assert_eq!(all(status), all(given));
    let trace = |status: &Status| status.metadata().get_bin("x-trace-bin").unwrap().to_bytes().unwrap();
    assert_eq!(trace(status), trace(given));
}

#[tokio::test]
async fn status_reaches_caller_unchanged() {
    let server = TestServer::start().await;
    let circuit = circuit();
    let mut client = echo_client(&server.url, all_listed(), &circuit);
    // The first code is not retried. The second is retried until the attempts are used up.
    for (code, attempts) in [(Code::FailedPrecondition, 1), (Code::Unavailable, 3)] {
        let given = full_status(code);
        let fail = |sent| {
            let failures = (0..if sent > 0 { 1 } else { attempts }).map(|_| Failure {
                received: 1,
                sent,
                status: given.clone(),
            });
            server.fail(failures);
        };
        circuit.reset().unwrap();
        fail(0);
        assert_same(&client.say(words("a")).await.unwrap_err(), &given);
        circuit.reset().unwrap();
        fail(0);
        assert_same(&client.gather(tokio_stream::once(words("a"))).await.unwrap_err(), &given);
        circuit.reset().unwrap();
        fail(0);
        assert_same(&client.spell(words("a")).await.unwrap_err(), &given);
        circuit.reset().unwrap();
        fail(0);
        assert_same(&client.talk(tokio_stream::once(words("a"))).await.unwrap_err(), &given);

        server.letter_permits.add_permits(1);
        circuit.reset().unwrap();
        fail(1);
        let mut answer = client.spell(words("ab")).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("a"));
        assert_same(&answer.message().await.unwrap_err(), &given);
        fail(1);
        let mut answer = client.talk(tokio_stream::once(words("a"))).await.unwrap().into_inner();
        assert_eq!(next(&mut answer).await.as_deref(), Some("A"));
        assert_same(&answer.message().await.unwrap_err(), &given);
    }
}
