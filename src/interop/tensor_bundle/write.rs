//! Writing a bundle, and the layout of tensors of strings.

use super::{DataType, Error, NUMBERS, TEXT, VERSION, shard_path, table, with_suffix};
use crate::data::record::masked_crc;
use crate::proto::tensor_bundle::{
    BundleEntry, BundleHeader, TensorShape, VersionDef, tensor_shape,
};
use crate::report::disk;
use prost::Message;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The text file beside bundles that names the latest of them.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// A tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Its name, unique in the bundle.
    pub name: String,
    /// Dimensions, outermost first.
    pub dims: Vec<usize>,
    /// Its elements.
    pub content: Content<'a>,
}

/// Elements of a tensor to write.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// Numbers, row-major, little-endian.
    Numbers(Dtype, &'a [u8]),
    /// One string.
    Text(Vec<u8>),
}

impl<'a> Tensor<'a> {
    /// A tensor of numbers.
    pub fn numbers(name: impl Into<String>, dtype: Dtype, dims: &[usize], bytes: &'a [u8]) -> Self {
        Tensor {
            name: name.into(),
            dims: dims.to_vec(),
            content: Content::Numbers(dtype, bytes),
        }
    }

    /// A scalar string.
    pub fn text(name: impl Into<String>, text: Vec<u8>) -> Self {
        Tensor {
            name: name.into(),
            dims: Vec::new(),
            content: Content::Text(text),
        }
    }
}

/// Writes a bundle of one data file with its `checkpoint` file into the folder of `prefix`, which must exist. The index gets
/// its name last, so that there is never half a bundle; files of the same names are replaced.
///
/// # Errors
/// If the disk refuses, or a type has no number in TensorFlow.
pub fn write(prefix: &Path, tensors: &[Tensor]) -> Result<(), Error> {
    let folder = disk::parent(prefix);
    let stem = prefix.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!("{}{stem}", disk::TEMPORARY));
    let data = shard_path(prefix, 0, 1);
    let result = write_data(&temporary, tensors)
        .and_then(|index| {
            fs::rename(&temporary, &data).map_err(Error::io("rename to", &data))?;
            let index_path = with_suffix(prefix, ".index");
            disk::replace(&index_path, &index).map_err(Error::io("write", &index_path))
        })
        .and_then(|()| {
            let list = folder.join(CHECKPOINT_FILE);
            let text = format!(
                "model_checkpoint_path: \"{stem}\"\nall_model_checkpoint_paths: \"{stem}\"\n"
            );
            disk::replace(&list, text.as_bytes()).map_err(Error::io("write", &list))
        });
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is the one to tell
    }
    result
}

/// Writes the data file and gives the index.
fn write_data(path: &PathBuf, tensors: &[Tensor]) -> Result<Vec<u8>, Error> {
    let mut file = BufWriter::new(File::create(path).map_err(Error::io("create", path))?);
    let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let header = BundleHeader {
        num_shards: 1,
        endianness: 0,
        version: Some(VersionDef {
            producer: VERSION,
            min_consumer: 0,
        }),
    };
    entries.insert(Vec::new(), header.encode_to_vec());
    let mut offset = 0;
    for tensor in tensors {
        let text;
        let (code, bytes, crc) = match &tensor.content {
            Content::Numbers(dtype, bytes) => {
                let code = NUMBERS.iter().find(|(_, known)| known == dtype);
                let (code, _) = code.ok_or_else(|| Error::Unsupported {
                    path: path.clone(),
                    found: format!("would get tensor `{}` of {dtype:?}", tensor.name),
                    expected: "a type of TensorFlow's".into(),
                })?;
                (*code, *bytes, masked_crc(bytes))
            }
            Content::Text(string) => {
                let (bytes, crc) = string_bytes(string);
                text = bytes;
                (TEXT, text.as_slice(), crc)
            }
        };
        file.write_all(bytes).map_err(Error::io("write", path))?;
        let dim = |&size: &usize| tensor_shape::Dim { size: size as i64 };
        let entry = BundleEntry {
            dtype: code,
            shape: Some(TensorShape {
                dim: tensor.dims.iter().map(dim).collect(),
                unknown_rank: false,
            }),
            shard_id: 0,
            offset,
            size: bytes.len() as i64,
            crc32c: crc,
            slices: Vec::new(),
        };
        offset += bytes.len() as i64;
        entries.insert(tensor.name.clone().into_bytes(), entry.encode_to_vec());
    }
    let file = file
        .into_inner()
        .map_err(|error| Error::io("write", path)(error.into_error()))?;
    file.sync_all().map_err(Error::io("write", path))?;
    let pairs: Vec<_> = entries.into_iter().collect();
    Ok(table::write(&pairs))
}

/// One string as a tensor's bytes, and their CRC: lengths as varints, the CRC of the lengths as plain numbers, the characters.
pub(super) fn string_bytes(string: &[u8]) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(string.len() as u64, &mut bytes);
    let mut plain = length_bytes(string.len() as u64);
    let check = masked_crc(&plain).to_le_bytes();
    bytes.extend_from_slice(&check);
    bytes.extend_from_slice(string);
    plain.extend_from_slice(&check);
    plain.extend_from_slice(string);
    (bytes, masked_crc(&plain))
}

/// A length as the CRCs of strings see it.
fn length_bytes(length: u64) -> Vec<u8> {
    match u32::try_from(length) {
        Ok(short) => short.to_le_bytes().to_vec(),
        Err(_) => length.to_le_bytes().to_vec(),
    }
}

/// The strings in a tensor's bytes, and the CRC that they should have; `None` if they do not fill the bytes.
pub(super) fn parse_strings(bytes: &[u8], count: usize) -> Option<(Vec<Vec<u8>>, u32)> {
    let mut rest = bytes;
    let mut lengths = Vec::new();
    let mut plain = Vec::new();
    // Every length takes a byte at least.
    if count > bytes.len() {
        return None;
    }
    for _ in 0..count {
        let length = prost::encoding::decode_varint(&mut rest).ok()?;
        plain.extend_from_slice(&length_bytes(length));
        lengths.push(usize::try_from(length).ok()?);
    }
    let check = rest.split_off(..4)?;
    plain.extend_from_slice(check);
    let mut strings = Vec::new();
    for length in lengths {
        let string = rest.split_off(..length)?;
        plain.extend_from_slice(string);
        strings.push(string.to_vec());
    }
    rest.is_empty().then(|| (strings, masked_crc(&plain)))
}

impl Content<'_> {
    /// The element type.
    pub fn dtype(&self) -> DataType {
        match self {
            Content::Numbers(dtype, _) => DataType::Numbers(*dtype),
            Content::Text(_) => DataType::Text,
        }
    }
}
