//! The routes as OpenAPI 3.1. What can go wrong is not described a second time: a route lists the [`Problem`]s that it answers
//! with, and statuses, bodies, codes and headers are read off them.

mod routes;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, LOCATION, SET_COOKIE};
use serde_json::Value;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathsBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, AnyOfBuilder, ComponentsBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Content, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required, Tag,
};

use crate::HttpSettings;
use crate::problem::Problem;

const JSON: &str = "application/json";

/// The routes of [`crate::auth_routes`] below each of these mounts, as they are with the settings there: one document for all
/// realms. Routes that need letters are among them, whether an engine sends any or not.
#[must_use]
pub fn openapi<'a>(mounts: impl IntoIterator<Item = (&'a str, &'a HttpSettings)>) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new().schemas_from_iter(schemas::all());
    for (mount, settings) in mounts {
        for route in routes::all(settings) {
            let path = format!("{mount}{}", route.path);
            for (nth, method) in route.methods.iter().enumerate() {
                let mut id = format!("{}_{}", mount.trim_start_matches('/').replace('/', "_"), route.name);
                if nth > 0 {
                    // An id is for one operation alone.
                    id.push_str("_too");
                }
                paths = paths.path(&path, PathItem::new(method.clone(), route.operation(id, settings)));
            }
        }
        components = headers(settings).into_iter().fold(components, |all, (name, header)| all.header(name, header));
        for (name, scheme) in security_schemes(settings) {
            components = components.security_scheme(name, scheme);
        }
    }
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0"));
    let info = InfoBuilder::new()
        .title("baton")
        .version(env!("CARGO_PKG_VERSION"))
        .license(Some(license.build()))
        .description(Some(
            "Authentication whose access token changes on every request: a client presents token n, the response carries \
             token n+1, and n is dead. Every answer to somebody who is signed in carries the auth headers, errors too. \
             Where requests overlap, one answer has the new token, and the others have blanks or no auth headers: a \
             client keeps what it has then. Bodies are JSON or forms; a path may end in `.json` or a slash.",
        ));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .tags(Some([ACCOUNT, SESSIONS, PASSWORD, CONFIRMATION, UNLOCK].map(Tag::new)))
        .build()
}

const ACCOUNT: &str = "account";
const SESSIONS: &str = "sessions";
const PASSWORD: &str = "password";
const CONFIRMATION: &str = "confirmation";
const UNLOCK: &str = "unlock";

/// Who a route is for, and what that means for the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Anybody; no credentials come back.
    Anybody,
    /// Anybody; success hands out the credentials of a new session.
    Opens,
    /// Who is signed in; the token is rotated.
    SignedIn,
    /// Who is signed in, or has a token from a letter.
    SignedInOrByLetter,
    /// Who is signed in; success ends the session.
    Ends,
}

impl Access {
    const fn takes_credentials(self) -> bool {
        matches!(self, Self::SignedIn | Self::SignedInOrByLetter | Self::Ends)
    }

    /// Whether success comes with credentials. Errors may as well, where somebody is signed in; the document says so once.
    const fn hands_out(self) -> bool {
        matches!(self, Self::Opens | Self::SignedIn | Self::SignedInOrByLetter)
    }
}

/// A route.
struct Route {
    methods: &'static [HttpMethod],
    /// Below the mount.
    path: &'static str,
    name: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    access: Access,
    parameters: Vec<Parameter>,
    /// The schema of the request's body.
    takes: Option<&'static str>,
    answers: Vec<(u16, Response)>,
    problems: Vec<Problem>,
}

impl Route {
    fn operation(&self, id: String, settings: &HttpSettings) -> Operation {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(id))
            .tag(self.tag)
            .summary(Some(self.summary))
            .parameters(Some(self.parameters.clone()));
        if !self.description.is_empty() {
            operation = operation.description(Some(self.description));
        }
        if let Some(schema) = self.takes {
            operation = operation.request_body(Some(body(schema)));
        }
        if self.access.takes_credentials() {
            operation = operation.parameter(query(
                "unbatch",
                "Asks for the current token within the batch window: anything but `false` and `0`.",
                Required::False,
            ));
            for alternative in securities(settings) {
                operation = operation.security(alternative);
            }
        }
        if self.access == Access::SignedInOrByLetter {
            operation = operation.security(SecurityRequirement::default());
        }
        let mut responses: BTreeMap<u16, Response> = self.answers.iter().cloned().collect();
        for (status, error) in errors(&self.problems) {
            // Where a page says it too, it is one status with two kinds of content.
            responses.entry(status).and_modify(|page| page.content.extend(error.content.clone())).or_insert(error);
        }
        for (status, mut response) in responses {
            if status == 200 && self.access.hands_out() {
                for (name, _) in credentials(settings) {
                    response.headers.insert(name.clone(), header_ref(&name));
                }
            }
            operation = operation.response(status.to_string(), response);
        }
        operation.build()
    }
}

/// The responses of these problems, one for each status.
fn errors(problems: &[Problem]) -> BTreeMap<u16, Response> {
    let mut by_status: BTreeMap<u16, Vec<&Problem>> = BTreeMap::new();
    for problem in problems {
        by_status.entry(problem.parts().0.as_u16()).or_default().push(problem);
    }
    by_status.into_iter().map(|(status, problems)| (status, error(&problems))).collect()
}

