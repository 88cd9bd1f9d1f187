//! Gateways with the configuration that is shipped in `deploy/`, in front of a backend that knows nothing of baton.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{Answer, Baton, Call, Held, PASSWORD, Program, eventually};

const NGINX: &str = include_str!("../../../../deploy/nginx/baton.conf");
const CADDY: &str = include_str!("../../../../deploy/caddy/Caddyfile");
const WINDOW: Duration = Duration::from_secs(1);

/// Answers with the headers that it was sent, after `ms` milliseconds.
const BACKEND: &str = r#"
import http.server, json, sys, time, urllib.parse

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        time.sleep(float(query.get("ms", ["0"])[0]) / 1000)
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"path": self.path, "headers": [[k.lower(), v] for k, v in self.headers.items()]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("access-token", "made up")
        self.send_header("cache-control", "max-age=60")
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A gateway, baton beside it, and a backend behind.
struct Site {
    gateway: SocketAddr,
    baton: Baton,
    _programs: [Program; 2],
    _folder: tempfile::TempDir,
}

impl Site {
    fn start(shipped: &str, program: impl FnOnce(&Path, &str) -> Program) -> Self {
        let (backend, backend_address) = Program::python(BACKEND);
        let baton = Baton::dev(&[
            "--set",
            "forgive_lost_responses=true",
            "--set",
            "server.trusted_proxies=127.0.0.1",
            "--set",
            "jwt.forward_auth_audience=things",
            "--set",
            &format!("batch_request_buffer_throttle={}", WINDOW.as_secs()),
        ]);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let text = [
            ("127.0.0.1:3000", baton.address.to_string()),
            ("127.0.0.1:8000", backend_address.to_string()),
            ("8080", port.to_string()),
        ]
        .into_iter()
        .fold(shipped.to_owned(), |text, (shipped, here)| {
            assert!(text.contains(shipped), "{shipped}");
            text.replace(shipped, &here)
        });
        let gateway = program(folder.path(), &text);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the gateway listens", || TcpStream::connect(address).ok());
        Self { gateway: address, baton, _programs: [gateway, backend], _folder: folder }
    }

    fn nginx() -> Self {
        Self::start(NGINX, |folder, text| {
            let shown = folder.display();
            let around = format!(
                "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error.log;
                 events {{ worker_connections 512; }}
                 http {{
                   access_log off; client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy; fastcgi_temp_path {shown}/f;
                   uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s; include {shown}/baton.conf;
                 }}"
            );
            std::fs::write(folder.join("baton.conf"), text).unwrap();
            std::fs::write(folder.join("nginx.conf"), around).unwrap();
            let mut nginx = Command::new("nginx");
            nginx.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
            nginx.arg("-e").arg(folder.join("error.log"));
            Program::start(&mut nginx, "nginx")
        })
    }

    fn caddy() -> Self {
        Self::start(CADDY, |folder, text| {
            std::fs::write(folder.join("Caddyfile"), text).unwrap();
            let mut caddy = Command::new("caddy");
            caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
            caddy.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            Program::start(&mut caddy, "caddy")
        })
    }

    fn call(&self, method: &str, path: &str) -> Call {
        Call::new(method, format!("http://{}{path}", self.gateway))
    }

    fn get(&self, path: &str, held: &Held) -> Answer {
        self.call("GET", path).held(held).send()
    }
}

fn generation(token: &str) -> u32 {
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    u32::from_be_bytes(bytes[1..5].try_into().unwrap())
}

/// What a client does: it never puts an older token over a newer one.
fn adopt(held: &mut Held, answer: &Answer) -> bool {
    let newer = answer.held().filter(|new| generation(&new.token) > generation(&held.token));
    newer.map(|new| *held = new).is_some()
}

