//! Where the program keeps what it makes, apart from runs.

use std::path::PathBuf;

/// What is kept between runs: `$XDG_CACHE_HOME/simclr`, else `~/.cache/simclr`.
pub fn cache_folder() -> Option<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) if !path.is_empty() => PathBuf::from(path),
        _ => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    Some(base.join("simclr"))
}
