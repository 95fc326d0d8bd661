//! Trained networks for other programs: weights under their names and layouts, or the encoder as a program.

mod program;
mod tensorflow;
mod torch;

pub use program::{ENDPOINTS, Weights};
pub use tensorflow::Generation;

use super::{Error, folder};
use crate::interop::import::describe;
use crate::train::trained::Trained;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// `model.safetensors`: all variables under our names.
    Safetensors,
    /// `model.safetensors` with torchvision's names and layouts.
    Torchvision,
    /// The same with timm's `config.json`, a folder that `timm.create_model("local-dir:…")` opens.
    Timm,
    /// A TensorFlow checkpoint that the original restores.
    TfCheckpoint(Generation),
    /// The encoder as XLA's `HloModuleProto`.
    Hlo(Program),
    /// The encoder as StableHLO text.
    StableHlo(Program),
}

/// Choices of an exported program.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// Images in a call.
    pub batch: usize,
    /// Where the weights are.
    pub weights: Weights,
    /// Names of the values it gives; all there are if empty.
    pub endpoints: Vec<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The files.
    pub files: Vec<PathBuf>,
    /// What a user of them should know.
    pub notes: Vec<String>,
}

/// Writes a trained network to the new folder `out`.
///
/// # Errors
/// A network that the format has no names for; a folder that is there or cannot be written. Then nothing is left in `out`.
pub fn export(run: &Trained, out: &Path, format: &Format) -> Result<Exported, Error> {
    let notes = folder::make(out, |folder| match format {
        Format::Safetensors => ours(run, folder),
        Format::Torchvision => torch::write(run, folder, false),
        Format::Timm => torch::write(run, folder, true),
        Format::TfCheckpoint(generation) => tensorflow::write(run, folder, *generation),
        Format::Hlo(choices) => program::write(run, folder, choices, false),
        Format::StableHlo(choices) => program::write(run, folder, choices, true),
    })?;
    let entries = fs::read_dir(out).map_err(Error::io("read", out))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(Exported { files, notes })
}

/// All variables under our names.
fn ours(run: &Trained, folder: &Path) -> Result<Vec<String>, Error> {
    let tensors: Vec<Tensor> = run
        .variables
        .iter()
        .zip(&run.values)
        .map(|(variable, value)| Tensor {
            name: variable.name.clone(),
            dtype: Dtype::F32,
            dims: variable.dims.iter().map(|&dim| dim as usize).collect(),
            bytes: value.bytes().to_vec(),
        })
        .collect();
    let mut about = about(run);
    about.insert("configuration".into(), run.loaded.to_yaml());
    safetensors_file(&folder.join("model.safetensors"), &tensors, about)?;
    Ok(Vec::new())
}

/// A tensor of a safetensors file.
struct Tensor {
    name: String,
    dtype: Dtype,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

/// What every safetensors file of ours says of itself.
fn about(run: &Trained) -> HashMap<String, String> {
    HashMap::from([
        (
            "program".into(),
            format!("simclr {}", env!("CARGO_PKG_VERSION")),
        ),
        ("network".into(), describe(&run.network)),
        ("step".into(), run.manifest.step.to_string()),
        ("image_size".into(), run.network.image_size.to_string()),
    ])
}

fn safetensors_file(
    path: &Path,
    tensors: &[Tensor],
    about: HashMap<String, String>,
) -> Result<(), Error> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.dims.clone(), &tensor.bytes);
        // Sizes follow from the network's own shapes.
        (tensor.name.as_str(), view.expect("bytes fit the shape"))
    });
    let bytes = safetensors::serialize(views, Some(about))
        .map_err(|error| Error::damaged(path, error.to_string()))?;
    folder::write(path, &bytes)
}
