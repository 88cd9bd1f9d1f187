//! Several kinds of account over one store: what a token of the one is worth to the other, and layers that take both.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use axum::routing::get;
use axum::{Json, Router};
use baton_axum::{Auth, AuthLayer, CookieSettings, CurrentUser, HttpSettings, auth_routes};
use baton_core::wire::HeaderNames;
use baton_core::{OnReuse, Store};
use baton_engine::{Engine, OsRandom, PasswordStrength, Settings};
use baton_store::clock::ManualClock;
use baton_store::faulty::{Fault, FaultyStore, Operation};
use baton_store::memory::MemoryStore;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Call, Held, PASSWORD, START, TestApp, agent, keys};

const BUFFER: Duration = Duration::from_secs(5);

/// Users at `/auth` and admins at `/admin_auth`, over a store that fails when it is told to.
fn realms(user_http: HttpSettings, admin_http: HttpSettings) -> (TestApp, Arc<FaultyStore>) {
    let clock = Arc::new(ManualClock::new(START));
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(clock.clone()))));
    let mut settings = settings("user");
    // A token that one realm does not know must not be taken for a reused one.
    settings.rules.on_reuse = OnReuse::Revoke;
    let admins_store: Arc<dyn Store> = store.clone();
    let app = TestApp::serving(store.clone(), clock, settings, user_http, |protected, users| {
        let admins = admins(admins_store, admin_http);
        let both = AuthLayer::any_of([users.clone(), admins.clone()]);
        let only = |path: &str, layer: AuthLayer| Router::new().route(path, get(whoami)).layer(layer);
        protected
            .layer(both.clone())
            .merge(only("/users", users.layer()))
            .merge(only("/admins", admins.layer().required()))
            .merge(only("/both", both.clone()))
            .merge(only("/both/required", both.clone().required()))
            .merge(only("/admins/first", AuthLayer::any_of([admins.clone(), users.clone()])))
            .merge(only("/nobody", AuthLayer::any_of([])))
            .merge(only("/nobody/required", AuthLayer::any_of([]).required()))
            .merge(only("/users/in/both", users.layer().required()).layer(both.clone()))
            .merge(only("/both/in/users", both.clone().required()).layer(users.layer()))
            .merge(only("/admins/in/both", admins.layer()).layer(both.clone()))
            .merge(only("/users/in/admins/in/users", users.layer()).layer(admins.layer()).layer(users.layer()))
            .merge(auth_routes("/auth", users))
            .merge(auth_routes("/admin_auth", &admins))
            .merge(auth_routes("/in/both/admin_auth", &admins).layer(both.clone()))
            .layer(both.cors())
            .merge(only("/both/without/cors", both.clone()))
    });
    (app, store)
}

fn settings(realm: &str) -> Settings {
    let password_strength = PasswordStrength { min_score: 0, ..PasswordStrength::default() };
    Settings { realm: realm.into(), password_strength, ..Settings::default() }
}

fn admins(store: Arc<dyn Store>, http: HttpSettings) -> Auth {
    // On a thread of its own: this is called from within a runtime.
    let open = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let engine = Engine::open(store, keys(), Arc::new(OsRandom), settings("admin"));
        runtime.block_on(engine).expect("an engine")
    };
    let engine = std::thread::scope(|scope| scope.spawn(open).join().expect("no panic"));
    Auth::new(engine, http).expect("HTTP settings")
}

async fn whoami(user: Option<CurrentUser>) -> Json<Value> {
    Json(json!(user.map(|user| format!("{} {}", user.realm, user.uid))))
}

fn plain() -> (TestApp, Arc<FaultyStore>) {
    realms(HttpSettings::default(), HttpSettings::default())
}

fn register_admin(app: &TestApp, email: &str) -> Held {
    let answer = app.post("/admin_auth", &json!({ "email": email, "password": PASSWORD })).send();
    answer.held().unwrap_or_else(|| panic!("a registration signs in: {answer:?}"))
}