fn assert_told(answer: &Answer, held: &Held) {
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.json();
    let sent = |name: &str| -> Vec<Value> {
        let headers = seen["headers"].as_array().unwrap();
        headers.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
    };
    assert_eq!(sent("x-auth-uid"), ["ann@example.com"], "{seen}");
    assert_eq!(
        (sent("x-auth-realm"), sent("x-auth-session")),
        (vec![json!("user")], vec![json!(held.client)]),
        "{seen}"
    );
    assert_eq!(sent("x-auth-user-id").len(), 1, "{seen}");
    let jwt = sent("x-auth-jwt");
    let signed = jwt.first().and_then(Value::as_str).map(|jwt| jwt.split('.').count());
    assert_eq!((jwt.len(), signed), (1, Some(3)), "{seen}");
    for name in ["access-token", "client", "uid", "expiry", "token-type", "authorization", "x_auth_uid"] {
        assert!(sent(name).is_empty(), "{name}: {seen}");
    }
    assert!(!seen.to_string().contains(&held.token), "{seen}");
    assert_ne!(answer.header("access-token"), "made up", "{answer:?}");
    if !answer.header("access-token").is_empty() {
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    }
}

fn journey(site: &Site) {
    site.baton.register("ann@example.com");
    let sign_in =
        site.call("POST", "/auth/sign_in").json(&json!({ "email": "ann@example.com", "password": PASSWORD })).send();
    let mut held = sign_in.held().unwrap_or_else(|| panic!("{sign_in:?}"));

    // Nobody, and somebody who claims to be.
    let anonymous = site.call("GET", "/").send();
    assert_eq!((anonymous.status, anonymous.code()), (401, "not_authenticated".into()), "{anonymous:?}");
    assert!(anonymous.header("www-authenticate").starts_with("Bearer"), "{anonymous:?}");
    let claims = |call: Call| {
        let call = call.header("x-auth-uid", "root").header("x_auth_uid", "root");
        call.header("x-auth-realm", "admin").header("x-auth-jwt", "made up")
    };
    for (name, value) in [("x-forwarded-method", "OPTIONS"), ("x-original-method", "OPTIONS")] {
        let claimed = claims(site.call("GET", "/")).header(name, value).send();
        assert_eq!(claimed.status, 401, "{name}: {claimed:?}");
    }

    // One after the other, over two windows.
    let mut handed_out = 0;
    for number in 0..5 {
        if number == 3 {
            thread::sleep(WINDOW + WINDOW / 5);
        }
        let answer = claims(site.call("GET", &format!("/things/{number}?a=b"))).held(&held).send();
        assert_told(&answer, &held);
        assert_eq!(answer.json()["path"], format!("/things/{number}?a=b"));
        handed_out += usize::from(adopt(&mut held, &answer));
    }
    assert_eq!(handed_out, 2, "one a window");

    // A batch.
    thread::sleep(WINDOW + WINDOW / 5);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| site.get("/batch", &held))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    answers.iter().for_each(|answer| assert_told(answer, &held));
    assert_eq!(answers.iter().filter(|answer| answer.held().is_some()).count(), 1, "one of them has the new token");
    for answer in &answers {
        adopt(&mut held, answer);
    }

    // A slow one beside quick ones, whose token is changed before it is answered.
    thread::sleep(WINDOW + WINDOW / 5);
    let before = generation(&held.token);
    let slow = thread::scope(|scope| {
        let first = held.clone();
        let slow = scope.spawn(move || site.get("/slow?ms=8000", &first));
        let mut quick = 0;
        while !slow.is_finished() {
            let answer = site.get("/quick", &held);
            assert_told(&answer, &held);
            adopt(&mut held, &answer);
            quick += 1;
            thread::sleep(Duration::from_millis(100));
        }
        assert!(quick > 10, "{quick}");
        slow.join().unwrap()
    });
    assert_told(&slow, &held);
    adopt(&mut held, &slow);
    assert!(generation(&held.token) > before + 3, "it went on changing");
    let posted = site.call("POST", "/after").held(&held).body("text/plain", "hello").send();
    assert_told(&posted, &held);
    adopt(&mut held, &posted);

    let out = site.call("DELETE", "/auth/sign_out").held(&held).send();
    assert_eq!(out.status, 200, "{out:?}");
    let ended = site.get("/", &held);
    assert_eq!((ended.status, ended.code()), (401, "session_revoked".into()), "{ended:?}");
}

