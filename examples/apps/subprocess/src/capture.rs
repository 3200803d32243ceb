//! The pipes of a program.

use std::borrow::Cow;
use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

/// The begin of an output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, up to the limit.
    pub bytes: Vec<u8>,
    /// How many bytes after the limit were discarded.
    pub discarded: u64,
}

impl Captured {
    /// Returns the bytes as text. Invalid UTF-8 is replaced by `U+FFFD`.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    pub(crate) fn push(&mut self, chunk: &[u8], limit: usize) {
        let kept = chunk.len().min(limit.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.discarded += (chunk.len() - kept) as u64;
    }
}

/// The ends of the pipes in this process.
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Pipes {
    pub(crate) fn take(child: &mut Child) -> Self {
        Self { stdin: child.stdin.take(), stdout: child.stdout.take(), stderr: child.stderr.take() }
    }

    /// Writes `input` and reads both outputs until their end.
    ///
    /// If the future is dropped, `stdout` and `stderr` contain what was read before.
    pub(crate) async fn transfer(
        &mut self,
        input: &[u8],
        limit: usize,
        stdout: &mut Captured,
        stderr: &mut Captured,
    ) -> io::Result<()> {
        tokio::try_join!(
            write(self.stdin.take(), input),
            read(self.stdout.as_mut(), stdout, limit),
            read(self.stderr.as_mut(), stderr, limit),
        )?;
        Ok(())
    }
}

/// Writes `input`, and closes the pipe.
async fn write(pipe: Option<ChildStdin>, input: &[u8]) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    match pipe.write_all(input).await {
        // The program does not want to read the rest.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

async fn read(
    pipe: Option<&mut (impl AsyncRead + Unpin)>,
    captured: &mut Captured,
    limit: usize,
) -> io::Result<()> {
    let Some(pipe) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let length = pipe.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        captured.push(&chunk[..length], limit);
    }
}
