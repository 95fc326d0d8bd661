//! A compiled program in a file of the user's, made by `simclr compile --save` on one machine and loaded on another.
//!
//! The file says what the program depends on; it is used only where all of that is the same.

use super::sealed;
use crate::pjrt::{self, OptionValue, Plugin};
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
}

impl Circumstances {
    /// Of a module's bytes on devices of a plugin.
    ///
    /// # Errors
    /// If the plugin's file cannot be read.
    pub fn new(
        module: &[u8],
        platform: &str,
        device_kind: &str,
        devices: usize,
        plugin: &Plugin,
        options: &[(String, OptionValue)],
    ) -> io::Result<Self> {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(plugin.path())?, &mut HashWriter(&mut hash))?;
        let options: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        Ok(Circumstances {
            module: hex(&Sha256::digest(module)),
            platform: platform.into(),
            device_kind: device_kind.into(),
            devices,
            plugin: hex(&hash.finalize()),
            options: options.join(" "),
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
            ("plugin", short(&self.plugin), short(&now.plugin)),
            (
                "compiler options",
                self.options.clone(),
                now.options.clone(),
            ),
            ("step", short(&self.module), short(&now.module)),
        ];
        let (what, saved, here) = pairs.into_iter().find(|(_, saved, here)| saved != here)?;
        Some(format!(
            "it was compiled for another {what} ({saved}), and this run has {here}"
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
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
        let changes: [(&str, Change); 6] = [
            ("step", |c| c.module = "cc".into()),
            ("platform", |c| c.platform = "cpu".into()),
            ("device kind", |c| c.device_kind = "TPU v4".into()),
            ("device count", |c| c.devices = 16),
            ("plugin", |c| c.plugin = "cc".into()),
            ("compiler options", |c| c.options = "a=1".into()),
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