/// The response of problems that have one status.
fn error(problems: &[&Problem]) -> Response {
    let mut shapes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut says: Vec<String> = Vec::new();
    let mut response = Response::new("");
    for problem in problems {
        let (_, body, headers) = problem.parts();
        let code = problem.code();
        shapes.entry(schemas::of(&body)).or_default().insert(code);
        let message = body.pointer("/errors/0").and_then(Value::as_str);
        let line = format!("- `{code}`: {}", message.unwrap_or("A field is missing or wrong; `errors` says which."));
        if !says.contains(&line) {
            says.push(line);
        }
        for (name, _) in headers.iter().filter(|(name, _)| *name != ACCESS_CONTROL_EXPOSE_HEADERS) {
            response.headers.insert(name.to_string(), header_ref(name.as_str()));
        }
    }
    response.description = says.join("\n");
    let mut shapes = shapes.into_iter().map(|(shape, codes)| {
        let codes = ObjectBuilder::new()
            .property("code", ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)));
        AllOfBuilder::new().item(Ref::from_schema_name(shape)).item(codes)
    });
    let schema: RefOr<Schema> = match (shapes.next(), shapes.len()) {
        (Some(only), 0) => only.into(),
        (first, _) => first.into_iter().chain(shapes).fold(AnyOfBuilder::new(), AnyOfBuilder::item).into(),
    };
    response.content.insert(JSON.into(), Content::new(Some(schema)).into());
    response
}

/// A JSON answer.
fn json(description: &str, schema: impl Into<RefOr<Schema>>) -> Response {
    ResponseBuilder::new().description(description).content(JSON, Content::new(Some(schema))).build()
}

/// A page for somebody who followed a link.
fn page(description: &str) -> Response {
    let html = ObjectBuilder::new().schema_type(Type::String);
    ResponseBuilder::new().description(description).content("text/html", Content::new(Some(html))).build()
}

/// 302.
fn redirect(description: &str) -> Response {
    let header = described("Where it leads on to, with what the front end reads as parameters.");
    ResponseBuilder::new().description(description).header(LOCATION.as_str(), header).build()
}

/// JSON or a form, as front ends send them.
fn body(schema: &str) -> RequestBody {
    let content = || Content::new(Some(Ref::from_schema_name(schema)));
    RequestBodyBuilder::new()
        .content(JSON, content())
        .content("application/x-www-form-urlencoded", content())
        .required(Some(Required::True))
        .build()
}

fn query(name: &str, description: &str, required: Required) -> Parameter {
    parameter(ParameterIn::Query, name, description, required)
}

fn parameter(place: ParameterIn, name: &str, description: &str, required: Required) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
    parameter.description(Some(description)).schema(Some(text)).build()
}

fn header_ref(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

fn described(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new().schema(Some(text)).description(Some(description)).build()
}

/// The headers in which credentials come back.
fn credentials(settings: &HttpSettings) -> Vec<(String, Header)> {
    let names = &settings.headers_names;
    let mut headers: Vec<(String, Header)> = [
        (&names.access_token, "The token to present next; blank if this response does not carry it."),
        (&names.token_type, "`Bearer`"),
        (&names.client, "The session."),
        (&names.expiry, "When the session ends unless it is used, in Unix seconds."),
        (&names.uid, "The account's uid."),
        (&names.authorization, "The same five in one: `Bearer` and the base64 of a JSON object."),
    ]
    .map(|(name, description)| (name.clone(), described(description)))
    .into();
    if settings.cookie.is_some() {
        headers.push((SET_COOKIE.to_string(), described("The same in a cookie, where the session travels in one.")));
    }
    headers
}

/// All headers that responses refer to.
fn headers(settings: &HttpSettings) -> Vec<(String, Header)> {
    let mut headers = credentials(settings);
    for (name, description) in [
        (http::header::WWW_AUTHENTICATE, "The challenge of RFC 6750."),
        (crate::problem::RATELIMIT, "Which limit was hit, what is left of it, and in how many seconds there is more."),
        (crate::problem::RATELIMIT_POLICY, "The limit: how many (`q`) in how many seconds (`w`)."),
    ] {
        headers.push((name.to_string(), described(description)));
    }
    let seconds = Header::new(ObjectBuilder::new().schema_type(Type::Integer));
    headers.push((http::header::RETRY_AFTER.to_string(), seconds));
    headers
}

/// The ways in which credentials may come, each with all that it takes.
fn securities(settings: &HttpSettings) -> Vec<SecurityRequirement> {
    let names = &settings.headers_names;
    let none: [&str; 0] = [];
    let together = [&names.access_token, &names.client, &names.uid];
    let together = together.into_iter().fold(SecurityRequirement::default(), |all, name| all.add(name, none));
    let mut alternatives = vec![together, SecurityRequirement::new(&names.authorization, none)];
    alternatives.extend(settings.cookie.iter().map(|cookie| SecurityRequirement::new(&cookie.name, none)));
    alternatives
}

fn security_schemes(settings: &HttpSettings) -> Vec<(String, SecurityScheme)> {
    let names = &settings.headers_names;
    let header = |name: &String, description: &str| {
        let value = ApiKeyValue::with_description(name.as_str(), description);
        (name.clone(), SecurityScheme::ApiKey(ApiKey::Header(value)))
    };
    let bearer = if names.authorization.eq_ignore_ascii_case("authorization") {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("base64 of a JSON object");
        let description = "What the response header of the same name carried: the three headers in one.";
        (names.authorization.clone(), SecurityScheme::Http(bearer.description(Some(description)).build()))
    } else {
        header(&names.authorization, "`Bearer` and the base64 of a JSON object: the three headers in one.")
    };
    let mut schemes = vec![
        header(&names.access_token, "The newest token."),
        header(&names.client, "The session."),
        header(&names.uid, "The account's uid."),
        bearer,
    ];
    if let Some(cookie) = &settings.cookie {
        let value = ApiKeyValue::with_description(cookie.name.as_str(), "The three in one, percent-encoded JSON.");
        schemes.push((cookie.name.clone(), SecurityScheme::ApiKey(ApiKey::Cookie(value))));
    }
    schemes
}
