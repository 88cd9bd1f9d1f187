//! Against receivers in this process. They check the signature in their own way.

use std::collections::BTreeMap;
use std::io::Write as _;

use baton_core::event::{Event, EventKind};
use baton_core::session::Device;
use baton_core::{AccountId, ClientId, Timestamp};
use baton_store::clock::ManualClock;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// The example of <https://docs.svix.com/receiving/verifying-payloads/how-manual>.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Begins like a time that people can read: 2026-11-22.
const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);
/// Part of the URLs of the receivers. Nobody else may learn it.
const HIDDEN: &str = "hush-hush";

/// A post as a receiver sees it.
struct Post {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Post {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Self {
        let mut bytes = Vec::new();
        let (head, length) = loop {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the sender went away");
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let headers = head.to_ascii_lowercase();
            let length = headers.split_once("\r\ncontent-length: ").unwrap().1;
            break (head, length.lines().next().unwrap().parse::<usize>().unwrap());
        };
        while bytes.len() < head.len() + 4 + length {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the sender went away");
        }
        let (line, headers) = head.split_once("\r\n").unwrap();
        let headers = headers.lines().map(|header| header.split_once(": ").unwrap());
        Self {
            line: line.to_owned(),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: String::from_utf8(bytes[head.len() + 4..].to_vec()).unwrap(),
        }
    }

    /// By the words of the specification.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(&secret["whsec_".len()..]).unwrap();
        let signed = [&self.headers["webhook-id"], &self.headers["webhook-timestamp"], &self.body].map(String::as_str);
        self.headers["webhook-signature"].split(' ').any(|signature| {
            let mac = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(signed.join(".")).verify_slice(&mac).is_ok()
        })
    }
}

/// Where one post is awaited, and what has come there. It is answered with these bytes, or not at all if there are none.
async fn receiver(answer: &str) -> (String, JoinHandle<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks?key={HIDDEN}", listener.local_addr().unwrap());
    let answer = answer.to_owned();
    let task = async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let post = Post::read(&mut stream).await;
        if answer.is_empty() {
            // The sender hangs up first.
            assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        post
    };
    (url, tokio::spawn(task))
}

/// What the sender is given as a certificate authority. So that the tests do not need that the machine has any.
struct Authority {
    file: NamedTempFile,
    server: TlsAcceptor,
}

fn authority(name: &str) -> Authority {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
        .unwrap();
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    Authority { file, server: TlsAcceptor::from(Arc::new(server)) }
}

fn settings(secrets: &[&str], authority: &Authority) -> WebhookSettings {
    WebhookSettings {
        secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
        timeout: Duration::from_secs(10),
        ca_file: Some(authority.file.path().to_owned()),
    }
}

fn webhooks(settings: &WebhookSettings) -> SignedWebhooks {
    SignedWebhooks::new(settings, Arc::new(ManualClock::new(NOW))).unwrap()
}

fn recorded() -> Recorded {
    Recorded {
        id: 42,
        at: Timestamp::from_millis(NOW.as_millis() - 61_007),
        event: Event {
            kind: EventKind::SignedIn,
            realm: "user".into(),
            account: Some(AccountId(1)),
            uid: Some("ann@example.com".into()),
            client: Some(ClientId::from_bytes([7; 16])),
            device: Device { user_agent: Some("Firefox".into()), ip: Some("2001:db8::1".parse().unwrap()) },
        },
    }
}

/// What a sender says of this answer, with a time-out of so many milliseconds.
async fn answered(answer: &str, timeout: u64) -> Result<(), String> {
    let authority = authority("127.0.0.1");
    let settings = WebhookSettings { timeout: Duration::from_millis(timeout), ..settings(&[SECRET], &authority) };
    let (url, post) = receiver(answer).await;
    let result = webhooks(&settings).post(&url, &recorded()).await;
    post.await.unwrap();
    result.map_err(|error| {
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(HIDDEN) && !shown.contains(&SECRET[6..]), "{shown}");
        error.to_string()
    })
}

