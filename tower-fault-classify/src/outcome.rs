//! Reads verdicts from responses.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Extensions, HeaderMap, HeaderName, StatusCode};

use crate::error_chain::classify_error;
use crate::fault::{Fault, Kind, Retryable, Verdict};
use crate::grpc;
use crate::hint;
use crate::system_time;
use crate::table;
use crate::upload::excuse_stalled_timeout;

/// A response from which a verdict can be read.
///
/// Every method has a default, so an empty implementation is enough for a response type of your
/// own. Such a response is always a success, unless a rule returns another verdict.
///
/// | method | **Default** | read for |
/// |---|---|---|
/// | [`status`](Self::status) | `None` | the row of the HTTP table |
/// | [`headers`](Self::headers) | `None` | the server's hints and the gRPC status |
/// | [`extensions`](Self::extensions) | `None` | a verdict that the response carries |
/// | [`extensions_mut`](Self::extensions_mut) | `None` | attaching a verdict |
/// | [`url`](Self::url) | `None` | redirects |
/// | [`verdict`](Self::verdict) | `None` | a verdict of the response's own |
///
/// ```
/// struct Rows(Vec<String>);
/// impl tower_fault_classify::Outcome for Rows {}
/// ```
#[diagnostic::on_unimplemented(
    message = "a verdict cannot be read from the response `{Self}`, because it does not implement `Outcome`",
    note = "for a type of your own, write `impl Outcome for {Self} {{}}`; without a status, it then counts as a success",
    note = "`reqwest::Response` implements `Outcome` with the cargo feature `reqwest`",
    note = "for any other type, call `.errors_only()` on the layer, the policy or the circuit: each response then counts as a success"
)]
pub trait Outcome {
    /// Returns the HTTP status.
    ///
    /// **Default**: `None`. A response without a status is a success.
    fn status(&self) -> Option<StatusCode> {
        None
    }

    /// Returns the headers, which contain the server's hints and a gRPC status.
    ///
    /// **Default**: `None`.
    fn headers(&self) -> Option<&HeaderMap> {
        None
    }

    /// Returns the extensions, from which a carried verdict is read.
    ///
    /// **Default**: `None`. Each layer then classifies the response again.
    fn extensions(&self) -> Option<&Extensions> {
        None
    }

    /// Returns the extensions, into which a verdict is inserted.
    ///
    /// **Default**: `None`. The response then carries no verdict.
    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        None
    }

    /// Returns the URL that this response came from, if its client follows redirects.
    ///
    /// A retry layer compares the URL with the request's URL.
    ///
    /// **Default**: `None`, the URL is not known.
    fn url(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// Returns the response's own verdict on its call, which takes precedence over the status.
    ///
    /// **Default**: `None`.
    fn verdict(&self) -> Option<Verdict> {
        None
    }
}

/// Implements the accessors by the response type's methods of the same names.
macro_rules! response_accessors {
    () => {
        fn status(&self) -> Option<StatusCode> {
            Some(self.status())
        }

        fn headers(&self) -> Option<&HeaderMap> {
            Some(self.headers())
        }

        fn extensions(&self) -> Option<&Extensions> {
            Some(self.extensions())
        }

        fn extensions_mut(&mut self) -> Option<&mut Extensions> {
            Some(self.extensions_mut())
        }
    };
}

impl<B> Outcome for http::Response<B> {
    response_accessors!();

    /// Returns the URL that tower-http's `FollowRedirect` inserts into each response's extensions.
    #[cfg(any(feature = "follow-redirect", feature = "reqwest"))]
    fn url(&self) -> Option<Cow<'_, str>> {
        let uri = self.extensions().get::<tower_http::follow_redirect::RequestUri>()?;
        Some(uri.0.to_string().into())
    }
}

#[cfg(feature = "reqwest")]
impl Outcome for reqwest::Response {
    response_accessors!();

    fn url(&self) -> Option<Cow<'_, str>> {
        Some(self.url().as_str().into())
    }
}

