//! The server between a client and a backend of which one does not behave.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use crate::support::{Backend, Baton, eventually, nobody, raw, raw_backend, read_head, read_to_the_end};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn to(address: SocketAddr, settings: &str) -> String {
    format!("targets = ['http://{address}'], require = 'none'{settings}")
}

/// A backend that tells that somebody is there, and, once the connection has ended, everything that came over it.
fn listening() -> (SocketAddr, Receiver<String>) {
    let (tell, told) = mpsc::channel();
    let address = raw_backend(move |stream| {
        let _ = tell.send("somebody is there".into());
        let mut all = read_head(&stream);
        all.push_str(&String::from_utf8_lossy(&read_to_the_end(&stream)));
        let _ = tell.send(all);
    });
    (address, told)
}

#[test]
fn requests_with_two_lengths_or_none_are_refused() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(backend.address, "")], &[]);
    for (what, request) in [
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
        ("a length in hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
        ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks that are not last", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ("an unknown encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("no encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("an empty encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
        ("a quoted encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        (
            "an encoding with a parameter",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        ),
        ("a vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("a folded encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("a name that is folded", "POST / HTTP/1.1\r\n Host: a\r\nContent-Length: 5\r\n\r\nhello"),
        ("an empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello"),
        ("a negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
        ("a huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nhello"),
        ("a folded line", "POST / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n Content-Length: 5\r\n\r\nhello"),
        ("a space before the colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("a line that ends with CR", "POST / HTTP/1.1\r\nHost: a\rContent-Length: 5\r\n\r\nhello"),
        ("a zero byte", "POST / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\nX: y\r\nConnection: close\r\n\r\n"),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n"),
        ("a user in the host", "GET / HTTP/1.1\r\nHost: u@a\r\nConnection: close\r\n\r\n"),
    ] {
        let answer = raw(baton.address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
        assert_eq!(backend.seen(), 0, "{what}");
    }
}

#[test]
fn a_request_with_both_kinds_of_length_is_refused_and_nothing_behind_it_is_read() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    let backend = Backend::start();
    let baton = Baton::before(&[to(backend.address, "")], &[]);
    for fields in [
        // To somebody who believes the length, what is hidden is the body (CL.TE); or it is so to us (TE.CL).
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", hidden.len() + chunks.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", hidden.len() + chunks.len()),
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n".into(),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", chunks.len()),
        "content-length:0\r\nX: y\r\ntRANSFER-eNCODING:\tchunked\r\n".into(),
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: gzip, chunked\r\n".into(),
        "Transfer-Encoding: chunked\r\nContent-Length: what?\r\n".into(),
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n".into(),
    ] {
        for path in ["/", "/auth/sign_in"] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{chunks}{hidden}");
            let answer = raw(baton.address, request.as_bytes());
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("malformed"), "{fields:?}: {answer}");
            assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{fields:?}: {answer}");
        }
    }
    assert_eq!(backend.seen(), 0);

    // Behind others on its connection, and a byte at a time.
    let before = "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let both =
        format!("POST /both HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let answer = raw(baton.address, format!("{before}{both}{hidden}").as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{answer}");
    assert!(answer.contains(r#""uri":"/first""#) && answer.contains("HTTP/1.1 400 "), "{answer}");
    assert_eq!(backend.seen(), 1);
    let mut client = TcpStream::connect(baton.address).unwrap();
    client.set_nodelay(true).unwrap();
    let (head, _) = both.split_once("5\r\nhello").unwrap();
    for byte in head.bytes() {
        client.write_all(&[byte]).unwrap();
    }
    assert!(String::from_utf8_lossy(&read_to_the_end(&client)).starts_with("HTTP/1.1 400 "));
    assert_eq!(backend.seen(), 1);
}

#[test]
fn a_connection_ends_after_a_request_in_chunks() {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let backend = Backend::start();
    let baton = Baton::before(&[to(backend.address, "")], &[]);
    for fields in ["Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity, chunked\r\n"] {
        let before = backend.seen();
        let request = format!("POST /first HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n{hidden}");
        let answer = raw(baton.address, request.as_bytes());
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(answer.contains(r#""uri":"/first""#) && answer.contains(r#""length":0"#), "{answer}");
        assert_eq!(backend.seen(), before + 1);
    }
}

#[test]
fn a_body_that_is_malformed_never_looks_whole_to_the_backend() {
    for chunks in [
        "5\r\nhelloXX",
        "zz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n",
        "fffffffffffffffff\r\nhello",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
    ] {
        let (address, told) = listening();
        let baton = Baton::before(&[to(address, "")], &[]);
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{chunks}");
        let answer = raw(baton.address, request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        told.recv().unwrap();
        let seen = told.recv().unwrap();
        assert!(!seen.ends_with("0\r\n\r\n"), "{chunks:?}: {seen}");
    }
    // And so with one that ends too early, because its client is gone.
    for (length, start) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "5\r\nhel")] {
        let (address, told) = listening();
        let baton = Baton::before(&[to(address, "")], &[]);
        let mut client = TcpStream::connect(baton.address).unwrap();
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n{start}").unwrap();
        told.recv().unwrap();
        drop(client);
        let seen = told.recv().unwrap();
        let body = seen.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(body.len() < 10 && !body.ends_with("0\r\n\r\n"), "{length}: {seen}");
    }
}

#[test]
fn a_client_that_sends_its_body_slowly_is_cut_off() {
    let (address, told) = listening();
    let baton = Baton::before(&[to(address, "")], &["--set", "server.body_read_timeout=100ms"]);
    let answer = raw(baton.address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    told.recv().unwrap();
    assert!(told.recv().unwrap().ends_with("hello"));
}

#[test]
fn a_client_that_sends_its_head_slowly_never_reaches_the_backend() {
    let backend = Backend::start();
    let baton = Baton::before(&[to(backend.address, "")], &["--set", "server.header_read_timeout=100ms"]);
    let answer = raw(baton.address, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(backend.seen(), 0);
    baton.assert_works();
}

#[test]
fn a_client_that_hangs_up_ends_the_request_at_the_backend() {
    let (arrived, wait) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let (arrived, ended) = (Mutex::new(arrived), Mutex::new(ended));
    let address = raw_backend(move |stream| {
        read_head(&stream);
        arrived.lock().unwrap().send(()).unwrap();
        // Nothing is answered; this is over when the proxy hangs up.
        read_to_the_end(&stream);
        ended.lock().unwrap().send(()).unwrap();
    });
    let baton = Baton::before(&[to(address, "")], &[]);
    let mut client = TcpStream::connect(baton.address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait.recv().unwrap();
    drop(client);
    end.recv().unwrap();
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    for (what, answer) in [
        ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
        ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"),
    ] {
        let address = raw_backend(move |mut stream| {
            read_head(&stream);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let baton = Baton::before(&[to(address, "")], &[]);
        let seen = raw(baton.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        // If it breaks off at once, not even the head may have gone out.
        assert!(seen.is_empty() || seen.starts_with("HTTP/1.1 200 "), "{what}: {seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{what}: {seen}");
        assert!(baton.get("/").try_send().is_err(), "{what}: a client that counts notices");
        baton.wait_for_log("broke off in the middle of an answer");
        baton.assert_works();
    }
}

#[test]
fn answers_that_are_none_are_502() {
    for answer in [
        "",
        "HELLO\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ] {
        let address = raw_backend(move |mut stream| {
            read_head(&stream);
            let _ = stream.write_all(answer.as_bytes());
        });
        let baton = Baton::before(&[to(address, "")], &[]);
        let seen = baton.get("/").send();
        assert_eq!((seen.status, seen.code()), (502, "bad_gateway".into()), "{answer:?}: {seen:?}");
        assert!(!seen.body.contains(&address.to_string()), "where the backend is concerns nobody: {seen:?}");
    }
}

#[test]
fn nobody_there_is_502_and_too_late_is_504() {
    let (_kept, gone) = nobody();
    let baton = Baton::before(&[to(gone, "")], &[]);
    let answer = baton.get("/").send();
    assert_eq!((answer.status, answer.code()), (502, "bad_gateway".into()), "{answer:?}");

    let address = raw_backend(|stream| drop(read_to_the_end(&stream)));
    let baton = Baton::before(&[to(address, ", response_timeout = '100ms'")], &[]);
    for call in [baton.get("/"), baton.request("POST", "/").body("text/plain", "hello")] {
        let answer = call.send();
        assert_eq!((answer.status, answer.code()), (504, "gateway_timeout".into()), "{answer:?}");
    }
}

#[test]
fn an_answer_in_pieces_that_stop_coming_is_cut_off() {
    let address = raw_backend(|mut stream| {
        read_head(&stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").unwrap();
        read_to_the_end(&stream);
    });
    let baton = Baton::before(&[to(address, ", idle_timeout = '100ms'")], &[]);
    assert!(raw(baton.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ends_with("hello"));
}

/// Serves one request on each connection, and ends it when the second one has come.
fn forgetful() -> (SocketAddr, Arc<AtomicUsize>) {
    let heads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&heads);
    let address = raw_backend(move |mut stream| {
        read_head(&stream);
        counted.fetch_add(1, Ordering::SeqCst);
        stream.write_all(OK).unwrap();
        if !read_head(&stream).is_empty() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, heads)
}

#[test]
fn only_what_may_be_repeated_is_sent_again() {
    for (method, repeats) in [("GET", true), ("DELETE", true), ("POST", false), ("PATCH", false)] {
        let (address, heads) = forgetful();
        let baton = Baton::before(&[to(address, "")], &[]);
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let answer = || raw(baton.address, request.as_bytes());
        assert!(answer().starts_with("HTTP/1.1 200 "), "{method}");
        let second = answer();
        assert!(second.starts_with(if repeats { "HTTP/1.1 200 " } else { "HTTP/1.1 502 " }), "{method}: {second}");
        assert_eq!(heads.load(Ordering::SeqCst), if repeats { 3 } else { 2 }, "{method}");
    }
    // With a body it is not: nobody has kept that.
    let (address, _) = forgetful();
    let baton = Baton::before(&[to(address, "")], &[]);
    assert_eq!(baton.get("/").send().status, 200);
    assert_eq!(baton.request("PUT", "/").body("text/plain", "x").send().status, 502);
}

#[test]
fn a_request_to_a_backend_that_fails_still_hands_out_the_token() {
    let (_kept, gone) = nobody();
    let rotate = ["--set", "batch_request_buffer_throttle=0"];
    let baton = Baton::before(&[format!("targets = ['http://{gone}']")], &rotate);
    let mut held = baton.register("ann@example.com");
    let answer = baton.get("/").held(&held).send();
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(held.adopt(&answer), "{answer:?}");
    assert_eq!(baton.get("/auth/validate_token").held(&held).send().status, 200);
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    let (_kept, address) = nobody();
    let backend = Backend::start_at(address);
    let baton = Baton::before(&[to(address, "")], &[]);
    assert_eq!(baton.get("/").send().status, 200);
    drop(backend);
    assert_eq!(baton.get("/").send().status, 502);
    let _again = Backend::start_at(address);
    eventually("it is used again", || (baton.get("/").send().status == 200).then_some(()));
    baton.wait_for_log("can be reached again");
}
