//! The server in front of a backend, with much of everything. The environment makes it more or less: BATON_TEST_TRANSFER_MIB,
//! BATON_TEST_SOCKETS, BATON_TEST_REQUESTS, BATON_TEST_SLOW.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::{Backend, Baton, agent, eventually, nobody, raw_backend, read_head, read_to_the_end};

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// As many open files as this process may have; the server inherits it.
fn allow_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
}

fn to(address: SocketAddr) -> String {
    format!("targets = ['http://{address}'], require = 'none'")
}

/// Most memory that the process has ever held, in KiB.
fn peak(baton: &Baton) -> usize {
    memory(baton, "VmHWM:")
}

/// A line of what the system knows of the process's memory, in KiB.
fn memory(baton: &Baton, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", baton.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_long_upload_and_download_take_no_memory() {
    const GROWTH: usize = 24 * 1024;
    let mib = number("BATON_TEST_TRANSFER_MIB", 1024);
    let bytes = mib * 1024 * 1024;
    let backend = Backend::start();
    let baton = Baton::before(&[to(backend.address)], &[]);
    assert_eq!(baton.get("/").send().status, 200);
    let before = peak(&baton);

    for head in [format!("Content-Length: {bytes}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut client = TcpStream::connect(baton.address).unwrap();
        write!(client, "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{head}\r\n\r\n").unwrap();
        let piece = vec![b'x'; 1024 * 1024];
        let chunked = head.starts_with('T');
        for _ in 0..mib {
            if chunked {
                client.write_all(b"100000\r\n").unwrap();
            }
            client.write_all(&piece).unwrap();
            if chunked {
                client.write_all(b"\r\n").unwrap();
            }
        }
        if chunked {
            client.write_all(b"0\r\n\r\n").unwrap();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(&format!("\"length\":{bytes}")), "{answer}");
    }

    let response = agent().get(baton.url(&format!("/bytes/{bytes}"))).call().unwrap();
    let read = std::io::copy(&mut response.into_body().into_reader(), &mut std::io::sink()).unwrap();
    assert_eq!(read, bytes as u64);

    let grown = peak(&baton).saturating_sub(before);
    eprintln!("{mib} MiB up twice and down once: {grown} KiB more than the {before} KiB before");
    assert!(grown < GROWTH, "{grown} KiB");
}

#[test]
fn many_silent_websockets() {
    allow_files();
    let count = number("BATON_TEST_SOCKETS", 1_000);
    let address = raw_backend(|mut stream| {
        read_head(&stream);
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        let mut part = [0; 64];
        while let Ok(read @ 1..) = stream.read(&mut part) {
            stream.write_all(&part[..read]).unwrap();
        }
    });
    let baton = Baton::before(&[to(address)], &[]);
    // Nobody has signed in yet: what hashing a password took would be found again here.
    let before = memory(&baton, "VmRSS:");
    let mut sockets: Vec<TcpStream> = (0..count)
        .map(|_| {
            let mut client = TcpStream::connect(baton.address).unwrap();
            let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            client.write_all(head.as_bytes()).unwrap();
            assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
            client
        })
        .collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        let text = format!("{number:08}");
        socket.write_all(text.as_bytes()).unwrap();
        let mut back = [0; 8];
        socket.read_exact(&mut back).unwrap();
        assert_eq!(&back, text.as_bytes());
    }
    let grown = memory(&baton, "VmRSS:") - before;
    // Others are served beside them.
    baton.assert_works();
    eprintln!("{count} WebSockets: {} KiB each", grown / count);
    assert!(grown / count < 96, "{grown} KiB for {count}");
}

