//! What was read of a body, kept up to a limit.

use bytes::Bytes;

/// The smallest piece that room is made for.
const SMALLEST: usize = 1024;

/// The beginning of a body, in pieces: those that are full or an earlier attempt's, and the one that is being filled.
///
/// The data is copied: a frame may be a small view of a large buffer, which would be held with it. A piece never grows, so that it is
/// not held twice while it is moved: all pieces together have room for the limit and no more.
#[derive(Debug)]
pub(super) struct RecordedBytes {
    sealed: Vec<Bytes>,
    open: Vec<u8>,
    /// The bytes that were kept.
    length: usize,
    /// The room of all pieces.
    room: usize,
    limit: usize,
}

impl RecordedBytes {
    /// Empty. It allocates when there is something to keep.
    pub(super) const fn new(limit: usize) -> Self {
        Self { sealed: Vec::new(), open: Vec::new(), length: 0, room: 0, limit }
    }

    /// Keeps what was read. `false`: it would pass the limit.
    pub(super) fn keep(&mut self, mut data: &[u8]) -> bool {
        if data.len() > self.limit.saturating_sub(self.length) {
            return false;
        }
        self.length += data.len();
        while !data.is_empty() {
            let free = self.open.capacity() - self.open.len();
            if free == 0 {
                self.seal();
                // Doubled as usual, but for the limit. What a sealed piece left free is free again.
                let room = self.room.max(data.len()).max(SMALLEST).min(self.limit - self.room);
                self.open = Vec::with_capacity(room);
                self.room += room;
                continue;
            }
            let (now, later) = data.split_at(free.min(data.len()));
            self.open.extend_from_slice(now);
            data = later;
        }
        true
    }

    /// What the present attempt read is an earlier one's from here on.
    pub(super) fn seal(&mut self) {
        if !self.open.is_empty() {
            let mut piece = std::mem::take(&mut self.open);
            self.room -= piece.capacity() - piece.len();
            piece.shrink_to_fit();
            self.sealed.push(Bytes::from(piece));
        }
    }

    /// Adds what an earlier attempt read when the body had been taken over already. The limit does
    /// not apply, for the present attempt needs it.
    pub(super) fn add(&mut self, data: &[u8]) {
        self.length += data.len();
        self.room += data.len();
        self.sealed.push(Bytes::copy_from_slice(data));
    }

    /// A piece of what earlier attempts read.
    pub(super) fn piece(&self, at: usize) -> Option<Bytes> {
        self.sealed.get(at).cloned()
    }

    /// The same, which is not needed again.
    pub(super) fn take_piece(&mut self, at: usize) -> Option<Bytes> {
        self.sealed.get_mut(at).map(std::mem::take)
    }

    /// Keeps only what a reader at this piece has not read yet. What is being filled it has read
    /// itself.
    pub(super) fn release(&mut self, at: usize) {
        for piece in self.sealed.iter_mut().take(at) {
            *piece = Bytes::new();
        }
        self.open = Vec::new();
        self.limit = 0;
    }

    /// How many pieces there are that are not being filled, released ones included.
    pub(super) fn pieces(&self) -> usize {
        self.sealed.len()
    }

    /// How many bytes there are from a piece on.
    pub(super) fn left(&self, at: usize) -> usize {
        self.sealed.get(at..).unwrap_or_default().iter().map(Bytes::len).sum()
    }

    /// Gives the memory back.
    pub(super) fn forget(&mut self) {
        *self = Self { limit: 0, ..Self::new(0) };
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn prefix_capacity_stays_within_limit_and_keeps_all() {
        for limit in [0, 1, 7, 1_000, 65_536] {
            let mut recorded = RecordedBytes::new(limit);
            let mut kept = Vec::new();
            for size in (1..100).cycle() {
                let data: Vec<u8> = (0..size).map(|byte| (byte + kept.len()) as u8).collect();
                if !recorded.keep(&data) {
                    break;
                }
                kept.extend(data);
                let sealed: usize = recorded.sealed.iter().map(Bytes::len).sum();
                assert!(
                    sealed + recorded.open.capacity() <= limit,
                    "{} of {limit}",
                    recorded.open.capacity()
                );
                if size % 40 == 0 {
                    recorded.seal();
                }
            }
            assert!(kept.len() + 100 > limit && recorded.length == kept.len());
            recorded.seal();
            assert_eq!((recorded.sealed.concat(), recorded.left(0)), (kept.clone(), kept.len()));
        }
    }

    #[test]
    fn prefix_limit_is_exact_to_the_byte() {
        let mut recorded = RecordedBytes::new(3);
        assert!(recorded.keep(b"ab") && recorded.keep(b"") && recorded.keep(b"c") && recorded.keep(b""));
        assert!(!recorded.keep(b"d"));
        recorded.seal();
        assert_eq!((recorded.piece(0), recorded.piece(1), recorded.left(0)), (Some("abc".into()), None, 3));
    }
}