#[test]
fn signs_as_the_published_example() {
    let key = key(&SECRET.into()).unwrap();
    let signature = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[tokio::test]
async fn an_event_is_posted_and_signed() {
    let other = format!("whsec_{}", STANDARD.encode([9; 64]));
    let (url, post) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
    let webhooks = webhooks(&settings(&[SECRET, &other], &authority("127.0.0.1")));
    webhooks.post(&url, &recorded()).await.unwrap();

    let post = post.await.unwrap();
    assert_eq!(post.line, format!("POST /hooks?key={HIDDEN} HTTP/1.1"));
    assert!(post.headers["host"].starts_with("127.0.0.1:"));
    assert_eq!(post.headers["content-type"], "application/json");
    assert_eq!(post.headers["user-agent"], AGENT);
    assert_eq!(post.headers["webhook-id"], "evt_42");
    assert_eq!(post.headers["webhook-timestamp"], "1795305600");
    assert_eq!(post.headers["webhook-signature"].split(' ').count(), 2);
    assert!(post.is_signed_with(SECRET) && post.is_signed_with(&other));
    assert!(!post.is_signed_with(&format!("whsec_{}", STANDARD.encode([8; 64]))));
    let ip = r#""ip":"2001:db8::1","user_agent":"Firefox""#;
    let session = r#""session":"BwcHBwcHBwcHBwcHBwcHBw""#;
    let data = format!(r#"{{"realm":"user","account_id":1,"uid":"ann@example.com",{session},{ip}}}"#);
    let body = format!(r#"{{"type":"signed_in","timestamp":"2026-11-21T23:58:58.993Z","data":{data}}}"#);
    assert_eq!(post.body, body);
}

#[tokio::test]
async fn another_attempt_has_the_same_id_and_body_and_a_new_time() {
    let clock = Arc::new(ManualClock::new(NOW));
    let webhooks = SignedWebhooks::new(&settings(&[SECRET], &authority("127.0.0.1")), clock.clone()).unwrap();
    let mut posts = Vec::new();
    for _ in 0..2 {
        let (url, post) = receiver("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        webhooks.post(&url, &recorded()).await.unwrap();
        posts.push(post.await.unwrap());
        clock.advance(Duration::from_secs(5));
    }
    assert_eq!(posts[0].headers["webhook-id"], posts[1].headers["webhook-id"]);
    assert_eq!(posts[0].body, posts[1].body);
    assert_eq!(posts[1].headers["webhook-timestamp"], "1795305605");
    assert!(posts.iter().all(|post| post.is_signed_with(SECRET)));
}

#[tokio::test]
async fn what_is_not_known_is_null_and_what_strangers_sent_stays_in_its_string() {
    let (url, post) = receiver("HTTP/1.1 200 OK\r\n\r\n").await;
    let agent = "\u{0}\r\n\t\"},{\\\u{7f}\u{2028}\u{feff}ünï 🦀 </script>";
    let event = Event {
        kind: EventKind::SignInFailed,
        realm: "user".into(),
        account: None,
        uid: None,
        client: None,
        device: Device { user_agent: Some(agent.into()), ip: None },
    };
    let recorded = Recorded { id: i64::MAX, at: Timestamp::from_millis(i64::MAX), event };
    webhooks(&settings(&[SECRET], &authority("127.0.0.1"))).post(&url, &recorded).await.unwrap();

    let post = post.await.unwrap();
    let body: Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(
        body["data"],
        json!({"realm": "user", "account_id": null, "uid": null, "session": null, "ip": null, "user_agent": agent})
    );
    assert!(post.is_signed_with(SECRET));
    assert_eq!(post.headers["webhook-id"], "evt_9223372036854775807");
}

#[tokio::test]
async fn only_2xx_is_an_acknowledgement() {
    for status in [200, 201, 202, 204, 299] {
        answered(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"), 10_000).await.unwrap();
    }
    for status in [300, 304, 400, 401, 404, 410, 429, 500, 502, 503, 599, 999] {
        let answer = format!("HTTP/1.1 {status} {HIDDEN}\r\ncontent-length: 9\r\n\r\n{HIDDEN}");
        let error = answered(&answer, 10_000).await.unwrap_err();
        assert_eq!(error, format!("not taken: 127.0.0.1 answered {status}"));
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("location: http://{}/", elsewhere.local_addr().unwrap());
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\n{location}\r\ncontent-length: 0\r\n\r\n");
        let error = answered(&answer, 10_000).await.unwrap_err();
        assert_eq!(error, format!("not taken: 127.0.0.1 answered {status}"));
    }
    let nobody = std::future::poll_fn(|context| std::task::Poll::Ready(elsewhere.poll_accept(context).is_pending()));
    assert!(nobody.await);
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left() {
    let left = tokio::time::timeout(Duration::from_secs(20), answered("", 100)).await.expect("a time-out of 100 ms");
    assert_eq!(left.unwrap_err(), "not taken: 127.0.0.1 did not answer within 100ms");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_or_speaks_otherwise_is_an_error() {
    for answer in
        ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\nno header", "\u{0}\u{1}\r\n\r\n"]
    {
        let error = answered(answer, 10_000).await.unwrap_err();
        assert!(error.starts_with("not taken: 127.0.0.1 did not answer: "), "{error}");
    }
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    // It may be refused before all of it is out, so what the receiver thinks of it does not matter.
    let (url, _post) = receiver(&endless).await;
    let webhooks = webhooks(&settings(&[SECRET], &authority("127.0.0.1")));
    assert!(webhooks.post(&url, &recorded()).await.is_err());

    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{gone}/?{HIDDEN}");
    let error = webhooks.post(&url, &recorded()).await.unwrap_err().to_string();
    assert!(error.starts_with("not taken: 127.0.0.1 did not answer: "), "{error}");
    assert!(error.contains("refused") && !error.contains(HIDDEN), "{error}");
}

#[tokio::test]
async fn what_follows_the_status_is_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        Post::read(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        // Ends only when the sender closes the connection.
        while stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    });
    webhooks(&settings(&[SECRET], &authority("127.0.0.1"))).post(&url, &recorded()).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_receiver_has_to_prove_who_it_is() {
    let (right, wrong, misnamed) = (authority("127.0.0.1"), authority("127.0.0.1"), authority("hooks.example"));
    for (trusted, shown, expected) in [
        (&right, &right, None),
        (&right, &wrong, Some("invalid peer certificate")),
        (&misnamed, &misnamed, Some("not valid for name")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hooks?{HIDDEN}", listener.local_addr().unwrap());
        let acceptor = shown.server.clone();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.ok()?;
            let post = Post::read(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            Some(post)
        });
        let result = webhooks(&settings(&[SECRET], trusted)).post(&url, &recorded()).await;
        let post = server.await.unwrap();
        match expected {
            None => {
                result.unwrap();
                assert!(post.unwrap().is_signed_with(SECRET));
            }
            Some(expected) => {
                let error = result.unwrap_err().to_string();
                assert!(error.contains(expected) && !error.contains(HIDDEN), "{error}");
                assert!(post.is_none());
            }
        }
    }
}

#[tokio::test]
async fn a_url_that_may_not_be_posted_to_is_not() {
    let webhooks = webhooks(&settings(&[SECRET], &authority("127.0.0.1")));
    let error = webhooks.post(&format!("http://example.com/{HIDDEN}"), &recorded()).await.unwrap_err().to_string();
    assert!(error.contains("the webhook's URL has to begin with https://") && !error.contains(HIDDEN), "{error}");
}

#[test]
fn urls_are_checked() {
    for good in [
        "https://hooks.example.com",
        "https://hooks.example.com:8443/a/b?c=d&e=%20|{}",
        "HTTPS://Hooks.Example.com/",
        "https://bücher.example/ü?ü",
        "https://10.0.0.1/",
        "https://[2001:db8::1]/",
        "http://localhost:3000/hooks",
        "http://LOCALHOST/",
        "http://127.0.0.1:1/",
        "http://127.1.2.3/",
        "http://[::1]:3000/",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for (bad, expected) in [
        ("", "begin with https://"),
        ("hooks.example.com", "begin with https://"),
        ("/hooks", "begin with https://"),
        ("ftp://hooks.example.com", "begin with https://"),
        ("https:hooks.example.com", "begin with https://"),
        ("https://", "not a URL"),
        ("https://:443/", "not a URL"),
        ("https://hooks.example.com:99999/", "not a URL"),
        ("https://user@hooks.example.com/", "user"),
        ("https://user:hush@hooks.example.com/", "user"),
        ("https://:hush@hooks.example.com/", "user"),
        ("https://hooks.example.com/#top", "`#`"),
        (" https://hooks.example.com/", "space"),
        ("https://hooks.example.com/a b", "space"),
        ("https://hooks.example.com/\n", "space"),
        ("https://hooks\t.example.com/", "space"),
        ("https://hooks.example.com\\@localhost/", "backslash"),
        ("http://hooks.example.com/", "only for localhost"),
        ("http://10.0.0.1/", "only for localhost"),
        ("http://0.0.0.0/", "only for localhost"),
        ("http://localhost.example.com/", "only for localhost"),
        ("http://127.0.0.1.example.com/", "only for localhost"),
        ("http://[2001:db8::1]/", "only for localhost"),
    ] {
        let error = check_url(bad).unwrap_err();
        assert!(error.contains(expected), "{bad}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
}

#[test]
fn settings_are_checked() {
    let authority = authority("127.0.0.1");
    let fails = |settings: WebhookSettings| {
        let error = SignedWebhooks::new(&settings, Arc::new(ManualClock::default())).unwrap_err();
        let shown = format!("{error} {error:?} {settings:?}");
        assert!(!shown.contains(&SECRET[6..]), "{shown}");
        error.to_string()
    };
    let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
    for good in [of(24), of(25), of(64)] {
        webhooks(&settings(&[&good], &authority));
    }
    let unprefixed = &SECRET[6..];
    let unpadded = of(25).trim_end_matches('=').to_owned();
    let url_safe = format!("whsec_{}", "-_".repeat(16));
    for bad in ["", "whsec_", unprefixed, &of(23), &of(65), &unpadded, &url_safe, &format!("{SECRET}\n")] {
        assert!(fails(settings(&[SECRET, bad], &authority)).contains("secret 2 has to be `whsec_`"), "{bad}");
    }
    assert!(fails(settings(&[], &authority)).contains("need a secret"));
    for timeout in [Duration::ZERO, Duration::from_secs(121), Duration::MAX] {
        assert!(fails(WebhookSettings { timeout, ..settings(&[SECRET], &authority) }).contains("`timeout`"));
    }

    let ca = |path: PathBuf| WebhookSettings { ca_file: Some(path), ..settings(&[SECRET], &authority) };
    assert!(fails(ca("/nowhere/at/all.pem".into())).starts_with("/nowhere/at/all.pem: "));
    let mut file = NamedTempFile::new().unwrap();
    assert!(fails(ca(file.path().into())).contains("no certificates"));
    file.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(fails(ca(file.path().into())).contains("no certificates"));
}

#[test]
fn debug_hides_the_secrets() {
    let shown = format!("{:?}", webhooks(&settings(&[SECRET], &authority("127.0.0.1"))));
    assert_eq!(shown, "SignedWebhooks { secrets: 1, timeout: 10s, .. }");
}
