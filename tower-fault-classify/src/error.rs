//! The error that carries a verdict.

use std::error::Error;
use std::fmt;

use crate::fault::Fault;
#[cfg(feature = "tonic")]
use crate::fault::{Kind, Retryable};
#[cfg(feature = "tonic")]
use crate::grpc::pushback;

/// An error of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// An error that was judged, with its verdict.
///
/// It is one concrete type, so that every layer above finds it in a chain of [`source`](Error::source)s, however deep
/// and whatever lies around it. [`FaultClassifyLayer`](crate::FaultClassifyLayer) puts it around the error of the
/// inner service. A layer that makes an error of its own (a circuit breaker's rejection) has a bare one as its source.
///
/// With the feature `tonic`, a bare rejection's cause is a `tonic::Status` with the code `UNAVAILABLE` and the time to wait in
/// `grpc-retry-pushback-ms` (-1 if there is none and no retry is allowed), made when somebody asks for it: a generated client takes the
/// status that it finds among an error's sources, and `UNKNOWN` if there is none.
#[derive(Debug)]
pub struct Judged {
    fault: Fault,
    source: Option<BoxError>,
    #[cfg(feature = "tonic")]
    by: Option<&'static str>,
    #[cfg(feature = "tonic")]
    status: std::sync::OnceLock<Box<tonic::Status>>,
}

impl Judged {
    /// A verdict around the error that it was given on. Judging a `Judged` again keeps one wrapper, not two.
    pub fn new(fault: Fault, source: impl Into<BoxError>) -> Self {
        match source.into().downcast::<Self>() {
            Ok(judged) => Self::of(fault, judged.source),
            Err(source) => Self::of(fault, Some(source)),
        }
    }

    /// A verdict that is its own cause.
    pub const fn bare(fault: Fault) -> Self {
        Self::of(fault, None)
    }

    /// As [`bare`](Self::bare), of a layer that has a name: the `tonic::Status` says it.
    #[cfg_attr(
        not(feature = "tonic"),
        expect(unused_mut, unused_variables, reason = "only a status says it")
    )]
    pub const fn bare_by(fault: Fault, name: &'static str) -> Self {
        let mut bare = Self::of(fault, None);
        #[cfg(feature = "tonic")]
        {
            bare.by = Some(name);
        }
        bare
    }

    const fn of(fault: Fault, source: Option<BoxError>) -> Self {
        Self {
            fault,
            source,
            #[cfg(feature = "tonic")]
            by: None,
            #[cfg(feature = "tonic")]
            status: std::sync::OnceLock::new(),
        }
    }

    /// What went wrong.
    pub const fn fault(&self) -> &Fault {
        &self.fault
    }

    /// The error that was judged.
    pub fn get_ref(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.source.as_deref()
    }

    /// Gives the error back that was judged.
    pub fn into_inner(self) -> Option<BoxError> {
        self.source
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call ended in a {}", self.fault)
    }
}

impl Error for Judged {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if let Some(source) = &self.source {
            return Some(&**source);
        }
        #[cfg(feature = "tonic")]
        if self.fault.kind() == Kind::Rejected {
            return Some(&**self.status.get_or_init(|| Box::new(rejected(&self.fault, self.by))));
        }
        None
    }
}

/// What a gRPC client is told of a call that a layer of this side rejected.
#[cfg(feature = "tonic")]
fn rejected(fault: &Fault, by: Option<&str>) -> tonic::Status {
    let by = by.map_or_else(|| "a layer of this side".to_owned(), |name| format!("`{name}`"));
    let text = format!("the request was not sent, {by} rejected it");
    let mut status = match fault.retry_after() {
        Some(delay) => tonic::Status::unavailable(format!("{text}; try again in {delay:.1?}")),
        None => tonic::Status::unavailable(text),
    };
    let delay = fault.retry_after();
    // A server that hands the status on tells its own client the same.
    if (delay.is_some() || fault.retryable() == Retryable::Never)
        && let Ok(pushback) = pushback(delay).to_str().unwrap_or_default().parse()
    {
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Origin, Retryable};

    const FAULT: Fault = Fault::new(Kind::Server, Retryable::Never, Health::Failure, Origin::Remote);

    #[test]
    fn the_source_is_the_original() {
        let judged = Judged::new(FAULT, std::io::Error::other("pipe"));
        assert!(judged.source().is_some_and(<dyn Error>::is::<std::io::Error>));
        assert!(judged.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<std::io::Error>));
        assert_eq!(judged.to_string(), "the call ended in a server fault (remote)");
    }

    #[cfg(feature = "tonic")]
    #[test]
    fn a_grpc_client_finds_a_status_behind_a_rejection_and_behind_no_other_fault() {
        use std::time::Duration;

        let rejected = Fault::new(Kind::Rejected, Retryable::Never, Health::Neutral, Origin::Local);
        let found = |judged: &Judged| {
            let status = judged.source()?.downcast_ref::<tonic::Status>()?;
            let pushback = status.metadata().get("grpc-retry-pushback-ms");
            let pushback = pushback.map(|pushback| pushback.to_str().unwrap_or_default().to_owned());
            Some((status.code(), status.message().to_owned(), pushback))
        };
        let text = "the request was not sent, a layer of this side rejected it";
        let unavailable = tonic::Code::Unavailable;
        assert_eq!(
            found(&Judged::bare(rejected)),
            Some((unavailable, text.to_owned(), Some("-1".to_owned())))
        );
        let anytime = Judged::bare(rejected.with_retryable(Retryable::Unsent));
        assert_eq!(found(&anytime), Some((unavailable, text.to_owned(), None)));
        let later = Judged::bare(rejected.with_retry_after(Duration::from_millis(2_340)));
        assert_eq!(
            found(&later),
            Some((unavailable, format!("{text}; try again in 2.3s"), Some("2340".to_owned())))
        );
        let named = found(&Judged::bare_by(rejected, "stock")).unwrap();
        assert_eq!(named.1, "the request was not sent, `stock` rejected it");
        assert_eq!(found(&Judged::bare(FAULT)), None);
        assert_eq!(found(&Judged::new(rejected, "cause")), None, "it has a cause of its own");
    }

    #[test]
    fn judging_twice_wraps_once() {
        let twice = Judged::new(FAULT.with_retryable(Retryable::Unsent), Judged::new(FAULT, "cause"));
        assert_eq!(twice.fault().retryable(), Retryable::Unsent);
        assert_eq!(twice.into_inner().unwrap().to_string(), "cause");
    }
}
