//! Streams whose readers are too slow.

use super::*;

#[tokio::test(start_paused = true)]
async fn stream_that_is_behind_gets_a_snapshot_and_continues() {
    let registry = registry(&["a", "b"]);
    let hub = hub(&registry, true);
    let mut slow = [opened(&hub).await, opened(&hub).await];
    for _ in 0..30 {
        for _ in 0..50 {
            registry.trip("a").unwrap();
            registry.reset("a").unwrap();
            sleep(Duration::from_millis(60)).await;
        }
    }
    registry.force_open("b").unwrap();
    sleep(SECOND).await;
    let mut snapshots = Vec::new();
    for client in &mut slow {
        assert!(client.read_texts_now().is_empty(), "there is no snapshot yet");
    }
    sleep(2 * SECOND).await;
    for client in &mut slow {
        let frame = poll_now(client).unwrap();
        let event = Event::parse_all(std::str::from_utf8(&frame).unwrap()).pop().unwrap();
        assert_eq!((event.kind.as_str(), &event.data["complete"]), ("circuits", &Value::Bool(true)));
        assert_eq!(event.data["circuits"][1]["local"]["state"], "forced_open");
        snapshots.push(frame.as_ptr());
    }
    assert_eq!(snapshots[0], snapshots[1], "the snapshot was serialized once");
    for client in &mut slow {
        client.read().await;
    }
    registry.release("b").unwrap();
    sleep(SECOND / 10).await;
    for client in &mut slow {
        assert_eq!(kinds(&client.read().await), ["transition"]);
    }
}

fn poll_now(client: &mut Client) -> Option<bytes::Bytes> {
    match client.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(frame) => frame,
        std::task::Poll::Pending => None,
    }
}

/// Returns the bytes that are allocated when `streams` streams are open and do not read any more.
///
/// Each stream was opened at another moment, and has read another number of frames.
fn bytes_of(streams: usize) -> i64 {
    let mut kept = None;
    let measured = allocation_counter::measure(|| {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let registry = registry(&[]);
        for number in 0..20 {
            registry.circuit(format!("circuit-{number}"));
        }
        let hub = hub(&registry, true);
        let streams_open = runtime.block_on(async {
            hub.start();
            let mut streams_open = Vec::new();
            for round in 0..2_000_usize {
                let circuit = format!("circuit-{}", round % 20);
                registry.force_open(&circuit).unwrap();
                registry.release(&circuit).unwrap();
                sleep(Duration::from_millis(101)).await;
                if round < streams {
                    let user = User::operator("anna");
                    let mut stream = Client::new(hub.stream(&user, None).unwrap());
                    for _ in 0..round % 5 {
                        stream.next_text().await.unwrap();
                    }
                    streams_open.push(stream);
                }
            }
            streams_open
        });
        assert!(hub.shared.state().log.number() == 4_000);
        kept = Some((runtime, hub, streams_open));
    });
    measured.bytes_current
}

#[test]
fn streams_that_do_not_read_need_little_memory() {
    let (none, some) = (bytes_of(0), bytes_of(1_000));
    println!("{none} bytes without streams, {some} with 1,000 streams");
    assert!(none < 1_000_000, "{none} bytes");
    // The log of open streams, and 1 KiB for each stream.
    assert!(some - none < (2 << 20) + 1_000 * 1_024 + 500_000, "{} bytes", some - none);
}