#[test]
fn a_token_of_one_realm_is_worthless_in_the_other_and_comes_to_no_harm() {
    let (app, _) = plain();
    // The same name in both.
    let user = app.register("ann@example.com");
    let admin = register_admin(&app, "ann@example.com");
    for (held, theirs, own, mount) in
        [(&user, "/admins", "/users", "/admin_auth"), (&admin, "/users", "/admins", "/auth")]
    {
        let answer = app.get_as(held, theirs).send();
        assert!(answer.has_no_auth_headers(), "{answer:?}");
        let refused = answer.status == 401 && answer.code() == "token_invalid";
        assert!(refused || answer.json().is_null(), "{answer:?}");
        let validated = app.get_as(held, &format!("{mount}/validate_token")).send();
        assert_eq!(validated.refusal(), (401, "token_invalid".into()));
        for (method, path) in
            [(Method::DELETE, ""), (Method::PUT, ""), (Method::DELETE, "/sign_out"), (Method::GET, "/sessions")]
        {
            let body = json!({ "email": "eve@example.com", "current_password": PASSWORD });
            let answer = app.request(method.clone(), &format!("{mount}{path}")).held(held).json(&body).send();
            assert!(matches!(answer.status, 401 | 404), "{method} {mount}{path}: {answer:?}");
            assert_eq!(answer.held(), None);
        }
        let answer = app.get_as(held, own).send();
        assert_eq!((answer.status, answer.held().map(|next| next.generation())), (200, Some(held.generation() + 1)));
    }
    // Nor is a session ended by who only knows its name.
    let (admin, user) = (register_admin(&app, "bob@example.com"), app.register("cat@example.com"));
    assert_eq!(app.delete(&format!("/admin_auth/sessions/{}", user.client)).held(&admin).send().status, 404);
    assert_eq!(app.get_as(&user, "/users").send().json(), json!("user cat@example.com"));
    // A password opens sessions of its own realm alone.
    let cat = json!({ "email": "cat@example.com", "password": PASSWORD });
    assert_eq!(app.post("/admin_auth/sign_in", &cat).send().status, 401);
    assert_eq!(app.post("/auth/sign_in", &cat).send().status, 200);
}

#[test]
fn a_group_admits_the_accounts_of_all_its_realms_and_says_which() {
    let (app, _) = plain();
    let user = app.register("ann@example.com");
    let admin = register_admin(&app, "ann@example.com");
    for path in ["/both", "/both/required", "/admins/first"] {
        app.advance(BUFFER);
        for (mut held, name) in [
            (app.sign_in("ann@example.com"), "user"),
            (register_admin(&app, &format!("{}@example.com", path.len())), "admin"),
        ] {
            let answer = app.get_as(&held, path).send();
            assert_eq!((answer.status, answer.json()), (200, json!(format!("{name} {}", held.uid))), "{path}");
            assert!(held.adopt(&answer) && held.generation() == 2, "{path}: {answer:?}");
        }
    }
    for path in ["/nobody", "/nobody/required"] {
        for held in [&user, &admin] {
            let answer = app.get_as(held, path).send();
            assert!(answer.has_no_auth_headers(), "{answer:?}");
            let turned_away = answer.status == 401 && answer.code() == "not_authenticated";
            assert!(turned_away || path == "/nobody" && answer.json().is_null(), "{answer:?}");
        }
    }
    assert_eq!(app.get("/both/required").send().refusal(), (401, "not_authenticated".into()));
}

