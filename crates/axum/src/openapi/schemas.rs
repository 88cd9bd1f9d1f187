//! The bodies.

use baton_core::wire::Code;
use serde_json::Value;
use utoipa::openapi::schema::{
    AllOfBuilder, Array, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

/// The components.
pub(super) fn all() -> Vec<(&'static str, RefOr<Schema>)> {
    let mut all = vec![
        ("Code", code()),
        ("User", user()),
        ("Account", account()),
        ("Device", device()),
        ("Registration", registration()),
        ("SignIn", sign_in()),
        ("AccountChange", account_change()),
        ("NewPassword", new_password()),
        ("LetterRequest", letter_request()),
    ];
    all.extend(ERRORS.map(|shape| (shape.name, shape.schema())));
    all
}

/// How the bodies of errors differ.
struct ErrorShape {
    name: &'static str,
    description: &'static str,
    /// `success: false`
    success: bool,
    /// `status: "error"`
    status: bool,
    /// `errors` is an object with a list for each field, and not a list.
    by_field: bool,
}

/// As [`crate::Shape`] and the constructors of [`crate::Problem`] make them.
const ERRORS: [ErrorShape; 5] = [
    ErrorShape {
        name: "Error",
        description: "An error of a protected resource.",
        success: false,
        status: false,
        by_field: false,
    },
    ErrorShape {
        name: "Failure",
        description: "An error of sign-in, validation and sign-out, and of what letters are for.",
        success: true,
        status: false,
        by_field: false,
    },
    ErrorShape {
        name: "AccountFailure",
        description: "An error of the account itself.",
        success: true,
        status: true,
        by_field: false,
    },
    ErrorShape {
        name: "FieldErrors",
        description: "Fields of an account are missing or wrong.",
        success: false,
        status: true,
        by_field: true,
    },
    ErrorShape {
        name: "PasswordErrors",
        description: "A new password is missing or cannot be used.",
        success: true,
        status: false,
        by_field: true,
    },
];

/// The name of the schema that describes this body of an error.
pub(super) fn of(body: &Value) -> &'static str {
    let by_field = body.get("errors").is_some_and(Value::is_object);
    let (success, status) = (body.get("success").is_some(), body.get("status").is_some());
    let shape =
        ERRORS.iter().find(|shape| (shape.success, shape.status, shape.by_field) == (success, status, by_field));
    shape.map_or("Error", |shape| shape.name)
}

impl ErrorShape {
    fn schema(&self) -> RefOr<Schema> {
        let texts = || Array::new(text());
        let errors: RefOr<Schema> = if self.by_field {
            ObjectBuilder::new()
                .schema_type(Type::Object)
                .description(Some("What is wrong with each field; `full_messages` has it all in sentences."))
                .property("full_messages", texts())
                .required("full_messages")
                .additional_properties(Some(RefOr::<Schema>::from(texts())))
                .into()
        } else {
            texts().into()
        };
        let mut schema = ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some(self.description))
            .property("errors", errors)
            .required("errors")
            .property("code", Ref::from_schema_name("Code"))
            .required("code");
        if self.success {
            let never = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([false]));
            schema = schema.property("success", never).required("success");
        }
        if self.status {
            let sent = ObjectBuilder::new().schema_type(or_null(Type::Object));
            let sent = sent.description(Some("What was sent, for the form that is to be corrected (registration)."));
            let error = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["error"]));
            schema = schema.property("status", error).required("status").property("data", sent);
        }
        schema.into()
    }
}

fn code() -> RefOr<Schema> {
    let codes = Code::ALL.map(Code::as_str);
    let schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes));
    schema.description(Some("Why, for programs. More may come.")).into()
}

/// What [`crate::routes`] makes of an account.
fn user() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("An account, with its profile fields beside these."))
        .property("id", ObjectBuilder::new().schema_type(or_null(Type::Integer)))
        .property("email", text())
        .property("provider", text())
        .property("uid", text())
        .property("allow_password_change", boolean("Whether this session may set a password without the one so far."))
        .required("id")
        .required("email")
        .required("provider")
        .required("uid")
        .required("allow_password_change")
        .into()
}

