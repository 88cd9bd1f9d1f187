//! Where credentials are read from, in which order, and what becomes of bad ones.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use baton_axum::{CookieSettings, HttpSettings};
use serde_json::{Value, json};

use crate::support::{Call, Held, TestApp, keys, ring};

const CHALLENGE: &str = r#"Bearer realm="baton""#;

fn with_params() -> HttpSettings {
    HttpSettings { credentials_in_params: true, ..HttpSettings::default() }
}

/// A cookie of this name beside the headers, so that it can be set without TLS.
fn with_cookie(name: &str) -> CookieSettings {
    CookieSettings { name: name.into(), secure: false, only: false, ..CookieSettings::default() }
}

#[track_caller]
fn is_let_in(call: Call) {
    let answer = call.clone().send();
    assert_eq!(answer.status, 200, "{call:?} {answer:?}");
}

/// Refused as credentials that are no good.
#[track_caller]
fn is_invalid(call: Call) {
    let answer = call.clone().send();
    assert_eq!(answer.refusal(), (401, "token_invalid".into()), "{call:?} {answer:?}");
    let challenge = answer.header("www-authenticate").expect("a challenge");
    assert!(challenge.starts_with(CHALLENGE) && challenge.contains(r#"error="invalid_token""#), "{challenge}");
    assert!(answer.has_no_auth_headers(), "{answer:?}");
}

/// Refused as a request without credentials.
#[track_caller]
fn is_anonymous(call: Call) {
    let answer = call.clone().send();
    assert_eq!(answer.refusal(), (401, "not_authenticated".into()), "{call:?} {answer:?}");
    assert_eq!(answer.header("www-authenticate"), Some(CHALLENGE));
    assert!(answer.has_no_auth_headers(), "{answer:?}");
}

#[test]
fn five_headers_in_any_case() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    is_let_in(app.get_as(&held, "/me").header("token-type", "Bearer").header("expiry", &held.expiry.to_string()));
    for names in
        [["Access-Token", "Client", "Uid"], ["ACCESS-TOKEN", "CLIENT", "UID"], ["aCCess-tOken", "cLIENT", "uiD"]]
    {
        let values = [&held.token, &held.client, &held.uid];
        let headers: String = names.iter().zip(values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = app.raw(format!("GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"));
        assert_eq!(answer.status, 200, "{names:?} {answer:?}");
    }
}

#[test]
fn the_bearer_value_as_it_was_issued() {
    let app = TestApp::start();
    let issued = app.get_as(&app.register("ann@example.com"), "/me").send();
    is_let_in(app.get("/me").header("authorization", issued.header("authorization").expect("a bearer value")));
}

#[test]
fn a_bearer_value_in_every_spelling() {
    let app = TestApp::start();
    // The padding and both alphabets only show in texts of the right lengths and bytes.
    for email in ["ann@example.com", "bobby@example.com", "c?c~c@example.com", "émile~~@example.com"] {
        let held = app.settled(email);
        let json = held.json().to_string();
        for encoding in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let word = encoding.encode(&json);
            for value in [format!("Bearer {word}"), format!("bearer {word}"), format!("BEARER  {word} "), word] {
                is_let_in(app.get("/me").header("authorization", &value));
            }
        }
    }
}

#[test]
fn a_bearer_value_that_holds_something_else_presents_nothing() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    for json in ["[]", r#"["access-token"]"#, "5", "null", "true", r#""text""#, "{", "{}", "\u{0}", "garbage", ""] {
        let word = STANDARD.encode(json);
        is_anonymous(app.get("/me").header("authorization", &format!("Bearer {word}")));
        // Nor does it spoil what the headers present.
        is_let_in(app.get_as(&held, "/me").header("authorization", &format!("Bearer {word}")));
    }
    for value in
        ["Bearer", "Bearer ", "Bearer !!!", "Basic YW5uOnB3", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "=", "===="]
    {
        is_anonymous(app.get("/me").header("authorization", value));
    }
    for field in [json!(["x"]), json!({ "a": "x" }), json!(5), json!(true), Value::Null] {
        is_anonymous(app.get("/me").bearer(&json!({ "access-token": field, "client": field, "uid": field })));
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    is_anonymous(app.get("/me").header("authorization", &STANDARD.encode(&nested[..20_000])));
}

/// A token of ours, but as a plain bearer: the protocol has no such form.
#[test]
fn a_plain_token_as_bearer_is_refused() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    let bearer = format!("Bearer {}", held.token);
    is_anonymous(app.get("/me").header("authorization", &bearer));
    is_invalid(app.get("/me").header("authorization", &bearer).header("client", &held.client).header("uid", &held.uid));
}

/// The sources of a field, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Header,
    Query,
    Cookie,
    Bearer,
}

