//! What a file or folder holds: names, shapes, types, norms and hashes, every check sum verified on the way.

use super::Error;
use super::tensor_bundle::{Bundle, DataType};
use crate::data::example::Example;
use crate::data::record::Records;
use crate::data::store;
use crate::engine::{self, Cache};
use crate::train::checkpoint;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Columns for people are at most this wide.
const WIDEST: usize = 120;

/// The fact that is a whole file of keys.
const CONFIGURATION: &str = "configuration";

/// What a file or folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Contents {
    /// What it is.
    pub kind: &'static str,
    /// What else is known: `(what, value)`.
    pub facts: Vec<(String, String)>,
    /// Its arrays.
    pub arrays: Vec<ArrayFacts>,
}

/// An array of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct ArrayFacts {
    /// Name.
    pub name: String,
    /// Element type, in lower case.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub dims: Vec<usize>,
    /// Bytes of its elements.
    pub bytes: u64,
    /// Root of the sum of squares of floating-point numbers; the value of a scalar.
    pub norm: Option<f64>,
    /// SHA-256 of its bytes, in hex; none for what is not read.
    pub sha256: Option<String>,
}

/// Finds out what a path leads to, and reads it all.
///
/// # Errors
/// [`Error::Unknown`] for what is none of these things; damage of any of them.
pub fn inspect(path: &Path) -> Result<Contents, Error> {
    if store::is_file(&path.join("manifest.json"))? {
        return our_checkpoint(path);
    }
    if store::is_dir(&path.join("checkpoints"))? {
        return run_folder(path);
    }
    let bundle = match Bundle::open(path) {
        Ok(bundle) => return of_bundle(&bundle),
        Err(error) => error,
    };
    match bundle {
        // An index that is none is nothing else either.
        Error::NotABundle { path: named, found } if named == path => match store::is_file(path)? {
            true => of_file(path),
            false => Err(Error::Unknown { path: named, found }),
        },
        other => Err(other),
    }
}

fn of_file(path: &Path) -> Result<Contents, Error> {
    let bytes = store::read(path)?;
    if let Some(whole) = Cache::check(&bytes) {
        return compiled_program(path, whole, &bytes);
    }
    if let Some(circumstances) = engine::describe(&bytes) {
        let needs = circumstances.ok_or_else(|| broken(path))?;
        let mut contents = Contents::new("compiled program of `simclr compile --save`");
        contents.fact("platform", &needs.platform);
        contents.fact("device kind", &needs.device_kind);
        contents.fact("devices", needs.devices);
        contents.fact("module SHA-256", &needs.module);
        contents.fact("plugin SHA-256", &needs.plugin);
        contents.fact("options", &needs.options);
        contents.fact("environment", &needs.flags);
        contents.fact("processor SHA-256", &needs.processor);
        contents.fact("shape", &needs.shape);
        contents.fact("bytes", bytes.len());
        return Ok(contents);
    }
    if let Ok(tensors) = SafeTensors::deserialize(&bytes) {
        let mut contents = Contents::new("safetensors file");
        if let Ok((_, metadata)) = SafeTensors::read_metadata(&bytes)
            && let Some(map) = metadata.metadata()
        {
            let mut facts: Vec<_> = map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            facts.sort();
            contents.facts = facts;
        }
        contents.arrays = of_safetensors(&tensors);
        return Ok(contents);
    }
    if bytes.len() >= 12 {
        return of_records(path, &bytes);
    }
    Err(Error::Unknown {
        path: path.into(),
        found: format!("a file of {} bytes", bytes.len()),
    })
}

impl Contents {
    fn new(kind: &'static str) -> Self {
        Contents {
            kind,
            facts: Vec::new(),
            arrays: Vec::new(),
        }
    }

