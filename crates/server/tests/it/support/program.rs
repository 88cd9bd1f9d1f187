//! Programs that are not ours: gateways, and backends in Python.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A program that ends with this value, or with this process if that is killed: its keeper reads from a pipe that closes then.
pub struct Program(Child);

impl Program {
    /// Starts it; `install` is the Debian package that has it.
    pub fn start(command: &mut Command, install: &str) -> Self {
        const KEEPER: &str = r#""$@" </dev/null & pid=$!; read -r _; kill -9 $pid; wait"#;
        let program = command.get_program().to_owned();
        // Where Debian keeps servers, which is not in everybody's PATH.
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut look = Command::new("sh");
        look.args(["-c", "command -v \"$1\"", "sh"]).arg(&program).env("PATH", &path);
        let found = look.output().expect("there is a shell");
        assert!(found.status.success(), "{program:?} is missing. Install it: apt-get install -y {install}");
        let mut keeper = Command::new("sh");
        keeper
            .args(["-c", KEEPER, "sh"])
            .arg(&program)
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in command.get_envs() {
            keeper.env(name, value.unwrap_or_default());
        }
        keeper.env("PATH", path);
        Self(keeper.spawn().expect("there is a shell"))
    }

    /// A server in Python that prints its port on 127.0.0.1 as the first thing.
    pub fn python(script: &str) -> (Self, SocketAddr) {
        let mut program = Self::start(Command::new("python3").args(["-c", script]), "python3");
        let mut line = String::new();
        BufReader::new(program.0.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        (program, format!("127.0.0.1:{}", line.trim()).parse().expect("a port"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
