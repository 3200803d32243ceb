//! The page and the API of `tower-breaker-admin` in a real browser, behind a real proxy, and under
//! random requests.
//!
//! The tests of the page look for elements as a user does: by the names that assistive technology
//! reads. `./test` installs the browser and the tools.
#![cfg(target_os = "linux")]

mod accessibility;
mod actions;
mod contrast;
mod dialogs;
mod fleet;
mod focus;
mod fuzz;
mod hostile;
mod keys;
mod live;
mod load;
mod login;
mod page;
mod proxy;
mod restart;
mod server;
mod tools;
