//! A server program in a process of its own.

use std::fs::{read_dir, read_to_string};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// A program of a package, which may run as another user.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// The package of Debian that contains the program.
    pub(crate) package: &'static str,
    /// The user that runs the program if the tests run as root.
    pub(crate) user: Option<&'static str>,
}

impl Program {
    /// Returns the command that runs the program with these arguments.
    ///
    /// On Linux, `setpriv` of util-linux changes the user. It also lets the kernel kill the program
    /// when the thread that started it ends, and so when the tests are killed.
    pub(crate) fn command(&self, arguments: &[String]) -> Command {
        if !cfg!(target_os = "linux") {
            let mut command = Command::new(&self.path);
            command.args(arguments);
            return command;
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = self.user.filter(|_| geteuid().is_root()) {
            command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        }
        command.arg("--").arg(&self.path).args(arguments);
        command
    }

    /// Runs the program to its end.
    ///
    /// # Panics
    ///
    /// Panics with what it printed if it is missing or fails.
    pub(crate) fn run(&self, arguments: &[String]) {
        let output = self.command(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{}", self.failed(&error.to_string())));
        assert!(output.status.success(), "{}", self.failed(&String::from_utf8_lossy(&output.stderr)));
    }

    /// Returns the text of a failure to run the program.
    pub(crate) fn failed(&self, problem: &str) -> String {
        let path = self.path.display();
        format!("{path} failed; is the package {} installed? ./test installs it: {problem}", self.package)
    }
}

/// A running program, and the lines that it prints. Dropping it kills the program.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    printed: String,
    /// The processes that [`pause`](Self::pause) has stopped.
    paused: Vec<Pid>,
}

impl Process {
    /// Starts the program, and waits until a line that it prints contains `ready`.
    ///
    /// # Panics
    ///
    /// Panics with the printed lines if the program is missing, or if it ends before that.
    pub(crate) fn start(program: &Program, arguments: &[String], ready: &str) -> Self {
        Self::try_start(program, arguments, ready).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Starts the program, and waits until a line that it prints contains `ready`.
    ///
    /// # Errors
    ///
    /// Returns the printed lines if the program ends before that.
    ///
    /// # Panics
    ///
    /// Panics if the program is missing.
    pub(crate) fn try_start(program: &Program, arguments: &[String], ready: &str) -> Result<Self, String> {
        let mut command = program.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (started, starting) = channel();
        let (sender, lines) = channel();
        // The kernel kills the program when the thread that started it ends. This thread ends after
        // the program.
        let reader = thread::spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return started.send(Err(error)).unwrap_or_default(),
            };
            let output = child.stdout.take().expect("standard output is piped");
            let errors = child.stderr.take().expect("standard error is piped");
            started.send(Ok(child)).unwrap_or_default();
            let copy = sender.clone();
            let output = thread::spawn(move || send_lines(output, &copy));
            send_lines(errors, &sender);
            output.join().expect("the reader does not panic");
        });
        let child = starting.recv().expect("the thread sends the result");
        let child = child.unwrap_or_else(|error| panic!("{}", program.failed(&error.to_string())));
        let mut process =
            Self { child, lines, reader: Some(reader), printed: String::new(), paused: Vec::new() };
        if process.wait_for_line(ready) { Ok(process) } else { Err(program.failed(&process.printed)) }
    }

    /// Waits until a line that the program prints contains `text`.
    ///
    /// Returns `false` if the program ends before that.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> bool {
        while let Ok(line) = self.lines.recv() {
            self.printed.push_str(&line);
            self.printed.push('\n');
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    /// Returns the line that the last wait has found.
    pub(crate) fn last_line(&self) -> &str {
        self.printed.lines().last().unwrap_or_default()
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the program can be signalled until it is waited for");
    }

    /// Stops the program and its children (SIGSTOP), and returns when they are stopped.
    ///
    /// The program stops first, so that it starts no child in the meantime.
    ///
    /// # Panics
    ///
    /// Panics if there is no `/proc`.
    pub(crate) fn pause(&mut self) {
        let program = Pid::from_child(&self.child);
        self.stop(program);
        for child in children_of(program) {
            self.stop(child);
        }
    }

    fn stop(&mut self, pid: Pid) {
        self.paused.push(pid);
        // A child may have ended since it was listed.
        if kill_process(pid, Signal::STOP).is_ok() {
            // The kernel stops a process some time after the signal was sent.
            while stat(pid).is_some_and(|stat| !matches!(stat.state, 'T' | 'Z')) {
                thread::yield_now();
            }
        }
    }

    /// Continues what [`pause`](Self::pause) has stopped (SIGCONT).
    pub(crate) fn resume(&mut self) {
        for pid in self.paused.drain(..).rev() {
            // A child may have been killed.
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Sends a signal to the program, and waits until the program and its children have ended.
    ///
    /// It continues a paused program: a stopped process handles no signal except SIGKILL, and its
    /// children would not end.
    pub(crate) fn end(&mut self, signal: Signal) {
        // The reader is taken after the program was waited for.
        let Some(reader) = self.reader.take() else { return };
        self.signal(signal);
        self.resume();
        self.child.wait().expect("the program can be waited for");
        // The output ends when the last process that holds it ends.
        reader.join().expect("the reader does not panic");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

/// Sends each line to the receiver, until the output ends.
fn send_lines(output: impl Read, lines: &Sender<String>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        // The receiver is gone when the test no longer reads the lines.
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
    }
}

/// The part of `/proc/PID/stat` that pausing needs.
struct Stat {
    state: char,
    parent: i32,
}

/// Returns `None` if there is no such process.
fn stat(pid: Pid) -> Option<Stat> {
    let text = read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name is in parentheses, and may contain spaces and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, parent: fields.next()?.parse().ok()? })
}

fn children_of(program: Pid) -> Vec<Pid> {
    let processes = read_dir("/proc").expect("pausing needs Linux's /proc").flatten();
    let pids = processes.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let is_child = |pid: &Pid| stat(*pid).is_some_and(|stat| stat.parent == program.as_raw_nonzero().get());
    pids.filter(is_child).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(package: &'static str) -> Program {
        Program { path: PathBuf::from("/bin/sh"), package, user: None }
    }

    fn script(text: &str) -> [String; 2] {
        ["-c".to_owned(), text.to_owned()]
    }

    #[test]
    #[should_panic(expected = "is the package some-package installed?")]
    fn program_missing_names_package() {
        let program = Program { path: PathBuf::from("/missing"), package: "some-package", user: None };
        Process::start(&program, &[], "ready");
    }

    #[test]
    #[should_panic(expected = "./test installs it: no such setting")]
    fn program_that_ends_before_ready_shows_its_output() {
        Process::start(&shell("dash"), &script("echo no such setting >&2; exit 1"), "ready");
    }
}
