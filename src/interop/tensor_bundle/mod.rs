//! TensorFlow's checkpoint files (tensor bundles): an index `PREFIX.index` and data files `PREFIX.data-00000-of-00001`.
//!
//! The index is a [table](table) from names to where a tensor lies, its shape, type and CRC; the data files are the tensors' bytes end
//! to end. Opening a bundle reads the index and checks it against the sizes of the data files; a tensor's bytes are read, and
//! its CRC checked, when it is asked for, so that a checkpoint of gigabytes can be looked through in little memory.

mod table;
mod write;

pub use write::{CHECKPOINT_FILE, Tensor, write};

use super::Error;
use crate::data;
use crate::data::record::masked_crc;
use crate::data::store::{self, Pieces};
use crate::proto::tensor_bundle::{BundleEntry, BundleHeader};
use prost::Message;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The newest layout that this program knows, as TensorFlow numbers them.
const VERSION: i32 = 1;
/// No tensor of ours or of the original has more dimensions.
const MOST_DIMS: usize = 32;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// Numbers.
    Numbers(Dtype),
    /// Byte strings.
    Text,
    /// One of TensorFlow's that this program has no use for, by its number.
    Other(i32),
}

/// TensorFlow's numbers of the types of numbers.
const NUMBERS: [(i32, Dtype); 13] = [
    (1, Dtype::F32),
    (2, Dtype::F64),
    (3, Dtype::I32),
    (4, Dtype::U8),
    (5, Dtype::I16),
    (6, Dtype::I8),
    (9, Dtype::I64),
    (10, Dtype::BOOL),
    (14, Dtype::BF16),
    (17, Dtype::U16),
    (19, Dtype::F16),
    (22, Dtype::U32),
    (23, Dtype::U64),
];
const TEXT: i32 = 7;

impl DataType {
    fn from_code(code: i32) -> Self {
        let known = NUMBERS.iter().find(|(known, _)| *known == code);
        match known {
            Some(&(_, dtype)) => DataType::Numbers(dtype),
            None if code == TEXT => DataType::Text,
            None => DataType::Other(code),
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Numbers(dtype) => f.write_str(&dtype.to_string().to_lowercase()),
            DataType::Text => f.write_str("string"),
            DataType::Other(code) => write!(f, "type {code}"),
        }
    }
}

/// Where and what a tensor is.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Element type.
    pub dtype: DataType,
    /// Dimensions, outermost first.
    pub dims: Vec<usize>,
    /// Whether it is stored in parts (of a partitioned variable), which are not read.
    pub partitioned: bool,
    shard: usize,
    offset: u64,
    size: u64,
    crc: u32,
}

impl Entry {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes in the data file.
    pub fn bytes(&self) -> u64 {
        self.size
    }
}

/// An opened bundle.
#[derive(Debug)]
pub struct Bundle {
    prefix: PathBuf,
    entries: BTreeMap<String, Entry>,
    shards: Vec<Pieces>,
}

