//! The token in a cookie (`cookie_enabled`).

use std::time::Duration;

use baton_axum::{CookieSettings, HttpSettings, Origins, SameSite};
use baton_engine::Settings;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Call, Held, PASSWORD, TestApp, keys};

const BUFFER: Duration = Duration::from_secs(5);
const NAME: &str = "__Host-baton";
const ORIGIN: &str = "https://app.example.com";

fn start(cookie: CookieSettings) -> TestApp {
    let origins = Origins { exact: vec![ORIGIN.into()], localhost: false };
    TestApp::with(Settings::default(), HttpSettings { cookie: Some(cookie), origins, ..HttpSettings::default() })
}

/// What a `Set-Cookie` holds: the `name=value` that comes back, and the attributes.
fn parts(answer: &Answer) -> (String, Vec<String>) {
    let all = answer.all("set-cookie");
    assert_eq!(all.len(), 1, "{answer:?}");
    let mut parts = all[0].split("; ").map(str::to_owned);
    (parts.next().expect("a pair"), parts.collect())
}

/// The credentials in the answer's cookie.
fn baked(answer: &Answer) -> Held {
    let (pair, _) = parts(answer);
    let (_, value) = pair.split_once('=').expect("a pair");
    let json = percent_encoding::percent_decode_str(value).decode_utf8().expect("UTF-8");
    let fields: Value = serde_json::from_str(&json).expect("JSON");
    let text = |name: &str| fields[name].as_str().expect("text").to_owned();
    assert_eq!(text("token-type"), "Bearer");
    Held {
        token: text("access-token"),
        client: text("client"),
        uid: text("uid"),
        expiry: text("expiry").parse().expect("seconds"),
    }
}

/// A request as a browser makes it: with the cookie and nothing else.
fn with(app: &TestApp, method: Method, path: &str, held: &Held) -> Call {
    app.request(method, path).header("cookie", &format!("theme=dark; {}; x=y", pair(held)))
}

fn pair(held: &Held) -> String {
    let json = held.json().to_string();
    format!("{NAME}={}", percent_encoding::utf8_percent_encode(&json, percent_encoding::NON_ALPHANUMERIC))
}

fn sign_in(app: &TestApp) -> Answer {
    app.post("/auth/sign_in", &json!({ "email": "ann@example.com", "password": PASSWORD })).send()
}

/// An account, and a session in a cookie.
fn registered(app: &TestApp) -> Held {
    let answer = app.post("/auth", &json!({ "email": "ann@example.com", "password": PASSWORD })).send();
    assert_eq!(answer.status, 200, "{answer:?}");
    baked(&answer)
}

fn takes_it_away(answer: &Answer) {
    let (pair, attributes) = parts(answer);
    assert_eq!(pair, format!("{NAME}="));
    assert_eq!(attributes, ["Max-Age=0", "Path=/", "SameSite=Lax", "Secure", "HttpOnly"], "as it was set");
}

