//! The server in front of a backend: what the backend sees, and what comes back.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use serde_json::Value;

use crate::support::{Answer, Backend, Baton, Held, Identity, Tls, raw, raw_backend, read_head, read_to_the_end};

const ADMIN: [&str; 2] = ["--set", "realms.admin.mount=/admin_auth"];
const ROTATE: [&str; 2] = ["--set", "batch_request_buffer_throttle=0"];

fn to(backend: &Backend, settings: &str) -> String {
    format!("targets = [\"{}\"], {settings}", backend.url())
}

/// The values that the backend was sent under a name.
fn sent<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = seen["headers"].as_array().unwrap_or_else(|| panic!("{seen}"));
    headers.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

fn names(seen: &Value) -> Vec<&str> {
    seen["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect()
}

#[test]
fn the_backend_is_told_who_it_is_and_gets_no_token() {
    let backend = Backend::start();
    let baton = Baton::before(
        &[to(&backend, "require = 'any'")],
        &[
            &ROTATE[..],
            &["--set", "cookie_enabled=true", "--set", "cookie_only=false", "--set", "credentials_in_params=true"],
        ]
        .concat(),
    );
    let mut held = baton.register("ann@example.com");
    let id = baton.get("/auth/validate_token").held(&held).send();
    assert!(held.adopt(&id));
    let answer = baton
        .get(&format!("/things?a=1&access-token=x&uid={}&b=%20", held.uid))
        .held(&held)
        .header("x-auth-uid", "mallory")
        .header("x_auth_uid", "mallory")
        .header("x-auth_user-id", "1")
        .header("x-auth-realm", "admin")
        .header("access_token", "x")
        .header("authorization", format!("Bearer {}", "eyJhY2Nlc3MtdG9rZW4iOiJ4In0="))
        .header("cookie", "a=b; __Host-baton=secret; c=d")
        .send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    assert_eq!(seen["uri"], "/things?a=1&b=%20");
    assert_eq!(sent(&seen, "x-auth-uid"), ["ann@example.com"]);
    assert_eq!(sent(&seen, "x-auth-user-id"), [id.json()["data"]["id"].to_string()]);
    assert_eq!(sent(&seen, "x-auth-realm"), ["user"]);
    assert_eq!(sent(&seen, "x-auth-session"), [&held.client]);
    assert_eq!(sent(&seen, "cookie"), ["a=b; c=d"]);
    for name in ["access-token", "client", "uid", "expiry", "token-type", "authorization", "x_auth_uid", "access_token"]
    {
        assert!(!names(&seen).contains(&name), "{name}: {seen}");
    }
    assert!(!seen.to_string().contains(&held.token), "{seen}");
    // The token that comes back is baton's and not what the backend made up.
    assert!(held.adopt(&answer), "{answer:?}");
    assert_eq!(baton.get("/again").held(&held).send().status, 200);
    assert_eq!(answer.header("x-backend"), "yes");
}

#[test]
fn a_backend_that_asks_for_tokens_gets_them() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(&backend, "pass_token = true")], &[]);
    let held = baton.register("ann@example.com");
    let seen = baton.get("/").held(&held).send().json();
    assert_eq!(sent(&seen, "access-token"), [&held.token]);
}