impl<T: Outcome + ?Sized> Outcome for Box<T> {
    fn status(&self) -> Option<StatusCode> {
        (**self).status()
    }

    fn headers(&self) -> Option<&HeaderMap> {
        (**self).headers()
    }

    fn extensions(&self) -> Option<&Extensions> {
        (**self).extensions()
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        (**self).extensions_mut()
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        (**self).url()
    }

    fn verdict(&self) -> Option<Verdict> {
        (**self).verdict()
    }
}

/// A nested result, as `tokio::time::timeout` returns it.
///
/// An `Ok` is classified by its value, and an `Err` by the error's chain of sources.
///
/// The error must implement [`Error`]. A boxed error (`BoxError`, `anyhow::Error`) does not:
/// combine the two results with `??` below the layer, or use
/// [`NestedErrors`](crate::classifiers::NestedErrors).
impl<T: Outcome, E: Error + 'static> Outcome for Result<T, E> {
    fn status(&self) -> Option<StatusCode> {
        self.as_ref().ok()?.status()
    }

    fn headers(&self) -> Option<&HeaderMap> {
        self.as_ref().ok()?.headers()
    }

    fn extensions(&self) -> Option<&Extensions> {
        self.as_ref().ok()?.extensions()
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        self.as_mut().ok()?.extensions_mut()
    }

    fn url(&self) -> Option<Cow<'_, str>> {
        self.as_ref().ok()?.url()
    }

    fn verdict(&self) -> Option<Verdict> {
        match self {
            Ok(response) => response.verdict(),
            Err(error) => Some(classify_error(error).into()),
        }
    }
}

macro_rules! success_outcome {
    ($($response:ty),+ $(,)?) => {
        $(impl Outcome for $response {})+
    };
}

success_outcome!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
success_outcome!(String, &str);

impl<T> Outcome for Vec<T> {}
impl<T> Outcome for Option<T> {}

/// A verdict in a response's extensions.
///
/// [`FaultClassifyLayer`](crate::FaultClassifyLayer) inserts it into a response that the layers
/// above would otherwise classify differently, now or later:
///
/// | response | inserted |
/// |---|---|
/// | a success by its head | no |
/// | a success that [`classify_response`] would classify as a fault, such as a 503 that a rule classifies as a success | yes |
/// | a fault that the status alone gives, without a hint in the headers | no |
/// | a timeout, because its verdict depends on the [upload](crate::upload) | yes |
/// | any other fault: by a rule, by the body, by a gRPC code, or with a delay | yes |
///
/// [`get`](Self::get) returns the verdict on each fault, whether it is inserted or not.
///
/// The verdict is stored together with the response's status. If the status has changed since (a
/// handler turned a 503 into a 200), the verdict is stale and is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedVerdict {
    verdict: Verdict,
    status: Option<StatusCode>,
}

impl CarriedVerdict {
    /// Returns the verdict that `response` carries: the inserted one, or the fault of its status.
    ///
    /// The fault of the status is returned if the status alone gives it. This function therefore
    /// does not tell whether a layer has classified the response. `None`: the response is a
    /// success, or no layer has classified it.
    #[inline]
    pub fn get(response: &(impl Outcome + ?Sized)) -> Option<Verdict> {
        Self::inserted(response).or_else(|| Some(fault_by_status(response)?.into()))
    }

    /// Returns the inserted verdict, or `None` if there is none or a stale one.
    #[inline]
    fn inserted(response: &(impl Outcome + ?Sized)) -> Option<Verdict> {
        let carried = response.extensions()?.get::<Self>()?;
        (carried.status == response.status()).then_some(carried.verdict)
    }

    /// Inserts a verdict into the extensions of `response`, and replaces an earlier verdict.
    ///
    /// A response without extensions is not changed.
    pub fn insert(response: &mut (impl Outcome + ?Sized), verdict: Verdict) {
        let status = response.status();
        if let Some(extensions) = response.extensions_mut() {
            extensions.insert(Self { verdict, status });
        }
    }