fn account() -> RefOr<Schema> {
    let times = ObjectBuilder::new()
        .property("created_at", time())
        .property("updated_at", time())
        .required("created_at")
        .required("updated_at");
    AllOfBuilder::new().item(Ref::from_schema_name("User")).item(times).into()
}

fn device() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("id", text())
        .property("current", boolean("Whether it is the session of this request."))
        .property("created_at", time())
        .property("last_seen_at", time())
        .property("expires_at", time())
        .property("ip", ObjectBuilder::new().schema_type(or_null(Type::String)))
        .property("user_agent", ObjectBuilder::new().schema_type(or_null(Type::String)))
        .required("id")
        .required("current")
        .required("created_at")
        .required("last_seen_at")
        .required("expires_at")
        .required("ip")
        .required("user_agent")
        .into()
}

const PROFILE: &str = "Profile fields may stand beside these; others are dropped.";

fn registration() -> RefOr<Schema> {
    form(PROFILE)
        .property("email", email())
        .property("password", password())
        .property("password_confirmation", password())
        .property("confirm_success_url", url("Where the link in the letter leads on to."))
        .property("config_name", text())
        .required("email")
        .required("password")
        .into()
}

fn account_change() -> RefOr<Schema> {
    form(PROFILE)
        .property("email", email())
        .property("password", password())
        .property("password_confirmation", password())
        .property("current_password", password())
        .property("confirm_success_url", url("Where the link to confirm a new address leads on to."))
        .property("config_name", text())
        .into()
}

fn sign_in() -> RefOr<Schema> {
    form("").property("email", email()).property("password", password()).required("email").required("password").into()
}

fn new_password() -> RefOr<Schema> {
    form("")
        .property("password", password())
        .property("password_confirmation", password())
        .property("current_password", password())
        .property("reset_password_token", text())
        .required("password")
        .required("password_confirmation")
        .into()
}

fn letter_request() -> RefOr<Schema> {
    form("")
        .property("email", email())
        .property("redirect_url", url("Where the link in the letter leads on to."))
        .property("config_name", text())
        .required("email")
        .into()
}

fn form(description: &str) -> ObjectBuilder {
    let description = Some(description).filter(|description| !description.is_empty());
    ObjectBuilder::new().schema_type(Type::Object).description(description)
}

/// An object with these members, all of them always there.
pub(super) fn object<const N: usize>(members: [(&str, RefOr<Schema>); N]) -> RefOr<Schema> {
    let object = ObjectBuilder::new().schema_type(Type::Object);
    members.into_iter().fold(object, |object, (name, schema)| object.property(name, schema).required(name)).into()
}

pub(super) fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// This text or truth and no other.
pub(super) fn exactly(value: impl Into<Value>) -> RefOr<Schema> {
    let value = value.into();
    let kind = if value.is_boolean() { Type::Boolean } else { Type::String };
    ObjectBuilder::new().schema_type(kind).enum_values(Some([value])).into()
}

fn boolean(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(description)).into()
}

fn email() -> RefOr<Schema> {
    formatted(Type::String, SchemaFormat::Custom("email".into())).into()
}

fn password() -> RefOr<Schema> {
    formatted(Type::String, SchemaFormat::KnownFormat(KnownFormat::Password)).into()
}

fn url(description: &str) -> RefOr<Schema> {
    formatted(Type::String, SchemaFormat::Custom("uri".into())).description(Some(description)).into()
}

/// Null where no calendar has it, and in accounts that are yet to be confirmed.
fn time() -> RefOr<Schema> {
    formatted(or_null(Type::String), SchemaFormat::KnownFormat(KnownFormat::DateTime)).into()
}

fn formatted(kind: impl Into<SchemaType>, format: SchemaFormat) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).format(Some(format))
}

fn or_null(kind: Type) -> SchemaType {
    SchemaType::from_iter([kind, Type::Null])
}
