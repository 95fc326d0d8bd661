//! `metrics.jsonl`: one JSON object per line, each step once, in order, whatever happened to the process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Error, Scalars, disk};

/// The name of the file in a run folder.
pub const FILE: &str = "metrics.jsonl";

/// Writes `metrics.jsonl`.
///
/// Numbers that come later for the newest step (an evaluation after the last training step, say) join its line.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// The newest line, and where it starts.
    last: Option<(Scalars, u64)>,
    /// Bytes in the file.
    end: u64,
}

impl Metrics {
    /// Opens the file of a run that stands at `resumed_step`; `None` starts an empty one.
    ///
    /// Lines past that step, which the resumed run will write again, are dropped, and so is a torn last line.
    /// Errors: the disk's; [`Error::Metrics`] for a line that is not ours.
    pub fn open(path: &Path, resumed_step: Option<u64>) -> Result<Metrics, Error> {
        let mut kept = match resumed_step {
            Some(_) => read(path)?,
            None => Vec::new(),
        };
        kept.retain(|row| Some(row.step) <= resumed_step);
        let lines: Vec<String> = kept.iter().map(line).collect();
        let text = lines.concat();
        disk::replace(path, text.as_bytes()).map_err(Error::io("write", path))?;
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        let end = text.len() as u64;
        let last_length = lines.last().map_or(0, String::len) as u64;
        Ok(Metrics {
            path: path.to_owned(),
            file,
            last: kept.pop().map(|row| (row, end - last_length)),
            end,
        })
    }

    /// Appends the numbers of a step, or joins them to the newest line when it is of the same step.
    ///
    /// Errors: the disk's, after which the line may be torn and the run has to stop;
    /// [`Error::StepBack`] for a step before the newest one.
    pub fn write(&mut self, scalars: &Scalars) -> Result<(), Error> {
        let (row, start) = match self.last.take() {
            Some((mut last, start)) if scalars.step <= last.step => {
                if scalars.step < last.step {
                    let (path, found, newest) = (self.path.clone(), scalars.step, last.step);
                    self.last = Some((last, start));
                    return Err(Error::StepBack {
                        path,
                        found,
                        last: newest,
                    });
                }
                last.epoch = scalars.epoch;
                last.values.extend(scalars.values.clone());
                (last, start)
            }
            _ => (scalars.clone(), self.end),
        };
        let line = line(&row);
        // One write of the whole line: a process that dies leaves either all of it or nothing.
        let end = start + line.len() as u64;
        let written = self.file.write_all_at(line.as_bytes(), start);
        let result = written.and_then(|()| {
            if end < self.end {
                self.file.set_len(end)
            } else {
                Ok(())
            }
        });
        self.last = Some((row, start));
        self.end = end;
        result.map_err(Error::io("write to", &self.path))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a metrics file: no file is no rows, a torn last line is left out.
///
/// `null` reads as not-a-number. Errors: the disk's; [`Error::Metrics`] naming a line that is not ours.
pub fn read(path: &Path) -> Result<Vec<Scalars>, Error> {
    let bytes = disk::read_if_there(path).map_err(Error::io("read", path))?;
    rows(path, &bytes.unwrap_or_default())
}

/// The rows in the bytes of a metrics file, as [`read`] gives them.
pub fn rows(path: &Path, bytes: &[u8]) -> Result<Vec<Scalars>, Error> {
    // What follows the last line end was being written when the process died.
    let whole = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |end| end + 1);
    let mut rows: Vec<Scalars> = Vec::new();
    for (index, text) in bytes[..whole].split_inclusive(|&b| b == b'\n').enumerate() {
        let wrong = |found: String| Error::Metrics {
            path: path.to_owned(),
            line: index + 1,
            found,
        };
        let row = parse(text).map_err(wrong)?;
        match rows.last() {
            Some(last) if row.step <= last.step => {
                return Err(wrong(format!("step {} after step {}", row.step, last.step)));
            }
            _ => rows.push(row),
        }
    }
    Ok(rows)
}

fn line(row: &Scalars) -> String {
    // Strings, integers and floats under string keys: nothing in it can fail to serialise.
    serde_json::to_string(row).expect("a flat map of numbers is valid JSON") + "\n"
}

fn parse(text: &[u8]) -> Result<Scalars, String> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| format!("not JSON ({error})"))?;
    let Value::Object(mut object) = value else {
        return Err("not an object".to_owned());
    };
    let step = object.remove("step").and_then(|v| v.as_u64());
    let epoch = object.remove("epoch").and_then(|v| v.as_f64());
    let (Some(step), Some(epoch)) = (step, epoch) else {
        return Err("without `step` or `epoch`".to_owned());
    };
    let mut row = Scalars::new(step, epoch);
    for (tag, value) in object {
        let number = match value {
            Value::Null => f64::NAN,
            other => other
                .as_f64()
                .ok_or_else(|| format!("not a number under `{tag}`"))?,
        };
        row.set(&tag, number);
    }
    Ok(row)
}