#[test]
fn websockets_take_the_places_of_connections() {
    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    let address = raw_backend(move |mut stream| {
        if read_head(&stream).contains("/socket") {
            stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                .unwrap();
            // The tunnel is over when this side has ended too, and that is after it has said so.
            let _ = stream.read(&mut [0; 64]);
            seen.store(true, Ordering::SeqCst);
        } else {
            let status = if seen.load(Ordering::SeqCst) { "200 OK" } else { "409 Conflict" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let baton = Baton::before(&[to(address)], &["--set", "server.max_connections=1"]);
    let mut socket = TcpStream::connect(baton.address).unwrap();
    socket.write_all(b"GET /socket HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").unwrap();
    assert!(read_head(&socket).starts_with("HTTP/1.1 101 "));
    let mut next = TcpStream::connect(baton.address).unwrap();
    next.write_all(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    drop(socket);
    let mut answer = String::new();
    next.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(ended.load(Ordering::SeqCst));
}

#[test]
fn many_slow_clients_keep_nobody_else_out_and_are_cut_off() {
    allow_files();
    let count = number("BATON_TEST_SLOW", 500);
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (came, went) = (Arc::clone(&begun), Arc::clone(&ended));
    let address = raw_backend(move |mut stream| {
        if read_head(&stream).contains(" /slow ") {
            came.fetch_add(1, Ordering::SeqCst);
            read_to_the_end(&stream);
            went.fetch_add(1, Ordering::SeqCst);
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let limits = ["--set", "server.header_read_timeout=2s", "--set", "server.body_read_timeout=2s"];
    let baton = Baton::before(&[to(address)], &limits);
    let before = memory(&baton, "VmRSS:");
    let parts = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhel",
        "POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "POST /auth/sign_in HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ];
    let slow: Vec<TcpStream> = (0..count)
        .map(|number| {
            let mut client = TcpStream::connect(baton.address).unwrap();
            client.write_all(parts[number % parts.len()].as_bytes()).unwrap();
            client
        })
        .collect();
    // Beside them everybody is served.
    assert_eq!(baton.get("/quick").send().status, 200);
    let grown = memory(&baton, "VmRSS:").saturating_sub(before);
    for (number, client) in slow.iter().enumerate() {
        let answer = String::from_utf8_lossy(&read_to_the_end(client)).into_owned();
        let is_told = ["", "HTTP/1.1 408 ", "HTTP/1.1 400 "].iter().any(|start| answer.starts_with(start));
        assert!(is_told && !answer.starts_with("HTTP/1.1 200 "), "{:?}: {answer}", parts[number % parts.len()]);
    }
    // And so is the backend rid of them.
    eventually("the backend is rid of them", || {
        (begun.load(Ordering::SeqCst) == ended.load(Ordering::SeqCst)).then_some(())
    });
    assert!(begun.load(Ordering::SeqCst) > 0);
    eprintln!("{count} slow clients: {} KiB each", grown / count);
    assert!(grown / count < 64, "{grown} KiB for {count}");
    baton.assert_works();
}

#[test]
fn slow_clients_that_take_all_places_give_them_back() {
    let backend = Backend::start();
    let limits = ["--set", "server.header_read_timeout=1s", "--set", "server.max_connections=20"];
    let baton = Baton::before(&[to(backend.address)], &limits);
    let slow: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut client = TcpStream::connect(baton.address).unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
            client
        })
        .collect();
    // Behind all of them.
    assert_eq!(baton.get("/").send().status, 200);
    for client in &slow {
        read_to_the_end(client);
    }
    assert_eq!(backend.seen(), 1);
}

#[test]
fn no_request_is_lost_while_the_backend_restarts() {
    const CLIENTS: usize = 8;
    let count = number("BATON_TEST_REQUESTS", 10_000);
    let (_kept, address) = nobody();
    let mut backend = Backend::start_at(address);
    let baton = Baton::before(&[to(address)], &[]);
    let (done, good, told) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let seen = thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (baton, done, good, told) = (&baton, &done, &good, &told);
            scope.spawn(move || {
                let agent = agent();
                for number in (client..count).step_by(CLIENTS) {
                    // Every one gets an answer; what was answered 200 was seen, and what was not is said to be not.
                    let call = baton.request("POST", "/").body("text/plain", number.to_string());
                    let answer = call.try_send_on(&agent).expect("an answer");
                    match (answer.status, &*answer.code()) {
                        (200, _) => good.fetch_add(1, Ordering::SeqCst),
                        (502, "bad_gateway") => told.fetch_add(1, Ordering::SeqCst),
                        _ => panic!("{answer:?}"),
                    };
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let mut seen = 0;
        for part in 1..=3 {
            while done.load(Ordering::SeqCst) < count * part / 4 {
                thread::yield_now();
            }
            seen += std::mem::replace(&mut backend, Backend::start()).stop();
            let failed = told.load(Ordering::SeqCst);
            while told.load(Ordering::SeqCst) == failed && done.load(Ordering::SeqCst) < count * (2 * part + 1) / 8 {
                thread::yield_now();
            }
            backend = Backend::start_at(address);
        }
        while done.load(Ordering::SeqCst) < count {
            thread::yield_now();
        }
        seen + backend.stop()
    });
    let (good, told) = (good.into_inner(), told.into_inner());
    eprintln!("{count} requests over three restarts: {good} answered, {told} told that they failed, {seen} seen");
    assert_eq!(good + told, count);
    assert!(told > 0, "the restarts were noticed");
    assert!((good..=count).contains(&seen), "what was answered was seen, and nothing twice");
}
