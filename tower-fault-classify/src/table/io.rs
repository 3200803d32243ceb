//! The table of I/O errors.

use std::io::{self, ErrorKind};

use crate::fault::Fault;
use crate::fault::Health::{Neutral, Unhealthy};
use crate::fault::Kind::{Client, Local, Protocol, Timeout, Transient, Unavailable};
use crate::fault::Origin::{Caller, Local as Here, Remote, Transport};
use crate::fault::Retryable::{IfIdempotent, Never, Refused, Unsent};

/// The fault of one kind of I/O error, in general and while a connection is being opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) kind: ErrorKind,
    pub(crate) fault: Fault,
    /// The fault while a connection is being opened. `None`: `fault`.
    pub(crate) connecting: Option<Fault>,
}

const fn row(kind: ErrorKind, fault: Fault) -> Row {
    Row { kind, fault, connecting: None }
}

pub(crate) const REFUSED: Fault = Fault::new(Unavailable, Unsent, Unhealthy, Transport);
const UNREACHABLE: Fault = Fault::new(Unavailable, IfIdempotent, Unhealthy, Transport);
pub(crate) const BROKEN: Fault = Fault::new(Transient, IfIdempotent, Unhealthy, Transport);
pub(crate) const TIMED_OUT: Fault = Fault::new(Timeout, IfIdempotent, Unhealthy, Transport);
const PASSING: Fault = Fault::new(Local, IfIdempotent, Neutral, Here);
const LACKING: Fault = Fault::new(Local, Never, Neutral, Here);
pub(crate) const MALFORMED: Fault = Fault::new(Protocol, Never, Unhealthy, Remote);
pub(crate) const WRONG: Fault = Fault::new(Client, Never, Neutral, Caller);

/// The rows. A kind without a row has no verdict of its own: a deeper cause decides.
///
/// Source: the meaning of each kind in `std::io::ErrorKind`, and of its `errno` in POSIX. A refused
/// connection was never opened, so nothing was processed. A socket's read timeout is `WouldBlock`
/// on Unix.
pub(crate) const ROWS: &[Row] = &[
    row(ErrorKind::ConnectionRefused, REFUSED),
    row(ErrorKind::HostUnreachable, UNREACHABLE),
    row(ErrorKind::NetworkUnreachable, UNREACHABLE),
    row(ErrorKind::ConnectionReset, BROKEN),
    row(ErrorKind::ConnectionAborted, BROKEN),
    // While connecting: hyper-util found no address for the server's name.
    Row { kind: ErrorKind::NotConnected, fault: BROKEN, connecting: Some(REFUSED) },
    row(ErrorKind::BrokenPipe, BROKEN),
    row(ErrorKind::UnexpectedEof, BROKEN),
    row(ErrorKind::WriteZero, BROKEN),
    row(ErrorKind::TimedOut, TIMED_OUT),
    row(ErrorKind::WouldBlock, TIMED_OUT),
    row(ErrorKind::Interrupted, PASSING),
    row(ErrorKind::ResourceBusy, PASSING),
    row(ErrorKind::Deadlock, PASSING),
    row(ErrorKind::StaleNetworkFileHandle, PASSING),
    row(ErrorKind::NetworkDown, LACKING),
    row(ErrorKind::AddrNotAvailable, LACKING),
    row(ErrorKind::AddrInUse, LACKING),
    row(ErrorKind::OutOfMemory, LACKING),
    row(ErrorKind::StorageFull, LACKING),
    row(ErrorKind::QuotaExceeded, LACKING),
    row(ErrorKind::InvalidData, MALFORMED),
    // While connecting: the socket file of a Unix-domain server that is down.
    Row { kind: ErrorKind::NotFound, fault: WRONG, connecting: Some(REFUSED) },
    row(ErrorKind::PermissionDenied, WRONG),
    row(ErrorKind::InvalidInput, WRONG),
    row(ErrorKind::Unsupported, WRONG),
    row(ErrorKind::AlreadyExists, WRONG),
    row(ErrorKind::NotADirectory, WRONG),
    row(ErrorKind::IsADirectory, WRONG),
    row(ErrorKind::DirectoryNotEmpty, WRONG),
    row(ErrorKind::ReadOnlyFilesystem, WRONG),
    row(ErrorKind::FileTooLarge, WRONG),
    row(ErrorKind::NotSeekable, WRONG),
    row(ErrorKind::TooManyLinks, WRONG),
    row(ErrorKind::InvalidFilename, WRONG),
    row(ErrorKind::CrossesDevices, WRONG),
    row(ErrorKind::ArgumentListTooLong, WRONG),
    row(ErrorKind::ExecutableFileBusy, WRONG),
];

/// The index of each kind's row in [`ROWS`], by the kind's number.
///
/// An index beyond the rows means that the kind has no row.
///
/// A kind with a larger number than any of today's standard library has no row.
static INDEX: [u8; 64] = {
    let mut index = [u8::MAX; 64];
    let mut row = 0;
    while row < ROWS.len() {
        index[ROWS[row].kind as usize] = row as u8;
        row += 1;
    }
    index
};

/// `ENFILE` and `EMFILE`: out of file descriptors.
///
/// They have no `ErrorKind`. The numbers are the same on Linux, the BSDs and macOS.
#[cfg(unix)]
const OUT_OF_DESCRIPTORS: [i32; 2] = [23, 24];

