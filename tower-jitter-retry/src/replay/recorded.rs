//! The recorded beginning of a body, up to a limit.

use bytes::Bytes;

/// The smallest capacity of a piece, in bytes.
const SMALLEST: usize = 1024;

/// The recorded beginning of a body, in pieces: sealed pieces, which are full or were read by an
/// earlier attempt, and the open piece, which is being filled.
///
/// The data is copied, because a frame may be a small view of a large buffer and would keep that
/// buffer alive. A piece never grows, so that it is never in memory twice while it is moved. The
/// capacity of all pieces together is at most the limit.
#[derive(Debug)]
pub(super) struct RecordedBytes {
    sealed: Vec<Bytes>,
    open: Vec<u8>,
    /// The number of recorded bytes.
    length: usize,
    /// The capacity of all pieces, in bytes.
    room: usize,
    limit: usize,
}

impl RecordedBytes {
    /// Creates an empty recording. It allocates when the first data is recorded.
    pub(super) const fn new(limit: usize) -> Self {
        Self { sealed: Vec::new(), open: Vec::new(), length: 0, room: 0, limit }
    }

    /// Records data. Returns `false`, and records nothing, if the data would exceed the limit.
    pub(super) fn keep(&mut self, mut data: &[u8]) -> bool {
        if data.len() > self.limit.saturating_sub(self.length) {
            return false;
        }
        self.length += data.len();
        while !data.is_empty() {
            let free = self.open.capacity() - self.open.len();
            if free == 0 {
                self.seal();
                // The capacity doubles as usual, up to the limit. The unused capacity of a sealed
                // piece is available again.
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

    /// Seals the open piece: from here on, its data counts as read by an earlier attempt.
    pub(super) fn seal(&mut self) {
        if !self.open.is_empty() {
            let mut piece = std::mem::take(&mut self.open);
            self.room -= piece.capacity() - piece.len();
            piece.shrink_to_fit();
            self.sealed.push(Bytes::from(piece));
        }
    }

    /// Adds data that an earlier attempt read after the body had been taken over. The limit does
    /// not apply, because the present attempt needs the data.
    pub(super) fn add(&mut self, data: &[u8]) {
        self.length += data.len();
        self.room += data.len();
        self.sealed.push(Bytes::copy_from_slice(data));
    }

    /// Returns a sealed piece.
    pub(super) fn piece(&self, at: usize) -> Option<Bytes> {
        self.sealed.get(at).cloned()
    }

    /// Takes a sealed piece that is not needed again.
    pub(super) fn take_piece(&mut self, at: usize) -> Option<Bytes> {
        self.sealed.get_mut(at).map(std::mem::take)
    }

    /// Keeps only the data that a reader at this piece has not read yet. The reader has read the
    /// open piece itself.
    pub(super) fn release(&mut self, at: usize) {
        for piece in self.sealed.iter_mut().take(at) {
            *piece = Bytes::new();
        }
        self.open = Vec::new();
        self.limit = 0;
    }

    /// Returns the number of sealed pieces, including released ones.
    pub(super) fn pieces(&self) -> usize {
        self.sealed.len()
    }

    /// Returns the number of bytes in the sealed pieces from a position on.
    pub(super) fn left(&self, at: usize) -> usize {
        self.sealed.get(at..).unwrap_or_default().iter().map(Bytes::len).sum()
    }

    /// Frees the memory. Nothing is recorded any more.
    pub(super) fn forget(&mut self) {
        *self = Self { limit: 0, ..Self::new(0) };
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn recording_capacity_stays_within_limit_and_keeps_all() {
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
    fn recording_limit_is_exact_to_the_byte() {
        let mut recorded = RecordedBytes::new(3);
        assert!(recorded.keep(b"ab") && recorded.keep(b"") && recorded.keep(b"c") && recorded.keep(b""));
        assert!(!recorded.keep(b"d"));
        recorded.seal();
        assert_eq!((recorded.piece(0), recorded.piece(1), recorded.left(0)), (Some("abc".into()), None, 3));
    }
}
