//! Fetching pinned plugins with pip and keeping them in our cache.

use super::error::Error;
use super::search::{Found, Platform, Source, find, plugin_folder};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A plugin package with its pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// `xla-cpu-pjrt`.
    Cpu,
    /// `jax-cuda12-pjrt`.
    Cuda12,
    /// `jax-cuda13-pjrt`.
    Cuda13,
    /// `libtpu`.
    Tpu,
}

/// What is fetched and what it must hash to.
struct Pin {
    name: &'static str,
    version: &'static str,
    /// The plugin's place in the wheel.
    file: &'static str,
    /// What pip must be told to fetch the very wheel that is pinned, whatever Python runs it.
    pip: &'static [&'static str],
    /// SHA-256 of the wheel by architecture.
    wheels: &'static [(&'static str, &'static str)],
}

impl Package {
    /// All of them.
    pub const ALL: [Package; 4] = [Package::Cpu, Package::Cuda13, Package::Cuda12, Package::Tpu];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Package::Cpu => "cpu",
            Package::Cuda12 => "cuda12",
            Package::Cuda13 => "cuda13",
            Package::Tpu => "tpu",
        }
    }

    /// The platform it is for.
    pub fn platform(self) -> Platform {
        match self {
            Package::Cpu => Platform::Cpu,
            Package::Cuda12 | Package::Cuda13 => Platform::Cuda,
            Package::Tpu => Platform::Tpu,
        }
    }

    /// The package that `find` suggests for a platform.
    pub(super) fn of(platform: Platform) -> Self {
        match platform {
            Platform::Cpu => Package::Cpu,
            Platform::Cuda => Package::Cuda13,
            Platform::Tpu => Package::Tpu,
        }
    }

    /// NVIDIA's own packages that this plugin needs at run time; install them into the same Python.
    pub fn needs(self) -> &'static [&'static str] {
        match self {
            Package::Cpu | Package::Tpu => &[],
            Package::Cuda12 => &[
                "nvidia-cuda-runtime-cu12",
                "nvidia-cublas-cu12",
                "nvidia-cudnn-cu12",
                "nvidia-cuda-nvcc-cu12",
                "nvidia-cuda-nvrtc-cu12",
                "nvidia-cuda-cupti-cu12",
                "nvidia-nccl-cu12",
            ],
            Package::Cuda13 => &[
                "nvidia-cuda-runtime",
                "nvidia-cublas",
                "nvidia-cudnn-cu13",
                "nvidia-cuda-nvcc",
                "nvidia-nvvm",
                "nvidia-cuda-nvrtc",
                "nvidia-cuda-cupti",
                "nvidia-nccl-cu13",
            ],
        }
    }

    fn pin(self) -> Pin {
        match self {
            Package::Cpu => Pin {
                name: "xla-cpu-pjrt",
                version: "0.0.1",
                file: "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
                pip: &[],
                wheels: &[
                    (
                        "x86_64",
                        "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
                    ),
                    (
                        "aarch64",
                        "8f613be6e891858f40d64f9799319502fff42689661944fc18a6ffd8210b30c9",
                    ),
                ],
            },
            Package::Cuda12 => Pin {
                name: "jax-cuda12-pjrt",
                version: "0.12.0.1",
                file: "jax_plugins/xla_cuda12/xla_cuda_plugin.so",
                pip: &[],
                wheels: &[
                    (
                        "x86_64",
                        "5ec28e06198d094031c37590b4ea753ae8cde4879ab4b60baf40f0dffb673286",
                    ),
                    (
                        "aarch64",
                        "e6aa6c58c5420c1bda22db31a2f6c5c1d0a66cb701eeb731feae44fef197717c",
                    ),
                ],
            },
            Package::Cuda13 => Pin {
                name: "jax-cuda13-pjrt",
                version: "0.12.0.1",
                file: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
                pip: &[],
                wheels: &[(
                    "x86_64",
                    "5899bb6177eda86ea532afb9a26794f2bdd04966f6a01f9028266b16c2b6cf90",
                )],
            },
            Package::Tpu => Pin {
                name: "libtpu",
                version: "0.0.52",
                file: "libtpu/libtpu.so",
                // There is a wheel for each Python, and the plugin in all of them is for none.
                pip: &[
                    "--python-version=3.11",
                    "--implementation=cp",
                    "--abi=cp311",
                ],
                wheels: &[(
                    "x86_64",
                    "f5e2e596eaea9357fbb5a6755a7a9007c6ab75bfde4a55191b03eff402971140",
                )],
            },
        }
    }

    /// Its folder in the cache.
    fn folder(self) -> Option<PathBuf> {
        let pin = self.pin();
        Some(plugin_folder()?.join(format!("{}-{}", pin.name, pin.version)))
    }

    /// The plugin's file in the cache, whether it is there or not.
    pub(super) fn cached_file(self) -> Option<PathBuf> {
        Some(self.folder()?.join(self.pin().file))
    }
}

/// A plugin that was put into the cache.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The file.
    pub path: PathBuf,
    /// Package and version.
    pub what: String,
    /// Whether it was there already.
    pub already: bool,
}

/// Finds a plugin; a missing CPU plugin is fetched first, which `say` is told in one line.
///
/// # Errors
/// If it is not found and cannot be fetched.
pub fn ensure(platform: Platform, say: &mut dyn FnMut(&str)) -> Result<Found, Error> {
    match find(platform, None) {
        Err(Error::NotFound { .. }) if platform == Platform::Cpu => {
            let pin = Package::Cpu.pin();
            say(&format!(
                "fetching the CPU plugin {} {} with pip, once (63 MB, checked by its SHA-256)",
                pin.name, pin.version
            ));
            let installed = install(Package::Cpu)?;
            tracing::info!("installed {}", installed.path.display());
            Ok(Found {
                platform,
                source: Source::Cache,
                path: installed.path,
            })
        }
        other => other,
    }
}

