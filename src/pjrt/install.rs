//! Fetching pinned plugins with pip and keeping them in our cache.

use super::error::Error;
use super::pins::{Package, Wheel};
use super::search::{Found, Platform, Source, find};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

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
            let pin = Package::Cpu.pin().plugin;
            say(&format!(
                "fetching the CPU plugin {} {} with pip, once (63 MB, checked by its SHA-256)",
                pin.name, pin.version
            ));
            let installed = install(Package::Cpu, false)?;
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

/// Fetches what is missing of a pinned plugin with pip, checks its hashes, and moves it into the cache: the plugin, what compiling
/// needs beside it, and with `libraries` what running needs, too. Two processes may do so at once.
///
/// # Errors
/// If pip, the network, a hash or the disk says no.
pub fn install(package: Package, libraries: bool) -> Result<Installed, Error> {
    let pin = package.pin();
    let what = format!("{} {}", pin.plugin.name, pin.plugin.version);
    let fetch = |reason: String| Error::Fetch {
        package: package.name(),
        reason,
        variable: package.platform().variable(),
    };
    let folder = package
        .folder()
        .ok_or_else(|| fetch("neither XDG_CACHE_HOME nor HOME says where to keep it".into()))?;
    let path = folder.join(pin.plugin.files[0]);
    // The plugin comes last: while it is missing, nothing is found.
    let mut wheels: Vec<(&Wheel, &[&str])> = Vec::new();
    if libraries {
        wheels.extend(pin.libraries.iter().map(|wheel| (wheel, NO_WORDS)));
    }
    wheels.extend(pin.tools.iter().map(|wheel| (wheel, NO_WORDS)));
    wheels.push((&pin.plugin, pin.pip));
    wheels.retain(|(wheel, _)| !wheel.files.iter().all(|file| folder.join(file).is_file()));
    let already = wheels.is_empty();
    for (wheel, words) in wheels {
        let architecture = std::env::consts::ARCH;
        let expected = wheel.hash(architecture).ok_or_else(|| {
            fetch(format!(
                "there is no pinned build of {} {} for {architecture}",
                wheel.name, wheel.version
            ))
        })?;
        // Built beside its final place and renamed, so that no process ever sees half a file.
        let scratch = folder.with_file_name(format!(".tmp-{}-{}", wheel.name, std::process::id()));
        let result = (|| {
            fs::create_dir_all(&scratch).map_err(io_error("create", &scratch))?;
            let file = download(wheel, words, &scratch).map_err(fetch)?;
            check_hash(&file, expected)?;
            let unpacked = scratch.join("unpacked");
            for file in unpack(&file, wheel, &unpacked)? {
                let to = folder.join(&file);
                if let Some(parent) = to.parent() {
                    fs::create_dir_all(parent).map_err(io_error("create", parent))?;
                }
                fs::rename(unpacked.join(&file), &to).map_err(io_error("write", &to))?;
            }
            Ok(())
        })();
        if let Err(error) = fs::remove_dir_all(&scratch) {
            tracing::debug!("{} stays behind: {error}", scratch.display());
        }
        result?;
    }
    Ok(Installed {
        path,
        what,
        already,
    })
}

const NO_WORDS: &[&str] = &[];

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { what, path, source }
}

fn download(wheel: &Wheel, words: &[&str], into: &Path) -> Result<PathBuf, String> {
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
        .args(words)
        .arg(format!("{}=={}", wheel.name, wheel.version))
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

/// Takes the wanted files and the licence texts out of a wheel, nothing else; gives their places, the wanted files last.
fn unpack(file: &Path, wheel: &Wheel, into: &Path) -> Result<Vec<PathBuf>, Error> {
    let bad = |error: zip::result::ZipError| Error::Io {
        what: "unpack",
        path: file.into(),
        source: io::Error::other(error),
    };
    let opened = fs::File::open(file).map_err(io_error("open", file))?;
    let mut archive = zip::ZipArchive::new(opened).map_err(bad)?;
    let mut places = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(bad)?;
        let name = entry.name().map_err(bad)?.to_string();
        let licence = name.contains(".dist-info/")
            && ["metadata", "license", "third_party"]
                .iter()
                .any(|part| name.to_ascii_lowercase().contains(part));
        let wanted = wheel.files.contains(&name.as_str());
        if !wanted && !licence || name.ends_with('/') {
            continue;
        }
        let Some(relative) = entry.enclosed_name() else {
            continue;
        };
        let path = into.join(&relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        }
        let mut out = fs::File::create(&path).map_err(io_error("write", &path))?;
        io::copy(&mut entry, &mut out).map_err(io_error("write", &path))?;
        #[cfg(unix)]
        if name.contains("/bin/") {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::Permissions::from_mode(0o755);
            out.set_permissions(mode)
                .map_err(io_error("write", &path))?;
        }
        out.sync_all().map_err(io_error("write", &path))?;
        places.push((wanted, relative));
    }
    for name in wheel.files {
        if !into.join(name).is_file() {
            return Err(Error::Io {
                what: "find the plugin in",
                path: file.into(),
                source: io::Error::other(format!("the wheel has no {name}")),
            });
        }
    }
    places.sort();
    Ok(places.into_iter().map(|(_, place)| place).collect())
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
