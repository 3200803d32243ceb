//! The two styles of making a call.

use std::borrow::BorrowMut;
use std::future::{Future, poll_fn};
use std::hint::{black_box, spin_loop};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use tower::{Service, ServiceExt};

use crate::variant::Calls;

/// Lends the service for one call.
pub(crate) trait Lend<S> {
    type Lent<'a>: BorrowMut<S>
    where
        S: 'a;

    fn lend<'a>(&self, service: &'a mut S) -> Self::Lent<'a>;
}

/// Lends the service itself.
#[derive(Clone, Copy)]
pub(crate) struct Same;

impl<S> Lend<S> for Same {
    type Lent<'a>
        = &'a mut S
    where
        S: 'a;

    fn lend<'a>(&self, service: &'a mut S) -> &'a mut S {
        service
    }
}

/// Lends a clone of the service, as a server makes one for each request.
#[derive(Clone, Copy)]
pub(crate) struct Cloned;

impl<S: Clone> Lend<S> for Cloned {
    type Lent<'a>
        = S
    where
        S: 'a;

    fn lend(&self, service: &mut S) -> S {
        black_box(&*service).clone()
    }
}

/// Creates calls that poll the readiness and the future directly.
pub(crate) fn raw<S, Req>(
    mut service: S,
    request: impl Fn(u32) -> Req + 'static,
    lender: impl Lend<S> + 'static,
) -> Calls
where
    S: Service<Req> + 'static,
{
    let mut numbers = 0_u32..;
    Box::new(move |calls| {
        let mut cx = Context::from_waker(Waker::noop());
        let mut successes = 0;
        for number in numbers.by_ref().take(calls as usize) {
            let mut lent = lender.lend(&mut service);
            let service = lent.borrow_mut();
            let ready = loop {
                match service.poll_ready(&mut cx) {
                    Poll::Ready(ready) => break ready.is_ok(),
                    Poll::Pending => spin_loop(),
                }
            };
            if ready {
                successes += u32::from(black_box(finish(pin!(service.call(request(number)))).is_ok()));
            }
        }
        successes
    })
}

/// Creates calls that await the readiness and the call in an async function.
pub(crate) fn awaited<S, Req>(
    mut service: S,
    request: impl Fn(u32) -> Req + 'static,
    lender: impl Lend<S> + 'static,
) -> Calls
where
    S: Service<Req> + 'static,
{
    let mut numbers = 0_u32..;
    Box::new(move |calls| {
        let batch = async {
            let mut successes = 0;
            for number in numbers.by_ref().take(calls as usize) {
                let mut lent = lender.lend(&mut service);
                let mut future = pin!(ready_and_call(lent.borrow_mut(), request(number)));
                let result = poll_fn(|cx| poll_out_of_line(future.as_mut(), cx)).await;
                successes += u32::from(black_box(result.is_ok()));
            }
            successes
        };
        finish(pin!(batch))
    })
}

async fn ready_and_call<S: Service<Req>, Req>(
    service: &mut S,
    request: Req,
) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

/// Polls the future until it completes.
#[inline]
pub(crate) fn finish<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => spin_loop(),
        }
    }
}

/// Keeps the poll of a user's async function out of the measuring loop. Otherwise the compiler
/// would optimize both together, which it cannot do in a program.
#[inline(never)]
pub(crate) fn poll_out_of_line<F: Future>(future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    future.poll(cx)
}