#[test]
fn each_path_is_for_whom_it_says() {
    let backend = Backend::start();
    let baton = Baton::before(
        &[
            to(&backend, "path = '/'"),
            to(&backend, "path = '/admins', require = 'admin'"),
            to(&backend, "path = '/users', require = 'user'"),
            to(&backend, "path = '/open', require = 'none'"),
            to(&backend, "path = '/maybe', require = 'optional', strip_path = true"),
            to(&backend, "path = '/', host = 'open.test', require = 'none'"),
        ],
        &ADMIN,
    );
    let user = baton.register("ann@example.com");
    let admin = baton
        .post("/admin_auth", &serde_json::json!({ "email": "root@example.com", "password": crate::support::PASSWORD }));
    let admin = admin.send().held().unwrap();
    let status = |path: &str, held: Option<&Held>| {
        let call = baton.get(path);
        let answer = held.map_or_else(|| call.clone(), |held| call.clone().held(held)).send();
        (answer.status, answer)
    };
    for path in ["/", "/x", "/admins", "/admins/x", "/users", "/openly", "/%61dmins", "//admins/", "/admins;x=1/a"] {
        let before = backend.seen();
        let (code, answer) = status(path, None);
        assert_eq!((code, answer.code()), (401, "not_authenticated".into()), "{path}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{answer:?}");
        assert_eq!(backend.seen(), before, "{path}");
    }
    for path in ["/admins", "/%61dmins/x", "//admins", "/admins%2Fx", "/admins;x"] {
        assert_eq!(status(path, Some(&user)).0, 401, "{path}");
        let seen = status(path, Some(&admin)).1.json();
        assert_eq!(sent(&seen, "x-auth-realm"), ["admin"]);
        assert_eq!(seen["uri"], path);
    }
    assert_eq!((status("/users", Some(&user)).0, status("/users", Some(&admin)).0), (200, 401));
    assert_eq!((status("/x", Some(&user)).0, status("/x", Some(&admin)).0), (200, 200));
    // Whoever ignores capitals or resolves dots would find something else there.
    assert_eq!(status("/Admins", Some(&user)).0, 404);
    for path in ["/open/../admins", "/open/%2e%2e/admins", "/open/..%2fadmins", "/open/..;/admins", "/open/%00"] {
        let answer =
            raw(baton.address, format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    let anonymous = status("/open", None).1.json();
    assert!(names(&anonymous).iter().all(|name| !name.starts_with("x-auth-")), "{anonymous}");
    let open = status("/open", Some(&user)).1;
    assert!(!open.headers.contains_key("access-token") && sent(&open.json(), "x-auth-uid").is_empty(), "{open:?}");
    assert_eq!(status("/maybe/a?b", None).1.json()["uri"], "/a?b");
    let maybe = status("/maybe", Some(&user)).1;
    assert_eq!((maybe.json()["uri"].as_str(), sent(&maybe.json(), "x-auth-uid")), (Some("/"), vec!["ann@example.com"]));
    let stale = Held { token: user.token.replace(|_: char| true, "A"), ..user.clone() };
    assert!(sent(&status("/maybe", Some(&stale)).1.json(), "x-auth-uid").is_empty());
    assert_eq!(baton.get("/").header("host", "OPEN.test:80").send().status, 200);
}

#[test]
fn what_is_batons_own_stays_so() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(&backend, "require = 'none'")], &[]);
    for path in ["/healthz", "/readyz", "/auth/nothing", "/forward-auth"] {
        assert_ne!(baton.get(path).send().header("x-backend"), "yes", "{path}");
    }
    assert_eq!(baton.get("/auth").send().status, 405);
    baton.assert_works();
    assert_eq!(backend.seen(), 0);
}

#[test]
fn headers_of_a_connection_go_no_further() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(&backend, "require = 'optional'")], &[]);
    let held = baton.register("ann@example.com");
    let answer = baton
        .get("/")
        .held(&held)
        .header("connection", "x-mine, X-Auth-Uid")
        .header("x-mine", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic x")
        .header("te", "trailers, deflate")
        .header("upgrade", "h2c")
        .header("http2-settings", "x")
        .header("x-yours", "2")
        .header("via", "1.0 fred")
        .send();
    let seen = answer.json();
    for name in [
        "connection",
        "x-mine",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "upgrade",
        "transfer-encoding",
    ] {
        assert!(!names(&seen).contains(&name), "{name}: {seen}");
    }
    assert_eq!((sent(&seen, "te"), sent(&seen, "x-yours")), (vec!["trailers"], vec!["2"]));
    assert_eq!(sent(&seen, "via"), ["1.0 fred", "1.1 baton"]);
    assert_eq!(sent(&seen, "x-auth-uid"), ["ann@example.com"]);
    assert_eq!(sent(&seen, "x-request-id"), [answer.header("x-request-id")]);
    assert!(
        !answer.headers.contains_key("x-hop") && !answer.headers.contains_key("x-content-type-options"),
        "{answer:?}"
    );
    // Nothing was sent, so nothing is.
    assert_eq!((&seen["length"], sent(&seen, "content-length").len()), (&0.into(), 0));
}