    /// Inserts the verdict of the layer's classifier, unless the layers above read the same verdict
    /// from the response. Most responses therefore carry nothing, and cost no allocation.
    #[inline]
    pub(crate) fn insert_if_needed(response: &mut (impl Outcome + ?Sized), verdict: Verdict) {
        let is_read = match verdict {
            Verdict::Success => classify_response(response).is_success(),
            Verdict::Fault(_) => Self::get(response) == Some(verdict),
        };
        if !is_read {
            Self::insert(response, verdict);
        }
    }
}

/// Returns the fault that the status alone gives, or `None` if anything else can change the
/// verdict: the response's own verdict, a header, or the state of the request's body.
fn fault_by_status(response: &(impl Outcome + ?Sized)) -> Option<Fault> {
    let status = response.status()?;
    if response.verdict().is_some() || response.headers().is_some_and(has_hint_field) {
        return None;
    }
    let fault = *table::http::classify(status, || None).fault()?;
    (fault.kind() != Kind::Timeout).then_some(fault)
}

/// Classifies a response by the verdict it carries, its own verdict, or its status.
///
/// The first of them that exists decides:
///
/// 1. the [`CarriedVerdict`] in the extensions, unless it is stale;
/// 2. [`Outcome::verdict`];
/// 3. the code of a trailers-only gRPC response, or else the HTTP status, with the hints in the
///    headers.
///
/// A response with none of them is a success. While the request's body waits for its source, a
/// timeout that the head reports is the caller's fault, except for status 522
/// ([`upload`](crate::upload)).
#[inline]
pub fn classify_response(response: &(impl Outcome + ?Sized)) -> Verdict {
    CarriedVerdict::inserted(response).or_else(|| response.verdict()).unwrap_or_else(|| {
        match classify_head(response) {
            Verdict::Fault(fault) if !response.status().is_some_and(table::http::is_origin_unreachable) => {
                Verdict::Fault(excuse_stalled_timeout(fault))
            }
            verdict => verdict,
        }
    })
}

/// Returns whether a gRPC response has begun and is not complete: its trailers are still to come.
///
/// The reader may have received a part of such a response. gRFC A6 calls the call committed: it
/// must not be sent again.
pub fn is_grpc_committed(response: &(impl Outcome + ?Sized)) -> bool {
    let is_incomplete = |headers| grpc::is_grpc(headers) && grpc::code_in(headers).is_none();
    response.status() == Some(StatusCode::OK) && response.headers().is_some_and(is_incomplete)
}

/// Classifies a response by its head alone.
///
/// A trailers-only gRPC response is classified by its code, any other response by its status and
/// hints. A response without a status is a success.
///
/// - `x-should-retry: false` rules a retry out.
/// - `x-should-retry: true` allows a retry that the status rules out, if the request is idempotent.
///   It never makes a request count as unprocessed.
/// - `retry-after-ms` takes precedence over `Retry-After`.
#[inline]
pub(crate) fn classify_head(response: &(impl Outcome + ?Sized)) -> Verdict {
    let Some(status) = response.status() else { return Verdict::Success };
    match response.headers().filter(|headers| !headers.is_empty()) {
        Some(headers) if status < StatusCode::BAD_REQUEST => {
            grpc::classify_grpc_head(headers).unwrap_or(Verdict::Success)
        }
        Some(headers) if has_hint_field(headers) => classify_with_hints(status, headers),
        _ => table::http::classify(status, || None),
    }
}

