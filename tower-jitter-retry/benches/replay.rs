//! The cost of keeping a stream of 1 GiB for a replay, compared with the bare stream, and the
//! memory that it takes.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use std::convert::Infallible;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame};
use tower_jitter_retry::ReplayBody;
use tower_jitter_retry::replay::RetryBody;

const FRAME: usize = 16 * 1024;
const FRAMES: usize = 65_536;
const LIMIT: usize = 64 * 1024;

/// Copies its data from a source, as every body does that is not a constant.
struct Stream<'a> {
    source: &'a [u8],
    left: usize,
}

impl Body for Stream<'_> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.left.checked_sub(1) else { return Poll::Ready(None) };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(self.source)))))
    }
}

fn drain<B: Body<Data = Bytes> + Unpin>(mut body: B) -> usize {
    let (mut cx, mut read) = (Context::from_waker(Waker::noop()), 0);
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
        read += black_box(frame).data_ref().map_or(0, Bytes::len);
    }
    read
}

fn main() {
    let source = vec![7_u8; FRAME];
    let stream = || Stream { source: &source, left: FRAMES };
    let saved = || {
        let mut body = ReplayBody::new(stream());
        let saved = body.save(LIMIT);
        (body, saved)
    };
    let mut nanos = [Vec::new(), Vec::new()];
    for round in 0..9 {
        for (variant, nanos) in nanos.iter_mut().enumerate() {
            let start = Instant::now();
            let read = if variant == 0 {
                drain(stream())
            } else {
                let (body, _saved) = saved();
                drain(body)
            };
            assert_eq!(read, FRAME * FRAMES);
            // The first round warms up.
            if round > 0 {
                nanos.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let [bare, kept] = nanos.map(|mut nanos| {
        nanos.sort_by(f64::total_cmp);
        nanos[nanos.len() / 2]
    });
    println!("1 GiB in frames of 16 KiB, bare          {:>9.1} ms", bare * 1e3);
    println!(
        "the same, kept up to 64 KiB              {:>9.1} ms   {:.3} of the bare one",
        kept * 1e3,
        kept / bare
    );
    let measured = allocation_counter::measure(|| {
        let (body, _saved) = saved();
        black_box(drain(body));
    });
    let most = measured.bytes_max;
    println!(
        "at most in memory                        {most:>9} bytes, of which a frame is {FRAME} and the limit {LIMIT}"
    );
}