#[test]
fn the_cookie_carries_the_token_and_the_headers_do_not() {
    let app = start(CookieSettings::default());
    let registration = app.post("/auth", &json!({ "email": "ann@example.com", "password": PASSWORD })).send();
    let first = baked(&registration);
    let second = with(&app, Method::GET, "/me", &first).send();
    for (answer, generation) in [(&registration, 1), (&sign_in(&app), 1), (&second, 2)] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-token"), Some(""));
        assert_eq!(answer.header("authorization"), Some(""));
        assert_eq!(answer.header("uid"), Some("ann@example.com"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(baked(answer).generation(), generation);
        let (pair, attributes) = parts(answer);
        assert!(pair.starts_with("__Host-baton="), "{pair}");
        assert_eq!(attributes, ["Max-Age=1209600", "Path=/", "SameSite=Lax", "Secure", "HttpOnly"]);
        assert!(!answer.text.contains(&baked(answer).token));
    }
    assert_eq!(baked(&second).client, first.client);
}

#[test]
fn the_cookie_comes_beside_the_headers_where_that_is_asked_for() {
    let app = start(CookieSettings { only: false, ..CookieSettings::default() });
    let first = app.register("ann@example.com");
    for answer in [app.get_as(&first, "/me").send(), sign_in(&app)] {
        assert_eq!(answer.held().as_ref(), Some(&baked(&answer)), "{answer:?}");
        assert!(answer.header("authorization").is_some_and(|value| value.starts_with("Bearer ")));
    }
}

#[test]
fn every_attribute_can_be_set() {
    let cookie = CookieSettings {
        name: "__Secure-session".into(),
        same_site: SameSite::None,
        http_only: false,
        path: "/api".into(),
        domain: Some("example.com".into()),
        max_age: Duration::from_secs(60),
        ..CookieSettings::default()
    };
    let app = start(cookie);
    app.post("/auth", &json!({ "email": "ann@example.com", "password": PASSWORD })).send();
    let (pair, attributes) = parts(&sign_in(&app));
    assert!(pair.starts_with("__Secure-session="));
    assert_eq!(attributes, ["Max-Age=60", "Path=/api", "SameSite=None", "Domain=example.com", "Secure"]);
}

#[test]
fn cookies_that_no_browser_would_take_are_refused_at_start() {
    let plain = || CookieSettings { name: "baton".into(), ..CookieSettings::default() };
    for cookie in [
        CookieSettings { secure: false, ..CookieSettings::default() },
        CookieSettings { path: "/api".into(), ..CookieSettings::default() },
        CookieSettings { domain: Some("example.com".into()), ..CookieSettings::default() },
        CookieSettings { name: "__host-baton".into(), secure: false, ..CookieSettings::default() },
        CookieSettings { name: "__Secure-baton".into(), secure: false, ..CookieSettings::default() },
        CookieSettings { same_site: SameSite::None, secure: false, ..plain() },
        CookieSettings { name: String::new(), ..plain() },
        CookieSettings { name: "a b".into(), ..plain() },
        CookieSettings { name: "a=b".into(), ..plain() },
        CookieSettings { name: "a;b".into(), ..plain() },
        CookieSettings { path: "api".into(), ..plain() },
        CookieSettings { path: "/api; Secure".into(), ..plain() },
        CookieSettings { domain: Some(String::new()), ..plain() },
        CookieSettings { domain: Some("example.com; Path=/".into()), ..plain() },
    ] {
        let shown = format!("{cookie:?}");
        let built = std::panic::catch_unwind(|| {
            TestApp::layered(HttpSettings { cookie: Some(cookie), ..HttpSettings::default() }, |app, _| app)
        });
        assert!(built.is_err(), "{shown}");
    }
}

#[test]
fn the_cookie_signs_in_among_others() {
    let app = start(CookieSettings::default());
    let first = registered(&app);
    let pair = pair(&first);
    let raw = format!("{NAME}={}", first.json());
    for cookies in [
        pair.clone(),
        format!("theme=dark; {pair}"),
        format!("{pair};theme=dark"),
        format!("x;; =; {pair} ; y"),
        format!("x{NAME}=1; {NAME}x=2; {pair}"),
        // What another application has set may hold any bytes.
        format!("name=Émile; {pair}"),
        // Not every client encodes what it was sent decoded.
        raw,
    ] {
        let answer = app.get("/maybe").header("cookie", &cookies).send();
        assert_eq!(answer.json(), json!("ann@example.com"), "{cookies}");
    }
    let two = app.get("/maybe").header("cookie", "theme=dark").header("cookie", &pair).send();
    assert_eq!(two.json(), json!("ann@example.com"), "HTTP/2 sends one header for each");
}

#[test]
fn no_cookie_on_blank_answers() {
    let app = start(CookieSettings::default());
    let first = registered(&app);
    let second = baked(&with(&app, Method::GET, "/me", &first).send());
    for held in [&first, &second] {
        let answer = with(&app, Method::GET, "/me", held).send();
        assert!(answer.status == 200 && answer.is_blank(), "{answer:?}");
        assert_eq!(answer.header("set-cookie"), None);
    }
    app.advance(BUFFER);
    let refused = with(&app, Method::GET, "/me", &first).send();
    assert_eq!(refused.refusal(), (401, "token_superseded".into()));
    assert_eq!(refused.header("set-cookie"), None, "the browser may hold a newer one by now");
    assert_eq!(baked(&with(&app, Method::GET, "/me", &second).send()).generation(), 3);
}

#[test]
fn headers_win_over_the_cookie() {
    let app = start(CookieSettings::default());
    let in_cookie = registered(&app);
    let in_headers = baked(&sign_in(&app));
    let answer = with(&app, Method::GET, "/me", &in_cookie).held(&in_headers).send();
    // A client that presents the token in headers is answered in headers.
    let next = answer.held().expect("a token");
    assert_eq!((next.client, answer.header("set-cookie")), (in_headers.client.clone(), None));
    let bad = Held { token: "x".into(), ..in_headers };
    let answer = with(&app, Method::GET, "/me", &in_cookie).held(&bad).send();
    assert_eq!(answer.refusal(), (401, "token_invalid".into()));
}

#[test]
fn garbage_in_the_cookie_is_nobody() {
    let app = start(CookieSettings::default());
    registered(&app);
    for value in
        ["", "garbage", "[]", "5", "null", "%", "%FF%FE", "%00", "{", "%7B%7D", "%5B%22x%22%5D", "\"\"", "a=b=c", "{}"]
    {
        for path in ["/me", "/auth/validate_token"] {
            let answer = app.get(path).header("cookie", &format!("{NAME}={value}")).send();
            assert_eq!(answer.refusal(), (401, "not_authenticated".into()), "{value}");
        }
        let answer = app.delete("/auth/sign_out").header("cookie", &format!("{NAME}={value}")).send();
        assert_eq!(answer.status, 404, "{value}");
    }
    let raw = b"GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: __Host-baton=\xff\xfe; x=\xc3\x28\r\n\r\n";
    assert_eq!(app.raw(raw).status, 401);
    for field in [json!(["x"]), json!({}), json!(5), Value::Null] {
        let fields = json!({ "access-token": field, "client": field, "uid": field });
        assert_eq!(app.get("/me").cookie(NAME, &fields).send().refusal(), (401, "not_authenticated".into()));
    }
}

/// How a browser marks a request, and whether one with an unsafe method may use the cookie.
fn sightings(app: &TestApp) -> Vec<(Vec<(&'static str, String)>, bool)> {
    let own = format!("http://{}", app.addr);
    vec![
        (vec![], true),
        (vec![("sec-fetch-site", "same-origin".into())], true),
        (vec![("sec-fetch-site", "none".into())], true),
        (vec![("sec-fetch-site", "same-origin".into()), ("origin", own.clone())], true),
        (vec![("origin", own)], true),
        (vec![("origin", ORIGIN.into()), ("sec-fetch-site", "cross-site".into())], true),
        (vec![("origin", ORIGIN.into())], true),
        (vec![("sec-fetch-site", "cross-site".into())], false),
        (vec![("sec-fetch-site", "same-site".into())], false),
        (vec![("sec-fetch-site", "garbage".into())], false),
        (vec![("origin", "https://evil.example.net".into()), ("sec-fetch-site", "cross-site".into())], false),
        (vec![("origin", "https://evil.example.net".into())], false),
        (vec![("origin", "null".into())], false),
        (vec![("origin", "http://127.0.0.1:1".into())], false),
    ]
}

fn marked(mut call: Call, marks: &[(&'static str, String)]) -> Answer {
    for (name, value) in marks {
        call = call.header(name, value);
    }
    call.send()
}

#[test]
fn a_page_of_another_site_cannot_use_the_cookie() {
    let app = start(CookieSettings::default());
    let held = registered(&app);
    for (marks, may) in sightings(&app) {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = marked(with(&app, method.clone(), "/me", &held), &marks);
            if may {
                assert_eq!(answer.status, 200, "{method} {marks:?}");
            } else {
                assert_eq!(answer.refusal(), (403, "cross_site".into()), "{method} {marks:?}");
                assert!(answer.has_no_auth_headers() && answer.header("set-cookie").is_none(), "{answer:?}");
            }
        }
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(
                marked(with(&app, method, "/me", &held), &marks).status,
                200,
                "safe, hence not checked: {marks:?}"
            );
        }
        // Who holds the token itself is no victim.
        let call = app.request(Method::POST, "/me").held(&held.derived(&keys(), 2));
        assert_eq!(marked(call, &marks).status, 200, "{marks:?}");
        // An unprotected resource is nobody's.
        assert_eq!(marked(with(&app, Method::POST, "/open", &held), &marks).status, 200, "{marks:?}");
    }
}

#[test]
fn a_page_of_another_site_cannot_end_a_session_or_an_account() {
    let app = start(CookieSettings::default());
    let held = registered(&app);
    let own = format!("/auth/sessions/{}", held.client);
    for (marks, may) in sightings(&app) {
        if !may {
            for path in ["/auth/sign_out", "/auth", &own] {
                let answer = marked(with(&app, Method::DELETE, path, &held), &marks);
                assert_eq!(answer.refusal(), (403, "cross_site".into()), "{path} {marks:?}");
            }
        }
    }
    assert_eq!(with(&app, Method::GET, "/me", &held).send().status, 200);
}

/// Otherwise it could sign its visitor in to an account of its own and see what the visitor enters there.
#[test]
fn a_page_of_another_site_cannot_sign_its_visitor_in() {
    let app = start(CookieSettings::default());
    registered(&app);
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    for (index, (marks, may)) in sightings(&app).into_iter().enumerate() {
        let form = app.post("/auth/sign_in", &body);
        let answer = marked(form, &marks);
        assert_eq!(
            (answer.status, answer.header("set-cookie").is_some()),
            if may { (200, true) } else { (403, false) }
        );
        let body = json!({ "email": format!("new{index}@example.com"), "password": PASSWORD });
        assert_eq!(marked(app.post("/auth", &body), &marks).status, if may { 200 } else { 403 });
    }
    // Without the cookie there is nothing to plant.
    let headers = TestApp::start();
    headers.register("ann@example.com");
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    for (marks, _) in sightings(&headers) {
        assert_eq!(marked(headers.post("/auth/sign_in", &body), &marks).status, 200);
    }
}

#[test]
fn whatever_ends_the_session_takes_the_cookie_away() {
    let app = start(CookieSettings::default());
    let first = registered(&app);
    takes_it_away(&with(&app, Method::DELETE, "/auth/sign_out", &first).send());

    let second = baked(&sign_in(&app));
    let third = baked(&sign_in(&app));
    let elsewhere = with(&app, Method::DELETE, &format!("/auth/sessions/{}", second.client), &third).send();
    assert_eq!((elsewhere.status, baked(&elsewhere).generation()), (200, 2), "that was another device's session");
    takes_it_away(&with(&app, Method::DELETE, &format!("/auth/sessions/{}", third.client), &third).send());

    let fourth = baked(&sign_in(&app));
    let deleted = with(&app, Method::DELETE, "/auth", &fourth).send();
    assert_eq!(deleted.status, 200);
    takes_it_away(&deleted);
}

#[test]
fn cookies_are_ignored_unless_asked_for() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    assert_eq!(app.get("/me").cookie(NAME, &held.json()).send().refusal(), (401, "not_authenticated".into()));
    assert_eq!(app.get_as(&held, "/me").send().header("set-cookie"), None);
    assert_eq!(app.delete("/auth/sign_out").held(&held).send().header("set-cookie"), None);
}

#[test]
fn the_cookies_credentials_may_be_sent_with_cors() {
    let app = start(CookieSettings::default());
    let answer = app.get("/open").header("origin", ORIGIN).send();
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
}
