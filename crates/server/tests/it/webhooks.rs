//! Events on their way from the real program to a receiver.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::support::{Baton, command};

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// A post as it came, with its headers in lower case.
struct Post {
    head: Vec<String>,
    body: String,
}

impl Post {
    fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head
            .iter()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("{name}: {:?}", self.head))
    }
}

/// Answers the first request with 503, those after it with 204.
fn receiver() -> (String, mpsc::Receiver<Post>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (seen, posts) = mpsc::channel();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let post = receive(stream.unwrap(), if index == 0 { 503 } else { 204 });
            if seen.send(post).is_err() {
                return;
            }
        }
    });
    (url, posts)
}

fn receive(stream: TcpStream, status: u16) -> Post {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => head.push(match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
                None => line.to_owned(),
            }),
        }
    }
    let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(reader.into_inner(), "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    Post { head, body: String::from_utf8(body).unwrap() }
}

#[test]
fn an_event_is_posted_signed_until_it_is_taken() {
    let (url, posts) = receiver();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let mut command = command(&[
        "dev",
        "--listen=127.0.0.1:0",
        "--data-dir",
        &data,
        "--set",
        &format!("webhooks.urls={url}"),
        "--set=webhooks.events=signed_out,registered",
    ]);
    command.env("BATON_WEBHOOKS__SECRET", format!("whsec_{}", STANDARD.encode(KEY)));
    let baton = Baton::of_command(command, folder.path()).unwrap_or_else(|ended| panic!("{ended:?}"));
    let held = baton.register("ann@example.com");
    assert_eq!(baton.sign_in("ann@example.com").uid, "ann@example.com");

    // It comes again, by the same name.
    let (refused, taken) = (posts.recv().unwrap(), posts.recv().unwrap());
    assert_eq!(refused.header("webhook-id"), taken.header("webhook-id"));
    assert_eq!(refused.body, taken.body);
    for post in [&refused, &taken] {
        assert_eq!(post.head[0], "POST /hook HTTP/1.1");
        let signed = format!("{}.{}.{}", post.header("webhook-id"), post.header("webhook-timestamp"), post.body);
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(signed.as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        assert_eq!(post.header("webhook-signature"), signature);
    }
    let event: Value = serde_json::from_str(&taken.body).unwrap();
    assert_eq!((&event["type"], &event["data"]["uid"]), (&"registered".into(), &"ann@example.com".into()));
    assert_eq!((&event["data"]["realm"], &event["data"]["ip"]), (&"user".into(), &"127.0.0.1".into()));
    assert_eq!(event["data"]["session"], held.client.as_str());

    // What happened in between is not asked for.
    assert_eq!(baton.request("DELETE", "/auth/sign_out").held(&held).send().status, 200);
    let event: Value = serde_json::from_str(&posts.recv().unwrap().body).unwrap();
    assert_eq!(event["type"], "signed_out");
    let secret = STANDARD.encode(KEY);
    assert!(!baton.log().contains(&secret));
}
