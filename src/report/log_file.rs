//! `log.txt`: everything `tracing` says, in the run folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

use super::Error;

/// The name of the file in a run folder.
pub const FILE: &str = "log.txt";

/// Target of events for the log file alone: they are printed in other words.
pub const PRINTED: &str = "simclr::printed";

/// What is said before the file is open is kept up to this many bytes.
const EARLY: usize = 1 << 16;

/// A log file that is opened after logging has begun: the subscriber is installed before the run folder is known.
///
/// Clones write to the same file. Lines from before [`LogFile::open`] are kept and go to its beginning.
#[derive(Debug, Clone)]
pub struct LogFile(Arc<Mutex<Target>>);

#[derive(Debug)]
enum Target {
    Early(Vec<u8>),
    Open(File),
}

impl Default for LogFile {
    fn default() -> LogFile {
        LogFile(Arc::new(Mutex::new(Target::Early(Vec::new()))))
    }
}

impl LogFile {
    /// Appends to the file at `path` from now on, beginning with what was kept.
    pub fn open(&self, path: &Path) -> Result<(), Error> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Target::Early(lines) = &*target {
            file.write_all(lines).map_err(Error::io("write to", path))?;
        }
        *target = Target::Open(file);
        Ok(())
    }

    /// The layer that fills the file: time, level, module, message, no colours.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(self.clone())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = LogFile;

    fn make_writer(&'a self) -> LogFile {
        self.clone()
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Target::Open(file) => file.write(line),
            Target::Early(lines) => {
                if lines.len() + line.len() <= EARLY {
                    lines.extend_from_slice(line);
                }
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