/// Returns the fault of an I/O error, without its payload. `None`: it has no verdict of its own.
#[inline]
pub(crate) fn classify(error: &io::Error, connecting: bool) -> Option<&'static Fault> {
    #[cfg(unix)]
    if error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) {
        return Some(&LACKING);
    }
    let row = ROWS.get(usize::from(*INDEX.get(error.kind() as usize)?))?;
    Some(row.connecting.as_ref().filter(|_| connecting).unwrap_or(&row.fault))
}

/// Returns the fault for a request that was not sent: `IfIdempotent` becomes `Unsent`.
#[inline]
pub(crate) const fn unsent(fault: Fault) -> Fault {
    match fault.retryable() {
        IfIdempotent => fault.with_retryable(Unsent),
        _ => fault,
    }
}

/// Returns the fault for a request whose response has begun.
///
/// The request was processed, whatever the error says: `Unsent` and `Refused` become
/// `IfIdempotent`.
#[inline]
pub(crate) const fn answered(fault: Fault) -> Fault {
    match fault.retryable() {
        Unsent | Refused => fault.with_retryable(IfIdempotent),
        IfIdempotent | Never => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Retryable};

    /// The expected verdicts, written a second time: error kinds, while connecting, kind,
    /// retryable, health.
    const EXPECTED: &[(&[ErrorKind], bool, Kind, Retryable, Health)] = {
        use ErrorKind::{
            AddrInUse, AddrNotAvailable, AlreadyExists, ArgumentListTooLong, BrokenPipe, ConnectionAborted,
            ConnectionRefused, ConnectionReset, CrossesDevices, Deadlock, DirectoryNotEmpty,
            ExecutableFileBusy, FileTooLarge, HostUnreachable, Interrupted, InvalidData, InvalidFilename,
            InvalidInput, IsADirectory, NetworkDown, NetworkUnreachable, NotADirectory, NotConnected,
            NotFound, NotSeekable, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
            ResourceBusy, StaleNetworkFileHandle, StorageFull, TimedOut, TooManyLinks, UnexpectedEof,
            Unsupported, WouldBlock, WriteZero,
        };
        &[
            (&[ConnectionRefused], false, Unavailable, Unsent, Unhealthy),
            (&[ConnectionRefused], true, Unavailable, Unsent, Unhealthy),
            (
                &[HostUnreachable, NetworkUnreachable, NotConnected, NotFound],
                true,
                Unavailable,
                Unsent,
                Unhealthy,
            ),
            (&[HostUnreachable, NetworkUnreachable], false, Unavailable, IfIdempotent, Unhealthy),
            (&[TimedOut, WouldBlock], true, Timeout, Unsent, Unhealthy),
            (&[TimedOut, WouldBlock], false, Timeout, IfIdempotent, Unhealthy),
            (
                &[ConnectionReset, ConnectionAborted, BrokenPipe, UnexpectedEof, NotConnected, WriteZero],
                false,
                Transient,
                IfIdempotent,
                Unhealthy,
            ),
            (&[ConnectionReset, UnexpectedEof], true, Transient, Unsent, Unhealthy),
            (
                &[Interrupted, ResourceBusy, Deadlock, StaleNetworkFileHandle],
                false,
                Local,
                IfIdempotent,
                Neutral,
            ),
            (
                &[NetworkDown, AddrNotAvailable, AddrInUse, OutOfMemory, StorageFull, QuotaExceeded],
                false,
                Local,
                Never,
                Neutral,
            ),
            (&[NetworkDown], true, Local, Never, Neutral),
            (&[InvalidData], false, Protocol, Never, Unhealthy),
            (&[InvalidData], true, Protocol, Never, Unhealthy),
            (
                &[
                    NotFound,
                    PermissionDenied,
                    InvalidInput,
                    Unsupported,
                    AlreadyExists,
                    NotADirectory,
                    IsADirectory,
                    DirectoryNotEmpty,
                    ReadOnlyFilesystem,
                    FileTooLarge,
                    NotSeekable,
                    TooManyLinks,
                    InvalidFilename,
                    CrossesDevices,
                    ArgumentListTooLong,
                    ExecutableFileBusy,
                ],
                false,
                Client,
                Never,
                Neutral,
            ),
        ]
    };

    #[test]
    fn table_rows_match_reference() {
        for &(kinds, connecting, kind, retryable, health) in EXPECTED {
            for &error_kind in kinds {
                let fault = *classify(&error_kind.into(), connecting)
                    .unwrap_or_else(|| panic!("{error_kind:?} has a verdict"));
                let fault = if connecting { unsent(fault) } else { fault };
                let classified = (fault.kind(), fault.retryable(), fault.health());
                assert_eq!(classified, (kind, retryable, health), "{error_kind:?}, connecting: {connecting}");
            }
        }
        for row in ROWS {
            assert!(
                EXPECTED.iter().any(|(kinds, ..)| kinds.contains(&row.kind)),
                "{:?} is untested",
                row.kind
            );
        }
    }

    #[test]
    fn io_kind_without_row_has_no_verdict() {
        assert_eq!(classify(&io::Error::other("?"), false), None);
        assert_eq!(classify(&io::Error::other("?"), true), None);
    }

    #[cfg(unix)]
    #[test]
    fn io_out_of_descriptors_is_local() {
        for code in OUT_OF_DESCRIPTORS {
            let fault = classify(&io::Error::from_raw_os_error(code), true).unwrap();
            assert_eq!((fault.kind(), fault.retryable(), fault.health()), (Local, Never, Neutral));
        }
    }
}
