//! The `simclr` program: everything it can do is in the library; this file only starts it.

fn main() -> std::process::ExitCode {
    simclr::cli::main()
}
