//! What each answer means, as data: one row a case, each with its source.
//!
//! The tables hold facts only. Who walks an error's chain to find the row is [`chain`](crate::chain); who chooses
//! between a carried verdict, a rule and a table is [`classify`](crate::classify).

pub(crate) mod http;
pub(crate) mod io;

use crate::fault::{Fault, Health, Kind, Origin, Retry};

/// A layer on this side was full: the request was never sent.
#[cfg(feature = "tower")]
pub(crate) const SHED: Fault = Fault::new(Kind::Rejected, Retry::Always, Health::Neutral, Origin::Local);

/// What is said of an error that no row knows.
pub(crate) const UNKNOWN: Fault =
    Fault::new(Kind::Unknown, Retry::IfIdempotent, Health::Failure, Origin::Transport);

/// What is written around an error that a classifier calls a success: layers above must neither count nor resend it.
pub(crate) const HARMLESS: Fault = Fault::new(Kind::Unknown, Retry::Never, Health::Success, Origin::Local);
