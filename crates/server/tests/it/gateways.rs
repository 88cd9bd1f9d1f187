//! Gateways with the configuration that is shipped in `deploy/`, in front of a backend that knows nothing of baton.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{Answer, Baton, Call, Held, Identity, PASSWORD, Program, Tls, eventually};

const NGINX: &str = include_str!("../../../../deploy/nginx/baton.conf");
const CADDY: &str = include_str!("../../../../deploy/caddy/Caddyfile");
const HAPROXY: &str = include_str!("../../../../deploy/haproxy/haproxy.cfg");
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

/// A gateway, baton beside it or behind it, and a backend behind.
struct Site {
    /// Where clients without TLS call it.
    gateway: SocketAddr,
    baton: Baton,
    tls: Option<Tls>,
    _programs: [Program; 2],
    folder: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A shipped file with the addresses and paths of here.
fn adapted(shipped: &str, here: &[(&str, String)]) -> String {
    here.iter().fold(shipped.to_owned(), |text, (shipped, here)| {
        assert!(text.contains(shipped), "{shipped}");
        text.replace(shipped, here)
    })
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
        let port = free_port();
        let folder = tempfile::tempdir().unwrap();
        let here = [
            ("127.0.0.1:3000", baton.address.to_string()),
            ("127.0.0.1:8000", backend_address.to_string()),
            ("8080", port.to_string()),
        ];
        let text = adapted(shipped, &here);
        let gateway = program(folder.path(), &text);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually("the gateway listens", || TcpStream::connect(address).ok());
        Self { gateway: address, baton, tls: None, _programs: [gateway, backend], folder }
    }

