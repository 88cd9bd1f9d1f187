//! Servers that are started to be measured, and end with the measurement.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::Failure;
use crate::http::Target;

/// A child process that serves.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) target: Target,
    /// Its data; removed after it has ended.
    _folder: Option<TempDir>,
}

impl Server {
    /// `baton dev` on a free port with a folder of its own. `program`: other than the one beside this program.
    pub(crate) fn baton(program: Option<&Path>, settings: &[&str]) -> Result<Self, Failure> {
        let program = match program {
            Some(program) => program.to_owned(),
            None => this_program()?.with_file_name("baton"),
        };
        let folder = TempDir::new().map_err(|error| Failure::Io("a temporary folder".into(), error))?;
        let mut command = Command::new(&program);
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path());
        for setting in settings {
            command.args(["--set", setting]);
        }
        // Settings of whoever runs this would be measured too.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BATON_")) {
            command.env_remove(name);
        }
        Self::start(&program, command, Some(folder))
    }

    /// [`crate::floor`] in a process of its own, on a free port.
    pub(crate) fn floor(trivial: bool) -> Result<Self, Failure> {
        let program = this_program()?;
        let mut command = Command::new(&program);
        command.args(["floor", "--listen", "127.0.0.1:0"]).args(trivial.then_some("--trivial"));
        Self::start(&program, command, None)
    }

    fn start(program: &Path, mut command: Command, folder: Option<TempDir>) -> Result<Self, Failure> {
        let failed = |error| Failure::Io(program.display().to_string(), error);
        // Its log is thrown away, as an operator's goes into a pipe: a terminal would be what is measured.
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let url = read.map_err(failed).map(|_| line.trim().strip_prefix("listening on "));
        let target = match url {
            Ok(Some(url)) => Target::parse(url),
            Ok(None) => Err(Failure::Server(format!("{} did not start; run it to see why", program.display()))),
            Err(failure) => Err(failure),
        };
        match target {
            Ok(target) => Ok(Self { child, target, _folder: folder }),
            Err(failure) => {
                end(&mut child);
                Err(failure)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Nothing of what it has stored is wanted, so it need not finish. It may have ended by itself.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::Io("the path of this program".into(), error))
}
