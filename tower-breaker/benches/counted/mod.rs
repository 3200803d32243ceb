//! The rows whose instructions and memory accesses `.ci/instructions` counts under valgrind.
//!
//! Arguments of the program:
//!
//! - `rows`: prints the names of all rows;
//! - `ROW STYLE CALLS`: makes the calls of one row. callgrind counts what runs inside of
//!   [`counted_calls`];
//! - `ROW STYLE CALLS two-threads`: two threads make the calls, one thread after the other. Each
//!   thread writes the word [`MARK`] before and after its calls, so that a trace of the memory
//!   accesses shows which belong to which thread. First prints the address of the word.
//!
//! Other arguments, such as those of `cargo bench`, have no effect.

use std::env::args;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tower::{Service, ServiceExt};

use crate::bare::call;

/// More than the minimum number of calls with which a default circuit compares its rates.
const WARM_UP_CALLS: u32 = 30;

/// How a call is made.
#[derive(Clone, Copy)]
enum Style {
    /// The readiness and the future are polled directly.
    Raw,
    /// An async function awaits the readiness and the call.
    Await,
}

/// Whether each call is made through a clone of the service.
#[derive(Clone, Copy, PartialEq)]
enum Clones {
    None,
    PerCall,
}

/// Lists the rows, or runs one of them.
pub(crate) struct Rows {
    arguments: Arguments,
}

enum Arguments {
    List,
    Run { row: String, style: Style, calls: u32, two_threads: bool },
    Other,
}

impl Rows {
    /// Reads the arguments of the program.
    pub(crate) fn from_arguments() -> Self {
        let all: Vec<String> = args().skip(1).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let arguments = match all[..] {
            ["rows"] => Arguments::List,
            [row, style @ ("raw" | "await"), calls, ref rest @ ..] => Arguments::Run {
                row: row.to_owned(),
                style: if style == "raw" { Style::Raw } else { Style::Await },
                calls: calls.parse().expect("the third argument is the number of calls"),
                two_threads: rest == ["two-threads"],
            },
            _ => Arguments::Other,
        };
        Self { arguments }
    }

    /// Adds a row. `request` creates the request of the call with the given number.
    pub(crate) fn add<S, Req>(
        &self,
        name: &str,
        service: impl FnOnce() -> S,
        request: impl Fn(u32) -> Req + Sync,
    ) where
        S: Service<Req> + Clone + Send,
    {
        self.add_with(name, Clones::None, service, request);
    }

    /// Adds a row whose calls are made through a clone of the service each.
    #[allow(dead_code, reason = "not each program has such a row")]
    pub(crate) fn add_cloned<S, Req>(
        &self,
        name: &str,
        service: impl FnOnce() -> S,
        request: impl Fn(u32) -> Req + Sync,
    ) where
        S: Service<Req> + Clone + Send,
    {
        self.add_with(name, Clones::PerCall, service, request);
    }

    fn add_with<S, Req>(
        &self,
        name: &str,
        clones: Clones,
        service: impl FnOnce() -> S,
        request: impl Fn(u32) -> Req + Sync,
    ) where
        S: Service<Req> + Clone + Send,
    {
        match self.arguments {
            Arguments::List => println!("{name}"),
            Arguments::Run { ref row, style, calls, two_threads } if row == name => {
                let mut service = service();
                let make = |service: &mut S, calls| match (style, clones) {
                    (Style::Raw, Clones::None) => make_raw(service, calls, &request),
                    (Style::Raw, Clones::PerCall) => make_raw_on_clones(service, calls, &request),
                    (Style::Await, Clones::None) => make_awaited(service, calls, &request),
                    (Style::Await, Clones::PerCall) => make_awaited_on_clones(service, calls, &request),
                };
                let warm_up = |service: &mut S| make(service, WARM_UP_CALLS);
                if two_threads {
                    in_two_threads(&service, warm_up, |service| make(service, calls));
                } else {
                    warm_up(&mut service);
                    counted_calls(&mut || make(&mut service, calls));
                }
            }
            _ => {}
        }
    }
}

/// Makes the calls of the measurement. Its name is the start and the end of callgrind's count.
#[inline(never)]
fn counted_calls(make: &mut dyn FnMut()) {
    make();
}

/// The word that a thread writes before and after its calls.
static MARK: AtomicU64 = AtomicU64::new(0);

/// Makes calls in a thread, and then in a second thread while the first one exists but waits.
fn in_two_threads<S: Clone + Send>(
    service: &S,
    warm_up: impl Fn(&mut S) + Sync,
    make: impl Fn(&mut S) + Sync,
) {
    let marked_calls = |mut service: S| {
        warm_up(&mut service);
        // A trace does not show which thread accesses memory. Wait until the other threads wait.
        #[expect(clippy::disallowed_methods, reason = "the circuits have a manual clock")]
        thread::sleep(Duration::from_millis(50));
        MARK.fetch_add(1, Ordering::SeqCst);
        make(&mut service);
        MARK.fetch_add(1, Ordering::SeqCst);
    };
    println!("mark {:x}", &raw const MARK as usize);
    let turn = Barrier::new(2);
    thread::scope(|scope| {
        let first = service.clone();
        scope.spawn(|| {
            marked_calls(first);
            turn.wait();
            turn.wait();
        });
        turn.wait();
        let second = service.clone();
        scope.spawn(|| marked_calls(second)).join().expect("the calls do not panic");
        turn.wait();
    });
}

fn make_raw<S: Service<Req>, Req>(service: &mut S, calls: u32, request: &impl Fn(u32) -> Req) {
    for number in 0..calls {
        black_box(call(service, request(number)));
    }
}

fn make_raw_on_clones<S: Service<Req> + Clone, Req>(
    service: &mut S,
    calls: u32,
    request: &impl Fn(u32) -> Req,
) {
    for number in 0..calls {
        black_box(call(&mut black_box(&*service).clone(), request(number)));
    }
}

fn make_awaited<S: Service<Req>, Req>(service: &mut S, calls: u32, request: &impl Fn(u32) -> Req) {
    for number in 0..calls {
        black_box(finish_out_of_line(pin!(ready_and_call(service, request(number)))).is_ok());
    }
}

fn make_awaited_on_clones<S: Service<Req> + Clone, Req>(
    service: &mut S,
    calls: u32,
    request: &impl Fn(u32) -> Req,
) {
    for number in 0..calls {
        let mut clone = black_box(&*service).clone();
        black_box(finish_out_of_line(pin!(ready_and_call(&mut clone, request(number)))).is_ok());
    }
}

/// Makes a call as a user writes it.
async fn ready_and_call<S: Service<Req>, Req>(
    service: &mut S,
    request: Req,
) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

/// Polls the future until it completes, in a separate function. A runtime also polls the async
/// function of a user so that the compiler cannot optimize the caller and the function together.
#[inline(never)]
fn finish_out_of_line<F: Future>(future: Pin<&mut F>) -> F::Output {
    finish(future)
}

#[inline]
fn finish<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}
