//! The OpenAPI document.

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::api::{ActionRequest, ActionResponse, Problem};
use crate::events::{EventMessage, TokenMessage};
use crate::server::Readiness;
use crate::stats::AgentStatus;

/// The path of the document.
pub const PATH: &str = "/api/v1/openapi.json";

/// The document of the API.
#[derive(Clone, Copy, Debug, OpenApi)]
#[openapi(
    info(title = "circuit-manager", description = "The circuits of agents", license(name = "MIT")),
    nest((path = "/api/v1/circuits", api = Circuits)),
    paths(crate::server::health, crate::server::ready),
    components(schemas(ActionRequest, ActionResponse, AgentStatus, EventMessage, Problem, Readiness, TokenMessage)),
    tags(
        (name = "circuits", description = "Read and control circuits, and follow their changes"),
        (name = "server", description = "Probes for load balancers and supervisors"),
    ),
    modifiers(&BearerToken),
)]
pub struct Document;

#[derive(OpenApi)]
#[openapi(paths(
    crate::api::list,
    crate::api::get,
    crate::api::act,
    crate::events::events,
    crate::events::websocket
))]
struct Circuits;

/// Adds the scheme of the tokens.
#[derive(Debug)]
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", scheme);
    }
}
