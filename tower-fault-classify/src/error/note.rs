//! The note of an error: data that an outer layer attaches for the caller.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Content = Arc<dyn Any + Send + Sync>;

/// The note of an error, or none.
///
/// It has interior mutability: the outer layer does not own this error, but finds it by reference
/// in the chain of the error that it returns.
///
/// Few errors have a note, so an error contains only the number of its note. The notes are in a
/// table behind a lock.
///
/// The number is stored once, while the lock is held. A thread that reads it takes the lock
/// afterwards, and so finds the note. The atomic operations need no order of their own.
pub(crate) struct Note(AtomicU32);

/// The number of an error without a note.
const NONE: u32 = 0;

/// All notes. The note with the number `n` is at the index `n - 1`.
struct Table {
    notes: Vec<Option<Content>>,
    /// The numbers that are free to use again.
    free: Vec<u32>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { notes: Vec::new(), free: Vec::new() });

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn slot(&mut self, number: u32) -> Option<&mut Option<Content>> {
        self.notes.get_mut(number.checked_sub(1)? as usize)
    }

    /// Stores a note. Returns its number, or [`NONE`] if there are too many notes.
    fn insert(&mut self, content: Content) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.notes.push(None);
            u32::try_from(self.notes.len()).unwrap_or(NONE)
        });
        if let Some(slot) = self.slot(number) {
            *slot = Some(content);
        }
        number
    }
}

impl Note {
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    pub(crate) fn get(&self) -> Option<Content> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            number => table().slot(number)?.clone(),
        }
    }

    /// Attaches a note, and drops the note that was attached before.
    pub(crate) fn replace(&self, content: Content) {
        let mut table = table();
        let before = if let Some(slot) = table.slot(self.0.load(Ordering::Relaxed)) {
            slot.replace(content)
        } else {
            self.0.store(table.insert(content), Ordering::Relaxed);
            None
        };
        // The note's destructor may be user code, so it runs after the lock is released.
        drop(table);
        drop(before);
    }

    #[cold]
    fn copy_of(number: u32) -> Self {
        let mut table = table();
        let content = table.slot(number).and_then(|content| content.clone());
        Self(AtomicU32::new(content.map_or(NONE, |content| table.insert(content))))
    }

    #[cold]
    fn remove(number: u32) {
        let mut table = table();
        let before = table.slot(number).and_then(Option::take);
        table.free.push(number);
        // The note's destructor may be user code, so it runs after the lock is released.
        drop(table);
        drop(before);
    }
}

/// The clone has the same note.
impl Clone for Note {
    #[inline]
    fn clone(&self) -> Self {
        match self.0.load(Ordering::Relaxed) {
            NONE => Self::new(),
            number => Self::copy_of(number),
        }
    }
}

impl Drop for Note {
    #[inline]
    fn drop(&mut self) {
        let number = *self.0.get_mut();
        if number != NONE {
            Self::remove(number);
        }
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.get().is_some() { "Some(..)" } else { "None" })
    }
}