impl Bundle {
    /// Opens the bundle that a path leads to: a prefix, one of its files, a folder with a `checkpoint` file (then the latest
    /// one named there), a folder with one index, or a SavedModel.
    ///
    /// # Errors
    /// [`Error::NotABundle`] for anything else; [`Error::Damaged`] where index and data files do not fit;
    /// [`Error::Unsupported`] for big-endian numbers and later layouts.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let prefix = find(path)?;
        let index = with_suffix(&prefix, ".index");
        let bytes = store::read(&index)?;
        let mut pairs = table::read(&bytes)
            .map_err(|problem| match problem {
                table::Problem::Foreign => Error::NotABundle {
                    path: index.clone(),
                    found: "an index ends with other bytes".into(),
                },
                table::Problem::Damaged(what) => Error::damaged(&index, what),
            })?
            .into_iter()
            .peekable();
        let header = pairs
            .next_if(|(key, _)| key.is_empty())
            .and_then(|(_, value)| BundleHeader::decode(value.as_slice()).ok())
            .ok_or_else(|| Error::damaged(&index, "it has no header"))?;
        let shards = open_shards(&prefix, &index, &header)?;
        let lengths: Vec<u64> = shards.iter().map(Pieces::size).collect();
        let mut entries = BTreeMap::new();
        for (key, value) in pairs {
            // Keys of the parts of partitioned variables are no names, and begin with a zero byte.
            if key[0] == 0 {
                continue;
            }
            let name = String::from_utf8(key)
                .map_err(|_| Error::damaged(&index, "a name is not UTF-8"))?;
            let entry = entry(&value, &lengths).map_err(|problem| {
                let path = problem.shard.map_or(&*index, |shard| shards[shard].file());
                Error::damaged(path, format!("tensor `{name}` {}", problem.what))
            })?;
            entries.insert(name, entry);
        }
        Ok(Bundle {
            prefix,
            entries,
            shards,
        })
    }

    /// The path without `.index` and `.data-…`.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Names of the files, index first.
    pub fn files(&self) -> Vec<PathBuf> {
        let data = self.shards.iter().map(|shard| shard.file().to_owned());
        std::iter::once(with_suffix(&self.prefix, ".index"))
            .chain(data)
            .collect()
    }

    /// All tensors by name.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// The bytes of a tensor of numbers, row-major, little-endian.
    ///
    /// # Errors
    /// If it is not there or of another kind, its CRC is wrong, or the disk refuses.
    pub fn numbers(&self, name: &str) -> Result<Vec<u8>, Error> {
        let entry = self.entry(name)?;
        if !matches!(entry.dtype, DataType::Numbers(_)) {
            return Err(self.unsupported(name, &entry.dtype.to_string(), "numbers"));
        }
        let bytes = self.bytes(entry)?;
        let found = masked_crc(&bytes);
        if found != entry.crc {
            return Err(self.wrong_crc(name, entry, found));
        }
        Ok(bytes)
    }

    /// The strings of a tensor of strings.
    ///
    /// # Errors
    /// As of [`Bundle::numbers`].
    pub fn strings(&self, name: &str) -> Result<Vec<Vec<u8>>, Error> {
        let entry = self.entry(name)?;
        if entry.dtype != DataType::Text {
            return Err(self.unsupported(name, &entry.dtype.to_string(), "string"));
        }
        let bytes = self.bytes(entry)?;
        let (strings, found) = write::parse_strings(&bytes, entry.elements()).ok_or_else(|| {
            Error::damaged(
                self.shards[entry.shard].file(),
                format!("the strings of tensor `{name}` do not fill their place"),
            )
        })?;
        if found != entry.crc {
            return Err(self.wrong_crc(name, entry, found));
        }
        Ok(strings)
    }

    fn entry(&self, name: &str) -> Result<&Entry, Error> {
        let entry = self.entries.get(name).ok_or_else(|| Error::Unsupported {
            path: self.prefix.clone(),
            found: format!("has no tensor `{name}`"),
            expected: format!("one of its {} names", self.entries.len()),
        })?;
        if entry.partitioned {
            return Err(self.unsupported(
                name,
                "stored in parts (a partitioned variable)",
                "stored whole",
            ));
        }
        Ok(entry)
    }

    fn bytes(&self, entry: &Entry) -> Result<Vec<u8>, Error> {
        let shard = &self.shards[entry.shard];
        // Within the file when the bundle was opened, so that a size is never more than there is.
        match shard.read(entry.offset, entry.size as usize) {
            Err(data::Error::Read { file, cause })
                if cause.kind() == io::ErrorKind::UnexpectedEof =>
            {
                Err(Error::damaged(&file, "it became shorter while it was read"))
            }
            other => Ok(other?),
        }
    }

    fn unsupported(&self, name: &str, found: &str, expected: &str) -> Error {
        Error::Unsupported {
            path: self.prefix.clone(),
            found: format!("has tensor `{name}` of {found}"),
            expected: expected.into(),
        }
    }

    fn wrong_crc(&self, name: &str, entry: &Entry, found: u32) -> Error {
        Error::damaged(
            self.shards[entry.shard].file(),
            format!(
                "tensor `{name}` ({} bytes at byte {}) has CRC {found:08x}, expected {:08x}",
                entry.size, entry.offset, entry.crc
            ),
        )
    }
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn shard_path(prefix: &Path, shard: usize, shards: usize) -> PathBuf {
    with_suffix(prefix, &format!(".data-{shard:05}-of-{shards:05}"))
}

/// The prefix of the bundle that a path leads to.
fn find(path: &Path) -> Result<PathBuf, Error> {
    let not = |found: String| Error::NotABundle {
        path: path.to_owned(),
        found,
    };
    if has_index(path)? {
        return Ok(path.to_owned());
    }
    if store::is_dir(path)? {
        return find_in_folder(path);
    }
    if !store::is_file(path)? && !path.exists() {
        return Err(not("nothing is there".into()));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name
        .strip_suffix(".index")
        .or_else(|| name.split_once(".data-").map(|(stem, _)| stem))
        .or_else(|| name.strip_suffix(".meta"));
    match stem {
        Some(stem) => {
            let prefix = path.with_file_name(stem);
            if has_index(&prefix)? {
                Ok(prefix)
            } else {
                Err(not(format!("`{stem}.index` is not beside it")))
            }
        }
        None => Err(not("a file of another kind".into())),
    }
}

/// Whether a bundle of this prefix is there.
pub(crate) fn has_index(prefix: &Path) -> Result<bool, data::Error> {
    // Of a bucket itself that would be the name of another bucket.
    let named = !store::normal(prefix)?.ends_with('/') || !store::is_remote(prefix);
    Ok(named && store::is_file(&with_suffix(prefix, ".index"))?)
}

fn find_in_folder(folder: &Path) -> Result<PathBuf, Error> {
    let not = |found: String| Error::NotABundle {
        path: folder.to_owned(),
        found,
    };
    if let Some(list) = store::read_if_there(&folder.join(CHECKPOINT_FILE))? {
        let text = String::from_utf8_lossy(&list);
        let latest = text.lines().find_map(|line| {
            let value = line.strip_prefix("model_checkpoint_path:")?.trim();
            value.strip_prefix('"')?.strip_suffix('"')
        });
        let latest =
            latest.ok_or_else(|| not(format!("`{CHECKPOINT_FILE}` in it names no checkpoint")))?;
        // Folders are moved, also to and from buckets: a name that is not there any more may still lie beside the file.
        let named = folder.join(latest);
        let beside = folder.join(Path::new(latest).file_name().unwrap_or_default());
        for prefix in [named, beside] {
            if store::is_remote(&prefix) == store::is_remote(folder) && has_index(&prefix)? {
                return Ok(prefix);
            }
        }
        return Err(not(format!(
            "`{latest}`, named by its `{CHECKPOINT_FILE}` file, has no index"
        )));
    }
    let saved_model = folder.join("variables/variables");
    if has_index(&saved_model)? {
        return Ok(saved_model);
    }
    let entries = store::entries(folder)?.into_iter();
    let found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(folder.join(entry.name.strip_suffix(".index")?)))
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(not(format!(
            "a folder without an index, which holds {}",
            store::summary(folder)?
        ))),
        [first, ..] => Err(not(format!(
            "a folder with {} indices, `{}` the first of them",
            found.len(),
            first.display()
        ))),
    }
}

