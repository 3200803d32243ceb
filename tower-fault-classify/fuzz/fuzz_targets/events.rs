//! Any bytes as an event stream, in any chunks, give the verdict that they give in one, and never a panic.
//!
//! The first byte is the number of cuts, each of the bytes that follow the place of one; the rest is the stream.
//!
//!     cargo +nightly fuzz run events -- -dict=fuzz/dictionary

#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use libfuzzer_sys::fuzz_target;
use tower_fault_classify::body::{DataInspector, LlmEvents};
use tower_fault_classify::{Retryable, Verdict};

fuzz_target!(|input: &[u8]| {
    let Some((&cuts, input)) = input.split_first() else { return };
    let (cuts, stream) = input.split_at(usize::from(cuts).min(input.len()));
    let mut cuts: Vec<_> = cuts.iter().map(|&cut| usize::from(cut).min(stream.len())).collect();
    cuts.sort_unstable();
    let mut chunks = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([stream.len()]) {
        chunks.push(&stream[from..cut]);
        from = cut;
    }
    let verdict = watch(&[stream]);
    assert_eq!(watch(&chunks), verdict);
    if let Some(verdict) = verdict {
        assert_eq!(verdict.fault().map(|fault| fault.retryable()), Some(Retryable::Never));
    }
});

fn watch(chunks: &[&[u8]]) -> Option<Verdict> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let mut events = <LlmEvents as DataInspector<Bytes>>::new(&headers);
    let seen = chunks.iter().find_map(|chunk| events.inspect(&Bytes::copy_from_slice(chunk)));
    seen.or_else(|| <LlmEvents as DataInspector<Bytes>>::finish(&mut events))
}
