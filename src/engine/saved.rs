//! A compiled program in a file of the user's, made by `simclr compile --save` on one machine and loaded on another.
//!
//! The file says what the program depends on; it is used only where all of that is the same.

use super::cache::{compiler_flags, processor};
use super::sealed;
use crate::pjrt::{self, OptionValue, Platform, Plugin};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::path::Path;

const MAGIC: &[u8] = b"simclr program 1\n";

/// What a program depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// SHA-256 of the module as the compiler got it.
    pub module: String,
    /// `cpu`, `cuda`, `tpu`.
    pub platform: String,
    /// The plugin's name of a device.
    pub device_kind: String,
    /// Devices that run it together.
    pub devices: usize,
    /// SHA-256 of the plugin's file.
    pub plugin: String,
    /// Options of the compiler.
    pub options: String,
    /// The environment's flags for compilers.
    pub flags: String,
    /// SHA-256 of name and features of the processor, where it is the device; empty elsewhere.
    pub processor: String,
    /// How the devices lie, such as `2x2x1`; empty where the plugin gives them no coordinates.
    pub shape: String,
}

/// How many places devices with these attributes take along each dimension.
pub(super) fn shape<'a>(devices: impl Iterator<Item = &'a [(String, OptionValue)]>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for (_, value) in devices.flatten().filter(|(name, _)| name == "coords") {
        let OptionValue::IntList(place) = value else {
            continue;
        };
        for (dimension, &at) in place.iter().enumerate() {
            match ranges.get_mut(dimension) {
                Some((low, high)) => (*low, *high) = (at.min(*low), at.max(*high)),
                None => ranges.push((at, at)),
            }
        }
    }
    let extents: Vec<String> = ranges
        .iter()
        .map(|(low, high)| (high - low + 1).to_string())
        .collect();
    extents.join("x")
}

impl Circumstances {
    /// Of a module's bytes on devices of a plugin that lie in this shape.
    ///
    /// # Errors
    /// If the plugin's file cannot be read, or the processor is the device and cannot be told.
    pub fn new(
        module: &[u8],
        platform: &str,
        device_kind: &str,
        shape: String,
        devices: usize,
        plugin: &Plugin,
        options: &[(String, OptionValue)],
    ) -> io::Result<Self> {
        let processor = if platform == Platform::Cpu.name() {
            let text = processor()
                .ok_or_else(|| io::Error::other("/proc/cpuinfo does not name the processor"))?;
            hex(&Sha256::digest(text))
        } else {
            String::new()
        };
        Ok(Circumstances {
            module: hex(&Sha256::digest(module)),
            platform: platform.into(),
            device_kind: device_kind.into(),
            devices,
            plugin: file_hash(plugin.path())?,
            options: self::options(options),
            flags: flags(),
            processor,
            shape,
        })
    }

    /// The first difference to what a run has, in words; none if a saved program may be used.
    fn difference(&self, now: &Circumstances) -> Option<String> {
        let short = |hash: &str| hash.chars().take(12).collect::<String>();
        let pairs = [
            ("platform", self.platform.clone(), now.platform.clone()),
            (
                "device kind",
                self.device_kind.clone(),
                now.device_kind.clone(),
            ),
            (
                "device count",
                self.devices.to_string(),
                now.devices.to_string(),
            ),
            ("shape", self.shape.clone(), now.shape.clone()),
            ("processor", short(&self.processor), short(&now.processor)),
            ("plugin", short(&self.plugin), short(&now.plugin)),
            (
                "compiler options",
                self.options.clone(),
                now.options.clone(),
            ),
            (
                "environment of the compiler",
                self.flags.clone(),
                now.flags.clone(),
            ),
            ("step", short(&self.module), short(&now.module)),
        ];
        let (what, saved, here) = pairs.into_iter().find(|(_, saved, here)| saved != here)?;
        Some(format!(
            "it was compiled for another {what} ({saved}), and this run has {here}"
        ))
    }
}

/// Options of the compiler in a line.
pub(super) fn options(options: &[(String, OptionValue)]) -> String {
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    options.join(" ")
}

/// The environment's flags for compilers in a line.
pub(super) fn flags() -> String {
    compiler_flags().trim_end().replace('\n', " ")
}

