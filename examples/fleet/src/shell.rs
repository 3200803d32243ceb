//! The commands that the user types.

use std::io::{BufRead, stdin};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tower_breaker_fleet::{FleetAction, FleetOperation};

/// A command of the user.
pub(crate) enum Command {
    Down,
    Up,
    Operate(FleetOperation),
    Quit,
}

impl Command {
    pub(crate) const HELP: &str = "down, up, force-open, release, trip, reset, quit";

    fn parse(line: &str) -> Option<Self> {
        let operation = |action| FleetOperation::new(action).by("the user").reason("a command");
        Some(match line.trim() {
            "down" => Self::Down,
            "up" => Self::Up,
            // An override that somebody forgets ends by itself.
            "force-open" => {
                let hour = Duration::from_secs(3600);
                Self::Operate(operation(FleetAction::ForceOpen).keep_for(hour))
            }
            "release" => Self::Operate(operation(FleetAction::Release)),
            "trip" => Self::Operate(operation(FleetAction::Trip)),
            "reset" => Self::Operate(operation(FleetAction::Reset)),
            "quit" => Self::Quit,
            _ => return None,
        })
    }
}

/// Returns the commands from standard input. At its end, the program continues without commands.
pub(crate) fn commands() -> Receiver<Command> {
    let (sender, commands) = channel(16);
    // A read of standard input cannot be cancelled, so it has a thread of its own.
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            match Command::parse(&line) {
                Some(command) => {
                    if sender.blocking_send(command).is_err() {
                        return;
                    }
                }
                None => println!("commands: {}", Command::HELP),
            }
        }
    });
    commands
}
