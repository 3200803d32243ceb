//! The queries of the API.

use std::borrow::Cow;

use tower_breaker::CircuitState;

use crate::problem::Problem;
use crate::route::decode;
use crate::view::View;

/// How many items a response has at most, and without `limit`.
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 200;

/// The longest text to search for, in bytes.
const MAX_SEARCH_BYTES: usize = 200;

/// The longest name in the store of the fleet, in bytes.
const MAX_NAME_BYTES: usize = 256;

const STATES: [CircuitState; 6] = [
    CircuitState::Closed,
    CircuitState::Open,
    CircuitState::HalfOpen,
    CircuitState::ForcedOpen,
    CircuitState::ForcedClosed,
    CircuitState::Disabled,
];

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query whose parameters are in `allowed`.
    ///
    /// # Errors
    ///
    /// - A parameter is not in `allowed`, or appears twice.
    /// - The query is not percent-encoded UTF-8.
    pub(crate) fn parse(query: Option<&'a str>, allowed: &[&'static str]) -> Result<Self, Problem> {
        let mut parameters = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_form(name)?;
            let Some(name) = allowed.iter().copied().find(|allowed| *allowed == name) else {
                return Err(Problem::bad_request(format_args!(
                    "unknown parameter `{name}`; allowed is {}",
                    list(allowed)
                )));
            };
            if parameters.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad_request(format_args!("parameter `{name}` appears twice")));
            }
            parameters.push((name, decode_form(value)?));
        }
        Ok(Self(parameters))
    }

    /// Returns the value of a parameter. `None`: it is missing or empty.
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| *other == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// Returns the value of `limit`.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let Some(value) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        match value.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            _ => Err(invalid("limit", value, format_args!("1 to {MAX_LIMIT}"))),
        }
    }

    /// Returns the value of `after`, which is the number of an entry. Default: 0.
    pub(crate) fn after_id(&self) -> Result<u64, Problem> {
        let Some(value) = self.get("after") else { return Ok(0) };
        value.parse().map_err(|_| invalid("after", value, format_args!("0 to {}", u64::MAX)))
    }

    /// Returns the value of `after`, which is the name of a record in the store of the fleet.
    ///
    /// A store may refuse other names, and the agent would then connect again.
    pub(crate) fn after_name(&self) -> Result<Option<&str>, Problem> {
        match self.get("after") {
            Some(name) if name.len() > MAX_NAME_BYTES || name.contains(char::is_control) => Err(invalid(
                "after",
                name,
                format_args!("up to {MAX_NAME_BYTES} bytes without control characters"),
            )),
            name => Ok(name),
        }
    }

    pub(crate) fn after(&self) -> Option<&str> {
        self.get("after")
    }

    /// Returns the value of `history`.
    pub(crate) fn history(&self) -> Result<bool, Problem> {
        match self.get("history") {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(invalid("history", value, format_args!("true or false"))),
        }
    }
}

/// What a list of circuits or keys contains.
#[derive(Debug)]
pub(crate) struct Filter {
    /// Empty: all states.
    states: Vec<CircuitState>,
    /// In lower case. Empty: all names.
    search: String,
    after: Option<String>,
    limit: usize,
}

/// A part of a list.
pub(crate) struct Page {
    pub(crate) items: Vec<View>,
    /// The name after which the next part begins. `None`: this is the last part.
    pub(crate) next: Option<String>,
    /// The items of all parts.
    pub(crate) total: usize,
}

impl Filter {
    pub(crate) const PARAMETERS: [&'static str; 4] = ["state", "q", "after", "limit"];

    pub(crate) fn of(query: &Query<'_>) -> Result<Self, Problem> {
        let states = query.get("state").map_or(Ok(Vec::new()), parse_states)?;
        let search = query.get("q").unwrap_or_default();
        if search.len() > MAX_SEARCH_BYTES {
            return Err(Problem::bad_request(format_args!(
                "`q` has {} bytes; allowed is up to {MAX_SEARCH_BYTES}",
                search.len()
            )));
        }
        let search = search.to_lowercase();
        Ok(Self { states, search, after: query.after().map(str::to_owned), limit: query.limit()? })
    }

    /// Returns the part of a list that the filter selects. `items` is sorted by name.
    ///
    /// A view is only made of an item of this part, or to find out the state of an item. An item
    /// without a view has ended.
    pub(crate) fn select<N: AsRef<str>, T>(
        &self,
        items: impl IntoIterator<Item = (N, T)>,
        view: impl Fn(T) -> Option<View>,
    ) -> Page {
        let mut page = Page { items: Vec::new(), next: None, total: 0 };
        let mut has_more = false;
        for (name, item) in items {
            let name = name.as_ref();
            if !self.search.is_empty() && !name.to_lowercase().contains(&self.search) {
                continue;
            }
            let is_after = self.after.as_ref().is_none_or(|after| name > &**after);
            let is_in_part = is_after && page.items.len() < self.limit;
            if !is_in_part && self.states.is_empty() {
                page.total += 1;
                has_more |= is_after;
                continue;
            }
            let Some(view) = view(item) else { continue };
            if !self.states.is_empty() && !self.states.iter().any(|state| view.is_in(*state)) {
                continue;
            }
            page.total += 1;
            if is_in_part {
                page.next = Some(name.to_owned());
                page.items.push(view);
            } else {
                has_more |= is_after;
            }
        }
        page.next = page.next.filter(|_| has_more);
        page
    }
}

fn parse_states(list_of_states: &str) -> Result<Vec<CircuitState>, Problem> {
    let states = list_of_states.split(',').map(|name| {
        let state = STATES.into_iter().find(|state| state.as_str() == name);
        state.ok_or_else(|| invalid("state", name, list(&STATES.map(CircuitState::as_str))))
    });
    states.collect()
}

fn decode_form(text: &str) -> Result<Cow<'_, str>, Problem> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return decode("query", &spaced).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    decode("query", text)
}

