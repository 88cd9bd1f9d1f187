//! JWTs for backends, and a backend that verifies them with nothing of ours.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{Answer, Backend, Baton, PASSWORD, PUBLIC_URL, Program, Site, command, run};

/// Verifies what it is sent with the keys that are published at the host that it was called by: Python's standard library, and
/// openssl for the signature. `now` in the query is its clock. Answers 200 with the claims, or 401 with what is wrong.
const BACKEND: &str = r#"
import base64, http.server, json, pathlib, subprocess, tempfile, time, urllib.parse, urllib.request

def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

def is_signed(x, message, signature):
    with tempfile.TemporaryDirectory() as folder:
        key, text, proof = (pathlib.Path(folder, name) for name in ("key", "text", "proof"))
        key.write_bytes(bytes.fromhex("302a300506032b6570032100") + decoded(x))
        text.write_bytes(message)
        proof.write_bytes(signature)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", key, "-rawin", "-in", text, "-sigfile", proof]
        return subprocess.run(command, capture_output=True).returncode == 0

def verified(jwt, keys, now):
    head, body, signature = jwt.split(".")
    header, claims = json.loads(decoded(head)), json.loads(decoded(body))
    if header["alg"] != "EdDSA" or header["typ"] != "JWT":
        raise ValueError("algorithm")
    key = next((key for key in keys if key["kid"] == header["kid"]), None)
    if key is None or (key["kty"], key["crv"], key["use"]) != ("OKP", "Ed25519", "sig"):
        raise ValueError("unknown key")
    if not is_signed(key["x"], f"{head}.{body}".encode(), decoded(signature)):
        raise ValueError("signature")
    if claims["aud"] != "things":
        raise ValueError("audience")
    if not claims["iat"] <= now < claims["exp"]:
        raise ValueError("expired")
    return claims | {"kid": header["kid"]}

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        try:
            sent = self.headers.get_all("x-auth-jwt") or [text.removeprefix("Bearer ") for text in self.headers.get_all("authorization", [])]
            if len(sent) != 1:
                raise ValueError(f"{len(sent)} of them")
            with urllib.request.urlopen(f"http://{self.headers['host']}/.well-known/jwks.json") as answer:
                keys = json.load(answer)["keys"]
            status, answer = 200, verified(sent[0], keys, float(query.get("now", [time.time()])[0])) | {"jwt": sent[0]}
        except ValueError as error:
            status, answer = 401, {"wrong": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

const ISSUER: &str = "jwt.issuer=https://api.example.com";

fn wrong(answer: &Answer) -> String {
    assert_eq!(answer.status, 401, "{answer:?}");
    answer.json()["wrong"].as_str().unwrap_or_default().to_owned()
}

/// The claims in a JWT, as they are said.
fn claims(jwt: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn a_backend_verifies_who_it_is_on_its_own() {
    let (_backend, address) = Program::python(BACKEND);
    let to = |path: &str, settings: &str| format!("path = '{path}', targets = ['http://{address}'], {settings}");
    let baton = Baton::before(
        &[
            to("/", "jwt_audience = 'things'"),
            to("/bearer", "jwt_audience = 'things', jwt_header = 'authorization'"),
            to("/others", "jwt_audience = 'other things'"),
            to("/maybe", "jwt_audience = 'things', require = 'optional'"),
            to("/maybe/bearer", "jwt_audience = 'things', jwt_header = 'authorization', require = 'optional'"),
            to("/none", "require = 'none'"),
            to("/straight", "require = 'none', pass_token = true"),
        ],
        &["--set", ISSUER, "--set", "log.level=trace"],
    );
    let held = baton.register("ann@example.com");
    let id = baton.get("/auth/validate_token").held(&held).send().json()["data"]["id"].clone();
    let get = |path: &str| baton.get(path).held(&held);
    let answer = get("/things").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    for (claim, value) in [
        ("iss", json!("https://api.example.com")),
        ("sub", json!(id.to_string())),
        ("aud", json!("things")),
        ("uid", json!("ann@example.com")),
        ("realm", json!("user")),
        ("sid", json!(held.client)),
    ] {
        assert_eq!(told[claim], value, "{told}");
    }
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 60);
    assert_eq!(get("/bearer").header("authorization", "Basic YTpi").send().json()["sub"], told["sub"]);

    // What the backend would say if somebody made one up, or had one for somebody else.
    let jwt = told["jwt"].as_str().unwrap();
    let straight = |jwt: &str| wrong(&baton.get("/straight").header("authorization", format!("Bearer {jwt}")).send());
    let (head, rest) = jwt.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let forged = URL_SAFE_NO_PAD.encode(claims(jwt).to_string().replace("ann@", "root@"));
    assert_eq!(straight(&format!("{head}.{forged}.{signature}")), "signature");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    assert_eq!(straight(&format!("{head}.{body}.{first}{}", &signature[1..])), "signature");
    assert_eq!(baton.get("/straight").header("authorization", format!("Bearer {jwt}")).send().status, 200);
    assert_eq!(wrong(&get("/others").send()), "audience");

    // Nobody is said to be nobody, whatever they claim.
    for (path, name) in [("/maybe", "x-auth-jwt"), ("/maybe", "x_auth_jwt"), ("/none", "x-auth-jwt")] {
        assert_eq!(wrong(&baton.get(path).header(name, jwt).send()), "0 of them", "{path}");
    }
    let bearer = format!("Bearer {jwt}");
    assert_eq!(wrong(&baton.get("/maybe/bearer").header("authorization", &bearer).send()), "0 of them");
    for (path, name, value) in [("/things", "x-auth-jwt", "x.y.z"), ("/maybe/bearer", "authorization", "Bearer x.y.z")]
    {
        assert_eq!(get(path).header(name, value).send().status, 200, "{path}");
    }
    assert!(!baton.log().contains(signature));
}

#[test]
fn what_is_published_is_for_everybody_and_for_a_while() {
    let backend = Backend::start();
    let baton = Baton::before(&[format!("targets = ['{}'], jwt_audience = 'things'", backend.url())], &[]);
    let answer = baton.get("/.well-known/jwks.json").send();
    assert_eq!((answer.status, answer.header("cache-control")), (200, "public, max-age=300"), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    let keys = answer.json()["keys"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(1), "{keys}");
    let names: Vec<&String> = keys[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"], "no private half");
    assert_eq!(backend.seen(), 0);
    assert_eq!(baton.request("POST", "/.well-known/jwks.json").send().status, 405);
}

#[test]
fn an_older_key_goes_on_verifying() {
    let (_backend, address) = Program::python(BACKEND);
    let tables = [
        format!("targets = ['http://{address}'], jwt_audience = 'things'"),
        format!("path = '/straight', targets = ['http://{address}'], require = 'none'"),
    ];
    let baton = Baton::before(&tables, &["--set", "jwt.lifetime=1h"]);
    let held = baton.register("ann@example.com");
    let first = baton.get("/").held(&held).send().json();
    let file = baton.folder().join("jwt.key").display().to_string();
    let added = run(&["keys", "new", "--jwt", "--file", &file]);
    assert!(added.status.success() && added.stdout.contains("which now holds 2"), "{added:?}");
    baton.kill_and_restart();

    let kids = || -> Vec<Value> {
        let set = baton.get("/.well-known/jwks.json").send().json();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
    };
    let second = baton.get("/").held(&held).send().json();
    assert_eq!(kids(), [second["kid"].clone(), first["kid"].clone()]);
    assert_ne!(first["kid"], second["kid"]);
    let straight = |jwt: &Value| {
        baton.get("/straight").header("authorization", format!("Bearer {}", jwt["jwt"].as_str().unwrap())).send()
    };
    assert_eq!((straight(&first).status, straight(&second).status), (200, 200));

    // Without the older one.
    let text = std::fs::read_to_string(&file).unwrap();
    let (older, _) = text.match_indices("-----BEGIN").nth(1).unwrap();
    std::fs::write(&file, &text[..older]).unwrap();
    baton.kill_and_restart();
    assert_eq!(kids(), [second["kid"].clone()]);
    assert_eq!((wrong(&straight(&first)), straight(&second).status), ("unknown key".into(), 200));
}

#[test]
fn they_expire_and_are_made_anew_before_that() {
    let (_verifying, address) = Program::python(BACKEND);
    let backend = Backend::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("jwt.keys");
    baton_server::keys::jwt::ensure(&key).unwrap();
    let straight = format!("{{ path = '/straight', targets = ['http://{address}'], require = 'none' }}");
    let upstreams = format!(
        "change_headers_on_each_request = false\nupstream = [{{ targets = ['{}'], jwt_audience = 'things' }}, {straight}]",
        backend.url()
    );
    let site = Site::new(&format!("[jwt]\nkeys_file = {key:?}\nlifetime = '60s'"), &upstreams);
    let here = site.start(Duration::ZERO);
    let account = json!({ "email": "ann@example.com", "password": PASSWORD });
    let held = here.http.post("/auth", &account).send().held().unwrap();

    let sent = || header(&here.http.get("/").held(&held).send(), "x-auth-jwt");
    let times = |jwt: &str| {
        let claims = claims(jwt);
        assert_eq!(claims["iss"], PUBLIC_URL);
        (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap())
    };
    let verified = |jwt: &str, now: i64| {
        let call = here.http.get(&format!("/straight?now={now}"));
        call.header("authorization", format!("Bearer {jwt}")).send()
    };
    let first = sent();
    let (start, end) = times(&first);
    assert_eq!(end - start, 60);
    assert_eq!((verified(&first, start).status, verified(&first, end - 1).status), (200, 200));
    assert_eq!(
        (wrong(&verified(&first, end)), wrong(&verified(&first, start - 1))),
        ("expired".into(), "expired".into())
    );

    let mut all = vec![first];
    for second in 1..=120 {
        here.advance(Duration::from_secs(1));
        let jwt = sent();
        let left = times(&jwt).1 - (start + second);
        assert!((30..=60).contains(&left), "after {second} s it is good for another {left} s");
        if all.last() != Some(&jwt) {
            all.push(jwt);
        }
    }
    assert_eq!(all.len(), 5, "one for each half of a minute");
    assert_eq!(verified(&all[4], start + 120).status, 200);
    here.stop();
}

/// What the backend was sent under a name; the empty text if nothing.
fn header(answer: &Answer, name: &str) -> String {
    let seen = answer.json();
    let headers = seen["headers"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    let value = headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned());
    value.unwrap_or_default()
}

#[test]
fn forward_auth_answers_with_one_for_the_backend() {
    let baton = Baton::dev(&["--set", "jwt.forward_auth_audience=things"]);
    let held = baton.register("ann@example.com");
    let answer = baton.get("/forward-auth").held(&held).header("x-auth-jwt", "made up").send();
    let told = claims(answer.header("x-auth-jwt"));
    assert_eq!((&told["aud"], &told["uid"]), (&json!("things"), &json!("ann@example.com")), "{answer:?}");
    assert_eq!(told["iss"], baton.url(""));
    let kid = baton.get("/.well-known/jwks.json").send().json()["keys"][0]["kid"].clone();
    let head = URL_SAFE_NO_PAD.decode(answer.header("x-auth-jwt").split('.').next().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&head).unwrap()["kid"], kid);
    let nobody = baton.get("/forward-auth?require=optional").header("x-auth-jwt", "made up").send();
    assert!(nobody.status == 200 && nobody.headers.contains_key("x-auth-jwt"), "{nobody:?}");
    assert_eq!(nobody.header("x-auth-jwt"), "");
}

#[test]
fn without_an_audience_nothing_is_sent_and_nothing_published() {
    let backend = Backend::start();
    let baton = Baton::before(&[format!("path = '/things', targets = ['{}']", backend.url())], &[]);
    let held = baton.register("ann@example.com");
    let answer = baton.get("/things").held(&held).header("x-auth-jwt", "made up").send();
    assert_eq!((answer.status, &*header(&answer, "x-auth-jwt")), (200, ""));
    assert_eq!(header(&answer, "x-auth-uid"), "ann@example.com");
    assert_eq!(baton.get("/forward-auth").held(&held).send().header("x-auth-jwt"), "");
    assert_eq!(baton.get("/.well-known/jwks.json").send().status, 404);
    assert!(!baton.folder().join("jwt.key").exists());
}

/// A folder with what `baton serve` needs, and the arguments that say so.
fn ready() -> (tempfile::TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    baton_server::keys::ensure(path("baton.keys").as_ref()).unwrap();
    let set = [
        format!("keys.file={}", path("baton.keys")),
        format!("store.url=sqlite:{}", path("baton.db")),
        format!("jwt.keys_file={}", path("jwt.keys")),
        "jwt.forward_auth_audience=things".into(),
    ];
    let set = set.into_iter().flat_map(|set| ["--set".to_owned(), set]).collect();
    (folder, set)
}

#[test]
fn a_server_that_could_not_sign_does_not_start() {
    let (folder, set) = ready();
    let check = |more: &[&str]| {
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        run(&[&["config", "check"][..], &set, more].concat())
    };
    let nothing = check(&[]).stderr;
    assert!(nothing.contains("jwt.keys_file = ") && nothing.contains("baton keys new --jwt --file"), "{nothing}");
    assert!(nothing.contains("jwt.issuer = \"\" (default): is needed where JWTs are sent"), "{nothing}");
    let file = folder.path().join("jwt.keys");
    let issuer = ["--set", ISSUER];

    // A key of somebody else's making, and what is none.
    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&file).status();
    assert!(made.expect("openssl is missing. Install it: apt-get install -y openssl").success());
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(&file, open(0o644)).unwrap();
    assert!(check(&issuer).stderr.contains("can be read or changed by others (mode 0644)"), "{:?}", check(&issuer));
    std::fs::set_permissions(&file, open(0o600)).unwrap();
    assert_eq!(&*check(&issuer).stdout, "ok\n", "{:?}", check(&issuer));
    let key = std::fs::read_to_string(&file).unwrap();
    for (text, why) in [("nothing", "holds no private key"), (&*format!("{key}{key}"), "key 2 is there twice")] {
        std::fs::write(&file, text).unwrap();
        let said = check(&issuer).stderr;
        assert!(said.contains(why) && said.contains("jwt.keys_file"), "{said}");
    }
    let pasted = check(&["--set", ISSUER, "--set", &format!("jwt.keys_file={key}")]).stderr;
    assert!(pasted.contains("jwt.keys_file (--set): is a key") && !pasted.contains(&key[40..80]), "{pasted}");

    // In the environment, and not in both.
    std::fs::remove_file(&file).unwrap();
    let with_variable = |set: &[String], text: &str| {
        let mut check = command(&["config", "check", "--set", ISSUER]);
        check.args(set).env("BATON_JWT_KEYS", text);
        let output = check.output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let elsewhere = [&set[..4], &set[6..]].concat();
    assert_eq!(with_variable(&elsewhere, &key), "ok\n");
    assert!(with_variable(&set, &key).contains("BATON_JWT_KEYS is set as well"));
    let said = with_variable(&elsewhere, &key.replace("MC4CAQAwBQYDK2Vw", "AAAA"));
    assert!(said.contains("BATON_JWT_KEYS: ") && !said.contains(key.lines().nth(1).unwrap()), "{said}");
}

#[test]
fn new_keys_are_printed_or_put_in_front() {
    let printed = run(&["keys", "new", "--jwt"]);
    assert!(
        printed.status.success() && printed.stdout.starts_with("-----BEGIN PRIVATE KEY-----\n"),
        "{:?}",
        printed.stderr
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt.keys");
    // What another program makes of it.
    std::fs::write(&file, &printed.stdout).unwrap();
    let read = Command::new("openssl").args(["pkey", "-noout", "-text", "-in"]).arg(&file).output();
    let read = read.expect("openssl is missing. Install it: apt-get install -y openssl");
    assert!(String::from_utf8_lossy(&read.stdout).starts_with("ED25519 Private-Key:"), "{read:?}");
}
