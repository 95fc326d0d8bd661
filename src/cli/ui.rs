//! Output: results to standard output, everything else to standard error.

use crate::error::Class;
use crate::report::{LogFile, PRINTED, Screen, disk};
use std::io::Write;
use std::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Standard output does not take a result.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the result to standard output: {source}; {}", disk::remedy(.source))]
pub(super) struct Unwritten {
    #[from]
    pub(super) source: std::io::Error,
}

impl Unwritten {
    /// The user changes where it goes.
    pub(super) fn class(&self) -> Class {
        Class::Environment
    }
}

/// Where words go.
pub(super) struct Ui {
    /// Progress and notes.
    pub screen: Screen,
    /// The log of a run.
    pub log: LogFile,
    /// The start of the process, as nearly as it can tell.
    pub begin: Instant,
    colored: bool,
    verbose: bool,
}

impl Ui {
    /// Sets up output and logging for the process.
    pub(super) fn new(verbose: u8, quiet: bool, colored: bool, begin: Instant) -> Self {
        let screen = Screen::stderr(quiet);
        let log = LogFile::default();
        let level = match (quiet, verbose) {
            (true, _) | (_, 0) => "warn",
            (_, 1) => "simclr=info,warn",
            _ => "simclr=debug,info",
        };
        let filter =
            EnvFilter::try_from_env("SIMCLR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
        let stderr = tracing_subscriber::fmt::layer()
            .with_ansi(colored)
            .with_writer(screen.clone())
            // What is printed in other words already is for the log file.
            .with_filter(filter.and(filter_fn(|meta| meta.target() != PRINTED)));
        let file = log.layer().with_filter(EnvFilter::new("simclr=info,warn"));
        // Only a second call in one process can fail, and that one changes nothing.
        tracing_subscriber::registry()
            .with(stderr)
            .with(file)
            .try_init()
            .ok();
        Ui {
            screen,
            log,
            begin,
            colored,
            verbose: verbose > 0,
        }
    }

    /// Writes a result.
    pub(super) fn result(&self, text: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
        let written = out
            .write_all(text.as_bytes())
            .and_then(|()| out.write_all(end))
            .and_then(|()| out.flush());
        Ok(written.map_err(Unwritten::from)?)
    }

    /// Writes a note beside the results, unless the user wants quiet.
    pub(super) fn note(&self, text: &str) {
        if self.screen.style() != crate::report::progress::Style::Quiet {
            self.screen.write_above(format!("{text}\n").as_bytes()).ok();
        }
    }

    /// Passes on the error of a child process from what it wrote to its standard error; what a plugin wrote before only if words
    /// are wanted.
    pub(super) fn relay(&self, text: &str) {
        let error = super::isolated::own_error(text).unwrap_or(0);
        let begin = if self.verbose { 0 } else { error };
        self.screen.write_above(&text.as_bytes()[begin..]).ok();
    }

    /// Writes an error with its causes, in plain words.
    pub(super) fn error(&self, error: &anyhow::Error) {
        let mut text = format!("{error}\n");
        let mut said = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !said.contains(&cause) {
                text.push_str(&format!("  cause: {cause}\n"));
                said.push_str(&cause);
            }
        }
        tracing::error!(target: PRINTED, "{}", text.trim_end().replace('\n', ";"));
        tracing::debug!("{error:?}");
        let (bold, plain) = if self.colored {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        let text = format!("{bold}error{plain}: {text}");
        self.screen.write_above(text.as_bytes()).ok();
    }
}
