//! The document of `baton openapi`: the auth routes of all realms, and the health checks.

use baton_axum::openapi;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, PathsBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, OpenApi, OpenApiBuilder, PathItem, Ref, ResponseBuilder, Tag};

use crate::config::Config;

const HEALTH: &str = "health";

/// Everything that `baton serve` answers with this configuration.
pub(crate) fn document(config: &Config) -> OpenApi {
    let realms = config.realms.iter().map(|realm| (&*realm.mount, &realm.http));
    openapi(realms).merge_from(health())
}

/// As `crate::health` answers.
fn health() -> OpenApi {
    let text = |words: [&str; 1]| ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words));
    let alive = ResponseBuilder::new()
        .description("The process lives.")
        .content("text/plain", Content::new(Some(text(["ok\n"]))));
    let status = ObjectBuilder::new().property("status", text(["ready"])).required("status");
    let ready =
        ResponseBuilder::new().description("It can answer.").content("application/json", Content::new(Some(status)));
    let unavailable = ResponseBuilder::new()
        .description("The store is away.")
        .header_ref("retry-after", Ref::new("#/components/headers/retry-after"))
        .content("application/json", Content::new(Some(Ref::from_schema_name("Error"))));
    let operation =
        |id: &str, summary: &str| OperationBuilder::new().operation_id(Some(id)).tag(HEALTH).summary(Some(summary));
    let healthz = operation("healthz", "Whether the process lives").response("200", alive);
    let readyz = operation("readyz", "Whether it can answer").response("200", ready).response("503", unavailable);
    let paths = PathsBuilder::new()
        .path("/healthz", PathItem::new(HttpMethod::Get, healthz))
        .path("/readyz", PathItem::new(HttpMethod::Get, readyz));
    OpenApiBuilder::new().paths(paths).tags(Some([Tag::new(HEALTH)])).build()
}