fn invalid(field: &str, value: &str, allowed: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format_args!("`{field}` is {value:?}; allowed is {allowed}"))
}

/// Returns the names as a list in a sentence.
fn list(names: &[&str]) -> String {
    match names {
        [] => "no parameter".to_owned(),
        [one] => format!("`{one}`"),
        [first @ .., last] => format!("`{}` or `{last}`", first.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tower_breaker::{BreakerConfig, Circuit};

    use super::*;
    use crate::source::Sources;

    fn filter(query: &str) -> Result<Filter, String> {
        Query::parse(Some(query), &Filter::PARAMETERS)
            .and_then(|query| Filter::of(&query))
            .map_err(|problem| problem.detail)
    }

    #[test]
    fn wrong_parameter_is_named() {
        for (query, error) in [
            ("stat=open", "unknown parameter `stat`; allowed is `state`, `q`, `after` or `limit`"),
            ("limit=1&limit=2", "parameter `limit` appears twice"),
            ("limit=0", "`limit` is \"0\"; allowed is 1 to 1000"),
            ("limit=1001", "`limit` is \"1001\"; allowed is 1 to 1000"),
            ("limit=-1", "`limit` is \"-1\"; allowed is 1 to 1000"),
            ("limit=99999999999999999999999", "`limit` is \"99999999999999999999999\"; allowed"),
            (
                "state=open,shut",
                "`state` is \"shut\"; allowed is `closed`, `open`, `half_open`, `forced_open`,",
            ),
            ("q=%zz", "the query has a `%` without"),
            ("q=%ff", "the query is not percent-encoded UTF-8"),
        ] {
            let detail = filter(query).unwrap_err();
            assert!(detail.starts_with(error), "{detail}");
        }
        let long = filter(&format!("q={}", "a".repeat(201))).unwrap_err();
        assert_eq!(long, "`q` has 201 bytes; allowed is up to 200");
        let id = Query::parse(Some("after=-1"), &["after"]).unwrap().after_id().unwrap_err();
        assert_eq!(id.detail, "`after` is \"-1\"; allowed is 0 to 18446744073709551615");
        let history = Query::parse(Some("history=yes"), &["history"]).unwrap().history().unwrap_err();
        assert_eq!(history.detail, "`history` is \"yes\"; allowed is true or false");
        let none = Query::parse(Some("a=1"), &[]).unwrap_err();
        assert_eq!(none.detail, "unknown parameter `a`; allowed is no parameter");
    }

    #[test]
    fn empty_parameters_select_all() {
        let filter = filter("state=&q=&after=&limit=").unwrap();
        assert!(filter.states.is_empty() && filter.search.is_empty() && filter.after.is_none());
        assert_eq!(filter.limit, 200);
    }

    #[test]
    fn largest_parameters_are_allowed() {
        let longest = "a".repeat(200);
        let filter = filter(&format!("limit=1000&q={longest}")).unwrap();
        assert_eq!((filter.limit, filter.search), (1000, longest));
    }

    #[test]
    fn query_is_form_encoded() {
        let filter = filter("q=A%2Bb+c&state=open,half_open").unwrap();
        assert_eq!(filter.search, "a+b c");
        assert_eq!(filter.states, [CircuitState::Open, CircuitState::HalfOpen]);
    }

    /// Circuits by name, of which those with an even length are open.
    fn circuits(names: &[String]) -> Vec<(String, Circuit)> {
        let circuits = names.iter().map(|name| {
            let circuit = Circuit::new(BreakerConfig::default().named(name.clone()));
            if name.len() % 2 == 0 {
                circuit.trip().unwrap();
            }
            (name.clone(), circuit)
        });
        circuits.collect()
    }

    proptest! {
        #[test]
        fn parts_make_up_the_list(
            mut names in prop::collection::vec("[aBc]{1,4}", 0..20),
            limit in 1..6_usize,
            only_open in any::<bool>(),
            search in "[ab]{0,2}",
        ) {
            names.sort();
            names.dedup();
            let mut expected = names.clone();
            expected.retain(|name| name.to_lowercase().contains(&search) && !(only_open && name.len() % 2 == 1));
            let all = circuits(&names);
            let fleet = Sources::default().fleet;
            let mut found = Vec::new();
            let mut after = String::new();
            loop {
                let state = if only_open { "open" } else { "" };
                let filter = filter(&format!("limit={limit}&q={search}&state={state}&after={after}")).unwrap();
                let views = std::cell::Cell::new(0);
                let page = filter.select(all.clone(), |circuit| {
                    views.set(views.get() + 1);
                    Some(View::of(&circuit, &fleet))
                });
                prop_assert_eq!(page.total, expected.len());
                prop_assert!(page.items.len() <= limit);
                prop_assert!(!page.items.is_empty() || found.is_empty(), "no part is empty");
                if !only_open {
                    prop_assert_eq!(views.get(), page.items.len(), "a view is only made if it is needed");
                }
                found.extend(page.items.iter().map(|view| view.circuit.to_owned()));
                match page.next {
                    None => break,
                    Some(next) => {
                        prop_assert_eq!(&next, found.last().unwrap());
                        after = next;
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_query_panics(query in any::<String>()) {
            let _ = filter(&query);
        }
    }
}