#[test]
fn layers_around_each_other_rotate_once() {
    let (app, _) = plain();
    for (path, user_sees, admin_sees) in [
        ("/users/in/both", true, None),
        ("/both/in/users", true, Some(true)),
        ("/admins/in/both", false, Some(true)),
        ("/users/in/admins/in/users", true, Some(false)),
    ] {
        let user = app.register(&format!("{}@example.com", path.replace('/', "")));
        let admin = register_admin(&app, &format!("{}@example.com", path.replace('/', "")));
        let answer = app.get_as(&user, path).send();
        assert_eq!(answer.json().is_string(), user_sees, "{path}: {answer:?}");
        assert_eq!(answer.all("access-token").len(), 1, "{path}: {answer:?}");
        assert_eq!(answer.held().map(|next| next.generation()), Some(2), "{path}: {answer:?}");
        let again = app.get_as(&user, path).send();
        assert!(again.is_blank() && again.all("access-token").len() == 1, "{path}: {again:?}");

        let answer = app.get_as(&admin, path).send();
        match admin_sees {
            // Turned away by a layer further in; the one that knows it rotates all the same.
            None => assert_eq!(answer.refusal(), (401, "token_invalid".into()), "{path}"),
            Some(sees) => assert_eq!((answer.status, answer.json().is_string()), (200, sees), "{path}: {answer:?}"),
        }
        assert_eq!(answer.held().map(|next| next.generation()), Some(2), "{path}: {answer:?}");
        assert_eq!(answer.all("access-token").len(), 1, "{path}: {answer:?}");
    }
    // The ready-made routes inside a group.
    let admin = register_admin(&app, "ann@example.com");
    let change = json!({ "email": "ann@example.org", "current_password": PASSWORD });
    let answer = app.request(Method::PUT, "/in/both/admin_auth").held(&admin).json(&change).send();
    assert_eq!((answer.status, answer.all("uid")), (200, vec!["ann@example.org"]), "{answer:?}");
    let next = answer.held().expect("the next token");
    let answer = app.delete("/in/both/admin_auth/sign_out").held(&next).send();
    assert!(answer.status == 200 && answer.has_no_auth_headers(), "{answer:?}");
    assert_eq!(app.get_as(&next, "/both/required").send().refusal(), (401, "session_revoked".into()));
}

#[test]
fn of_several_denials_the_client_hears_the_one_that_says_the_most() {
    let (app, store) = plain();
    for path in ["/both/required", "/admins/first", "/me"] {
        let asked = |held: &Held| app.get_as(held, path).send();
        let user = app.register(&format!("{}@example.com", path.len()));
        let superseded = asked(&user).held().map(|_| user.clone()).expect("the next token");
        let forged = Held { token: "A".repeat(28), ..user.clone() };
        store.fail(Operation::Find, Fault::Unavailable);
        if path != "/admins/first" {
            let answer = asked(&user);
            assert_eq!(answer.refusal(), (503, "unavailable".into()), "{path}");
            assert!(answer.has_no_auth_headers());
            assert_eq!(asked(&forged).refusal(), (401, "token_invalid".into()), "{path}: no store is needed to tell");
            assert_eq!(app.get(path).send().refusal(), (401, "not_authenticated".into()), "{path}");
        }
        store.heal();
        app.advance(BUFFER);
        let required = path != "/admins/first";
        let answer = asked(&superseded);
        assert!(!required || answer.refusal() == (401, "token_superseded".into()), "{path}: {answer:?}");
        let answer = asked(&superseded);
        assert!(!required || answer.refusal() == (401, "session_revoked".into()), "{path}: {answer:?}");
    }
    // Expired is expired, though the next realm that is asked finds the session gone.
    let user = app.register("eve@example.com");
    app.advance(Duration::from_secs(14 * 24 * 60 * 60));
    assert_eq!(app.get_as(&user, "/both/required").send().refusal(), (401, "token_expired".into()));
}

