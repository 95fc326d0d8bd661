//! Tables of features on disk, for other programs: NumPy, safetensors, CSV.

use super::disk;
use crate::error::Class;
use safetensors::{Dtype, tensor::TensorView};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Why a table cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot write `{}`: its name must end in {endings}", path.display())]
    Ending {
        path: PathBuf,
        endings: &'static str,
    },
    #[error("cannot write `{}`: {reason}; choose another path", path.display())]
    Taken { path: PathBuf, reason: String },
    #[error("cannot write `{}`: {source}; {}", path.display(), disk::remedy(source))]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::Ending { .. } | Error::Taken { .. } => Class::Usage,
            Error::Io { .. } => Class::Environment,
        }
    }
}

/// A format, by the name's ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Npy,
    Safetensors,
    Csv,
}

impl Format {
    /// The format of a file, whose folder must be there: asked before anything is computed.
    ///
    /// # Errors
    /// An unknown ending, or a folder that is not there.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        disk::writable(path).map_err(io(path))?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => {
                let beside = names_of(path);
                disk::writable(&beside).map_err(io(&beside))?;
                Ok(Format::Npy)
            }
            Some("safetensors") => Ok(Format::Safetensors),
            Some("csv") => Ok(Format::Csv),
            _ => Err(Error::Ending {
                path: path.into(),
                endings: ".npy, .safetensors or .csv",
            }),
        }
    }

    /// Writes rows f32 `[names, width]`, whole or not at all. CSV and safetensors hold the names too; beside a NumPy file they stand
    /// in `PATH.names.txt`, a line each, with `\\` for a backslash, `\n` and `\r` for what would end the line.
    ///
    /// # Errors
    /// If the disk says no.
    pub fn write(
        self,
        path: &Path,
        names: &[String],
        width: usize,
        values: &[f32],
    ) -> Result<(), Error> {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let content = match self {
            Format::Npy => npy([names.len(), width], &bytes),
            Format::Safetensors => tensors(names, [names.len(), width], &bytes),
            Format::Csv => csv(names, width, values),
        };
        let put = |path: &Path, content: &[u8]| {
            disk::replace(path, content).map_err(|source| Error::Io {
                path: path.into(),
                source,
            })
        };
        if self != Format::Npy {
            return put(path, &content);
        }
        let beside = names_of(path);
        let before = std::fs::read(&beside).ok();
        let lines: String = names.iter().map(|name| line(name)).collect();
        put(&beside, lines.as_bytes())?;
        let written = put(path, &content);
        if written.is_err() {
            // The names are again those of the rows that are there; the first error is the one worth telling.
            let _ = match before {
                Some(before) => disk::replace(&beside, &before),
                None => std::fs::remove_file(&beside),
            };
        }
        written
    }
}

/// The file of names beside a NumPy file.
fn names_of(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".names.txt");
    beside.into()
}

/// The line of a name.
fn line(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\");
    escaped.replace('\n', "\\n").replace('\r', "\\r") + "\n"
}

/// NumPy's format, version 1.0: magic, length of the header, header, elements.
fn npy(dims: [usize; 2], bytes: &[u8]) -> Vec<u8> {
    let [rows, columns] = dims;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // The elements begin at a multiple of 64; ten bytes come before the header, a line feed ends it.
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(bytes);
    out
}

fn tensors(names: &[String], dims: [usize; 2], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(Dtype::F32, dims.to_vec(), bytes)
        .expect("four bytes for each of rows · columns elements");
    let names = serde_json::to_string(names).expect("strings are valid JSON");
    let metadata = HashMap::from([("names".to_owned(), names)]);
    safetensors::serialize([("features", view)], Some(metadata)).expect("one tensor fits")
}

fn csv(names: &[String], width: usize, values: &[f32]) -> Vec<u8> {
    let mut text = String::from("name");
    for column in 0..width {
        text.push_str(&format!(",f{column}"));
    }
    text.push('\n');
    for (name, row) in names.iter().zip(values.chunks_exact(width.max(1))) {
        text.push_str(&format!("\"{}\"", name.replace('"', "\"\"")));
        for value in row {
            text.push_str(&format!(",{value}"));
        }
        text.push('\n');
    }
    text.into_bytes()
}
