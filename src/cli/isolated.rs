//! Running this program in a child process: for plugins that may abort, and with an environment of their own.

use crate::error::Class;
use crate::pjrt::end_at_once;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// The child ended in a way of its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(
        "the compiler ended itself ({status}) instead of refusing: {words}; this is a limit of the plugin, not of the configuration's syntax: try another topology or fewer changes at once"
    )]
    Crashed { status: ExitStatus, words: String },
    #[error("cannot start `{program}` again as a child: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            Error::Crashed { .. } => Class::Failed,
            Error::Start { .. } => Class::Environment,
        }
    }
}

/// How a child ended.
pub(super) struct Ended {
    /// Its exit code.
    pub code: u8,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub words: String,
}

/// Runs this program with this run's own arguments and `more`, and these variables unless the user set them. It ends when this
/// process ends.
///
/// # Errors
/// If it cannot be started, or is ended by a signal.
pub(super) fn run_again(more: &[&str], variables: &[(&str, &str)]) -> Result<Ended, Error> {
    let start = |source| Error::Start {
        program: std::env::args().next().unwrap_or_default(),
        source,
    };
    let mut command = Command::new(std::env::current_exe().map_err(start)?);
    command.args(std::env::args_os().skip(1)).args(more);
    for (name, value) in variables {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    // The child watches its standard input: when this process is gone, it ends (see `end_with_parent`).
    let mut child: Child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let keep_open = child.stdin.take();
    let (output, words) = (all(child.stdout.take()), all(child.stderr.take()));
    let status = child.wait().map_err(start)?;
    drop(keep_open);
    let (output, words) = (
        output.join().unwrap_or_default(),
        words.join().unwrap_or_default(),
    );
    match status.code() {
        // A plugin may also end its process by a plain exit; then there is no message of ours.
        Some(code) if code == 0 || own_error(&words).is_some() => Ok(Ended {
            code: u8::try_from(code).unwrap_or(1),
            output,
            words,
        }),
        _ => Err(Error::Crashed {
            status,
            words: last_words(&words),
        }),
    }
}

/// Reads a pipe to its end, beside what goes on.
fn all(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe
            && let Err(error) = pipe.read_to_end(&mut bytes)
        {
            // What was read before is what there is.
            tracing::debug!("a child's pipe broke: {error}");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// In the child: ends it when the process that started it is gone.
pub(super) fn end_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut nothing);
        end_at_once(Class::Failed.exit_code());
    });
}

/// Where this program's own error begins in what a child wrote, coloured or not.
pub(super) fn own_error(words: &str) -> Option<usize> {
    let mut at = 0;
    for line in words.split_inclusive('\n') {
        if line.trim_start_matches("\x1b[1;31m").starts_with("error") {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// The line in which a plugin said why it ended: its fatal log line, or else its last.
fn last_words(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let fatal = lines().find(|line| {
        line.contains("Check failed")
            || line.starts_with("ERROR")
            || line.starts_with("terminate called")
            || (line.starts_with('F') && line[1..].starts_with(|c: char| c.is_ascii_digit()))
    });
    fatal
        .or(lines().next_back())
        .unwrap_or("it said nothing")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fatal_line_is_found_among_the_noise() {
        let text = "I0101 hello\nF1126 11:00:00.0 7 tpu.cc:3] Check failed: HasCore(chip)\n*** stack\n  @ 0x1\n";
        assert!(last_words(text).contains("HasCore"));
        assert_eq!(own_error("noise\nerror: x\n"), Some(6));
        assert_eq!(own_error("\x1b[1;31merror\x1b[0m: x"), Some(0));
        assert_eq!(own_error("no error\n"), None);
        assert_eq!(last_words("\n one \n two\n\n"), "two");
        assert_eq!(last_words(""), "it said nothing");
    }
}