const SOURCES: [Source; 4] = [Source::Header, Source::Query, Source::Cookie, Source::Bearer];

/// A request for `/me` with these fields in these places.
fn present(app: &TestApp, fields: &[(Source, &str, &str)]) -> Call {
    let from = |source| fields.iter().filter(move |field| field.0 == source).map(|(_, name, value)| (*name, *value));
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(from(Source::Query));
    let mut call = app.get(&format!("/me?{}", query.finish()));
    for (name, value) in from(Source::Header) {
        call = call.header(name, value);
    }
    let object = |source| Value::Object(from(source).map(|(name, value)| (name.to_owned(), value.into())).collect());
    call.cookie("auth_cookie", &object(Source::Cookie)).bearer(&object(Source::Bearer))
}

/// As in the gem, each field is looked for by itself: header, parameter, cookie, bearer. The first one found wins, also when it
/// is bad and a later one would do.
#[test]
fn each_field_comes_from_the_first_place_that_has_it() {
    let http = HttpSettings { cookie: Some(with_cookie("auth_cookie")), ..with_params() };
    let app = TestApp::with(baton_engine::Settings::default(), http);
    let held = app.settled("ann@example.com");
    let other = app.settled("bob@example.com");

    let fields = [
        ("access-token", &held.token, &other.token),
        ("client", &held.client, &other.client),
        ("uid", &held.uid, &other.uid),
    ];
    for (name, good, bad) in fields {
        let rest: Vec<_> = fields.iter().filter(|field| field.0 != name).collect();
        for (index, first) in SOURCES.into_iter().enumerate() {
            for second in &SOURCES[index + 1..] {
                for place in SOURCES {
                    let with = |one, two| {
                        let mut all: Vec<_> =
                            rest.iter().map(|(name, good, _)| (place, *name, good.as_str())).collect();
                        all.extend([(first, name, one), (*second, name, two)]);
                        present(&app, &all)
                    };
                    is_let_in(with(good, bad));
                    is_invalid(with(bad, good));
                    // What says nothing is not found.
                    is_let_in(with("undefined", good));
                }
            }
        }
    }
}

#[test]
fn what_clients_send_when_they_hold_nothing_is_nothing() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    for nothing in ["", " ", "undefined", "null"] {
        let call =
            |path: &str| app.get(path).header("access-token", nothing).header("client", nothing).header("uid", nothing);
        is_anonymous(call("/me"));
        is_anonymous(call("/auth/validate_token"));
        is_anonymous(call("/me").bearer(&json!({ "access-token": nothing, "client": nothing, "uid": nothing })));
        is_let_in(call("/me").bearer(&held.json()));
        assert_eq!(call("/maybe").send().json(), Value::Null);
        assert_eq!(call("/open").send().status, 200);
    }
    is_anonymous(app.get("/me").header("token-type", "Bearer").header("expiry", "1790000000"));
}

#[test]
fn wrong_or_missing_fields_are_refused() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    let other = app.settled("bob@example.com");
    let second = app.sign_in("ann@example.com");
    let fresh = held.derived(&keys(), 2);
    assert_eq!(fresh, held, "the ring of the test is the server's");

    let bad = [
        Held { uid: other.uid.clone(), ..held.clone() },
        Held { uid: "ANN@EXAMPLE.COM".into(), ..held.clone() },
        Held { uid: "ann@example.co".into(), ..held.clone() },
        Held { uid: "ann@example.comm".into(), ..held.clone() },
        Held { uid: "nobody@example.com".into(), ..held.clone() },
        Held { uid: String::new(), ..held.clone() },
        Held { client: other.client.clone(), ..held.clone() },
        Held { client: second.client.clone(), ..held.clone() },
        Held { client: "AAAAAAAAAAAAAAAAAAAAAA".into(), ..held.clone() },
        Held { client: "default".into(), ..held.clone() },
        Held { client: held.client.to_lowercase(), ..held.clone() },
        Held { client: format!("{}=", held.client), ..held.clone() },
        Held { client: String::new(), ..held.clone() },
        Held { token: other.token.clone(), ..held.clone() },
        Held { token: second.token.clone(), ..held.clone() },
        Held { token: held.token.to_lowercase(), ..held.clone() },
        Held { token: format!("{}=", held.token), ..held.clone() },
        Held { token: held.token[..27].into(), ..held.clone() },
        Held { token: "A".repeat(28), ..held.clone() },
        Held { token: String::new(), ..held.clone() },
        // Not in the ring, or in it with another secret.
        held.derived(&ring(3, *b"0123456789abcdef0123456789abcdef"), 2),
        held.derived(&ring(0, *b"fedcba9876543210fedcba9876543210"), 2),
        // Never issued: there is no token number 0.
        held.derived(&keys(), 0),
    ];
    for presented in &bad {
        is_invalid(app.get_as(presented, "/me"));
        is_invalid(app.get_as(presented, "/auth/validate_token"));
        is_invalid(app.get("/me").bearer(&presented.json()));
    }
    // Genuine, but of a session that never was or is gone.
    let gone = Held { client: "AAAAAAAAAAAAAAAAAAAAAA".into(), ..held.clone() }.derived(&keys(), 1);
    assert_eq!(app.get_as(&gone, "/me").send().refusal(), (401, "session_revoked".into()));
    // None of it did any harm.
    is_let_in(app.get_as(&held, "/me"));
    is_let_in(app.get_as(&second, "/me"));
}

