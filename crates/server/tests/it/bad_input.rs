//! Whatever comes over the wire gets a clear answer and breaks nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::{Answer, Baton, Held, PASSWORD, agent, raw, raw_and_hang_up};

/// With every way open in which credentials can come in.
fn open_to_everything() -> Baton {
    Baton::dev(&["--set", "cookie_enabled=true", "--set", "cookie_only=false", "--set", "credentials_in_params=true"])
}

fn assert_refused(what: &str, answer: &Answer) {
    assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
    assert!(answer.json()["errors"].is_array() || answer.json()["errors"].is_object(), "{what}: {answer:?}");
    assert!(!answer.code().is_empty(), "{what}: {answer:?}");
}

/// Bodies that say nothing good, by content type.
fn bad_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000)).into_bytes();
    let mut bodies: Vec<(&str, Vec<u8>)> = [
        "",
        "{",
        "}",
        "null",
        "true",
        "[]",
        "\"text\"",
        "0",
        "1e999",
        "{\"email\":}",
        "{\"email\":\"a@example.com\",\"password\":\"\\ud800\"}",
        "{\"email\":null,\"password\":null}",
        "{\"email\":1,\"password\":true}",
        "{\"email\":[\"a@example.com\"],\"password\":[\"x\"]}",
        "{\"email\":{\"a\":1},\"password\":{\"b\":2}}",
        "{\"email\":\"\\u0000@example.com\",\"password\":\"\\u0000\"}",
        "{\"email\":\"no-address\",\"password\":\"short\"}",
        "{\"email\":\"a@example.com\"}",
        "{\"password\":\"correct horse battery\"}",
        "{\"email\":\"a@example.com\",\"email\":\"b@example.com\"}",
        "{\"access-token\":[1],\"client\":{},\"uid\":null}",
    ]
    .into_iter()
    .map(|body| ("application/json", body.as_bytes().to_vec()))
    .collect();
    bodies.extend([
        ("application/json", b"{\"email\":\"\xff\xfe@example.com\",\"password\":\"\xff\"}".to_vec()),
        ("application/json", nested("[", "]")),
        ("application/json", nested("{\"a\":", "}")),
        ("application/json", vec![b' '; 60_000]),
        ("application/json", format!("{{\"email\":\"{}@example.com\",\"password\":\"x\"}}", "a".repeat(50_000)).into()),
        ("application/json; charset=utf-16", b"{\0}\0".to_vec()),
        ("application/x-www-form-urlencoded", b"email[]=a&email[]=b&password[x]=y".to_vec()),
        ("application/x-www-form-urlencoded", b"email=%ff%fe&password=%ff".to_vec()),
        ("application/x-www-form-urlencoded", b"%".to_vec()),
        ("application/x-www-form-urlencoded", vec![b'&'; 60_000]),
        ("multipart/form-data; boundary=x", b"--x\r\n".to_vec()),
        ("text/plain", b"email=a@example.com".to_vec()),
        ("nonsense", b"\0\x01\x02".to_vec()),
        ("", b"{}".to_vec()),
    ]);
    bodies
}

#[test]
fn bodies() {
    let baton = open_to_everything();
    let agent = agent();
    for (content_type, body) in bad_bodies() {
        for (method, path) in [
            ("POST", "/auth"),
            ("POST", "/auth/sign_in"),
            ("DELETE", "/auth"),
            ("DELETE", "/auth/sign_out"),
            ("DELETE", "/auth/sessions/nonsense"),
        ] {
            let call = baton.request(method, path).body(content_type, body.clone());
            let answer = call.try_send_on(&agent).unwrap();
            let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_refused(&format!("{method} {path} {content_type} {start}"), &answer);
        }
    }
    baton.assert_works();
}

#[test]
fn fields_that_are_wrong_are_named() {
    let baton = Baton::dev(&[]);
    let register = |body| baton.post("/auth", &body).send();
    let answer = register(json!({ "email": null, "password": null }));
    assert_eq!(answer.status, 422, "{answer:?}");
    let errors = &answer.json()["errors"];
    assert!(errors["email"].is_array() && errors["password"].is_array(), "{answer:?}");
    assert!(register(json!({ "email": "a@example.com", "password": "short" })).json()["errors"]["password"].is_array());
    assert!(register(json!({ "email": "nobody", "password": PASSWORD })).json()["errors"]["email"].is_array());
    let malformed = baton.request("POST", "/auth/sign_in").body("application/json", "{\"email\": ").send();
    assert_eq!((malformed.status, malformed.code()), (400, "malformed".into()));
}

#[test]
fn bodies_that_are_too_long() {
    let baton = Baton::dev(&["--set", "server.max_body_bytes=100000"]);
    let text = |length: usize| "x".repeat(length);
    // Longer than an auth route takes, longer than the server takes.
    for length in [70_000, 200_000] {
        let request = format!(
            "POST /auth/sign_in HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{}",
            text(length)
        );
        let answer = raw(baton.address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{length}: {answer}");
    }
    // Without saying so first.
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, text(50_000));
    let head = "POST /auth/sign_in HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = raw(baton.address, format!("{head}{}0\r\n\r\n", chunk.repeat(5)).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    baton.assert_works();
}

#[test]
fn a_body_that_does_not_come() {
    let baton = Baton::dev(&["--set", "server.body_read_timeout=100ms"]);
    let head =
        "POST /auth/sign_in HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = raw(baton.address, head.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("could not be read"), "{answer}");
    baton.assert_works();
}