/// Fetches a pinned package with pip, checks its hash, and moves the plugin into the cache. Two processes may do so at once.
///
/// # Errors
/// If pip, the network, the hash or the disk says no.
pub fn install(package: Package) -> Result<Installed, Error> {
    let pin = package.pin();
    let what = format!("{} {}", pin.name, pin.version);
    let fetch = |reason: String| Error::Fetch {
        package: package.name(),
        reason,
        variable: package.platform().variable(),
    };
    let folder = package
        .folder()
        .ok_or_else(|| fetch("neither XDG_CACHE_HOME nor HOME says where to keep it".into()))?;
    let path = folder.join(pin.file);
    if path.is_file() {
        return Ok(Installed {
            path,
            what,
            already: true,
        });
    }
    let arch = std::env::consts::ARCH;
    let Some((_, expected)) = pin.wheels.iter().find(|(name, _)| *name == arch) else {
        return Err(fetch(format!(
            "there is no pinned build of {what} for {arch}"
        )));
    };
    let parent = folder.parent().unwrap_or(&folder).to_path_buf();
    fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
    // Built beside its final place and renamed, so that no process ever sees half a plugin.
    let scratch = parent.join(format!(".tmp-{}-{}", pin.name, std::process::id()));
    let result = (|| {
        fs::create_dir_all(&scratch).map_err(io_error("create", &scratch))?;
        let wheel = download(&pin, &scratch).map_err(fetch)?;
        check_hash(&wheel, expected)?;
        let unpacked = scratch.join("unpacked");
        unpack(&wheel, &pin, &unpacked)?;
        if folder.exists() && !path.is_file() {
            // What is left of a plugin whose file was deleted.
            fs::rename(&folder, scratch.join("old")).map_err(io_error("replace", &folder))?;
        }
        match fs::rename(&unpacked, &folder) {
            Ok(()) => Ok(()),
            Err(_) if path.is_file() => Ok(()), // another process was first
            Err(error) => Err(io_error("move the plugin to", &folder)(error)),
        }
    })();
    if let Err(error) = fs::remove_dir_all(&scratch) {
        tracing::debug!("{} stays behind: {error}", scratch.display());
    }
    result.map(|()| Installed {
        path,
        what,
        already: false,
    })
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { what, path, source }
}

fn download(pin: &Pin, into: &Path) -> Result<PathBuf, String> {
    let output = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--quiet",
        ])
        .args(["--disable-pip-version-check", "--dest"])
        .arg(into)
        .args(pin.pip)
        .arg(format!("{}=={}", pin.name, pin.version))
        .output()
        .map_err(|error| format!("python3 could not be started ({error})"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text
            .lines()
            .rev()
            .find(|line| line.starts_with("ERROR"))
            .or(text.lines().last());
        return Err(format!("pip said: {}", last.unwrap_or("nothing").trim()));
    }
    let entries = fs::read_dir(into).map_err(|error| error.to_string())?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ext| ext == "whl"))
        .ok_or_else(|| "pip left no wheel".into())
}

fn check_hash(file: &Path, expected: &str) -> Result<(), Error> {
    let mut hasher = Sha256::new();
    let mut reader = fs::File::open(file).map_err(io_error("open", file))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = reader.read(&mut chunk).map_err(io_error("read", file))?;
        if read == 0 {
            break;
        }
        hasher.update(&chunk[..read]);
    }
    let found: String = hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != expected {
        return Err(Error::Hash {
            file: file.into(),
            found,
            expected: expected.into(),
        });
    }
    Ok(())
}

/// Takes the plugin and the licence texts out of the wheel, nothing else.
fn unpack(wheel: &Path, pin: &Pin, into: &Path) -> Result<(), Error> {
    let bad = |error: zip::result::ZipError| Error::Io {
        what: "unpack",
        path: wheel.into(),
        source: io::Error::other(error),
    };
    let file = fs::File::open(wheel).map_err(io_error("open", wheel))?;
    let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(bad)?;
        let name = entry.name().map_err(bad)?.to_string();
        let licence = name.contains(".dist-info/")
            && ["METADATA", "LICENSE", "THIRD_PARTY"]
                .iter()
                .any(|part| name.contains(part));
        if name != pin.file && !licence || name.ends_with('/') {
            continue;
        }
        let Some(relative) = entry.enclosed_name() else {
            continue;
        };
        let path = into.join(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        let mut out = fs::File::create(&path).map_err(io_error("write", &path))?;
        io::copy(&mut entry, &mut out).map_err(io_error("write", &path))?;
        out.sync_all().map_err(io_error("write", &path))?;
    }
    if !into.join(pin.file).is_file() {
        return Err(Error::Io {
            what: "find the plugin in",
            path: wheel.into(),
            source: io::Error::other(format!("the wheel has no {}", pin.file)),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doctored_file_is_refused_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("xla_cpu_pjrt.whl");
        fs::write(&file, b"abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check_hash(&file, abc).unwrap();
        fs::write(&file, b"abd").unwrap();
        let error = check_hash(&file, abc).unwrap_err().to_string();
        assert!(
            error.contains(abc) && error.contains("was not installed"),
            "{error}"
        );
    }
}
