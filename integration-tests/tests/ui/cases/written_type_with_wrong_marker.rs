//! The default markers of the services' types: `Breaker` is for a typed error, `FaultClassify` for
//! a boxed one.
//~ `Auto` cannot classify a `Result<u32, Box<
//~ `Auto<BoxedError>` cannot classify a `Result<Response, reqwest::Error>`

use tower::util::BoxCloneService;
use tower::{BoxError, Service};
use tower_breaker::Breaker;
use tower_fault_classify::FaultClassify;

fn check<Request, S: Service<Request>>() {}

fn main() {
    check::<u32, Breaker<BoxCloneService<u32, u32, BoxError>>>();
    check::<reqwest::Request, Breaker<FaultClassify<reqwest::Client>>>();
}
