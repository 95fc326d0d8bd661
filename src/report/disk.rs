//! Files that are there whole or not at all, whenever the process is killed or the machine loses power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// How the names of unfinished files and folders begin; whoever finds one may delete it.
pub const TEMPORARY: &str = ".tmp-";

/// Writes a new file and waits until it is on the disk. The file must not exist.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The bytes of a file; none if there is no such file.
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Waits until the names in a folder are on the disk: a rename is durable only after this.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Asks before anything is computed whether `path` may be the name of a file: its folder is there, and it is no folder itself.
pub fn writable(path: &Path) -> io::Result<()> {
    fs::read_dir(parent(path))?;
    if path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Ok(())
}

/// Writes `path` so that at every moment it holds either the old content or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (folder, name) = parts(path)?;
    let temporary = folder.join(format!("{TEMPORARY}{name}"));
    let result = remove_if_there(&temporary)
        .and_then(|()| write_new(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_folder(&folder));
    if result.is_err() {
        // The first error is the one worth telling; a leftover is deleted by the next call.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// What a user can do about an error of the file system, for the end of a message.
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free some space, or choose a path on another disk"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give this user the permission to read and write it, or choose another path"
        }
        ErrorKind::NotFound => "check that it exists, or choose another path",
        ErrorKind::IsADirectory => "give the name of a file",
        _ => "check the disk, or choose another path",
    }
}

/// The folder a file is in (`.` for a bare name) and its name.
fn parts(path: &Path) -> io::Result<(PathBuf, String)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path has no file name"))?;
    Ok((parent(path), name.to_string_lossy().into_owned()))
}

/// The folder that holds `path`: `.` for a bare name.
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        // A leftover of a killed process is no obstacle.
        fs::write(folder.path().join(".tmp-config.yaml"), "half").unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), "kept").unwrap();
        assert!(
            replace(&path, b"new").is_err(),
            "a file cannot replace a folder"
        );
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