    /// Here baton is the proxy, and the gateway ends TLS.
    fn haproxy() -> (Self, SocketAddr, Identity) {
        let (backend, backend_address) = Program::python(BACKEND);
        let baton = Baton::before(
            &[format!("targets = ['http://{backend_address}'], jwt_audience = 'things'")],
            &[
                "--set",
                "server.trusted_proxies=127.0.0.1",
                "--set",
                &format!("batch_request_buffer_throttle={}", WINDOW.as_secs()),
            ],
        );
        let (plain, port) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::of("localhost");
        let certificate = folder.path().join("certificate.pem");
        std::fs::write(&certificate, format!("{}{}", identity.certificate, identity.key)).unwrap();
        let here = [
            ("127.0.0.1:3000", baton.address.to_string()),
            ("/etc/haproxy/certs", certificate.display().to_string()),
            ("8080", plain.to_string()),
            ("8443", port.to_string()),
        ];
        let config = folder.path().join("haproxy.cfg");
        std::fs::write(&config, adapted(HAPROXY, &here)).unwrap();
        let gateway = Program::start(Command::new("haproxy").arg("-q").arg("-f").arg(&config), "haproxy");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let tls = Tls::to(address, "localhost", &identity);
        let gateway_address = tls.address;
        let site = Self { gateway: gateway_address, baton, tls: Some(tls), _programs: [gateway, backend], folder };
        // It looks whether baton is there before it lets anybody through.
        eventually("the gateway lets through", || {
            (site.call("GET", "/healthz").try_send().ok()?.status == 200).then_some(())
        });
        let plain = SocketAddr::from(([127, 0, 0, 1], plain));
        (site, plain, identity)
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
fn haproxy_ends_tls_before_the_proxy() {
    let (site, plain, identity) = Site::haproxy();
    journey(&site);

    // Where a request came from is what HAProxy says and no client.
    let held = site.baton.sign_in("ann@example.com");
    let claimed = site.call("GET", "/").held(&held).header("host", "api.example.com");
    let claimed = claimed.header("x-forwarded-for", "6.6.6.6").header("x-forwarded-host", "evil.test");
    let seen = claimed.header("forwarded", "for=6.6.6.6").header("x-forwarded-proto", "http").send().json();
    let sent = |name: &str| seen["headers"].as_array().unwrap().iter().filter(|pair| pair[0] == name).count();
    let told = |name: &str, value: &str| {
        assert_eq!(sent(name), 1, "{name}: {seen}");
        assert!(seen["headers"].as_array().unwrap().contains(&json!([name, value])), "{name}: {seen}");
    };
    told("x-forwarded-for", "127.0.0.1");
    told("x-forwarded-host", "api.example.com");
    told("x-forwarded-proto", "https");
    told("host", "api.example.com");

    // HTTP/2 by ALPN.
    let certificate = site.folder.path().join("ca.pem");
    identity.write_certificate(&certificate);
    let port = site.tls.as_ref().map(|tls| tls.target.port()).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-i", "--http2", "--cacert"]).arg(&certificate).arg(format!("https://localhost:{port}/healthz"));
    let output = curl.output().expect("curl is missing. Install it: apt-get install -y curl");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("HTTP/2 200"), "{output:?}");

    // Nobody stays without TLS.
    let plain = Call::new("GET", format!("http://{plain}/things?a=b")).header("host", "api.example.com").send();
    assert_eq!((plain.status, plain.header("location")), (308, "https://api.example.com/things?a=b"), "{plain:?}");

    site.baton.stop();
    assert_eq!(site.get("/", &held).status, 503);
}

/// Files for programs that Debian does not have: what they refer to is there, and their options are those of the documentation.
const CHECK: &str = r#"
import json, sys, yaml

traefik, envoy, names = yaml.safe_load(open(sys.argv[1])), yaml.safe_load(open(sys.argv[2])), json.loads(sys.argv[3])

def same(found, expected, what):
    assert set(found) == set(expected), f"{what}: {sorted(found)} and {sorted(expected)}"

# https://doc.traefik.io/traefik/reference/dynamic-configuration/file/
same(traefik, ["http"], "traefik")
http = traefik["http"]
same(http, ["routers", "middlewares", "services"], "http")
for name, router in http["routers"].items():
    assert set(router) <= {"rule", "service", "middlewares", "priority", "entryPoints", "tls"}, name
    assert router["service"] in http["services"], name
    assert set(router.get("middlewares", [])) <= set(http["middlewares"]), name
asks = http["middlewares"]["who-is-it"]["forwardAuth"]
assert set(asks) <= {"address", "trustForwardHeader", "authResponseHeaders", "authRequestHeaders", "addAuthCookiesToResponse"}
assert asks["address"] == "http://127.0.0.1:3000/forward-auth?require=any"
same([name.lower() for name in asks["authResponseHeaders"]], names["identity"], "authResponseHeaders")
dropped = http["middlewares"]["without-credentials"]["headers"]["customRequestHeaders"]
same([name.lower() for name in dropped], names["token"] + ["cookie"], "customRequestHeaders")
assert not any(dropped.values())
assert http["routers"]["all"]["middlewares"] == ["who-is-it", "without-credentials"]
for name, service in http["services"].items():
    assert all(server["url"].startswith("http://") for server in service["loadBalancer"]["servers"]), name

# https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
same(envoy, ["static_resources"], "envoy")
listeners, clusters = envoy["static_resources"]["listeners"], envoy["static_resources"]["clusters"]
clusters = {cluster["name"]: cluster for cluster in clusters}
for name, cluster in clusters.items():
    assert cluster["load_assignment"]["cluster_name"] == name, name
manager = listeners[0]["filter_chains"][0]["filters"][0]["typed_config"]
filters = manager["http_filters"]
assert [filter["name"] for filter in filters] == ["envoy.filters.http.ext_authz", "envoy.filters.http.router"]
assert filters[0]["typed_config"]["@type"].endswith(".ext_authz.v3.ExtAuthz")
service = filters[0]["typed_config"]["http_service"]
assert service["server_uri"]["cluster"] in clusters and service["path_prefix"] == "/forward-auth"
assert not filters[0]["typed_config"].get("failure_mode_allow")
exact = lambda patterns: [pattern["exact"] for pattern in patterns["patterns"]]
assert set(names["credentials"]) <= set(exact(service["authorization_request"]["allowed_headers"]))
answers = service["authorization_response"]
prefix = answers["allowed_upstream_headers"]["patterns"][0]["prefix"]
assert all(name.startswith(prefix) for name in names["identity"])
assert set(names["token"]) <= set(exact(answers["allowed_client_headers_on_success"]))
for route in manager["route_config"]["virtual_hosts"][0]["routes"]:
    assert route["route"]["cluster"] in clusters
    is_own = route["route"]["cluster"] == service["server_uri"]["cluster"]
    assert is_own == ("typed_per_filter_config" in route), route
    if not is_own:
        same(route["request_headers_to_remove"], names["token"] + ["cookie"], "request_headers_to_remove")
"#;

#[test]
fn files_for_traefik_and_envoy_say_what_baton_does() {
    let baton = Baton::dev(&["--set", "jwt.forward_auth_audience=things"]);
    let held = baton.register("ann@example.com");
    let answer = baton.get("/forward-auth").held(&held).send();
    let identity: Vec<&str> =
        answer.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-auth-")).collect();
    assert_eq!(identity.len(), 5, "{answer:?}");
    let token = ["access-token", "token-type", "client", "expiry", "uid", "authorization"];
    assert!(token.iter().all(|name| answer.headers.contains_key(*name)), "{answer:?}");
    let names =
        json!({ "identity": identity, "token": token, "credentials": ["access-token", "client", "uid", "cookie"] });
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let mut check = Command::new("python3");
    check.args(["-c", CHECK]).arg(deploy.join("traefik/dynamic.yml")).arg(deploy.join("envoy/envoy.yaml"));
    let output = check.arg(names.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("No module named 'yaml'"), "PyYAML is missing. Install it: apt-get install -y python3-yaml");
    assert!(output.status.success(), "{said}");
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
