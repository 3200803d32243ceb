//! What a response tells of its call.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Extensions, HeaderMap, HeaderName, StatusCode};

use crate::error_chain::classify_error;
use crate::fault::{Fault, Retryable, Verdict};
use crate::grpc;
use crate::hint;
use crate::system_time;
use crate::table;
use crate::upload::excuse_stalled_timeout;

/// A response, as far as a verdict can be read from it.
///
/// Every method has a default, so that a response type of your own takes part with an empty implementation: it is then
/// always a success, unless a rule says otherwise.
///
/// ```
/// struct Rows(Vec<String>);
/// impl tower_fault_classify::Outcome for Rows {}
/// ```
#[diagnostic::on_unimplemented(
    message = "a verdict cannot be read from the response `{Self}`, because it does not implement `Outcome`",
    note = "for a type of your own, write `impl Outcome for {Self} {{}}`; without a status, it then counts as a success",
    note = "`reqwest::Response` implements `Outcome` with the cargo feature `reqwest`",
    note = "for any other type, call `.errors_only()` on the layer: each response then counts as a success"
)]
pub trait Outcome {
    /// The HTTP status. **Default**: none.
    fn status(&self) -> Option<StatusCode> {
        None
    }

    /// The headers, where a server's hints stand. **Default**: none.
    fn headers(&self) -> Option<&HeaderMap> {
        None
    }

    /// Where a verdict is carried. **Default**: none, so that it is judged anew by every layer.
    fn extensions(&self) -> Option<&Extensions> {
        None
    }

    /// Where a verdict is written down. **Default**: none.
    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        None
    }

    /// The URL that this response came from, if its client follows redirects: a retry layer
    /// compares the URL with the request's. **Default**: not known.
    fn url(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// What the response itself knows about its call; it goes before the status. **Default**: no verdict.
    fn verdict(&self) -> Option<Verdict> {
        None
    }
}

/// The accessors of a response type that has methods of the same names.
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

    /// What tower-http's `FollowRedirect` writes on each response.
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

/// The response of a call whose own error is nested in another result, as `tokio::time::timeout`
/// returns it: the inner response is read as it is, and the inner error by its chain of sources.
///
/// The error must implement [`Error`]. A boxed one (`BoxError`, `anyhow::Error`) does not: combine
/// the two results with `??` below the layer, or use [`NestedErrors`](crate::classifiers::NestedErrors).
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

/// A verdict in a response's extensions, with the status that it was given on.
///
/// If the response has another status by now (a handler turned a 503 into a 200), the verdict is stale and is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarriedVerdict {
    verdict: Verdict,
    status: Option<StatusCode>,
}

impl CarriedVerdict {
    /// The verdict that `response` carries, unless it is stale.
    #[inline]
    pub fn get(response: &(impl Outcome + ?Sized)) -> Option<Verdict> {
        let carried = response.extensions()?.get::<Self>()?;
        (carried.status == response.status()).then_some(carried.verdict)
    }

    /// Writes a verdict down on `response`, in place of an earlier one. A response without extensions stays as it is.
    pub fn insert(response: &mut (impl Outcome + ?Sized), verdict: Verdict) {
        let status = response.status();
        if let Some(extensions) = response.extensions_mut() {
            extensions.insert(Self { verdict, status });
        }
    }
}

/// Judges a response that came: by the verdict it carries, by its own word, by its status.
#[inline]
pub fn classify_response(response: &(impl Outcome + ?Sized)) -> Verdict {
    CarriedVerdict::get(response).or_else(|| response.verdict()).unwrap_or_else(|| {
        match classify_head(response) {
            Verdict::Fault(fault) if !response.status().is_some_and(table::http::is_origin_unreachable) => {
                Verdict::Fault(excuse_stalled_timeout(fault))
            }
            verdict => verdict,
        }
    })
}

/// Whether the answer of a gRPC call has begun: its head has come and does not end it, so that a part of it may have been read (gRFC A6:
/// such a call is committed, and not made again).
pub fn is_grpc_committed(response: &(impl Outcome + ?Sized)) -> bool {
    let grpc = response.headers().filter(|headers| grpc::is_grpc(headers));
    response.status() == Some(StatusCode::OK) && grpc.is_some_and(|headers| grpc::code_in(headers).is_none())
}

/// Judges a response by its head alone: a trailers-only answer of gRPC by its code, any other by its status and hints. One without
/// a status is a success.
///
/// `x-should-retry: false` rules a retry out. `true` allows one if the request is idempotent where
/// the status rules it out; it never makes a request count as unprocessed. Of the delays,
/// `retry-after-ms` before `Retry-After`.
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

/// Whether a field can change what the status of a failure says. Most failures have none, and one walk over the names is quicker
/// than a look-up of each.
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

/// Asks every field.
fn classify_with_hints(status: StatusCode, headers: &HeaderMap) -> Verdict {
    grpc::classify_grpc_head(headers).unwrap_or_else(|| {
        let delay = hint::delay(headers, system_time::now);
        match table::http::classify(status, || delay) {
            Verdict::Success => Verdict::Success,
            Verdict::Fault(fault) => Verdict::Fault(apply_should_retry(fault, headers, delay)),
        }
    })
}

/// The delay that the server asked for.
pub(crate) fn requested_delay(response: &(impl Outcome + ?Sized)) -> Option<Duration> {
    hint::delay(response.headers()?, system_time::now)
}

/// Applies `x-should-retry` to the table's fault. The delay stays where a retry may follow.
fn apply_should_retry(fault: Fault, headers: &HeaderMap, delay: Option<Duration>) -> Fault {
    match hint::should_retry(headers).value() {
        Some(false) => Fault::new(fault.kind(), Retryable::Never, fault.health(), fault.origin()),
        Some(true) if fault.retryable() == Retryable::Never => {
            let raised = fault.with_retryable(Retryable::IfIdempotent);
            delay.map_or(raised, |delay| raised.with_retry_after(delay))
        }
        None | Some(true) => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Health, Kind, Origin};

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
        assert_eq!(kind(200, &[grpc]), None, "its trailers will tell");
        assert_eq!(kind(503, &[grpc]), Some(Kind::Unavailable));
        assert_eq!(kind(404, &[grpc]), Some(Kind::Client));
        assert_eq!(kind(503, &[grpc, ("grpc-status", "16")]), Some(Kind::Auth));
        assert_eq!(
            kind(429, &[("content-type", "application/json"), ("grpc-status", "0")]),
            Some(Kind::Throttled)
        );
    }

    #[test]
    fn header_fields_with_hints_are_never_skipped() {
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
    fn grpc_has_begun_unless_head_ends_response() {
        let begun = |status: u16, fields: &[(&'static str, &str)]| {
            let mut response = response(status);
            for &(name, value) in fields {
                response.headers_mut().append(name, value.parse().unwrap());
            }
            is_grpc_committed(&response)
        };
        let grpc = ("content-type", "application/grpc");
        assert!(begun(200, &[grpc]));
        assert!(!begun(200, &[grpc, ("grpc-status", "14")]), "trailers only");
        assert!(!begun(503, &[grpc]), "an intermediary's");
        assert!(!begun(200, &[("content-type", "application/json")]));
        assert!(!is_grpc_committed(&()));
    }

    #[test]
    fn outcome_without_status_is_a_success() {
        assert_eq!(classify_response(&()), Verdict::Success);
        assert_eq!(classify_response(&vec![1]), Verdict::Success);
        assert_eq!(classify_response(&Box::new(7)), Verdict::Success);
    }

    #[test]
    fn nested_result_is_classified_by_inner_error_or_response() {
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