    fn fact(&mut self, what: &str, value: impl ToString) {
        self.facts.push((what.into(), value.to_string()));
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.kind);
        for (what, value) in &self.facts {
            if what == CONFIGURATION {
                let section = |line: &str| line.trim_end().ends_with(':');
                let keys = value.lines().filter(|line| !section(line)).count();
                text.push_str(&format!("  {what:<16} {keys} keys, shown with --json\n"));
                continue;
            }
            let short: String = value
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(100)
                .collect();
            let more = if short.len() < value.trim_end().len() {
                " …"
            } else {
                ""
            };
            text.push_str(&format!("  {what:<16} {short}{more}\n"));
        }
        if self.arrays.is_empty() {
            return text;
        }
        // One long name shall not move all others off the screen (and a format takes no width above 65,535).
        let width = |of: &dyn Fn(&ArrayFacts) -> usize| {
            let longest = self.arrays.iter().map(of).max().unwrap_or(0);
            longest.min(WIDEST)
        };
        let (names, shapes) = (width(&|a| a.name.len()), width(&|a| a.shape().len()));
        // Parts of a partitioned variable may claim any size.
        let sum = |of: &dyn Fn(&ArrayFacts) -> u64| {
            self.arrays.iter().map(of).fold(0, u64::saturating_add)
        };
        let bytes = sum(&|a| a.bytes);
        let elements = sum(&|a| a.elements());
        text.push_str(&format!(
            "  {:<16} {}, {elements} elements, {bytes} bytes\n\n",
            "arrays",
            self.arrays.len()
        ));
        for array in &self.arrays {
            let norm = array
                .norm
                .map_or(String::new(), |norm| format!("{norm:.6e}"));
            let hash = array.sha256.as_deref().map_or("", |hash| &hash[..12]);
            let line = format!(
                "{:<names$}  {:<shapes$}  {norm:>13}  {hash}",
                array.name,
                array.shape()
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push_str(
            "\nname, type and shape, norm (a scalar's value), SHA-256 (whole with --json)\n",
        );
        text
    }

    /// For machines: an object with `kind`, `facts` and `arrays`.
    pub fn json(&self) -> String {
        let arrays: Vec<_> = self
            .arrays
            .iter()
            .map(|a| {
                json!({
                    "name": a.name, "dtype": a.dtype, "shape": a.dims, "bytes": a.bytes,
                    "norm": a.norm, "sha256": a.sha256,
                })
            })
            .collect();
        let facts: serde_json::Map<_, _> = self
            .facts
            .iter()
            .map(|(what, value)| (what.clone(), json!(value)))
            .collect();
        let all = json!({"kind": self.kind, "facts": facts, "arrays": arrays});
        serde_json::to_string_pretty(&all).expect("strings and numbers are valid JSON")
    }
}

impl ArrayFacts {
    fn new(name: &str, dtype: Dtype, dims: &[usize], bytes: &[u8]) -> Self {
        ArrayFacts {
            name: name.into(),
            dtype: dtype.to_string().to_lowercase(),
            dims: dims.to_vec(),
            bytes: bytes.len() as u64,
            norm: norm(dtype, dims, bytes),
            sha256: Some(sha256(bytes)),
        }
    }

    fn elements(&self) -> u64 {
        let sizes = self.dims.iter().map(|&dim| dim as u64);
        sizes.fold(1, u64::saturating_mul)
    }

