//! The events of a streamed reply (WHATWG HTML, "Server-sent events").

/// Splits a stream into the data of its events. Chunks may end anywhere.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line.
    line: Vec<u8>,
    /// The data of the event whose end has not arrived.
    data: Vec<u8>,
}

impl Events {
    /// Reads a chunk, and returns the data of the events that it completes.
    ///
    /// Events without data, comments and other fields are skipped.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if let Some(value) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            } else if line.is_empty() && !self.data.is_empty() {
                events.push(std::mem::take(&mut self.data));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_do_not_depend_on_chunks() {
        let stream =
            ": hello\n\nevent: ping\ndata: {}\n\ndata:a\r\ndata: b\r\n\r\nid: 1\n\ndata:  c\n\ndata: d";
        let expected: [&[u8]; 3] = [b"{}", b"a\nb", b" c"];
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let found: Vec<_> = stream.as_bytes().chunks(size).flat_map(|chunk| events.feed(chunk)).collect();
            assert_eq!(found, expected, "chunks of {size} bytes");
        }
    }
}
