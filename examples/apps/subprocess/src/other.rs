//! A program without a process group.

use std::io;

use tokio::process::Child;

use crate::Output;
use crate::capture::{Captured, Pipes};

pub(crate) async fn run(mut child: Child, input: &[u8], limit: usize) -> io::Result<Output> {
    let mut pipes = Pipes::take(&mut child);
    let (mut stdout, mut stderr) = (Captured::default(), Captured::default());
    pipes.transfer(input, limit, &mut stdout, &mut stderr).await?;
    let status = child.wait().await?;
    Ok(Output { status, stdout, stderr })
}
