//! The progress bar, on a terminal.

use std::fs::File;
use std::io::Read;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::support::{DEADLINE, Project, end, shell, validators};

/// Opens a terminal. Returns the side of its user, and the side of a program.
fn open_terminal() -> (File, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (user.into(), program.into())
}

/// Reads what a terminal shows until it contains `text`.
fn read_until(terminal: &mut File, text: &str) -> String {
    let mut shown = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let length = terminal.read(&mut chunk).expect("the program has ended");
        shown.extend_from_slice(&chunk[..length]);
        let shown = String::from_utf8_lossy(&shown);
        if shown.contains(text) {
            return shown.into_owned();
        }
    }
}

#[tokio::test]
async fn terminal_shows_unfinished_validators() {
    let waits = shell("coverage", "until [ -e seen ]; do sleep 0.01; done");
    let project = Project::with_config(&validators([waits, shell("lint", "true")]));
    let (mut terminal, stderr) = open_terminal();
    let mut program = project.command(&["--config", "config.json"]);
    let child = program.env("TERM", "xterm").stderr(stderr).spawn().unwrap();
    // The program then has the only handle of its side.
    drop(program);
    let read = spawn_blocking(move || (read_until(&mut terminal, "1/2 coverage"), terminal));
    let (shown, _terminal) = timeout(DEADLINE, read).await.expect("the bar is not shown").unwrap();
    assert!(shown.contains("lint: `sh` passed"), "{shown:?}");
    project.write("seen", "");
    assert_eq!(end(child).await.code, Some(0));
}