#[test]
fn a_single_flipped_bit_is_noticed() {
    let (app, store) = TestApp::faulty(baton_engine::Settings::default(), HttpSettings::default());
    let held = app.settled("ann@example.com");
    let bytes = URL_SAFE_NO_PAD.decode(&held.token).expect("base64url");
    let before = store.all_calls();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        is_invalid(app.get_as(&Held { token: URL_SAFE_NO_PAD.encode(flipped), ..held.clone() }, "/me"));
    }
    assert_eq!(store.all_calls(), before, "a forged token must not reach the store");
}

#[test]
fn forged_and_absent_credentials_cost_no_store_access() {
    let http = HttpSettings { cookie: Some(with_cookie("auth_cookie")), ..with_params() };
    let (app, store) = TestApp::faulty(baton_engine::Settings::default(), http);
    let held = app.settled("ann@example.com");
    let forged = held.derived(&ring(0, *b"fedcba9876543210fedcba9876543210"), 2);
    let before = store.all_calls();
    is_invalid(app.get_as(&forged, "/me"));
    is_invalid(app.get("/me").bearer(&forged.json()));
    is_invalid(app.get("/me").cookie("auth_cookie", &forged.json()));
    is_invalid(app.get(&format!("/me?{}", forged.query())));
    is_invalid(app.get("/me").header("access-token", &held.token).header("client", &held.client));
    is_anonymous(app.get("/me"));
    is_anonymous(app.get("/me").cookie("auth_cookie", &json!([])));
    assert_eq!(app.delete("/auth/sign_out").held(&forged).send().status, 404);
    assert_eq!(store.all_calls(), before);
    is_let_in(app.get_as(&held, "/me"));
    assert_eq!(store.all_calls(), before + 1, "a request in the window costs one read");
}

#[test]
fn parameters_are_ignored_unless_asked_for() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    is_anonymous(app.get(&format!("/me?{}", held.query())));
    is_anonymous(app.get(&format!("/auth/validate_token?{}", held.query())));
    assert_eq!(app.delete("/auth/sign_out").json(&held.json()).send().status, 404);
    assert_eq!(app.delete("/auth/sign_out").form(&held.query()).send().status, 404);
    is_let_in(app.get_as(&held, "/me"));
}

#[test]
fn parameters_where_they_are_asked_for() {
    let app = TestApp::with(baton_engine::Settings::default(), with_params());
    let held = app.settled("ann@example.com");
    // redux-token-auth validates like this.
    is_let_in(app.get(&format!("/auth/validate_token?{}", held.query())));
    is_let_in(app.get(&format!("/me?{}", held.query())));
    is_let_in(app.get(&format!("/me?other=1&{}&uid=second@example.com", held.query())));
    // A body is read on the auth routes alone: the others' bodies are their own.
    is_anonymous(app.request(http::Method::POST, "/me").json(&held.json()));
    // redux-token-auth signs out like this, after a reload without any header.
    let answer = app.delete("/auth/sign_out").json(&held.json()).send();
    assert_eq!((answer.status, answer.json()), (200, json!({ "success": true })));
    assert_eq!(app.get_as(&held, "/me").send().refusal(), (401, "session_revoked".into()));

    let held = app.sign_in("ann@example.com");
    assert_eq!(app.delete("/auth/sign_out").form(&held.query()).send().status, 200);
    let held = app.sign_in("ann@example.com");
    let rest = json!({ "access-token": held.token, "client": held.client });
    assert_eq!(app.delete("/auth").header("uid", &held.uid).json(&rest).send().status, 200);
}

/// The query is a parameter before the body is one, and both come before the cookie and the bearer value.
#[test]
fn the_body_stands_between_query_and_cookie() {
    let http = HttpSettings { cookie: Some(with_cookie("auth_cookie")), ..with_params() };
    let app = TestApp::with(baton_engine::Settings::default(), http);
    let held = app.settled("ann@example.com");
    let forged = held.derived(&ring(3, *b"0123456789abcdef0123456789abcdef"), 2);
    // 404: somebody is signed in, and has no such session.
    for (body, other, by_body, by_other) in [(&held, &forged, 404, 401), (&forged, &held, 401, 404)] {
        let end = |query: &str| app.delete(&format!("/auth/sessions/x?{query}")).json(&body.json());
        assert_eq!(end("").cookie("auth_cookie", &other.json()).send().status, by_body);
        assert_eq!(end("").bearer(&other.json()).send().status, by_body);
        assert_eq!(end(&other.query()).send().status, by_other);
    }
}

