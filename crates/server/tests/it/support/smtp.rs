//! A real mail server, of a Debian package, and what it was sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use baton_core::Random as _;
use serde_json::Value;

use super::eventually;

pub const SMTP_USER: &str = "postman";
pub const SMTP_PASSWORD: &str = "pigeon-post-4711";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/smtp_server.py");

/// How the mail server behaves; `smtp_server.py` says what each does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Normal,
    NoStartTls,
    NoAuth,
    Refuse,
    Later,
    Drop,
    Stall,
    Lose,
    Hold,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::NoStartTls => "no_starttls",
            Self::NoAuth => "no_auth",
            Self::Refuse => "refuse",
            Self::Later => "later",
            Self::Drop => "drop",
            Self::Stall => "stall",
            Self::Lose => "lose",
            Self::Hold => "hold",
        }
    }
}

/// A mail server on a port of its own, which it keeps when it is killed and started again. It is killed when this goes.
pub struct Smtp {
    port: u16,
    folder: tempfile::TempDir,
    child: Mutex<Option<Child>>,
}

impl Smtp {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        make_certificate(folder.path());
        // The one that clients trust; what is shown to them may change.
        std::fs::copy(folder.path().join("cert.pem"), folder.path().join("ca.pem")).expect("copied");
        // Below the ports that the system gives to outgoing connections, so that nobody takes it while the server is down.
        let (port, child) = eventually("a free port", || {
            let port = 10_000 + u16::from_ne_bytes(random()) % 20_000;
            write_mode(folder.path(), Mode::Normal);
            launch(folder.path(), port).map(|child| (port, child))
        });
        Self { port, folder, child: Mutex::new(Some(child)) }
    }

    /// Settings of a server that sends its letters there; the password apart.
    pub fn settings(&self) -> String {
        let (port, ca) = (self.port, self.folder.path().join("ca.pem"));
        format!("url = \"smtp://127.0.0.1:{port}\"\nca_file = \"{}\"\nusername = \"{SMTP_USER}\"\n", ca.display())
    }

    pub fn behave(&self, mode: Mode) {
        write_mode(self.folder.path(), mode);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("not poisoned").take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Starts it again, at the same port.
    pub fn restart(&self) {
        let child = eventually("it starts again", || launch(self.folder.path(), self.port));
        assert!(self.child.lock().expect("not poisoned").replace(child).is_none(), "it was running");
    }

    /// Makes it show a certificate that its clients were not told of, or the right one again.
    pub fn forge(&self, forged: bool) {
        let kept = self.folder.path().join("genuine");
        std::fs::create_dir_all(&kept).expect("made");
        for file in ["cert.pem", "key.pem"] {
            let (shown, kept) = (self.folder.path().join(file), kept.join(file));
            let (from, to) = if forged { (shown, kept) } else { (kept, shown) };
            std::fs::copy(from, to).expect("copied");
        }
        if forged {
            make_certificate(self.folder.path());
        }
        self.kill();
        self.restart();
    }

    /// What happened, in order.
    fn events(&self) -> Vec<Value> {
        let events = std::fs::read_to_string(self.folder.path().join("events")).unwrap_or_default();
        // A kill may cut the last line off.
        events.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub fn events_of(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["kind"] == kind).collect()
    }

    /// Waits until something of this kind has happened this often.
    pub fn wait_for(&self, kind: &str, times: usize) {
        eventually(&format!("{times} × {kind} at the mail server"), || {
            (self.events_of(kind).len() >= times).then_some(())
        });
    }

    /// What it was told before the connection was encrypted, of all connections.
    pub fn heard_in_the_clear(&self) -> String {
        self.events_of("clear").iter().filter_map(|event| event["bytes"].as_str()).collect()
    }

    /// All letters that it has taken, in order.
    pub fn letters(&self) -> Vec<Received> {
        self.events_of("letter").into_iter().map(Received).collect()
    }

    /// Waits for this many letters, and makes sure that there are no more.
    pub fn wait_for_letters(&self, count: usize) -> Vec<Received> {
        let letters = eventually(&format!("{count} letters"), || Some(self.letters()).filter(|it| it.len() >= count));
        assert_eq!(letters.len(), count, "{:?}", letters.iter().map(Received::subject).collect::<Vec<_>>());
        letters
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        if let Ok(Some(child)) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A letter as the mail server got it, taken apart by Python's `email`.
#[derive(Debug, Clone)]
pub struct Received(Value);

impl Received {
    /// The one recipient.
    pub fn to(&self) -> &str {
        assert_eq!(self.0["to"].as_array().map(Vec::len), Some(1), "{:?}", self.0);
        self.0["to"][0].as_str().expect("an address")
    }

    pub fn subject(&self) -> &str {
        self.0["subject"].as_str().expect("a subject")
    }

    pub fn text(&self) -> &str {
        self.0["text"].as_str().expect("a text")
    }

    fn html(&self) -> &str {
        self.0["html"].as_str().expect("a text")
    }

    pub fn header(&self, name: &str) -> &str {
        self.0["headers"][name].as_str().unwrap_or_default()
    }

    /// That it came as it has to: encrypted, from whom it says, as text and as HTML with the same link.
    pub fn assert_in_order(&self) {
        assert_eq!((self.0["encrypted"].as_bool(), &self.0["user"]), (Some(true), &SMTP_USER.into()), "{:?}", self.0);
        assert_eq!(self.0["types"], serde_json::json!(["multipart/alternative", "text/plain", "text/html"]));
        assert_eq!((self.header("To"), &self.0["sender"]), (self.to(), &"no-reply@example.com".into()));
        assert_eq!(self.header("From"), "Example <no-reply@example.com>");
        assert!(!self.header("Message-ID").is_empty() && !self.header("Date").is_empty(), "{:?}", self.0);
        let linked = |text: &str| text.contains(PUBLIC_URL);
        assert_eq!(linked(self.text()), linked(self.html()), "{}\n{}", self.text(), self.html());
        if linked(self.text()) {
            self.link();
        }
    }

    /// Its link, without the part that stands for the server. Fails if there is none.
    pub fn link(&self) -> String {
        let in_text: Vec<&str> = self.text().split_whitespace().filter(|word| word.starts_with(PUBLIC_URL)).collect();
        let [link] = in_text[..] else { panic!("one link: {in_text:?}\n{}", self.text()) };
        let in_html: Vec<String> = self.html().split("href=\"").skip(1).map(attribute).collect();
        assert!(!in_html.is_empty() && in_html.iter().all(|it| it == link), "{link:?} {in_html:?}");
        link[PUBLIC_URL.len()..].to_owned()
    }

    /// The secret of its link.
    pub fn token(&self) -> String {
        let mut parameters = parameters(&self.link());
        parameters.retain(|name, _| name.ends_with("_token"));
        let mut tokens = parameters.into_values();
        let token = tokens.next().expect("a token");
        assert!(tokens.next().is_none() && token.len() > 40, "{}", self.link());
        token
    }
}

/// What links begin with. Nothing answers there: whoever follows one asks the server under test.
pub const PUBLIC_URL: &str = "https://auth.example.com";

/// The parameters of a URL. None is there twice.
pub fn parameters(url: &str) -> BTreeMap<String, String> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut parameters = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
        assert!(parameters.insert(name, value).is_none(), "{url}");
    }
    parameters
}

