//! What was read of a body, kept up to a limit.

use bytes::Bytes;

/// The beginning of a body: what earlier attempts read, a piece each, and what the present one reads.
///
/// The data is copied: a frame may be a small view of a large buffer, which would be held with it. The room for it is never more than
/// the limit.
#[derive(Debug)]
pub(super) struct Prefix {
    sealed: Vec<Bytes>,
    open: Vec<u8>,
    /// The bytes in both.
    length: usize,
    limit: usize,
}

impl Prefix {
    /// Empty. It allocates when there is something to keep.
    pub(super) const fn new(limit: usize) -> Self {
        Self { sealed: Vec::new(), open: Vec::new(), length: 0, limit }
    }

    /// Keeps what was read. `false`: it would pass the limit.
    pub(super) fn keep(&mut self, data: &[u8]) -> bool {
        let room = self.limit - self.length;
        if data.len() > room {
            return false;
        }
        if self.open.capacity() - self.open.len() < data.len() {
            // Doubled as usual, but for the limit.
            let more = data.len().max(self.open.len()).min(room);
            self.open.reserve_exact(more);
        }
        self.open.extend_from_slice(data);
        self.length += data.len();
        true
    }

    /// What the present attempt read is an earlier one's from here on.
    pub(super) fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push(Bytes::from(std::mem::take(&mut self.open)));
        }
    }

    /// A piece of what earlier attempts read.
    pub(super) fn piece(&self, at: usize) -> Option<Bytes> {
        self.sealed.get(at).cloned()
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
    fn the_room_is_never_more_than_the_limit() {
        for limit in [0, 1, 7, 1_000, 65_536] {
            let mut prefix = Prefix::new(limit);
            let mut kept = 0;
            for size in (1..100).cycle() {
                if !prefix.keep(&vec![0; size]) {
                    break;
                }
                kept += size;
                let sealed: usize = prefix.sealed.iter().map(Bytes::len).sum();
                assert!(sealed + prefix.open.capacity() <= limit, "{} of {limit}", prefix.open.capacity());
                if size % 40 == 0 {
                    prefix.open.shrink_to_fit();
                    prefix.seal();
                }
            }
            assert!(kept + 100 > limit && prefix.length == kept);
        }
    }

    #[test]
    fn a_limit_is_kept_to_the_byte() {
        let mut prefix = Prefix::new(3);
        assert!(prefix.keep(b"ab") && prefix.keep(b"") && prefix.keep(b"c") && prefix.keep(b""));
        assert!(!prefix.keep(b"d"));
        prefix.seal();
        assert_eq!((prefix.piece(0), prefix.piece(1), prefix.left(0)), (Some("abc".into()), None, 3));
    }
}
