//! A backend of the demo: it fails some times, and then answers.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::cli::DemoAgentArgs;
use crate::{SOME_FAILED, SUCCESS};

/// Reads a prompt from standard input, and answers it or fails.
pub(crate) async fn answer(args: &DemoAgentArgs) -> Result<u8> {
    let mut prompt = String::new();
    io::stdin().read_to_string(&mut prompt).context("the prompt cannot be read; write UTF-8")?;
    let call = count_call(&args.state, &args.name)
        .with_context(|| format!("the call cannot be counted; create `{}`", args.state.display()))?;
    if call <= args.failures {
        writeln!(io::stderr(), "{} is down", args.name)?;
        return Ok(SOME_FAILED);
    }
    sleep(Duration::from_millis(args.milliseconds)).await;
    writeln!(io::stdout(), "{} has done: {}", args.name, prompt.trim())?;
    Ok(SUCCESS)
}

/// Returns the number of this call of the agent, from 1. Each call creates one file.
fn count_call(state: &Path, name: &str) -> io::Result<u32> {
    for call in 1.. {
        match File::create_new(state.join(format!("{name}-{call}"))) {
            Ok(_) => return Ok(call),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("a directory does not hold that many files")
}
