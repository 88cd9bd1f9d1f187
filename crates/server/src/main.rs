//! `baton`: see `baton --help`.

use std::process::ExitCode;

/// glibc's keeps the memory of password hashes, 19 MiB each, in every thread that ever computed one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    baton_server::cli::main()
}
