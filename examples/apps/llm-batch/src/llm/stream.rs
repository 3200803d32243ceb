//! The events of a streamed reply (WHATWG HTML, "Server-sent events").

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// The value of the field `event`.
    pub(super) name: Vec<u8>,
    /// The values of the fields `data`, joined by line feeds.
    pub(super) data: Vec<u8>,
}

/// Splits a stream into events. Chunks may end anywhere.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line.
    line: Vec<u8>,
    /// The event whose end has not arrived.
    event: Event,
}

impl Events {
    /// Reads a chunk, and returns the events that it completes.
    ///
    /// An event without data is skipped, as in a browser. So are comments.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                events.extend((!event.data.is_empty()).then_some(event));
            } else {
                self.field(line);
            }
        }
        events
    }

    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => self.event.name = value.to_vec(),
            b"data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
            }
            // Other fields, and comments, whose name is empty.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_do_not_depend_on_chunks() {
        let stream = ": hello\n\nevent: ping\ndata: {}\n\ndata:a\r\ndata: b\r\n\r\nid: 1\n\nevent: error\ndata:  c: d\n\ndata: e";
        let expected = [event("ping", "{}"), event("", "a\nb"), event("error", " c: d")];
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let found: Vec<Event> =
                stream.as_bytes().chunks(size).flat_map(|chunk| events.feed(chunk)).collect();
            assert_eq!(found, expected, "chunks of {size} bytes");
        }
    }
}
