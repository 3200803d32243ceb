//! The requests that read.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use crate::admin::Inner;
use crate::auth::{User, check_site};
use crate::body::AdminBody;
use crate::problem::Problem;
use crate::query::{Filter, Query};
use crate::rate::{Admission, too_many};
use crate::response::{Response, full, json};
use crate::route::{Circuit, Route, Segment};
use crate::service::check_target;
use crate::source::{Found, Named};
use crate::view::View;

const OPENAPI: &[u8] = include_bytes!("openapi.json");

impl Inner {
    /// Responds to a request that changes nothing, or that has the wrong method.
    pub(crate) async fn read(&self, request: &Parts) -> Result<Response, Problem> {
        check_target(request)?;
        let route = Route::of(request.uri.path());
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        if route == Route::Unknown {
            return Err(unknown_path());
        }
        if route == Route::Page {
            return Err(Problem::method_not_allowed(&request.method, route.methods()));
        }
        let user = self.authorizer.user(request, is_read)?;
        if route == Route::UnknownApi {
            return Err(unknown_path());
        }
        if !is_read || matches!(route, Route::Action(..)) {
            return Err(Problem::method_not_allowed(&request.method, route.methods()));
        }
        // The number of streams is limited instead.
        if route != Route::Events
            && let Admission::Refused { retry_after, .. } =
                self.read_rates.admit(Some(user.name()), Instant::now())
        {
            return Err(too_many(&user, "requests", retry_after));
        }
        let query = |allowed| Query::parse(request.uri.query(), allowed);
        match route {
            Route::Circuits => self.circuits(&query(&["state", "q", "after", "limit", "history"])?),
            Route::Circuit(circuit) => query(&[]).and_then(|_| self.circuit(circuit)),
            Route::Config(circuit) => query(&[]).and_then(|_| self.config(circuit)),
            Route::Keys(circuit) => self.keys(circuit, &query(&Filter::PARAMETERS)?),
            Route::Fleet => self.fleet(&query(&["after", "limit"])?).await,
            Route::Audit => self.audit_entries(&query(&["after", "limit"])?),
            Route::OpenApi => {
                query(&[])?;
                Ok(full(StatusCode::OK, "application/json", OPENAPI.into()))
            }
            Route::Events => query(&[]).and_then(|_| self.events(request, &user)),
            Route::Page | Route::Action(..) | Route::UnknownApi | Route::Unknown => Err(unknown_path()),
        }
    }

    fn circuits(&self, query: &Query<'_>) -> Result<Response, Problem> {
        #[derive(Serialize)]
        struct List {
            circuits: Vec<View>,
            next: Option<String>,
            total: usize,
        }

        let (filter, history) = (Filter::of(query)?, query.history()?);
        let page = filter.select(self.sources.all(), |named| Some(self.sources.view_of(&named)));
        let mut circuits = page.items;
        for view in circuits.iter_mut().filter(|_| history) {
            view.history = self.hub.history(view.circuit);
        }
        json(&List { circuits, next: page.next, total: page.total })
    }

    fn circuit(&self, circuit: Circuit<'_>) -> Result<Response, Problem> {
        let name = circuit.name.decode()?;
        let mut view = match circuit.key {
            Some(key) => View::of(&*self.key(&name, &key.decode()?)?.circuit, &self.sources.fleet),
            None => self.sources.view(&name).ok_or_else(|| no_circuit(&name))?,
        };
        if circuit.key.is_none() {
            view.history = self.hub.history(&name);
        }
        let mut response = json(&view)?;
        let tag = HeaderValue::try_from(format!("\"{}\"", view.epoch));
        response.headers_mut().extend(tag.ok().map(|tag| (header::ETAG, tag)));
        Ok(response)
    }

    fn config(&self, circuit: Circuit<'_>) -> Result<Response, Problem> {
        let name = circuit.name.decode()?;
        let config = match (self.named(&name)?, circuit.key) {
            (Named::Single(circuit), None) => circuit.config(),
            (Named::Keyed(circuits), None) => circuits.config(),
            (_, Some(key)) => self.key(&name, &key.decode()?)?.circuit.config(),
        };
        json(&config)
    }

    fn keys(&self, circuits: Segment<'_>, query: &Query<'_>) -> Result<Response, Problem> {
        #[derive(Serialize)]
        struct List {
            keys: Vec<View>,
            next: Option<String>,
            total: usize,
        }

        let name = circuits.decode()?;
        let filter = Filter::of(query)?;
        let Named::Keyed(circuits) = self.named(&name)? else { return Err(not_keyed(&name)) };
        let page = filter.select(circuits.keys(), |key| Some(View::of(&*key()?, &self.sources.fleet)));
        json(&List { keys: page.items, next: page.next, total: page.total })
    }

    async fn fleet(&self, query: &Query<'_>) -> Result<Response, Problem> {
        let (after, limit) = (query.after_name()?, query.limit()?);
        let _turn = self.fleet_lists.lock().await;
        json(&self.sources.fleet.list(after, limit).await?)
    }

    fn audit_entries(&self, query: &Query<'_>) -> Result<Response, Problem> {
        #[derive(Serialize)]
        struct List {
            entries: Vec<crate::AuditEntry>,
            next: Option<u64>,
        }

        let (entries, has_more) = self.audit.entries(query.after_id()?, query.limit()?);
        let next = entries.last().map(|last| last.id).filter(|_| has_more);
        json(&List { entries, next })
    }

    fn events(&self, request: &Parts, user: &User) -> Result<Response, Problem> {
        // A page of another site cannot read the stream, but it could open many.
        check_site(&request.headers)?;
        let last_id = request.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let mut response = Response::new(AdminBody::events(self.hub.stream(user, last_id)?));
        for (name, value) in
            [(header::CONTENT_TYPE.as_str(), "text/event-stream"), ("x-accel-buffering", "no")]
        {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }

    /// Returns the circuit, or circuits by key, with this name.
    pub(crate) fn named(&self, name: &str) -> Result<Named<'_>, Problem> {
        self.sources.find(name).ok_or_else(|| no_circuit(name))
    }

    /// Returns the circuit of a key.
    pub(crate) fn key(&self, name: &str, label: &str) -> Result<Found, Problem> {
        let Named::Keyed(circuits) = self.named(name)? else { return Err(not_keyed(name)) };
        circuits.key(label).ok_or_else(|| {
            Problem::not_found(format_args!("circuit `{name}` has no key with the label `{label}`"))
        })
    }
}

fn no_circuit(name: &str) -> Problem {
    Problem::not_found(format_args!("no circuit is named `{name}`"))
}

fn not_keyed(name: &str) -> Problem {
    Problem::not_found(format_args!("circuit `{name}` has no keys"))
}

pub(crate) fn unknown_path() -> Problem {
    Problem::not_found("the API has no such path; `api/v1/openapi.json` lists all")
}
