//! An axum API whose users sign in with rotating tokens, on a SQLite file, and a page that uses it.
//!
//! ```text
//! (cd clients/typescript && npm ci && npm run build)   # for the page
//! cargo run -p example-axum-api                        # http://127.0.0.1:3000/
//! curl -i 127.0.0.1:3000/auth -d email=ann@example.com -d password='correct horse battery'
//! ```
//!
//! Another address is an argument: `cargo run -p example-axum-api -- 127.0.0.1:8080`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Json, Router};
use baton_axum::{Auth, CurrentUser, HttpSettings, auth_routes};
use baton_core::{Key, KeyRing, Random as _};
use baton_engine::{Engine, OsRandom, Settings};
use baton_store::clock::SystemClock;
use baton_store::sqlite::{SqliteOptions, SqliteStore};
use serde_json::{Value, json};
use tower_http::services::ServeDir;

/// Anybody may ask; whoever is signed in is greeted by name.
async fn greet(user: Option<CurrentUser>) -> String {
    user.map_or_else(|| "hello, stranger".to_owned(), |user| format!("hello, {}", user.uid))
}

/// Only for those who are signed in: anybody else gets 401 before this runs.
async fn order(user: CurrentUser, Json(wish): Json<Value>) -> Json<Value> {
    Json(json!({ "ordered": wish["item"], "for": user.account().email }))
}

async fn app(folder: &Path) -> Result<Router, Box<dyn Error>> {
    let store = SqliteStore::open(folder.join("api.sqlite"), SqliteOptions::default(), Arc::new(SystemClock::new()))?;

    // An example may forget its key; then everybody signs in again. Keep a real one in a file or the environment, outside
    // the database, and read it with KeyRing::parse.
    let mut secret = [0; 32];
    OsRandom.fill(&mut secret)?;
    let keys = KeyRing::new(vec![Key::new(0, secret)?])?;

    let engine = Engine::open(Arc::new(store), keys, Arc::new(OsRandom), Settings::default()).await?;
    let auth = Auth::new(engine, HttpSettings::default())?;
    Ok(Router::new()
        .route("/greet", get(greet))
        .route("/orders", post(order))
        .merge(auth_routes("/auth", &auth))
        .layer(auth.layer())
        .merge(page()))
}

/// The page in `front/`, and the client that it uses. It is told nothing of tokens by this server: it has scripts for that.
fn page() -> Router {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let client = ServeDir::new(here.join("../../clients/typescript/dist"));
    Router::new().nest_service("/client", client).fallback_service(ServeDir::new(here.join("front")))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example says where it is")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let folder = std::env::temp_dir().join(format!("example-axum-api-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let app = app(&folder).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<std::net::SocketAddr>()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{HeaderMap, Request, Response, header};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn text(response: Response<Body>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn post(app: &Router, path: &str, body: &Value, credentials: &HeaderMap) -> Response<Body> {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        for name in ["access-token", "client", "uid"] {
            if let Some(value) = credentials.get(name) {
                request = request.header(name, value);
            }
        }
        app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_user_registers_and_orders() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path()).await.unwrap();

        let stranger = app.clone().oneshot(Request::get("/greet").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(text(stranger).await, "hello, stranger");
        let wish = json!({ "item": "tea" });
        assert_eq!(post(&app, "/orders", &wish, &HeaderMap::new()).await.status(), 401);

        let form = json!({ "email": "ann@example.com", "password": "correct horse battery" });
        let registered = post(&app, "/auth", &form, &HeaderMap::new()).await;
        assert_eq!(registered.status(), 200);

        let ordered = post(&app, "/orders", &wish, registered.headers()).await;
        assert_eq!(ordered.status(), 200);
        assert_ne!(ordered.headers()["access-token"], registered.headers()["access-token"], "the token has changed");
        assert_eq!(text(ordered).await, r#"{"for":"ann@example.com","ordered":"tea"}"#);
    }

    #[tokio::test]
    async fn the_page_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path()).await.unwrap();
        for (path, start) in [("/", "<!doctype html>"), ("/app.js", "// A page"), ("/style.css", ":root")] {
            let response = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert!(text(response).await.starts_with(start), "{path}");
        }
    }
}