    fn shape(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(usize::to_string).collect();
        format!("{}[{}]", self.dtype, dims.join(","))
    }
}

/// Root of the sum of squares of floats, the value of a scalar; an integer if it is the only one.
fn norm(dtype: Dtype, dims: &[usize], bytes: &[u8]) -> Option<f64> {
    let scalar = dims.is_empty();
    fn squares<const N: usize>(scalar: bool, bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> f64 {
        let (chunks, _) = bytes.as_chunks::<N>();
        if let ([only], true) = (chunks, scalar) {
            return read(*only);
        }
        chunks
            .iter()
            .map(|&c| read(c) * read(c))
            .sum::<f64>()
            .sqrt()
    }
    Some(match dtype {
        Dtype::F32 => squares(scalar, bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => squares(scalar, bytes, f64::from_le_bytes),
        Dtype::BF16 => squares(scalar, bytes, |b| f64::from(bf16::from_le_bytes(b))),
        Dtype::F16 => squares(scalar, bytes, |b| f64::from(f16::from_le_bytes(b))),
        Dtype::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::U64 => u64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::I32 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        Dtype::U32 => f64::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_safetensors(tensors: &SafeTensors) -> Vec<ArrayFacts> {
    let mut arrays: Vec<_> = tensors
        .iter()
        .map(|(name, view)| ArrayFacts::new(name, view.dtype(), view.shape(), view.data()))
        .collect();
    arrays.sort_by(|a, b| a.name.cmp(&b.name));
    arrays
}

fn our_checkpoint(path: &Path) -> Result<Contents, Error> {
    let manifest = checkpoint::verify(path)?;
    let mut contents = Contents::new("checkpoint of simclr");
    contents.fact("folder", path.display());
    contents.fact("step", manifest.step);
    contents.fact("epoch", manifest.epoch);
    contents.fact("data position", manifest.data_position);
    contents.fact("seed", manifest.seed);
    contents.fact("module hash", &manifest.module_hash);
    if !manifest.compiled_hash.is_empty() {
        contents.fact("as compiled", &manifest.compiled_hash);
    }
    contents.fact(CONFIGURATION, &manifest.config_yaml);
    let file = path.join("state.safetensors");
    let bytes = store::read(&file)?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::damaged(&file, error.to_string()))?;
    contents.arrays = of_safetensors(&tensors);
    Ok(contents)
}

fn run_folder(path: &Path) -> Result<Contents, Error> {
    let found = checkpoint::list(&path.join("checkpoints"))?;
    let Some((_, newest)) = found.last() else {
        return Err(Error::Unknown {
            path: path.into(),
            found: "a run folder without a checkpoint".into(),
        });
    };
    let mut contents = our_checkpoint(newest)?;
    let steps: Vec<String> = found.iter().map(|(step, _)| step.to_string()).collect();
    contents
        .facts
        .insert(0, ("all steps".into(), steps.join(", ")));
    Ok(contents)
}

fn of_bundle(bundle: &Bundle) -> Result<Contents, Error> {
    let mut contents = Contents::new("TensorFlow checkpoint");
    contents.fact("prefix", bundle.prefix().display());
    contents.fact("files", bundle.files().len());
    for (name, entry) in bundle.entries() {
        let mut array = ArrayFacts {
            name: name.clone(),
            dtype: entry.dtype.to_string(),
            dims: entry.dims.clone(),
            bytes: entry.bytes(),
            norm: None,
            sha256: None,
        };
        match entry.dtype {
            DataType::Numbers(dtype) if !entry.partitioned => {
                let bytes = bundle.numbers(name)?;
                array.norm = norm(dtype, &entry.dims, &bytes);
                array.sha256 = Some(sha256(&bytes));
            }
            DataType::Text if !entry.partitioned => {
                array.sha256 = Some(sha256(&bundle.strings(name)?.concat()));
            }
            _ => {}
        }
        contents.arrays.push(array);
    }
    Ok(contents)
}

fn broken(path: &Path) -> Error {
    Error::damaged(path, "its content does not have the SHA-256 in its head")
}

fn compiled_program(path: &Path, whole: bool, bytes: &[u8]) -> Result<Contents, Error> {
    if !whole {
        return Err(broken(path));
    }
    let mut contents = Contents::new("compiled program of simclr's cache");
    contents.fact("bytes", bytes.len());
    contents.fact("SHA-256", sha256(bytes));
    Ok(contents)
}

fn of_records(path: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    let mut contents = Contents::new("TFRecord file");
    let (mut records, mut data) = (0u64, 0u64);
    for record in Records::new(path, bytes) {
        let record = match record {
            Ok(record) => record,
            // A file whose very first length is wrong is no record file.
            Err(_) if records == 0 => {
                return Err(Error::Unknown {
                    path: path.into(),
                    found: format!("a file of {} bytes of another kind", bytes.len()),
                });
            }
            Err(error) => return Err(error.into()),
        };
        if records == 0
            && let Ok(example) = Example::parse(record.data)
        {
            for (name, feature) in example.features() {
                contents.fact(&format!("`{name}`"), feature.describe());
            }
        }
        records += 1;
        data += record.data.len() as u64;
    }
    contents.facts.insert(
        0,
        ("records".into(), format!("{records}, all check sums right")),
    );
    contents
        .facts
        .insert(1, ("bytes of data".into(), data.to_string()));
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(name: &str, dtype: Dtype, dims: &[usize], bytes: &[u8]) -> ArrayFacts {
        ArrayFacts::new(name, dtype, dims, bytes)
    }

    #[test]
    fn names_and_sizes_of_any_length_are_shown() {
        let mut contents = Contents::new("safetensors file");
        let long = "n".repeat(70_000);
        contents.arrays = vec![
            array(&long, Dtype::F32, &[1], &[0; 4]),
            array("many", Dtype::F32, &[1; 40_000], &[0; 4]),
        ];
        for array in &mut contents.arrays {
            array.bytes = u64::MAX;
        }
        contents.arrays[0].dims = vec![usize::MAX, 3];
        let text = contents.text();
        assert!(text.contains(&long));
        assert!(
            text.contains("18446744073709551615 elements, 18446744073709551615 bytes"),
            "{}",
            &text[..200]
        );
    }

    #[test]
    fn scalars_show_their_value() {
        let norm = |dtype, dims: &[usize], bytes: &[u8]| array("a", dtype, dims, bytes).norm;
        let float = (-2.5f32).to_le_bytes();
        assert_eq!(norm(Dtype::F32, &[], &float), Some(-2.5));
        assert_eq!(norm(Dtype::F32, &[1], &float), Some(2.5));
        assert_eq!(norm(Dtype::U32, &[], &[255; 4]), Some(4_294_967_295.0));
        assert_eq!(norm(Dtype::I32, &[], &[255; 4]), Some(-1.0));
        assert_eq!(norm(Dtype::U64, &[], &[255; 8]), Some(u64::MAX as f64));
        assert_eq!(norm(Dtype::I64, &[], &[255; 8]), Some(-1.0));
    }
}