/// SHA-256 of a file's content.
pub(super) fn file_hash(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(hex(&hash.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a program with what it depends on.
///
/// # Errors
/// If the disk refuses.
pub fn save(path: &Path, circumstances: &Circumstances, program: &[u8]) -> io::Result<()> {
    let mut content = serde_json::to_vec(circumstances).map_err(io::Error::other)?;
    content.push(b'\n');
    content.extend_from_slice(program);
    sealed::write(path, MAGIC, &content)
}

/// What the program in the bytes of a file depends on; none if the file is damaged, nothing at all if it is of another kind.
pub fn describe(file: &[u8]) -> Option<Option<Circumstances>> {
    let content = sealed::verified(file.strip_prefix(MAGIC)?);
    let head = content.and_then(|content| content.split(|&byte| byte == b'\n').next());
    Some(head.and_then(|head| serde_json::from_slice(head).ok()))
}

/// Why a saved program is not used. The program is compiled anew then.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read, or is not whole.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// It is for something else.
    #[error("{0}")]
    Other(String),
    /// The plugin does not take it.
    #[error("the plugin does not take it: {0}")]
    Refused(pjrt::Error),
}

/// The program in a file, if it was compiled for `now`.
pub(super) fn load(path: &Path, now: &Circumstances) -> Result<Vec<u8>, Unusable> {
    let mut content = sealed::read(path, MAGIC)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its head is damaged");
    let end = content
        .iter()
        .position(|&byte| byte == b'\n')
        .ok_or_else(damaged)?;
    let saved: Circumstances = serde_json::from_slice(&content[..end]).map_err(|_| damaged())?;
    if let Some(difference) = saved.difference(now) {
        return Err(Unusable::Other(difference));
    }
    Ok(content.split_off(end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circumstances() -> Circumstances {
        Circumstances {
            module: "aa".into(),
            platform: "tpu".into(),
            device_kind: "TPU v3".into(),
            devices: 8,
            plugin: "bb".into(),
            options: String::new(),
            flags: String::new(),
            processor: "dd".into(),
            shape: "2x2x1".into(),
        }
    }

    #[test]
    fn the_shape_is_what_the_devices_span() {
        let device = |place: &[i64]| {
            let place = OptionValue::IntList(place.to_vec());
            vec![
                ("core_on_chip".to_string(), OptionValue::Int(0)),
                ("coords".to_string(), place),
            ]
        };
        let devices = [[4, 0, 0], [5, 0, 0], [4, 1, 0], [5, 1, 0], [5, 2, 0]].map(|p| device(&p));
        assert_eq!(shape(devices.iter().map(Vec::as_slice)), "2x3x1");
        assert_eq!(shape([].into_iter()), "");
    }

    /// One of before there was a processor, flags and a shape in it.
    #[test]
    fn a_file_that_does_not_say_all_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.program");
        for key in ["processor", "flags", "shape", "module"] {
            let mut head = serde_json::to_value(circumstances()).unwrap();
            head.as_object_mut().unwrap().remove(key);
            sealed::write(&path, MAGIC, format!("{head}\nprogram").as_bytes()).unwrap();
            let error = load(&path, &circumstances()).unwrap_err().to_string();
            assert!(error.contains("its head is damaged"), "{key}: {error}");
        }
    }

    #[test]
    fn a_program_comes_back_only_for_what_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.program");
        let program = b"one\ntwo\0three";
        save(&path, &circumstances(), program).unwrap();
        assert_eq!(load(&path, &circumstances()).unwrap(), program);
        let mut file = std::fs::read(&path).unwrap();
        assert_eq!(describe(&file), Some(Some(circumstances())));
        *file.last_mut().unwrap() ^= 1;
        assert_eq!(describe(&file), Some(None));
        assert_eq!(describe(b"something else"), None);
        type Change = fn(&mut Circumstances);
        let changes: [(&str, Change); 9] = [
            ("step", |c| c.module = "cc".into()),
            ("platform", |c| c.platform = "cpu".into()),
            ("device kind", |c| c.device_kind = "TPU v4".into()),
            ("device count", |c| c.devices = 16),
            ("plugin", |c| c.plugin = "cc".into()),
            ("compiler options", |c| c.options = "a=1".into()),
            ("environment", |c| c.flags = "XLA_FLAGS=--a".into()),
            ("processor", |c| c.processor = "cc".into()),
            ("shape", |c| c.shape = "4x1x1".into()),
        ];
        for (what, change) in changes {
            let mut now = circumstances();
            change(&mut now);
            let error = load(&path, &now).unwrap_err().to_string();
            assert!(error.contains(&format!("another {what}")), "{error}");
        }
    }

    #[test]
    fn half_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.program");
        save(&path, &circumstances(), &[7; 1000]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 10, 40, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(&path, &circumstances()).unwrap_err().to_string();
            assert!(error.contains("damaged"), "{length}: {error}");
        }
    }
}