/// Returns whether a header can change the verdict on a failure's status.
///
/// Most failures have no such header. One pass over the names is faster than a lookup of each name.
fn has_hint_field(headers: &HeaderMap) -> bool {
    const COUNT: usize = if cfg!(feature = "draft-ratelimit") { 5 } else { 3 };
    static HINT_FIELDS: [HeaderName; COUNT] = [
        HeaderName::from_static("grpc-status"),
        HeaderName::from_static("retry-after-ms"),
        HeaderName::from_static("x-should-retry"),
        #[cfg(feature = "draft-ratelimit")]
        HeaderName::from_static("ratelimit"),
        #[cfg(feature = "draft-ratelimit")]
        HeaderName::from_static("ratelimit-reset"),
    ];
    headers.keys().any(|name| HINT_FIELDS.contains(name) || *name == RETRY_AFTER)
}

/// Classifies a failure by its status and all headers that are hints.
fn classify_with_hints(status: StatusCode, headers: &HeaderMap) -> Verdict {
    grpc::classify_grpc_head(headers).unwrap_or_else(|| {
        let delay = hint::delay(headers, system_time::now);
        match table::http::classify(status, || delay) {
            Verdict::Success => Verdict::Success,
            Verdict::Fault(fault) => Verdict::Fault(apply_should_retry(fault, headers, delay)),
        }
    })
}

/// Returns the delay that the server asked for.
pub(crate) fn requested_delay(response: &(impl Outcome + ?Sized)) -> Option<Duration> {
    hint::delay(response.headers()?, system_time::now)
}

/// Applies `x-should-retry` and the delay that the server asked for to the fault of a row.
///
/// A quota that is used up is not available again before the next attempt, so `true` does not
/// apply to it.
pub(crate) fn apply_should_retry(row: Fault, headers: &HeaderMap, delay: Option<Duration>) -> Fault {
    let can_be_raised = row.retryable() == Retryable::Never && row.kind() != Kind::Quota;
    let fault = match hint::should_retry(headers).value() {
        Some(false) => Fault::new(row.kind(), Retryable::Never, row.health(), row.origin()),
        Some(true) if can_be_raised => row.with_retryable(Retryable::IfIdempotent),
        None | Some(true) => row,
    };
    add_requested_delay(fault, || delay)
}