/// 24 threads, released together with one token, through a group whose second member it belongs to.
#[test]
fn a_burst_through_a_group_hands_out_one_token() {
    const THREADS: usize = 24;
    let (app, _) = plain();
    let mut held = register_admin(&app, "ann@example.com");
    let barrier = Barrier::new(THREADS);
    for burst in 0..10 {
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (barrier, call) = (&barrier, app.get_as(&held, "/me"));
                    scope.spawn(move || {
                        barrier.wait();
                        call.send_on(&agent())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        assert!(answers.iter().all(|answer| answer.status == 200), "burst {burst}: {answers:?}");
        let rotated: Vec<Held> = answers.iter().filter_map(Answer::held).collect();
        assert_eq!(rotated.len(), 1, "burst {burst}: {answers:?}");
        assert_eq!(rotated[0].generation(), held.generation() + 1);
        held = rotated[0].clone();
        app.advance(BUFFER);
    }
}

#[test]
fn cookies_of_two_realms_live_beside_each_other() {
    let cookie = |name: &str| Some(CookieSettings { name: name.into(), ..CookieSettings::default() });
    let with = |name: &str| HttpSettings { cookie: cookie(name), ..HttpSettings::default() };
    let (app, _) = realms(with("__Host-user"), with("__Host-admin"));
    let form = json!({ "email": "ann@example.com", "password": PASSWORD });
    let pair = |answer: &Answer| {
        let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {answer:?}"));
        set.split(';').next().expect("a pair").to_owned()
    };
    let user = pair(&app.post("/auth", &form).send());
    let admin = pair(&app.post("/admin_auth", &form).send());
    assert!(user.starts_with("__Host-user=") && admin.starts_with("__Host-admin="), "{user} {admin}");

    let with_cookies = |call: Call| call.header("cookie", &format!("{user}; {admin}"));
    for (path, realm, name) in
        [("/users", "user", "__Host-user="), ("/admins", "admin", "__Host-admin="), ("/both", "user", "__Host-user=")]
    {
        app.advance(BUFFER / 10);
        let answer = with_cookies(app.get(path)).send();
        assert_eq!(answer.json(), json!(format!("{realm} ann@example.com")), "{path}");
        assert!(answer.all("set-cookie").iter().all(|set| set.starts_with(name)), "{path}: {answer:?}");
    }
    // What came in a cookie goes back in it, whichever of the layers it is that rotates.
    app.advance(BUFFER);
    let held = pair(&app.post("/auth/sign_in", &form).send());
    let answer = app.get("/users/in/both").header("cookie", &held).send();
    assert_eq!((answer.json(), answer.header("access-token")), (json!("user ann@example.com"), Some("")));
    assert!(pair(&answer).starts_with("__Host-user="), "{answer:?}");
    // Nor can the one be slipped in under the other's name.
    let value = user.split_once('=').expect("a pair").1;
    let answer = app.get("/admins").header("cookie", &format!("__Host-admin={value}")).send();
    assert_eq!(answer.refusal(), (401, "token_invalid".into()));
    // A page of another site gets nothing by either.
    let answer = with_cookies(app.delete("/both")).header("sec-fetch-site", "cross-site").send();
    assert_eq!(answer.status, 405);
    let cross = with_cookies(app.request(Method::POST, "/me")).header("sec-fetch-site", "cross-site").send();
    assert_eq!(cross.refusal(), (403, "cross_site".into()));
}

#[test]
fn a_page_may_read_the_headers_of_all_realms() {
    let names = HeaderNames { access_token: "x-admin-token".into(), ..HeaderNames::default() };
    let origins = baton_axum::Origins { exact: vec!["https://app.example.com".into()], localhost: false };
    let http = HttpSettings { origins, ..HttpSettings::default() };
    let (app, _) = realms(http.clone(), HttpSettings { headers_names: names, ..http });
    let user = app.register("ann@example.com");
    let answer = app.get_as(&user, "/both").header("origin", "https://app.example.com").send();
    assert_eq!(answer.json(), json!("user ann@example.com"));
    let exposes = |answer: &Answer, name: &str| {
        let all = answer.all("access-control-expose-headers").join(",");
        all.split(',').filter(|exposed| exposed.trim() == name).count()
    };
    for name in ["access-token", "x-admin-token", "client", "retry-after"] {
        assert_eq!(exposes(&answer, name), 1, "{name}: {answer:?}");
    }
    // Without our CORS layer too.
    let answer = app.get("/both/without/cors").header("origin", "https://app.example.com").send();
    for name in ["access-token", "x-admin-token"] {
        assert_eq!(exposes(&answer, name), 1, "{name}: {answer:?}");
    }
    // Each under its own name, and with its own.
    let form = json!({ "email": "ann@example.com", "password": PASSWORD });
    let answer = app.post("/admin_auth", &form).send();
    let (token, client) = (answer.header("x-admin-token"), answer.header("client"));
    let (token, client) = (token.expect("a token").to_owned(), client.expect("its client").to_owned());
    assert_eq!(answer.header("access-token"), None, "{answer:?}");
    let call = |path: &str, name: &str| {
        app.get(path).header(name, &token).header("client", &client).header("uid", "ann@example.com").send()
    };
    assert_eq!(call("/admins", "access-token").status, 401);
    let answer = call("/both", "x-admin-token");
    assert_eq!(answer.json(), json!("admin ann@example.com"));
    assert!(answer.header("x-admin-token").is_some_and(|next| next.len() == 28), "{answer:?}");
    assert_eq!(answer.header("access-token"), None, "{answer:?}");
}
