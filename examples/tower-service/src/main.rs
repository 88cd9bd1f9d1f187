//! Rotating tokens around a plain tower service, without axum's router: the service is protected as a whole, and knows
//! nothing about it.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use baton_axum::{Auth, HttpSettings};
use baton_core::{Key, KeyRing};
use baton_engine::{Engine, OsRandom, Registered, Registration, Settings, Visitor};
use baton_store::clock::SystemClock;
use baton_store::memory::MemoryStore;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};

/// What is to be protected.
async fn time_table(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new("07:14, 07:44, 08:14\n".into()))
}

/// Three requests: without a token, with the one of the registration, and with the one that the second response carried.
async fn run() -> Result<Vec<(u16, Option<String>)>, Box<dyn Error>> {
    let keys = KeyRing::new(vec![Key::new(0, *b"keep a real key outside the code")?])?;
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock::new())));
    let engine = Engine::open(store, keys, Arc::new(OsRandom), Settings::default()).await?;
    let form = Registration {
        email: Some("ann@example.com".into()),
        password: Some("correct horse battery".into()),
        ..Registration::default()
    };
    // Pending would be an account whose address has to be confirmed first.
    let Registered::SignedIn(ann) = engine.register(form, &Visitor::default()).await? else { return Ok(Vec::new()) };
    let ann = ann.credentials;
    let auth = Auth::new(engine, HttpSettings::default())?;

    let mut service = ServiceBuilder::new().layer(auth.layer().required()).service(service_fn(time_table));
    let mut answers = Vec::new();
    let mut token = None;
    for _ in 0..3 {
        let mut request = Request::get("/").header("client", ann.client.to_string()).header("uid", &ann.uid);
        if let Some(token) = &token {
            request = request.header("access-token", token);
        }
        let response = service.ready().await?.call(request.body(Full::default())?).await?;
        let next = response.headers().get("access-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
        token = next.clone().filter(|next| !next.is_empty()).or(token).or_else(|| Some(ann.token.expose().to_owned()));
        answers.push((response.status().as_u16(), next));
    }
    Ok(answers)
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what happened")]
async fn main() -> Result<(), Box<dyn Error>> {
    for (status, token) in run().await? {
        println!("{status} access-token: {}", token.as_deref().unwrap_or("(none)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn the_service_is_protected_and_the_token_changes() {
        let answers = super::run().await.unwrap();
        assert_eq!(answers[0], (401, None));
        assert!(matches!(&answers[1], (200, Some(token)) if !token.is_empty()), "a new token: {answers:?}");
        assert_eq!(answers[2], (200, Some(String::new())), "inside the batch window");
    }
}