fn open_shards(prefix: &Path, index: &Path, header: &BundleHeader) -> Result<Vec<Pieces>, Error> {
    let unsupported = |found: String, expected: &str| Error::Unsupported {
        path: index.to_owned(),
        found,
        expected: expected.into(),
    };
    if header.endianness != 0 {
        return Err(unsupported(
            "is of a big-endian machine".into(),
            "little-endian numbers; save it again on a common machine",
        ));
    }
    let needs = header.version.as_ref().map_or(0, |v| v.min_consumer);
    if needs > VERSION {
        return Err(unsupported(
            format!("needs a reader of layout {needs}"),
            "at most layout 1; save it again with an older TensorFlow",
        ));
    }
    // Five digits of a file name.
    let count = usize::try_from(header.num_shards).unwrap_or(0);
    if !(1..=99_999).contains(&count) {
        return Err(Error::damaged(
            index,
            format!("it names {} data files", header.num_shards),
        ));
    }
    (0..count)
        .map(|shard| {
            let path = shard_path(prefix, shard, count);
            match store::is_file(&path)? {
                true => Ok(Pieces::open(&path)?),
                false => Err(Error::damaged(
                    index,
                    format!("its data file `{}` is missing", path.display()),
                )),
            }
        })
        .collect()
}

/// What is wrong with an entry, and in which data file if not the index.
struct Problem {
    shard: Option<usize>,
    what: String,
}

fn entry(value: &[u8], lengths: &[u64]) -> Result<Entry, Problem> {
    let bad = |what: String| Problem { shard: None, what };
    let entry =
        BundleEntry::decode(value).map_err(|error| bad(format!("has a bad entry ({error})")))?;
    let dims = entry.shape.unwrap_or_default().dim;
    let dims: Vec<usize> = dims
        .iter()
        .map(|dim| usize::try_from(dim.size).ok())
        .collect::<Option<_>>()
        .filter(|dims: &Vec<usize>| dims.len() <= MOST_DIMS)
        .ok_or_else(|| bad("has an impossible shape".into()))?;
    let elements = dims
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim))
        .ok_or_else(|| bad("has an impossible shape".into()))?;
    let dtype = DataType::from_code(entry.dtype);
    let partitioned = !entry.slices.is_empty();
    let shard = usize::try_from(entry.shard_id)
        .ok()
        .filter(|&shard| shard < lengths.len())
        .ok_or_else(|| {
            bad(format!(
                "is in data file {} of {}",
                entry.shard_id,
                lengths.len()
            ))
        })?;
    let (offset, size) = u64::try_from(entry.offset)
        .ok()
        .zip(u64::try_from(entry.size).ok())
        .ok_or_else(|| bad("has an impossible place".into()))?;
    if let (DataType::Numbers(dtype), false) = (dtype, partitioned) {
        let expected = (elements as u64).checked_mul(dtype.bitsize() as u64 / 8);
        if expected != Some(size) {
            return Err(bad(format!(
                "has {size} bytes, expected {elements} elements of {dtype:?}"
            )));
        }
    }
    let end = offset.checked_add(size);
    if !partitioned && end.is_none_or(|end| end > lengths[shard]) {
        return Err(Problem {
            shard: Some(shard),
            what: format!(
                "should end at byte {}, but the file has {} bytes",
                end.map_or("2^64".into(), |end| end.to_string()),
                lengths[shard]
            ),
        });
    }
    Ok(Entry {
        dtype,
        dims,
        partitioned,
        shard,
        offset,
        size,
        crc: entry.crc32c,
    })
}

#[cfg(test)]
pub(super) mod odd;
#[cfg(test)]
mod tests;