/// The value that an attribute begins with, as a browser reads it.
fn attribute(rest: &str) -> String {
    let value = rest.split('"').next().unwrap_or_default();
    value.replace("&#x2f;", "/").replace("&#x3d;", "=").replace("&#x27;", "'").replace("&amp;", "&")
}

fn write_mode(folder: &Path, mode: Mode) {
    // In one step, so that nobody reads half a word.
    let (new, path) = (folder.join("mode.new"), folder.join("mode"));
    std::fs::write(&new, mode.word()).expect("written");
    std::fs::rename(new, path).expect("renamed");
}

/// `None` if the port is taken.
fn launch(folder: &Path, port: u16) -> Option<Child> {
    let mut server = Command::new(python());
    server.arg(SCRIPT).arg(folder).arg(port.to_string()).args([SMTP_USER, SMTP_PASSWORD]);
    let log = std::fs::File::options().append(true).create(true).open(folder.join("stderr")).expect("a file");
    let mut child = server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("python3 runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    if line == "listening\n" {
        return Some(child);
    }
    let status = child.wait().expect("a child can be waited for");
    let said = std::fs::read_to_string(folder.join("stderr")).unwrap_or_default();
    assert!(said.contains("address already in use"), "the mail server does not start: {status:?}: {said}");
    None
}

/// The interpreter that has the package: the system's, whichever other one comes first in the PATH.
fn python() -> &'static str {
    let has = |python: &&str| {
        let import = Command::new(python).args(["-c", "import aiosmtpd.smtp"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    };
    ["/usr/bin/python3", "python3"].into_iter().find(has).unwrap_or_else(|| {
        panic!("these tests need a mail server: install the Debian package python3-aiosmtpd (scripts/test does)")
    })
}

/// A certificate that signs itself, for the address that the server listens on.
fn make_certificate(folder: &Path) {
    const SETTINGS: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n[name]\nCN = mail\n\
                            [extensions]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = critical, CA:FALSE\n";
    std::fs::write(folder.join("openssl.cnf"), SETTINGS).expect("written");
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '));
    openssl.args("-config openssl.cnf -keyout key.pem -out cert.pem".split(' '));
    let made =
        openssl.output().expect("these tests need openssl: install the Debian package openssl (scripts/test does)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    baton_engine::OsRandom.fill(&mut bytes).expect("random bytes");
    bytes
}
