//! Names, classes and places of all examples of a set in shards. Every byte is read for it once; then it is kept in the cache.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rayon::prelude::*;

use super::Error;
use super::example::Example;
use super::shards::{RawRecord, Shards};
use crate::places::cache_folder;
use crate::words::plural;

/// An example of a shard, in the order of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name and class; none of a record that is damaged.
    pub(super) known: Option<(String, u32)>,
    /// The byte at which its record begins, in the unpacked file.
    pub(super) offset: u64,
}

impl Entry {
    pub(super) fn name(&self) -> Option<&str> {
        self.known.as_ref().map(|(name, _)| name.as_str())
    }
}

/// The features that name an example: those of TFDS, and the classic one of ImageNet.
const NAMES: [&str; 3] = ["file_name", "id", "image/filename"];

/// The first line of a catalogue that was kept.
const HEAD: &str = "simclr catalogue 2";

/// The examples of each shard. A damaged record has no name, and does not keep the others from theirs: whether it may be left out is for
/// the caller to say.
pub(super) fn catalogue(shards: &Shards) -> Result<Vec<Vec<Entry>>, Error> {
    let kept = place(shards);
    if let Some(found) = kept.as_deref().and_then(|file| load(file, shards)) {
        return Ok(found);
    }
    tracing::info!(
        "reading the names of all {} examples of {} file{}, once",
        shards.lengths.iter().sum::<u64>(),
        shards.files.len(),
        plural(shards.files.len())
    );
    let found: Vec<Vec<Entry>> = (0..shards.files.len())
        .into_par_iter()
        .map(|shard| scan(shards, shard))
        .collect::<Result<_, _>>()?;
    if let Some(file) = kept
        && let Err(error) = save(&file, &found)
    {
        tracing::info!("{} is not kept: {error}", file.display());
    }
    Ok(found)
}

/// Where the catalogue of these shards is kept; it is found by their names, sizes and lengths.
pub(super) fn place(shards: &Shards) -> Option<PathBuf> {
    let name = format!("{}.gz", shards.whole);
    Some(cache_folder()?.join("catalogues").join(name))
}

/// What an example is called, if it has a name.
pub(super) fn name_of(example: &Example) -> Option<String> {
    let name = NAMES.iter().find_map(|key| example.bytes(key).ok())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn scan(shards: &Shards, shard: usize) -> Result<Vec<Entry>, Error> {
    let mut reader = shards.reader(shard)?;
    let mut found = Vec::new();
    loop {
        let (index, offset) = (reader.index(), reader.offset());
        let data = match reader.next() {
            Err(error) if error.spoils_one_example() => {
                let known = None;
                found.push(Entry { known, offset });
                continue;
            }
            data => data?,
        };
        let Some(data) = data else {
            if index as u64 != shards.lengths[shard] {
                return Err(Error::Count {
                    file: shards.files[shard].clone(),
                    what: "examples",
                    found: index as u64,
                    expected: shards.lengths[shard],
                });
            }
            return Ok(found);
        };
        let record = RawRecord { shard, index, data };
        let known = match (shards.parse(&record), Example::parse(&record.data)) {
            (Ok((_, label)), Ok(example)) => match name_of(&example) {
                Some(name) => Some((name, label)),
                None => {
                    return Err(Error::NoNames {
                        file: shards.files[shard].clone(),
                        expected: NAMES.join(", "),
                    });
                }
            },
            _ => None,
        };
        found.push(Entry { known, offset });
    }
}

/// A catalogue that was kept, if it is whole.
fn load(file: &Path, shards: &Shards) -> Option<Vec<Vec<Entry>>> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(file).ok()?)
        .read_to_string(&mut text)
        .ok()?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return None;
    }
    let mut found = Vec::new();
    for &length in &shards.lengths {
        let entry = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            let offset = parts.next()?.parse().ok()?;
            let known = match parts.next() {
                None => None,
                Some(label) => Some((parts.next()?.into(), label.parse().ok()?)),
            };
            Some(Entry { known, offset })
        };
        let shard: Option<Vec<Entry>> = (0..length).map(|_| entry(lines.next()?)).collect();
        found.push(shard?);
    }
    lines.next().is_none().then_some(found)
}

/// Keeps a catalogue; it appears whole or not at all.
fn save(file: &Path, found: &[Vec<Entry>]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    let partial = PathBuf::from(format!("{}.{}", file.display(), std::process::id()));
    let mut output = GzEncoder::new(fs::File::create(&partial)?, Compression::fast());
    let mut text = format!("{HEAD}\n");
    for Entry { known, offset } in found.iter().flatten() {
        text.push_str(&match known {
            Some((name, label)) => format!("{offset} {label} {name}\n"),
            None => format!("{offset}\n"),
        });
    }
    output.write_all(text.as_bytes())?;
    output.finish()?.sync_all()?;
    fs::rename(&partial, file)
}