#[test]
fn heads_that_are_too_long() {
    let baton = Baton::dev(&[]);
    let held = baton.register("ann@example.com");
    let mega = "x".repeat(1024 * 1024);
    for head in [
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-Long: {mega}\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\naccess-token: {mega}\r\nclient: {}\r\n\r\n", held.client),
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: x\r\n".repeat(200)),
    ] {
        let answer = raw(baton.address, head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{}", &answer[..answer.len().min(200)]);
    }
    let answer = raw(baton.address, format!("GET /{mega} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "),
        "{}",
        &answer[..answer.len().min(200)]
    );
    // What still fits is no error.
    let long = baton.get("/demo/members_only").held(&held).header("x-long", "x".repeat(40_000)).send();
    assert_eq!(long.status, 200);
    baton.assert_works();
}

#[test]
fn requests_that_are_no_http() {
    let baton = Baton::dev(&[]);
    for bytes in [
        &b"\r\n\r\n"[..],
        b"HELLO\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /?\xff HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let answer = raw_and_hang_up(baton.address, bytes);
        assert!(!answer.contains("HTTP/1.1 5"), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    baton.assert_works();
}

/// A request as it is, since no client library sends such headers. The first line of the answer and its body.
fn get_raw(baton: &Baton, path: &str, headers: &[(&str, &[u8])]) -> (String, String) {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let answer = raw(baton.address, &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn credentials_that_are_garbage() {
    let baton = open_to_everything();
    let held = baton.register("ann@example.com");
    let bearer = |json: &str| format!("Bearer {}", STANDARD.encode(json)).into_bytes();
    let cookie = |value: &str| format!("__Host-baton={value}").into_bytes();
    let deep = "[".repeat(10_000);
    let values: Vec<(&str, Vec<u8>)> = vec![
        ("authorization", b"Bearer".to_vec()),
        ("authorization", b"Bearer ".to_vec()),
        ("authorization", b"Basic YTpi".to_vec()),
        ("authorization", b"Bearer !!!".to_vec()),
        ("authorization", b"Bearer \xff\xfe\xfd".to_vec()),
        ("authorization", bearer("")),
        ("authorization", bearer("null")),
        ("authorization", bearer("[]")),
        ("authorization", bearer(&deep)),
        ("authorization", bearer("{\"access-token\":1,\"client\":[],\"uid\":{}}")),
        ("authorization", bearer("{\"access-token\":\"x\",\"client\":\"y\",\"uid\":\"z\"}")),
        ("authorization", [b"Bearer ".to_vec(), STANDARD.encode([0xff, 0xfe]).into_bytes()].concat()),
        ("cookie", b"__Host-baton".to_vec()),
        ("cookie", b";;;=;=;".to_vec()),
        ("cookie", b"\xff\xfe=\xfd; __Host-baton=\xff".to_vec()),
        ("cookie", cookie("")),
        ("cookie", cookie("%")),
        ("cookie", cookie("%ff%fe%00")),
        ("cookie", cookie("%7B%22access-token%22%3A1%7D")),
        ("cookie", cookie(&"%5B".repeat(10_000))),
        ("access-token", b"\xff\xfe".to_vec()),
        ("access-token", vec![b'A'; 30_000]),
        ("access-token", held.token.replace(|_: char| true, "A").into_bytes()),
        ("client", b"not-a-client".to_vec()),
        ("uid", "ü@example.com".into()),
    ];
    for path in ["/demo/members_only", "/auth/validate_token", "/auth/sessions"] {
        for (name, value) in &values {
            let (line, body) = get_raw(&baton, path, &[(name, value)]);
            assert!(line.starts_with("HTTP/1.1 401 "), "{path} {name}: {line} {body}");
            assert!(body.contains("\"code\":\""), "{path} {name}: {body}");
            // Beside good ones in the other fields.
            let mut fields: Vec<(&str, &[u8])> = vec![
                ("access-token", held.token.as_bytes()),
                ("client", held.client.as_bytes()),
                ("uid", held.uid.as_bytes()),
            ];
            if let Some(field) = fields.iter_mut().find(|(field, _)| field == name) {
                field.1 = value;
                let (line, _) = get_raw(&baton, path, &fields);
                assert!(line.starts_with("HTTP/1.1 401 "), "{path} {name}: {line}");
            }
        }
        for query in [
            "%ff%fe",
            "access-token=%ff",
            "access-token[]=x&client[]=y&uid[]=z",
            "uid=%00",
            "=&=&&",
            "unbatch=%ff",
            "a[b[c]=d",
        ] {
            let (line, _) = get_raw(&baton, &format!("{path}?{query}"), &[]);
            assert!(line.starts_with("HTTP/1.1 401 "), "{path}?{query}: {line}");
        }
    }
    // None of it cost anybody the session.
    assert_eq!(baton.members_only(&held).status, 200);
    baton.assert_works();
}

#[test]
fn garbage_in_one_place_does_not_hide_what_is_good_in_another() {
    let baton = open_to_everything();
    let held = baton.register("ann@example.com");
    for (name, value) in [("cookie", "__Host-baton=garbage"), ("authorization", "Bearer garbage")] {
        let answer = baton.get("/demo/members_only").held(&held).header(name, value).send();
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
}

#[test]
fn device_names_that_are_garbage() {
    let baton = Baton::dev(&[]);
    baton.register("ann@example.com");
    for agent in [&b"\xff\xfe\xfd"[..], "ü".repeat(10_000).as_bytes(), b"", b"<script>alert(1)</script>"] {
        let answer = baton.sign_in_call("ann@example.com").header("user-agent", agent).send();
        let held: Held = answer.held().unwrap_or_else(|| panic!("{answer:?}"));
        let sessions = baton.get("/auth/sessions").held(&held).send();
        assert_eq!(sessions.status, 200, "{sessions:?}");
    }
    baton.assert_works();
}
