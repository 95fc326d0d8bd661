//! Reading files and folders, with errors that name them.

use std::path::Path;

use super::Error;

/// The whole content of `file`.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|cause| Error::Read {
        file: file.into(),
        cause,
    })
}

/// The names in the folder `dir`, sorted; none if it is no folder. Names that are not UTF-8 are
/// nobody's data files and left out.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |cause| Error::Read {
        file: dir.into(),
        cause,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The content of a folder in a few words for a message.
pub(super) fn summary(dir: &Path) -> Result<String, Error> {
    const SHOWN: usize = 6;
    let names = entries(dir)?;
    Ok(match names.len() {
        0 => "nothing".into(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    })
}