#[test]
fn nginx_asks_and_hands_on() {
    let site = Site::nginx();
    journey(&site);
    // Without baton nobody is let through, and nobody is told to sign in.
    let held = site.baton.sign_in("ann@example.com");
    site.baton.stop();
    let answer = site.get("/", &held);
    assert_eq!(
        (answer.status, answer.code(), answer.header("retry-after")),
        (503, "unavailable".into(), "2"),
        "{answer:?}"
    );
}

#[test]
fn caddy_asks_and_hands_on() {
    let site = Site::caddy();
    journey(&site);
    let held = site.baton.sign_in("ann@example.com");
    site.baton.stop();
    assert_eq!(site.get("/", &held).status, 502);
}

#[test]
fn forward_auth_says_who_it_is() {
    let baton = Baton::dev(&["--set", "realms.admin.mount=/admin_auth", "--set", "batch_request_buffer_throttle=0"]);
    let mut held = baton.register("ann@example.com");
    let answer = baton.get("/forward-auth").held(&held).send();
    assert_eq!(
        (answer.status, answer.header("x-auth-uid"), answer.header("x-auth-realm")),
        (200, "ann@example.com", "user")
    );
    assert_eq!((answer.header("x-auth-session"), answer.header("cache-control")), (&*held.client, "no-store"));
    assert!(held.adopt(&answer));
    // As Envoy asks: the method as it is, and the path behind.
    let envoy = baton.request("POST", "/forward-auth/things?a=b").held(&held).send();
    assert_eq!(envoy.status, 200, "{envoy:?}");
    assert!(held.adopt(&envoy));

    let refused = |query: &str, held: &Held| {
        let answer = baton.get(&format!("/forward-auth{query}")).held(held).send();
        (answer.status, answer.header("x-auth-code").to_owned())
    };
    assert_eq!(refused("?require=admin", &held), (401, "token_invalid".into()));
    assert_eq!(refused("?require=nobody", &held).0, 400);
    let old = Held { token: answer.held().unwrap().token, ..held.clone() };
    assert_eq!(refused("?require=user", &old), (401, "token_superseded".into()));
    // With blanks, so that the gateway writes them over what its client claims.
    let optional = baton.get("/forward-auth?require=optional").header("x-auth-uid", "root").send();
    assert_eq!(optional.status, 200);
    for name in ["x-auth-uid", "x-auth-user-id", "x-auth-realm", "x-auth-session"] {
        assert!(optional.headers.contains_key(name) && optional.header(name).is_empty(), "{name}: {optional:?}");
    }
}

#[test]
fn only_a_gateway_that_is_sure_of_it_asks_about_a_preflight() {
    let baton = Baton::dev(&[]);
    let status = |method: &str, said: &[(&str, &str)]| {
        let call = baton.request(method, "/forward-auth");
        said.iter().fold(call, |call, (name, value)| call.header(name, value)).send().status
    };
    const F: &str = "x-forwarded-method";
    const O: &str = "x-original-method";
    assert_eq!(status("GET", &[(F, "OPTIONS")]), 200);
    assert_eq!(status("GET", &[(O, "OPTIONS")]), 200);
    assert_eq!(status("OPTIONS", &[]), 200);
    // Not answered as a preflight of its own, without the blanks that a gateway writes over its client's claims.
    let preflight = baton.request("OPTIONS", "/forward-auth/things").header("origin", "http://localhost:5173");
    let preflight = preflight.header("access-control-request-method", "GET").send();
    assert!(preflight.status == 200 && preflight.headers.contains_key("x-auth-uid"), "{preflight:?}");
    assert_eq!(status("GET", &[(F, "OPTIONS"), (O, "GET")]), 401);
    assert_eq!(status("GET", &[(F, "GET"), (O, "OPTIONS")]), 401);
    assert_eq!(status("GET", &[(F, "OPTIONS"), (F, "GET")]), 401);
    assert_eq!(status("POST", &[(F, "OPTIONS")]), 401);
    assert_eq!(status("GET", &[(F, "???")]), 401);
}
