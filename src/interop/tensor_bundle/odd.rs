//! Bundles that no writer would write, for tests.

use super::*;
use crate::proto::tensor_bundle::{TensorShape, tensor_shape::Dim};
use std::fs::{self, File};

/// A bundle of names and shapes of f32 whose data file is one hole; `graph`, if any, becomes the object graph.
pub fn hollow(prefix: &Path, tensors: &[(String, Vec<i64>)], graph: Option<Vec<u8>>) {
    let texts: Vec<Tensor> = graph
        .map(|bytes| Tensor::text(crate::interop::object_graph::GRAPH_KEY, bytes))
        .into_iter()
        .collect();
    write(prefix, &texts).expect("a bundle");
    let index = with_suffix(prefix, ".index");
    let mut pairs = table::read(&fs::read(&index).expect("an index")).expect("a table");
    let sizes = tensors.iter().map(|(_, dims)| size(dims));
    let most = sizes.max().unwrap_or(0);
    for (name, dims) in tensors {
        let entry = BundleEntry {
            dtype: 1,
            shape: Some(shape(dims)),
            size: size(dims),
            ..BundleEntry::default()
        };
        pairs.push((name.clone().into_bytes(), entry.encode_to_vec()));
    }
    pairs.sort();
    fs::write(&index, table::write(&pairs)).expect("an index");
    let data = File::options()
        .write(true)
        .open(shard_path(prefix, 0, 1))
        .expect("a data file");
    let length = data.metadata().expect("a size").len() as i64;
    data.set_len(length.max(most) as u64).expect("a hole");
}

/// Dimensions as an entry has them.
pub fn shape(dims: &[i64]) -> TensorShape {
    TensorShape {
        dim: dims.iter().map(|&size| Dim { size }).collect(),
        unknown_rank: false,
    }
}

/// Bytes of so many f32.
pub fn size(dims: &[i64]) -> i64 {
    dims.iter().product::<i64>() * 4
}

/// A bundle taken apart. Written again, its index has right CRCs whatever it says.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// What the index begins with.
    pub header: BundleHeader,
    /// What it says of each tensor.
    pub entries: BTreeMap<String, BundleEntry>,
    /// The data files' bytes.
    pub shards: Vec<Vec<u8>>,
}

impl Parts {
    /// An empty bundle of so many data files.
    pub fn new(shards: usize) -> Self {
        Parts {
            header: BundleHeader {
                num_shards: shards as i32,
                ..BundleHeader::default()
            },
            entries: BTreeMap::new(),
            shards: vec![Vec::new(); shards],
        }
    }

    /// Adds a tensor of numbers to the next data file in turn.
    pub fn numbers(&mut self, name: &str, dtype: i32, dims: &[i64], bytes: &[u8]) {
        self.add(name, dtype, dims, bytes, masked_crc(bytes));
    }

    /// Adds a string.
    pub fn text(&mut self, name: &str, string: &[u8]) {
        let (bytes, crc) = write::string_bytes(string);
        self.add(name, TEXT, &[], &bytes, crc);
    }

    fn add(&mut self, name: &str, dtype: i32, dims: &[i64], bytes: &[u8], crc32c: u32) {
        let shard_id = self.entries.len() % self.shards.len();
        let shard = &mut self.shards[shard_id];
        let entry = BundleEntry {
            dtype,
            shape: Some(shape(dims)),
            shard_id: shard_id as i32,
            offset: shard.len() as i64,
            size: bytes.len() as i64,
            crc32c,
            slices: Vec::new(),
        };
        shard.extend_from_slice(bytes);
        self.entries.insert(name.into(), entry);
    }

    /// The bytes of a tensor, if its data file has them.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let entry = &self.entries[name];
        let start = entry.offset as usize;
        self.shards[entry.shard_id as usize].get(start..start + entry.size as usize)
    }

    /// Writes the files.
    pub fn write(&self, prefix: &Path) {
        let head = (Vec::new(), self.header.encode_to_vec());
        let entries = self.entries.iter();
        let entries =
            entries.map(|(name, entry)| (name.clone().into_bytes(), entry.encode_to_vec()));
        let pairs: Vec<_> = std::iter::once(head).chain(entries).collect();
        fs::write(with_suffix(prefix, ".index"), table::write(&pairs)).expect("an index");
        for (number, shard) in self.shards.iter().enumerate() {
            let path = shard_path(prefix, number, self.shards.len());
            fs::write(path, shard).expect("a data file");
        }
    }
}