#[test]
fn a_body_that_presents_credentials_still_reaches_the_handler() {
    let app = TestApp::with(baton_engine::Settings::default(), with_params());
    app.register("ann@example.com");
    let body = json!({ "email": "bob@example.com", "password": "long enough", "access-token": "x", "uid": "y" });
    assert_eq!(app.post("/auth", &body).send().status, 200);
    assert_eq!(app.delete("/auth/sign_out").header("content-type", "application/json").body("{").send().status, 400);
}

#[test]
fn parameters_of_odd_shapes_present_nothing() {
    let app = TestApp::with(baton_engine::Settings::default(), with_params());
    let held = app.settled("ann@example.com");
    let Held { token, client, uid, .. } = &held;
    for query in [
        format!("access-token[]={token}&client[]={client}&uid[]={uid}"),
        format!("access-token[a]={token}&client[a]={client}&uid[a]={uid}"),
        format!("access-token%5B%5D={token}&client%5B%5D={client}&uid%5B%5D={uid}"),
        "access-token&client&uid".into(),
        "access-token=&client=&uid=".into(),
        "&&&===&=".into(),
        "%".into(),
        "%FF=%FF&access-token%00=x".into(),
    ] {
        is_anonymous(app.get(&format!("/me?{query}")));
    }
    for (token, client, uid) in [
        (token.as_str(), client.as_str(), "ann%40example.com%00"),
        (token, client, "ann%40example.com%FF"),
        (token, "%00", uid),
        (token, "%FF%FE", uid),
        ("%00", client, uid),
        ("%FF%FE", client, uid),
        ("%F0%9F%92%A9", client, uid),
    ] {
        is_invalid(app.get(&format!("/me?access-token={token}&client={client}&uid={uid}")));
    }
    for field in [json!([token]), json!({ "a": token }), json!(5), json!(true), Value::Null] {
        let body = json!({ "access-token": field, "client": client, "uid": uid });
        assert_eq!(app.delete("/auth/sign_out").json(&body).send().status, 404);
    }
    is_let_in(app.get_as(&held, "/me"));
}

#[test]
fn headers_that_are_no_text_or_too_long_are_refused() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    for (name, value) in [
        ("access-token", &b"\xff\xfe"[..]),
        ("access-token", b"caf\xe9"),
        ("client", b"\xc3\x28"),
        ("uid", b"ann\xff@example.com"),
    ] {
        let mut request = b"GET /me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".to_vec();
        for (other, value) in [("access-token", &held.token), ("client", &held.client), ("uid", &held.uid)] {
            if other != name {
                request.extend(format!("{other}: {value}\r\n").into_bytes());
            }
        }
        request.extend([name.as_bytes(), b": ", value, b"\r\n\r\n"].concat());
        assert_eq!(app.raw(request).refusal(), (401, "token_invalid".into()), "{name}");
    }
    is_invalid(app.get_as(&Held { token: "A".repeat(10_000), ..held.clone() }, "/me"));
    is_invalid(app.get_as(&Held { client: "A".repeat(1_000), ..held.clone() }, "/me"));
    is_invalid(app.get_as(&Held { uid: "a".repeat(10_000), ..held.clone() }, "/me"));
    is_anonymous(app.get("/me").header("authorization", &"A".repeat(30_000)));

    let header = "A".repeat(1024 * 1024);
    let answer = app.raw(format!("GET /me HTTP/1.1\r\nHost: x\r\naccess-token: {header}\r\n\r\n"));
    assert_eq!(answer.status, 431, "a header of 1 MiB is turned away by the HTTP server itself");
    is_let_in(app.get_as(&held, "/me"));
}

/// Two headers of one name: the first one counts, as with every other source.
#[test]
fn the_first_of_two_headers_counts() {
    let app = TestApp::start();
    let held = app.settled("ann@example.com");
    is_let_in(app.get_as(&held, "/me").header("access-token", "x").header("uid", "x"));
    is_invalid(app.get("/me").header("access-token", "x").held(&held));
}

#[test]
fn a_uid_beyond_ascii_travels_both_ways() {
    let app = TestApp::start();
    let held = app.settled("émile@example.com");
    assert_eq!(held.uid, "émile@example.com");
    is_let_in(app.get_as(&held, "/me"));
    is_let_in(app.get("/me").bearer(&held.json()));
}
