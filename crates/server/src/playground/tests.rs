//! In process.

use axum::body::Body;
use http::header::HOST;
use http::{HeaderMap, Request, StatusCode};
use tower::ServiceExt as _;

use super::*;
use crate::config::Sources;

async fn get(routes: Router, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().uri(path).header(HOST, "localhost:3000").body(Body::empty()).unwrap();
    let (parts, body) = routes.oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn config(set: &[&str]) -> Config {
    let set = set.iter().map(|&setting| setting.to_owned()).collect();
    Config::load(&Sources { set, ..Sources::default() }).unwrap()
}

#[tokio::test]
async fn the_page_and_its_files_are_guarded() {
    let routes = routes(&config(&[])).merge(at_root());
    let files = FILES.map(|(name, ..)| format!("/dev/playground/{name}"));
    let paths = files.iter().map(String::as_str).chain(["/", "/dev/playground", "/dev/settings"]);
    for path in paths {
        let (status, headers, body) = get(routes.clone(), path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!body.is_empty(), "{path}");
        for (name, value) in [
            ("content-security-policy", POLICY),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
        let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("css") => CSS,
            Some("mjs") => SCRIPT,
            Some("svg") => SVG,
            _ if path.ends_with("settings") => "application/json",
            _ => HTML,
        };
        assert_eq!(headers[CONTENT_TYPE], kind, "{path}");
    }
    for path in ["/dev/playground/nope", "/dev/playground/", "/dev/playground/..%2fplayground.rs", "/dev/nope"] {
        let (status, ..) = get(routes.clone(), path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

/// A browser would refuse what the policy forbids, and nobody might look.
#[test]
fn the_page_names_files_that_are_there_and_nothing_elsewhere_or_inline() {
    let linked: Vec<&str> = ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| PAGE.split(attribute).skip(1))
        .map(|rest| rest.split_once('"').unwrap().0)
        .collect();
    assert!(linked.len() >= FILES.len() - 3, "{linked:?}");
    for link in linked {
        let is_own =
            link.strip_prefix("/dev/playground/").is_some_and(|file| FILES.iter().any(|(name, ..)| *name == file));
        assert!(is_own || link.starts_with('#') || ["/dev/mailbox", "/dev/settings"].contains(&link), "{link}");
    }
    assert!(!PAGE.contains("style=") && !PAGE.contains("<style") && !PAGE.contains(" onclick"));
    for (name, _, text) in FILES {
        let imports = text.lines().filter_map(|line| line.strip_prefix("import ")?.rsplit_once("from \"./"));
        for (_, file) in imports {
            let file = file.trim_end_matches("\";");
            assert!(FILES.iter().any(|(other, ..)| *other == file), "{name} imports {file}");
        }
        assert!(!text.contains("https://"), "{name}");
    }
}

#[tokio::test]
async fn the_settings_in_force_are_told_by_their_names() {
    let config = config(&[
        "batch_request_buffer_throttle=\"250ms\"",
        "on_reuse=revoke",
        "batch_response=repeat",
        "cookie_enabled=true",
        "headers_names.access-token=x-token",
        "realms.admin.mount=/admin_auth",
        "realms.admin.cookie_name=__Host-admin",
        "realms.admin.token_lifespan=\"1 hour\"",
    ]);
    let (_, _, body) = get(routes(&config), "/dev/settings").await;
    let told: Value = serde_json::from_str(&body).unwrap();
    let [user, admin] = told["realms"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&user["realm"], &user["mount"]), (&json!("user"), &json!("/auth")));
    assert_eq!((&admin["realm"], &admin["mount"]), (&json!("admin"), &json!("/admin_auth")));
    assert_eq!((&user["token_lifespan"], &admin["token_lifespan"]), (&json!(1_209_600.0), &json!(3600.0)));
    assert_eq!(user["batch_request_buffer_throttle"], 0.25);
    assert_eq!((&user["on_reuse"], &user["batch_response"]), (&json!("revoke"), &json!("repeat")));
    assert_eq!((&user["cookie_enabled"], &user["cookie_only"]), (&json!(true), &json!(true)));
    assert_eq!(user["headers_names"]["access-token"], "x-token");
    assert_eq!(user["headers_names"]["client"], "client");
    for name in user.as_object().unwrap().keys().filter(|name| *name != "password" && *name != "rate_limits") {
        assert!(crate::config::DEFAULT_FILE.contains(&format!("\n{name} = ")) || name == "headers_names", "{name}");
    }
    assert!(!body.contains("pepper") && !body.contains("keys"), "{body}");
}
