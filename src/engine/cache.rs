//! Compiled programs kept between runs, so that a second start compiles nothing.
//!
//! An entry's key is a hash over everything the code depends on: the module, the compile options, the plugin's file and version,
//! the devices, the processor, and the environment's compiler flags. Its name begins with it, and its content holds it before the
//! program. An entry that is damaged, of another program, or that the plugin does not take is compiled
//! again and replaced; no problem with the cache ever stops a run.

use super::saved::hex;
use super::sealed;
use crate::pjrt::{self, Client, CompileOptions, Executable};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// What compiles faster than this is not worth a file.
const WORTH_KEEPING: Duration = Duration::from_millis(250);
/// The most that all entries may take together; the longest unused go first.
const LIMIT_BYTES: u64 = 1 << 30;
/// Head of every entry, before the SHA-256 of the rest.
const MAGIC: &[u8] = b"simclr executable 2\n";
const SUFFIX: &str = "executable";

/// SHA-256 of what a program depends on.
type Key = [u8; 32];

/// A folder of compiled programs for one client.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    /// What all entries of this client depend on.
    surroundings: String,
    worth_keeping: Duration,
}

impl Cache {
    /// The cache of a client of the plugin at `plugin`; none where the processor cannot be told.
    pub fn new(folder: PathBuf, client: &Client, plugin: &Path) -> Option<Self> {
        let mut surroundings = surroundings(plugin)?;
        surroundings.push_str(&format!(
            "{} {}\n",
            client.platform_name(),
            client.platform_version()
        ));
        for device in client.devices() {
            surroundings.push_str(&format!("{} {}\n", device.id(), device.kind()));
        }
        Some(Cache {
            folder,
            surroundings,
            worth_keeping: WORTH_KEEPING,
        })
    }

    /// Whether the bytes of a file are those of a whole entry; none if they are no entry at all.
    pub fn check(file: &[u8]) -> Option<bool> {
        file.strip_prefix(MAGIC)
            .map(|rest| sealed::verified(rest).is_some())
    }

    /// The same cache, which keeps also what compiles fast.
    pub fn keeping_everything(self) -> Self {
        Cache {
            worth_keeping: Duration::ZERO,
            ..self
        }
    }

    /// Takes the program from the cache, or compiles and keeps it; and whether it was there.
    ///
    /// # Errors
    /// If it has to be compiled and the plugin refuses.
    pub fn compile(
        &self,
        client: &Client,
        module: &[u8],
        options: &CompileOptions,
    ) -> Result<(Executable, bool), pjrt::Error> {
        let key = self.key(module, options);
        let path = self.path(&key);
        match read(&path, &key) {
            Ok(Some(bytes)) => match client.load(&bytes, options) {
                Ok(executable) => {
                    touch(&path);
                    return Ok((executable, true));
                }
                Err(error) => tracing::warn!(
                    "the compiled program `{}` was not taken by the plugin ({error}); it is compiled again",
                    path.display()
                ),
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(
                "the compiled program `{}` cannot be used ({error}); it is compiled again",
                path.display()
            ),
        }
        let start = Instant::now();
        let executable = client.compile(module, options)?;
        if start.elapsed() >= self.worth_keeping {
            match executable.compiled().serialize() {
                Ok(bytes) => {
                    if let Err(error) = self.keep(&path, &key, &bytes) {
                        tracing::warn!(
                            "cannot keep the compiled program `{}`: {error}; the next start compiles it again",
                            path.display()
                        );
                    }
                }
                Err(error) => tracing::debug!("the plugin does not serialise programs: {error}"),
            }
        }
        Ok((executable, false))
    }

    fn key(&self, module: &[u8], options: &CompileOptions) -> Key {
        let mut hash = Sha256::new();
        hash.update(MAGIC);
        hash.update(&self.surroundings);
        hash.update(format!("{options:?}\n"));
        hash.update(module);
        hash.finalize().into()
    }

    fn path(&self, key: &Key) -> PathBuf {
        let name = hex(&key[..16]);
        self.folder.join(format!("{name}.{SUFFIX}"))
    }

    fn keep(&self, path: &Path, key: &Key, program: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        sealed::write(path, MAGIC, &[key, program].concat())?;
        self.shrink(path)
    }

    /// Deletes the longest unused entries above the limit, but not `newest`.
    fn shrink(&self, newest: &Path) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // Another process may have deleted it meanwhile.
            if let Ok(file) = fs::metadata(&path) {
                entries.push((file.modified()?, file.len(), path));
            }
        }
        entries.sort();
        let mut total: u64 = entries.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in entries {
            if total <= LIMIT_BYTES {
                break;
            }
            if path != newest && fs::remove_file(&path).is_ok() {
                total -= size;
            }
        }
        Ok(())
    }
}

/// The program of an entry, if there is one.
fn read(path: &Path, key: &Key) -> io::Result<Option<Vec<u8>>> {
    match sealed::read(path, MAGIC) {
        Ok(bytes) => match bytes.strip_prefix(key) {
            Some(program) => Ok(Some(program.to_vec())),
            None => Err(io::Error::other("it holds another program")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Notes that an entry was used; where that fails it only looks older than it is.
fn touch(path: &Path) {
    let _ = File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()));
}

/// What the code of a plugin depends on: its file, the processor, the environment's flags. None where it cannot be told.
pub(super) fn surroundings(plugin: &Path) -> Option<String> {
    let file = fs::metadata(plugin).ok()?;
    Some(format!(
        "{}\n{} bytes, {:?}\n{}{}",
        plugin.display(),
        file.len(),
        file.modified().ok()?,
        processor()?,
        compiler_flags()
    ))
}

/// The environment's flags for compilers, a line each.
pub(super) fn compiler_flags() -> String {
    ["XLA_FLAGS", "LIBTPU_INIT_ARGS"]
        .iter()
        .filter_map(|name| Some(format!("{name}={}\n", std::env::var_os(name)?.display())))
        .collect()
}

/// Name and features of the processor: code for one may not run on another.
pub(super) fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let lines: Vec<&str> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| {
            ["model name", "flags", "Features", "CPU part"]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}
