//! The machine lets it down: no disk, no lock, no files. Nothing is lost, and it goes on when it can.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Baton, Held, PASSWORD, command, eventually};

const EVERY_REQUEST_ROTATES: [&str; 2] = ["--set", "batch_request_buffer_throttle=0"];

/// `baton dev ARGS` in a shell that first does `limit`.
fn limited(limit: &str, folder: &Path, args: &[&str]) -> Command {
    let dev = command(&["dev", "--listen", "127.0.0.1:0", "--data-dir", folder.to_str().unwrap()]);
    let mut shell = Command::new("sh");
    // `exec`, so that the process to be signalled is the server itself.
    shell.args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")]).arg(dev.get_program()).args(dev.get_args()).args(args);
    shell.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    shell
}

/// What has to hold while nothing can be written, whatever the reason.
fn assert_writes_are_refused(baton: &Baton, held: &Held) {
    let sign_in = baton.sign_in_call("ann@example.com").send();
    assert_eq!((sign_in.status, sign_in.code()), (503, "unavailable".into()), "{sign_in:?}");
    assert!(!sign_in.header("retry-after").is_empty());
    let new = baton.post("/auth", &serde_json::json!({ "email": "bob@example.com", "password": PASSWORD })).send();
    assert_eq!((new.status, new.code()), (503, "unavailable".into()), "{new:?}");
    let sign_out = baton.request("DELETE", "/auth/sign_out").held(held).send();
    assert_eq!(sign_out.status, 503, "a sign-out that cannot be kept is not acknowledged: {sign_out:?}");
    assert_eq!(baton.get("/readyz").send().status, 503);
    assert_eq!(baton.get("/healthz").send().status, 200);
}

/// Everything goes on with the token that the client held when the trouble began.
fn assert_goes_on(baton: &Baton, mut held: Held) {
    for _ in 0..3 {
        let answer = baton.members_only(&held);
        assert_eq!(answer.status, 200, "{answer:?}\n{}", baton.log());
        assert!(held.adopt(&answer), "it rotates again: {answer:?}");
    }
    baton.sign_in("ann@example.com");
    // Nothing came of the registration that was refused.
    baton.register("bob@example.com");
    baton.assert_works();
}

/// A file system of its own with this many bytes, in a namespace that lasts as long as this.
struct SmallDisk {
    holder: Child,
    /// What is mounted there is visible inside only.
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where the machine allows no such thing.
    fn of(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let script = format!("mount -t tmpfs -o size={kib}k tmpfs '{path}' && echo mounted && exec sleep 600");
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let disk = Self { holder, folder };
        (line == "mounted\n").then_some(disk)
    }

