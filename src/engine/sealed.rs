//! Files that are whole or refused: a head that tells their kind, the SHA-256 of the rest, the rest. They appear under their name
//! only when they are written.

use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::path::Path;

/// Writes `content` beside `path` and renames it: no reader ever sees half of it.
pub(super) fn write(path: &Path, magic: &[u8], content: &[u8]) -> io::Result<()> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&Sha256::digest(content));
    bytes.extend_from_slice(content);
    // Several processes may write the same file: each has a name of its own until its file is whole.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let result = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is the one to tell
    }
    result
}

/// The content of a file that [`write()`] wrote with the same `magic`.
pub(super) fn read(path: &Path, magic: &[u8]) -> io::Result<Vec<u8>> {
    let bytes = fs::read(path)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its content is damaged");
    let rest = bytes.strip_prefix(magic).ok_or_else(damaged)?;
    Ok(verified(rest).ok_or_else(damaged)?.to_vec())
}

/// What follows the hash in what follows the head, if it has that hash.
pub(super) fn verified(rest: &[u8]) -> Option<&[u8]> {
    let (hash, content) = rest.split_at_checked(32)?;
    (Sha256::digest(content)[..] == *hash).then_some(content)
}
