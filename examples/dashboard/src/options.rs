//! The options of the program.

use std::net::SocketAddr;

use clap::Parser;

/// Simulated services with incidents behind circuit breakers, and the administration page.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// The address of the page. Port 0: the system picks one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// The path of the page, such as /breakers
    #[arg(long, default_value = "/", value_name = "PATH", value_parser = path)]
    pub(crate) prefix: String,
    /// The token of the operator, at least 16 bytes. Default: a random one
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Allows requests without a token to read
    #[arg(long)]
    pub(crate) open_to_read: bool,
    /// The number of circuits by name
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) circuits: u16,
    /// The number of processes that share the circuits, all within this program
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) processes: u8,
    /// Ends the program after this time
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
}

fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'{');
    if is_path { Ok(text.to_owned()) } else { Err("it must begin with `/`".to_owned()) }
}