#[test]
fn where_a_request_comes_from_is_said_and_not_claimed() {
    let backend = Backend::start();
    let claims = |baton: &Baton| {
        let call = baton.get("/").header("host", "api.example.com").header("forwarded", "for=6.6.6.6");
        let call = call.header("x-forwarded-for", "6.6.6.6").header("x-forwarded-proto", "https");
        call.header("x-forwarded-host", "evil.test")
            .header("x-real-ip", "6.6.6.6")
            .header("x_forwarded_for", "6.6.6.6")
            .send()
            .json()
    };
    let direct = Baton::before(&[to(&backend, "require = 'none'")], &[]);
    let seen = claims(&direct);
    assert_eq!(sent(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(sent(&seen, "forwarded"), ["for=127.0.0.1;host=\"api.example.com\";proto=http"]);
    assert_eq!(
        (sent(&seen, "x-forwarded-proto"), sent(&seen, "x-forwarded-host")),
        (vec!["http"], vec!["api.example.com"])
    );
    assert_eq!(sent(&seen, "host"), ["api.example.com"]);
    assert!(!names(&seen).contains(&"x-real-ip") && !names(&seen).contains(&"x_forwarded_for"), "{seen}");

    let behind = Baton::before(
        &[to(&backend, "require = 'none', preserve_host = false")],
        &["--set", "server.trusted_proxies=127.0.0.1"],
    );
    let seen = claims(&behind);
    assert_eq!(sent(&seen, "x-forwarded-for"), ["6.6.6.6, 127.0.0.1"]);
    assert_eq!(sent(&seen, "forwarded"), ["for=6.6.6.6;host=\"evil.test\";proto=https, for=127.0.0.1"]);
    assert_eq!(sent(&seen, "host"), [backend.address.to_string()]);
}

#[test]
fn cors_is_answered_once() {
    let backend = Backend::start();
    let baton =
        Baton::before(&[to(&backend, "require = 'any'")], &["--set", "server.allowed_origins=https://app.test"]);
    let preflight = baton.request("OPTIONS", "/things").header("origin", "https://app.test");
    let preflight = preflight.header("access-control-request-method", "DELETE").send();
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, "https://app.test"));
    assert_eq!(backend.seen(), 0);
    let held = baton.register("ann@example.com");
    let answer = baton.get("/things").held(&held).header("origin", "https://app.test").send();
    let allowed: Vec<_> = answer.headers.get_all("access-control-allow-origin").iter().collect();
    assert_eq!(allowed, ["https://app.test"]);
    assert!(answer.header("access-control-expose-headers").contains("access-token"), "{answer:?}");
    // One that is no preflight of CORS is the backend's to answer, and nobody is signed in for it.
    assert_eq!(baton.request("OPTIONS", "/things").send().json()["method"], "OPTIONS");
}

