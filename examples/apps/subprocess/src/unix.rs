//! A program and its process group.

use std::io;
use std::os::fd::AsFd;

use rustix::io::{Errno, ioctl_fionread, read};
use rustix::process::{Pid, Signal as ProcessSignal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Output;
use crate::capture::{Captured, Pipes};

pub(crate) async fn run(child: Child, input: &[u8], limit: usize) -> io::Result<Output> {
    let mut group = Group(child);
    let mut exits = signal(SignalKind::child())?;
    let mut pipes = Pipes::take(&mut group.0);
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());

    // A program may close its outputs before it ends, and leave processes that hold them open.
    tokio::select! {
        result = pipes.transfer(input, limit, &mut stdout, &mut stderr) => {
            result?;
            group.leader_ended(&mut exits).await?;
        }
        result = group.leader_ended(&mut exits) => result?,
    }

    group.kill();
    if let Some(pipe) = &pipes.stdout {
        read_rest(pipe, &mut stdout, limit)?;
    }
    if let Some(pipe) = &pipes.stderr {
        read_rest(pipe, &mut stderr, limit)?;
    }
    let status = group.0.wait().await?;
    Ok(Output { status, stdout, stderr })
}

/// The leader of a process group. Every process of the group is killed on drop.
struct Group(Child);

impl Group {
    /// The leader's id, which is also the group's, or `None` if the leader was reaped.
    ///
    /// The system does not use the id for another process before the leader is reaped.
    fn id(&self) -> Option<Pid> {
        self.0.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }

    /// Waits until the leader has ended, and does not reap it.
    async fn leader_ended(&self, exits: &mut Signal) -> io::Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(id), options)?.is_none() {
            exits.recv().await;
        }
        Ok(())
    }

    fn kill(&self) {
        if let Some(id) = self.id() {
            // Fails only if no process of the group can be killed, for example after `sudo`.
            let _ = kill_process_group(id, ProcessSignal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads what the pipe holds now, without waiting for its end.
///
/// The leader has ended, so that the pipe holds everything that the leader wrote. A process outside
/// the group may keep the pipe open, and even continue to write.
fn read_rest(pipe: &impl AsFd, captured: &mut Captured, limit: usize) -> io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    let mut held = ioctl_fionread(pipe)?;
    while held > 0 {
        match read(pipe, &mut chunk) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(length) => {
                captured.push(&chunk[..length], limit);
                held = held.saturating_sub(length as u64);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