    /// `baton dev ARGS` on that disk.
    fn dev(&self, args: &[&str]) -> Baton {
        let folder = self.folder.path().to_str().unwrap();
        let dev = command(&["dev", "--listen", "127.0.0.1:0", "--data-dir", folder]);
        let mut inside = Command::new("nsenter");
        inside
            .args(["--target", &self.holder.id().to_string(), "--user", "--mount", "--preserve-credentials"])
            .arg(dev.get_program())
            .args(dev.get_args())
            .args(args);
        inside.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Baton::of_command(inside, self.folder.path()).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// The file that takes what room there is.
    fn ballast(&self) -> std::path::PathBuf {
        format!("/proc/{}/root{}/ballast", self.holder.id(), self.folder.path().display()).into()
    }

    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_costs_nobody_the_session() {
    let Some(disk) = SmallDisk::of(512) else {
        eprintln!("not shown: this machine lets nobody but its owner mount a small file system");
        return;
    };
    let baton = disk.dev(&EVERY_REQUEST_ROTATES);
    let mut held = baton.register("ann@example.com");
    assert!(held.adopt(&baton.members_only(&held)));
    disk.fill();
    // What the write-ahead log has already got may still be used again; then there is no room any more.
    let mut blanks = 0;
    let mut rotations = 0;
    while blanks < 20 {
        let answer = baton.members_only(&held);
        assert_eq!(answer.status, 200, "signed-in clients get through: {answer:?}\n{}", baton.log());
        if held.adopt(&answer) {
            blanks = 0;
            rotations += 1;
        } else {
            assert!(answer.is_blank(), "{answer:?}");
            blanks += 1;
        }
        assert!(rotations < 1_000, "the disk never fills up");
    }
    assert_writes_are_refused(&baton, &held);
    assert_eq!(baton.members_only(&held).status, 200);

    // It recovers by itself …
    disk.free();
    eventually("ready again", || (baton.get("/readyz").send().status == 200).then_some(()));
    assert!(held.adopt(&baton.members_only(&held)));
    // … and after an end without room.
    disk.fill();
    while held.adopt(&baton.members_only(&held)) {}
    baton.terminate();
    baton.wait();
    disk.free();
    assert_goes_on(&disk.dev(&EVERY_REQUEST_ROTATES), held);
}

#[test]
fn a_disk_that_takes_no_more_costs_nobody_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let baton = Baton::dev_in(folder.path(), &EVERY_REQUEST_ROTATES).unwrap();
    let mut held = baton.register("ann@example.com");
    baton.stop();

    // A reader that does not end, such as a backup, keeps the write-ahead log from being put away, so it only grows.
    let reader = rusqlite::Connection::open(folder.path().join("baton.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();

    // In units of 512 bytes: the log takes a few pages and no more. To SQLite that is an I/O error and not a full disk, so
    // it cannot say what became of a commit, and the client may be given a token that nobody has written down. Such a token
    // has to be written down before it is accepted: 503 until that works, never 401.
    let size = std::fs::metadata(folder.path().join("baton.db")).unwrap().len().div_ceil(512) + 16;
    let limit = format!("trap '' XFSZ; ulimit -f {size}");
    let args = [&EVERY_REQUEST_ROTATES[..], &["--set", "store.busy_timeout=20ms"]].concat();
    let baton = Baton::of_command(limited(&limit, folder.path(), &args), folder.path()).unwrap();
    let mut stuck = 0;
    let mut rotations = 0;
    while stuck < 10 {
        let answer = baton.members_only(&held);
        assert!(matches!(answer.status, 200 | 503), "{answer:?}\n{}", baton.log());
        if held.adopt(&answer) {
            stuck = 0;
            rotations += 1;
        } else {
            stuck += 1;
        }
        assert!(rotations < 1_000, "the limit is never reached");
    }
    assert_writes_are_refused(&baton, &held);
    baton.terminate();
    baton.wait();
    drop(reader);
    assert_goes_on(&Baton::dev_in(folder.path(), &EVERY_REQUEST_ROTATES).unwrap(), held);
}

#[test]
fn a_database_that_another_process_holds_delays_writers_and_nobody_else() {
    let args = [&EVERY_REQUEST_ROTATES[..], &["--set", "store.busy_timeout=50ms"]].concat();
    let baton = Baton::dev(&args);
    let mut held = baton.register("ann@example.com");
    let other = rusqlite::Connection::open(baton.folder().join("baton.db")).unwrap();
    other.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();

    for _ in 0..3 {
        let answer = baton.members_only(&held);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.is_blank(), "{answer:?}");
    }
    let sign_in = baton.sign_in_call("ann@example.com").send();
    assert_eq!((sign_in.status, sign_in.code()), (503, "unavailable".into()), "{sign_in:?}");
    assert_eq!(baton.request("DELETE", "/auth/sign_out").held(&held).send().status, 503);
    let ready = eventually("not ready", || Some(baton.get("/readyz").send()).filter(|answer| answer.status == 503));
    assert!(!ready.body.contains("lock"), "the cause is for the log alone: {ready:?}");
    baton.wait_for_log("not ready");

    other.execute_batch("ROLLBACK").unwrap();
    eventually("ready again", || (baton.get("/readyz").send().status == 200).then_some(()));
    assert!(held.adopt(&baton.members_only(&held)));
    baton.assert_works();
}

#[test]
fn running_out_of_files_does_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let baton = Baton::of_command(limited("ulimit -n 40", folder.path(), &[]), folder.path()).unwrap();
    let held = baton.register("ann@example.com");
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(baton.address).unwrap()).collect();
    baton.wait_for_log("no connection can be accepted");
    drop(crowd);
    assert_eq!(baton.members_only(&held).status, 200);
    baton.assert_works();
}
