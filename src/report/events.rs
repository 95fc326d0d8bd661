//! TensorBoard event files: records of `Event` messages, one new file per start of the run.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use tfrecord::protobuf::event::What;
use tfrecord::protobuf::session_log::SessionStatus;
use tfrecord::protobuf::summary::{Image, Value, value};
use tfrecord::protobuf::{Event, SessionLog, Summary};
use tfrecord::{EventWriter, EventWriterConfig};

use super::{Error, Picture, Scalars};

/// What the first record of every file says.
const FILE_VERSION: &str = "brain.Event:2";

/// How the names of event files begin.
pub const PREFIX: &str = "events.out.tfevents.";

/// Images in RGB, in the numbering of the `Image` message.
const RGB: i32 = 3;

/// Writes one event file; every call is in the file when it returns.
pub struct EventFile {
    path: PathBuf,
    writer: EventWriter<BufWriter<File>>,
}

impl EventFile {
    /// Starts a new file `events.out.tfevents.<seconds>.<host>.<pid>.<n>` in `folder`.
    ///
    /// Its second record says with which step the process begins, so that TensorBoard forgets what an
    /// interrupted one had logged past `resumed_step`. `wall_time` is in seconds since 1970.
    pub fn create(
        folder: &Path,
        resumed_step: Option<u64>,
        wall_time: f64,
    ) -> Result<EventFile, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let (path, file) = new_file(folder, wall_time)?;
        let writer =
            EventWriter::from_writer(BufWriter::new(file), EventWriterConfig { auto_flush: true })
                .map_err(|error| failed(&path, error))?;
        let mut events = EventFile { path, writer };
        events.write(0, wall_time, What::FileVersion(FILE_VERSION.to_owned()))?;
        // TensorBoard forgets steps from that of a session's start on, but takes the first start of a run for
        // no restart: so every file has one. The resumed step itself was logged and stays.
        let first = resumed_step.map_or(0, |step| step + 1);
        let start = SessionLog {
            status: SessionStatus::Start.into(),
            ..SessionLog::default()
        };
        events.write(first, wall_time, What::SessionLog(start))?;
        Ok(events)
    }

    /// Writes all numbers of a step in one record.
    pub fn scalars(&mut self, scalars: &Scalars, wall_time: f64) -> Result<(), Error> {
        let values = scalars
            .values
            .iter()
            .map(|(tag, &number)| summary_value(tag, value::Value::SimpleValue(number as f32)));
        let summary = Summary {
            value: values.collect(),
        };
        self.write(scalars.step, wall_time, What::Summary(summary))
    }

    /// Writes a picture as a PNG image summary.
    pub fn image(
        &mut self,
        tag: &str,
        step: u64,
        picture: &Picture,
        wall_time: f64,
    ) -> Result<(), Error> {
        let image = Image {
            height: picture.height as i32,
            width: picture.width as i32,
            colorspace: RGB,
            encoded_image_string: picture.png(),
        };
        let summary = Summary {
            value: vec![summary_value(tag, value::Value::Image(image))],
        };
        self.write(step, wall_time, What::Summary(summary))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, step: u64, wall_time: f64, what: What) -> Result<(), Error> {
        let event = Event {
            wall_time,
            step: step as i64,
            source_metadata: None,
            what: Some(what),
        };
        self.writer
            .write_event(event)
            .map_err(|error| failed(&self.path, error))
    }
}

fn summary_value(tag: &str, value: value::Value) -> Value {
    Value {
        tag: tag.to_owned(),
        value: Some(value),
        ..Value::default()
    }
}

/// Creates the first file name of this second, host and process that is free.
fn new_file(folder: &Path, wall_time: f64) -> Result<(PathBuf, File), Error> {
    let (seconds, host, pid) = (wall_time as u64, host_name(), std::process::id());
    let mut n = 0;
    loop {
        let path = folder.join(format!("{PREFIX}{seconds}.{host}.{pid}.{n}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(Error::io("create", &path)(error)),
        }
    }
}

/// The machine's name, in characters that are safe in a file name.
pub(crate) fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_default();
    let safe: String = name
        .trim()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if safe.is_empty() {
        "localhost".to_owned()
    } else {
        safe
    }
}

fn failed(path: &Path, error: tfrecord::Error) -> Error {
    let source = match error {
        tfrecord::Error::IoError(source) => source,
        other => std::io::Error::other(other),
    };
    Error::io("write to", path)(source)
}