#[test]
fn bodies_and_methods_pass_as_they_are() {
    let backend = Backend::start();
    let baton = Baton::before(
        &[to(&backend, "require = 'none', max_body_bytes = 200000")],
        &["--set", "server.max_body_bytes=1024"],
    );
    let posted = baton.request("POST", "/").body("text/plain", vec![b'x'; 150_000]).send().json();
    assert_eq!((&posted["method"], &posted["length"]), (&"POST".into(), &150_000.into()));
    let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert!(raw(baton.address, chunked.as_bytes()).contains(r#""length":11"#));
    let expects =
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = raw(baton.address, expects.as_bytes());
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ") && answer.contains(r#""length":2"#),
        "{answer}"
    );
    // Not a byte more than it takes: who goes on writing when the answer is there may not get to read it.
    let too_long = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200001\r\nConnection: close\r\n\r\n";
    let answer = raw(baton.address, too_long.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
    let (first, second) = ("x".repeat(150_000), "x".repeat(50_001));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let answer = raw(baton.address, format!("{head}{0:x}\r\n{first}\r\n{0:x}\r\n{second}", 150_000).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    for method in ["TRACE", "CONNECT"] {
        let line = if method == "CONNECT" { "a:1" } else { "/" };
        let answer = raw(
            baton.address,
            format!("{method} {line} HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let odd = raw(baton.address, b"PURGE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(odd.contains(r#""method":"PURGE""#), "{odd}");
}

/// Answers each request on a connection with this text.
fn answering(text: &'static str) -> String {
    let address = raw_backend(
        move |mut stream| {
            while !read_head(&stream).is_empty() && stream.write_all(text.as_bytes()).is_ok() {}
        },
    );
    format!("targets = [\"http://{address}\"], require = 'none'")
}

#[test]
fn answers_without_a_body_have_none() {
    for (method, status, text) in [
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", 200, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("GET", 200, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let baton = Baton::before(&[answering(text)], &[]);
        for _ in 0..2 {
            let answer =
                raw(baton.address, format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")) && body.is_empty(), "{method} {status}: {answer}");
        }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let address = raw_backend(|mut stream| {
        read_head(&stream);
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it").unwrap();
    });
    let baton = Baton::before(&[format!("targets = [\"http://{address}\"], require = 'none'")], &[]);
    let answer = baton.get("/").send();
    assert_eq!((answer.status, &*answer.body), (200, "all of it"));
}

#[test]
fn events_arrive_when_they_are_sent() {
    let (go_on, wait) = mpsc::sync_channel::<()>(0);
    let wait = std::sync::Mutex::new(wait);
    let address = raw_backend(move |mut stream| {
        read_head(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(b"data: 2\n\n").unwrap();
    });
    let baton = Baton::before(&[format!("targets = [\"http://{address}\"], require = 'none'")], &[]);
    let mut client = TcpStream::connect(baton.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut byte = [0];
    while !text.contains("data: 1\n\n") {
        client.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    go_on.send(()).unwrap();
    assert!(String::from_utf8_lossy(&read_to_the_end(&client)).contains("data: 2\n\n"));
}

/// Opens a WebSocket, as far as HTTP goes. The head of the answer.
fn open_socket(baton: &Baton, headers: &str) -> (TcpStream, String) {
    let mut client = TcpStream::connect(baton.address).unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: api.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n{headers}\r\n"
    );
    client.write_all(head.as_bytes()).unwrap();
    let head = read_head(&client);
    (client, head)
}

/// Agrees to a WebSocket and sends back what comes.
fn echoing_sockets() -> String {
    format!("targets = [\"http://{}\"]", echoing())
}

fn echoing() -> SocketAddr {
    raw_backend(|mut stream| {
        let head = read_head(&stream).to_lowercase();
        assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        let mut part = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut part) {
            stream.write_all(&part[..read]).unwrap();
        }
    })
}

#[test]
fn websockets_are_tunnelled() {
    let baton = Baton::before(&[echoing_sockets()], &["--set", "server.allowed_origins=https://app.test"]);
    let held = baton.register("ann@example.com");
    assert!(open_socket(&baton, "").1.starts_with("HTTP/1.1 401 "));
    let token = format!("access-token: {}\r\nclient: {}\r\nuid: {}\r\n", held.token, held.client, held.uid);
    let (mut client, head) = open_socket(&baton, &token);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains("sec-websocket-accept: x"), "{head}");
    for message in ["one", "two", "three"] {
        client.write_all(message.as_bytes()).unwrap();
        let mut back = vec![0; message.len()];
        client.read_exact(&mut back).unwrap();
        assert_eq!(back, message.as_bytes());
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(read_to_the_end(&client).is_empty(), "the other side hears of the end and ends too");
    // A page of another site has no business here, whatever the browser sends along.
    assert!(open_socket(&baton, &format!("{token}Origin: https://evil.test\r\n")).1.starts_with("HTTP/1.1 403 "));
    for origin in ["https://app.test", "https://api.test"] {
        let head = open_socket(&baton, &format!("{token}Origin: {origin}\r\n")).1;
        assert!(head.starts_with("HTTP/1.1 101 "), "{origin}: {head}");
    }
}

#[test]
fn a_socket_that_is_silent_for_too_long_ends() {
    let baton = Baton::before(&[format!("{}, require = 'none', idle_timeout = '100ms'", echoing_sockets())], &[]);
    let (client, head) = open_socket(&baton, "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(read_to_the_end(&client).is_empty());
}

fn get(baton: &Baton, path: &str) -> Answer {
    baton.get(path).send()
}

#[test]
fn targets_take_turns_and_one_that_is_gone_is_passed_over() {
    let (one, two) = (Backend::start(), Backend::start());
    let both = format!("targets = ['{}', '{}'], require = 'none'", one.url(), two.url());
    let baton = Baton::before(&[both], &[]);
    for _ in 0..10 {
        assert_eq!(get(&baton, "/").status, 200);
    }
    assert_eq!((one.seen(), two.seen()), (5, 5));
    drop(one);
    for _ in 0..10 {
        let answer = baton.request("POST", "/").body("text/plain", "twelve bytes").send();
        assert_eq!((answer.status, &answer.json()["length"]), (200, &12.into()), "{answer:?}");
    }
    assert_eq!(two.seen(), 15);
    baton.wait_for_log("a backend cannot be reached");
}

#[test]
fn a_target_whose_health_check_fails_gets_nothing() {
    let (one, two) = (Backend::start(), Backend::start());
    let ill = answering("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let ill = ill.split('"').nth(1).unwrap();
    let checked = |targets: &str| {
        format!("targets = [{targets}], require = 'none', health_path = '/health', health_interval = '50ms'")
    };
    let baton = Baton::before(&[checked(&format!("'{ill}', '{}', '{}'", one.url(), two.url()))], &[]);
    baton.wait_for_log("a backend is not well");
    for _ in 0..6 {
        assert_eq!(get(&baton, "/").status, 200);
    }
    let baton = Baton::before(&[checked(&format!("'{ill}'"))], &[]);
    baton.wait_for_log("a backend is not well");
    let answer = get(&baton, "/");
    assert_eq!((answer.status, answer.code(), answer.header("retry-after")), (503, "unavailable".into(), "2"));
}

#[test]
fn http2_clients_are_passed_on() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(&backend, "require = 'any'")], &ROTATE);
    let mut held = baton.register("ann@example.com");
    for body in [None, Some("hello")] {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "-i", "--http2-prior-knowledge", "-H"]).arg(format!("access-token: {}", held.token));
        curl.arg("-H").arg(format!("client: {}", held.client)).arg("-H").arg(format!("uid: {}", held.uid));
        let output = curl.args(body.iter().flat_map(|body| ["-d", body])).arg(baton.url("/h2?a=b")).output();
        let output = output.expect("curl is missing. Install it: apt-get install -y curl");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, seen) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{output:?}"));
        assert!(head.starts_with("HTTP/2 200"), "{answer}");
        let seen: Value = serde_json::from_str(seen).unwrap();
        assert_eq!((&seen["uri"], &seen["length"]), (&"/h2?a=b".into(), &body.map_or(0, str::len).into()));
        assert_eq!((sent(&seen, "host"), sent(&seen, "via")), (vec![&*baton.address.to_string()], vec!["2 baton"]));
        assert_eq!(sent(&seen, "x-auth-uid"), ["ann@example.com"]);
        held.token = head.lines().find_map(|line| line.strip_prefix("access-token: ")).unwrap().trim().to_owned();
    }
}

#[test]
fn targets_with_tls_have_to_prove_who_they_are() {
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (Identity::of("localhost"), Identity::of("localhost"));
    let (right_file, wrong_file) = (folder.path().join("right.pem"), folder.path().join("wrong.pem"));
    right.write_certificate(&right_file);
    wrong.write_certificate(&wrong_file);
    let (behind, sockets) = (Tls::before(backend.address, &right), Tls::before(echoing(), &right));
    let to = |path: &str, host: &str, tls: &Tls, ca_file: &std::path::Path| {
        let port = tls.address.port();
        format!("path = '{path}', targets = ['https://{host}:{port}'], require = 'none', ca_file = {ca_file:?}")
    };
    let baton = Baton::before(
        &[
            to("/", "localhost", &behind, &right_file),
            to("/socket", "localhost", &sockets, &right_file),
            to("/stranger", "localhost", &behind, &wrong_file),
            // It is there, and not who it is called.
            to("/other", "127.0.0.1", &behind, &right_file),
        ],
        &[],
    );
    let posted = baton.request("POST", "/things").body("text/plain", vec![b'x'; 100_000]).send();
    assert_eq!((posted.status, &posted.json()["length"]), (200, &100_000.into()), "{posted:?}");
    assert_eq!(sent(&posted.json(), "x-forwarded-proto"), ["http"], "as the client came");
    let (mut client, head) = open_socket(&baton, "");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    for path in ["/stranger", "/other"] {
        let answer = get(&baton, path);
        assert_eq!((answer.status, answer.code()), (502, "bad_gateway".into()), "{path}: {answer:?}");
    }
    assert_eq!(backend.seen(), 1);
    baton.wait_for_log("certificate");
}
