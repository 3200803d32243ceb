//! Fuzzes `LlmEvents` with any bytes as an event stream, in any chunks.
//!
//! It must not panic. The verdict must not depend on the chunks.
//!
//! The first byte of the input is the number of cuts. Each of the following bytes is the position
//! of a cut. The rest is the stream.
//!
//!     cargo +nightly fuzz run events -- -dict=fuzz/dictionary

#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use libfuzzer_sys::fuzz_target;
use tower_fault_classify::body::{DataInspector, LlmErrors, LlmEvents};
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
    let verdict = inspect(&[stream]);
    assert_eq!(inspect(&chunks), verdict);
    if let Some(verdict) = verdict {
        assert_eq!(verdict.fault().map(|fault| fault.retryable()), Some(Retryable::Never));
    }
});

fn inspect(chunks: &[&[u8]]) -> Option<Verdict> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    let events = LlmEvents::new(LlmErrors::new());
    let mut events = DataInspector::<Bytes>::start(&events, Some(&headers));
    let verdict = chunks.iter().find_map(|chunk| events.inspect(&Bytes::copy_from_slice(chunk)));
    verdict.or_else(|| <LlmEvents as DataInspector<Bytes>>::finish(&mut events))
}