/// Adds the delay that the server asked for, if the fault has no delay and can be retried.
pub(crate) fn add_requested_delay(fault: Fault, delay: impl FnOnce() -> Option<Duration>) -> Fault {
    if fault.retry_after().is_some() || fault.retryable() == Retryable::Never {
        return fault;
    }
    delay().map_or(fault, |delay| fault.with_retry_after(delay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Origin};
    use crate::upload::UploadGuard;

    const FAULT: Fault = Fault::new(Kind::Quota, Retryable::Never, Health::Neutral, Origin::Remote);

    fn response(status: u16) -> http::Response<()> {
        http::Response::builder().status(status).body(()).unwrap()
    }

    #[test]
    fn status_with_retry_after_keeps_delay() {
        let mut unavailable = response(503);
        unavailable.headers_mut().insert("retry-after", "3".parse().unwrap());
        let verdict = classify_response(&unavailable);
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(classify_response(&response(204)), Verdict::Success);
    }

    fn classified(status: u16, fields: &[(&'static str, &str)]) -> Verdict {
        let mut response = response(status);
        for &(name, value) in fields {
            response.headers_mut().append(name, value.parse().unwrap());
        }
        classify_response(&response)
    }

    #[test]
    fn retry_after_date_without_date_header_uses_system_time() {
        let long_ago = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        let verdict = classified(503, &[long_ago]);
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::ZERO));
        let verdict = classified(503, &[long_ago, ("date", "Sun, 06 Nov 1994 08:49:30 GMT")]);
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn should_retry_true_raises_never_to_if_idempotent() {
        for status in 400..=599 {
            let plain = *classified(status, &[]).fault().unwrap();
            let raised = match plain.retryable() {
                Retryable::Never => Retryable::IfIdempotent,
                retryable => retryable,
            };
            for (word, retry) in [("true", raised), ("false", Retryable::Never), ("maybe", plain.retryable())]
            {
                let verdict = classified(status, &[("x-should-retry", word)]);
                assert_eq!(verdict, Verdict::Fault(plain.with_retryable(retry)), "{status} {word}");
            }
        }
        for status in [200, 204, 304, 399] {
            assert_eq!(classified(status, &[("x-should-retry", "true")]), Verdict::Success, "{status}");
        }
    }

    #[test]
    fn delay_kept_only_with_should_retry_true() {
        let delay = Some(Duration::from_millis(1_500));
        for status in 400..=599 {
            for (word, kept) in [("true", delay), ("false", None)] {
                let fields = [("x-should-retry", word), ("retry-after", "9"), ("retry-after-ms", "1500")];
                let verdict = classified(status, &fields);
                assert_eq!(verdict.fault().unwrap().retry_after(), kept, "{status} {word}");
            }
        }
    }

    #[test]
    fn retry_after_ms_takes_precedence_over_retry_after() {
        let verdict = classified(429, &[("retry-after", "9"), ("retry-after-ms", "1500")]);
        assert_eq!(verdict.fault().unwrap().retry_after(), Some(Duration::from_millis(1_500)));
    }

    #[test]
    fn grpc_response_by_code_and_intermediary_by_status() {
        let grpc = ("content-type", "application/grpc");
        let kind =
            |status, fields: &[(&'static str, &str)]| classified(status, fields).fault().map(Fault::kind);
        assert_eq!(kind(200, &[grpc, ("grpc-status", "14")]), Some(Kind::Unavailable));
        assert_eq!(kind(200, &[grpc, ("grpc-status", "0")]), None);
        assert_eq!(kind(200, &[grpc]), None, "its trailers decide");
        assert_eq!(kind(503, &[grpc]), Some(Kind::Unavailable));
        assert_eq!(kind(404, &[grpc]), Some(Kind::Client));
        assert_eq!(kind(503, &[grpc, ("grpc-status", "16")]), Some(Kind::Auth));
        assert_eq!(
            kind(429, &[("content-type", "application/json"), ("grpc-status", "0")]),
            Some(Kind::Throttled)
        );
    }

    #[test]
    fn classify_response_reads_every_hint_header() {
        let fields = [
            ("grpc-status", "14"),
            ("retry-after", "3"),
            ("retry-after-ms", "20"),
            ("x-should-retry", "true"),
            ("ratelimit", "\"default\";r=0;t=30"),
            ("ratelimit-reset", "40"),
        ];
        for chosen in 0..1_u8 << fields.len() {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", "application/grpc".parse().unwrap());
            for (field, (name, value)) in fields.into_iter().enumerate() {
                if chosen >> field & 1 == 1 {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            for status in [200, 404, 413, 429, 503] {
                let mut response = response(status);
                response.headers_mut().clone_from(&headers);
                assert_eq!(
                    classify_response(&response),
                    classify_with_hints(response.status(), &headers),
                    "{response:?}"
                );
            }
        }
    }

    #[test]
    fn grpc_is_committed_unless_head_ends_response() {
        let committed = |status: u16, fields: &[(&'static str, &str)]| {
            let mut response = response(status);
            for &(name, value) in fields {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            is_grpc_committed(&response)
        };
        let grpc = ("content-type", "application/grpc");
        assert!(committed(200, &[grpc]));
        assert!(!committed(200, &[grpc, ("grpc-status", "14")]), "trailers only");
        assert!(!committed(503, &[grpc]), "the response of an intermediary");
        assert!(!committed(200, &[("content-type", "application/json")]));
        assert!(!is_grpc_committed(&()));
    }

    #[test]
    fn outcome_without_status_is_a_success() {
        assert_eq!(classify_response(&()), Verdict::Success);
        assert_eq!(classify_response(&vec![1]), Verdict::Success);
        assert_eq!(classify_response(&Box::new(7)), Verdict::Success);
    }

    #[test]
    fn nested_result_is_classified_by_inner_error_or_value() {
        use std::io::{Error, ErrorKind};

        let kind = |nested: &dyn Outcome| classify_response(nested).fault().map(Fault::kind);
        let refused = || Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(kind(&Ok::<_, Error>(())), None);
        assert_eq!(kind(&Err::<(), _>(refused())), Some(Kind::Unavailable));
        assert_eq!(kind(&Ok::<_, Error>(Err::<u8, _>(refused()))), Some(Kind::Unavailable), "three deep");
        assert_eq!(kind(&Ok::<_, Error>(response(429))), Some(Kind::Throttled));
        let mut carries = Ok::<_, Error>(response(503));
        CarriedVerdict::insert(&mut carries, FAULT.into());
        assert_eq!(kind(&carries), Some(Kind::Quota));
    }

    #[test]
    fn carried_verdict_overrides_status_until_stale() {
        let mut response = response(429);
        CarriedVerdict::insert(&mut response, FAULT.into());
        assert_eq!(classify_response(&response), Verdict::Fault(FAULT));
        *response.status_mut() = StatusCode::OK;
        assert_eq!(classify_response(&response), Verdict::Success);
        assert_eq!(CarriedVerdict::get(&response), None);
    }

    #[test]
    fn verdict_of_layer_is_read_above_whether_inserted_or_not() {
        let success = Verdict::Success;
        let unavailable = classified(503, &[]);
        let timeout = classified(504, &[]);
        let delayed = classified(503, &[("retry-after", "3")]);
        for (status, fields, verdict, inserted) in [
            (200, &[][..], success, false),
            (503, &[], success, true),
            (503, &[], unavailable, false),
            (503, &[("content-type", "text/plain")], unavailable, false),
            (503, &[("retry-after", "3")], delayed, true),
            (503, &[("retry-after", "3")], unavailable, true),
            (503, &[("x-should-retry", "maybe")], unavailable, true),
            (503, &[("content-type", "application/grpc"), ("grpc-status", "16")], unavailable, true),
            (503, &[], FAULT.into(), true),
            (200, &[], FAULT.into(), true),
            (504, &[], timeout, true),
        ] {
            let mut response = response(status);
            for &(name, value) in fields {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            CarriedVerdict::insert_if_needed(&mut response, verdict);
            assert_eq!(!response.extensions().is_empty(), inserted, "{response:?} {verdict:?}");
            assert_eq!(classify_response(&response), verdict, "{response:?}");
            let expected = (inserted || !verdict.is_success()).then_some(verdict);
            assert_eq!(CarriedVerdict::get(&response), expected, "{response:?}");
        }
    }

    #[test]
    fn verdict_of_inner_layer_is_replaced_if_it_differs() {
        let mut response = response(503);
        CarriedVerdict::insert(&mut response, FAULT.into());
        let unavailable = classified(503, &[]);
        CarriedVerdict::insert_if_needed(&mut response, unavailable);
        assert_eq!(classify_response(&response), unavailable);
    }

    #[test]
    fn timeout_excused_by_waiting_upload_stays_excused_above_its_guard() {
        let mut response = response(504);
        let guard = UploadGuard::enter(true);
        let excused = classify_response(&response);
        CarriedVerdict::insert_if_needed(&mut response, excused);
        drop(guard);
        assert_eq!(classify_response(&response), excused);
        let mut counted = self::response(504);
        CarriedVerdict::insert_if_needed(&mut counted, classified(504, &[]));
        let _guard = UploadGuard::enter(true);
        assert_ne!(classify_response(&counted), excused, "the inner layer saw no waiting upload");
    }

    #[test]
    fn outcome_verdict_overrides_status() {
        struct Answer(bool);
        impl Outcome for Answer {
            fn verdict(&self) -> Option<Verdict> {
                (!self.0).then_some(FAULT.into())
            }
        }
        assert_eq!(classify_response(&Answer(true)), Verdict::Success);
        assert_eq!(classify_response(&Answer(false)), Verdict::Fault(FAULT));
    }
}
