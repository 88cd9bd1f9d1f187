//! `baton openapi`, and the copy of it in `docs/`.

use serde_json::Value;

use crate::support::run;

const CHECKED_IN: &str = include_str!("../../../../docs/openapi.json");

fn document(args: &[&str]) -> Value {
    let printed = run(&[&["openapi"], args].concat());
    assert_eq!((printed.code(), &*printed.stderr), (Some(0), ""));
    serde_json::from_str(&printed.stdout).unwrap()
}

#[test]
fn the_checked_in_document_is_the_one_that_is_printed() {
    let printed = run(&["openapi"]).stdout;
    let differs = CHECKED_IN.lines().zip(printed.lines()).zip(1..).find(|((old, new), _)| old != new);
    assert!(
        printed == CHECKED_IN,
        "docs/openapi.json is not what `baton openapi` prints, first in {differs:?}; bring it up to date:\n\
         cargo build && target/debug/baton openapi >docs/openapi.json"
    );
}

#[test]
fn all_realms_are_in_one_document() {
    let document = document(&[
        "--set",
        "mount=/v1/auth",
        "--set",
        "realms.admin.mount=/admin_auth",
        "--set",
        "realms.admin.headers_names.access-token=x-admin-token",
    ]);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["title"], "baton");
    let paths = document["paths"].as_object().unwrap();
    for path in ["/v1/auth/sign_in", "/admin_auth/sign_in", "/healthz", "/readyz"] {
        assert!(paths.contains_key(path), "{path}");
    }
    assert!(!paths.contains_key("/auth/sign_in"));
    let admins = &document["paths"]["/admin_auth/validate_token"]["get"];
    assert!(admins["security"][0]["x-admin-token"].is_array(), "{admins}");
    assert!(document["components"]["securitySchemes"]["x-admin-token"].is_object());
    assert!(document["components"]["headers"]["x-admin-token"].is_object());
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused() {
    let printed = run(&["openapi", "--set", "mount=auth"]);
    assert_eq!((printed.code(), &*printed.stdout), (Some(2), ""));
    assert!(printed.stderr.contains("mount"), "{}", printed.stderr);
}
