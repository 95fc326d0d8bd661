//! A folder of pictures to TFRecords in the layout of TFDS.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::json;
use tfrecord::BytesWriter;

use super::folder::{Folder, PassedOver};
use super::order::epoch_permutation;
use super::store::{self, all_entries, entries, read};
use super::{Error, decode, find};
use crate::proto::example::feature::Kind;
use crate::proto::example::{BytesList, Example, Feature, Features, Int64List};
use crate::words::plural;

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackSpec {
    /// Name of the new set.
    pub name: String,
    /// Bytes of a file, about.
    pub shard_bytes: u64,
}

/// A split that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Packed {
    /// Its name.
    pub split: String,
    /// Examples of each file.
    pub lengths: Vec<u64>,
    /// Bytes of its records without their framing.
    pub bytes: u64,
}

const VERSION: &str = "1.0.0";

/// The description by which a set is known: where it is, the set is whole.
const INFO: &str = "dataset_info.json";

/// Packs `images` (`SPLIT/CLASS/*`, or `CLASS/*` as the split `train`, or pictures without classes) into `out/NAME/1.0.0`. Files are
/// taken as they are, after a look whether they can be decoded, and shuffled, so that no file holds one class. The same pictures give
/// the same bytes. A local folder appears when it is whole; in a bucket the description is written last, and what an upload that broke
/// off has left is replaced. A failure leaves no folder that was not there. `progress` is called after each picture.
///
/// # Errors
/// If there are no pictures, one cannot be decoded, or something cannot be written.
pub fn pack(
    images: &Path,
    out: &Path,
    spec: &PackSpec,
    progress: &dyn Fn(),
) -> Result<(PathBuf, Vec<Packed>), Error> {
    let target = out.join(&spec.name).join(VERSION);
    // For a bucket it is packed here first.
    let remote = store::is_remote(out);
    let there = match remote {
        true => store::is_file(&target.join(INFO))? || holds_another(&target, &spec.name)?,
        false => target.is_dir(),
    };
    if there {
        return Err(Error::OutputExists { dir: target });
    }
    let partial = match remote {
        true => std::env::temp_dir().join(format!("simclr-pack-{}", std::process::id())),
        false => out.join(&spec.name).join(format!("{VERSION}.partial")),
    };
    let remove = || match fs::remove_dir_all(&partial) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(unwritable(&partial, cause))
        }
        _ => Ok(()),
    };
    // Of an attempt that was killed.
    remove()?;
    let above = partial.ancestors().skip(1);
    let made: Vec<&Path> = above.take_while(|folder| !folder.exists()).collect();
    let packed = fs::create_dir_all(&partial)
        .map_err(|cause| unwritable(&partial, cause))
        .and_then(|()| fill(images, &partial, spec, progress))
        .and_then(|packed| match remote {
            true => send(&partial, &target).map(|()| packed),
            false => fs::rename(&partial, &target)
                .map_err(|cause| unwritable(&target, cause))
                .map(|()| packed),
        });
    match &packed {
        Ok(_) => remove()?,
        // What was wrong is more important than what remains; a folder that holds anything of others stays.
        Err(_) => {
            remove().ok();
            for folder in made {
                fs::remove_dir(folder).ok();
            }
        }
    }
    Ok((target, packed?))
}

/// Whether files of a set of another name lie there, which are not ours to replace.
fn holds_another(dir: &Path, name: &str) -> Result<bool, Error> {
    let entries = entries(dir)?;
    let mut sets = entries.iter().filter_map(|entry| find::shard(&entry.name));
    Ok(sets.any(|(set, _)| set != name))
}

/// Writes the files of a folder to a bucket, the description by which a set is known last. Before that goes what an upload that broke
/// off has left and what would be taken for a part of this one.
fn send(from: &Path, to: &Path) -> Result<(), Error> {
    let mut names: Vec<String> = entries(from)?.into_iter().map(|entry| entry.name).collect();
    names.sort_by_key(|name| name == INFO);
    let mut left = entries(to)?;
    left.retain(|entry| find::shard(&entry.name).is_some() && !names.contains(&entry.name));
    for entry in &left {
        store::remove(&to.join(&entry.name))?;
    }
    if !left.is_empty() {
        tracing::warn!(
            "{} file{} of an upload that broke off {} removed from {}",
            left.len(),
            plural(left.len()),
            if left.len() == 1 { "was" } else { "were" },
            to.display()
        );
    }
    for (written, name) in names.iter().enumerate() {
        let sent =
            read(&from.join(name)).and_then(|bytes| store::write(&to.join(name), bytes.into()));
        sent.map_err(|cause| Error::BrokeOff {
            dir: to.into(),
            written,
            files: names.len(),
            cause: Box::new(cause),
        })?;
    }
    Ok(())
}

/// Writes all splits and their description.
fn fill(
    images: &Path,
    partial: &Path,
    spec: &PackSpec,
    progress: &dyn Fn(),
) -> Result<Vec<Packed>, Error> {
    let mut splits = Vec::new();
    for split in ["train", "validation", "val", "test"] {
        if store::is_dir(&images.join(split))? {
            splits.push(split);
        }
    }
    if splits.is_empty() {
        splits.push("train");
    }
    let mut packed = Vec::new();
    let mut class_names: Option<Vec<String>> = None;
    for split in splits {
        let folder = match Folder::open(split, images) {
            Err(Error::NotFound { .. }) => unlabelled(split, images)?,
            folder => folder?,
        };
        let place = match folder.class_names.is_empty() {
            true => "the folder",
            false => "the class folders",
        };
        if let Some(note) = folder.passed_over.note(place) {
            tracing::warn!("{note}");
        }
        match &class_names {
            Some(names) if *names != folder.class_names => {
                return Err(Error::OtherClasses {
                    dir: images.join(split),
                    found: folder.class_names.len(),
                    expected: names.len(),
                });
            }
            _ => class_names = Some(folder.class_names.clone()),
        }
        packed.push(write_split(split, &folder, partial, spec, progress)?);
    }
    describe(partial, spec, &packed, &class_names.unwrap_or_default())?;
    Ok(packed)
}

/// Pictures directly in a folder: one class without a name.
fn unlabelled(split: &str, images: &Path) -> Result<Folder, Error> {
    let inner = images.join(split);
    let root = if store::is_dir(&inner)? {
        inner
    } else {
        images.into()
    };
    let (mut files, mut bytes) = (Vec::new(), 0);
    let mut passed_over = PassedOver::default();
    for entry in all_entries(&root)? {
        let file = root.join(&entry.name);
        if entry.odd.is_some() {
            passed_over.add(&entry, file);
        } else if !entry.is_dir() && !entry.is_hidden() && decode::format(&read(&file)?).is_some() {
            files.push(file);
            bytes += entry.size.unwrap_or(0);
        }
    }
    if files.is_empty() {
        // With what the folder holds in the message.
        return Folder::open(split, images);
    }
    Ok(Folder {
        labels: vec![0; files.len()],
        files,
        bytes,
        class_names: Vec::new(),
        passed_over,
        fingerprint: String::new(),
    })
}

fn write_split(
    split: &str,
    folder: &Folder,
    out: &Path,
    spec: &PackSpec,
    progress: &dyn Fn(),
) -> Result<Packed, Error> {
    let count = folder.files.len();
    let shards = folder
        .bytes
        .div_ceil(spec.shard_bytes.max(1))
        .clamp(1, count as u64) as usize;
    // At most as many as `u32` counts: more file names do not fit into memory.
    let order = epoch_permutation(0, 0, count as u32);
    let mut packed = Packed {
        split: split.into(),
        lengths: Vec::new(),
        bytes: 0,
    };
    for shard in 0..shards {
        let name = format!("{}-{split}.tfrecord-{shard:05}-of-{shards:05}", spec.name);
        let file = out.join(name);
        let failed =
            |error: tfrecord::Error| unwritable(&file, std::io::Error::other(error.to_string()));
        let mut writer = BytesWriter::create(&file).map_err(failed)?;
        let [from, to] = [shard, shard + 1].map(|edge| count * edge / shards);
        for &index in &order[from..to] {
            let index = index as usize;
            let bytes = read(&folder.files[index])?;
            decode::decode(&bytes).map_err(|reason| Error::PackedFile {
                file: folder.files[index].clone(),
                reason,
            })?;
            let classes = !folder.class_names.is_empty();
            let label = classes.then_some(folder.labels[index]);
            let record = example(folder.name(index), bytes, label);
            writer.send(record).map_err(failed)?;
            progress();
        }
        writer.flush().map_err(failed)?;
        drop(writer);
        let length = (to - from) as u64;
        packed.bytes += size(&file)? - 16 * length;
        packed.lengths.push(length);
    }
    Ok(packed)
}

/// A record; the same one gives the same bytes.
fn example(name: String, picture: Vec<u8>, label: Option<u32>) -> Vec<u8> {
    let bytes = |value| Kind::BytesList(BytesList { value: vec![value] });
    let mut feature = BTreeMap::from([
        ("file_name".to_string(), bytes(name.into_bytes())),
        ("image".to_string(), bytes(picture)),
    ]);
    if let Some(label) = label {
        let value = vec![label.into()];
        feature.insert("label".into(), Kind::Int64List(Int64List { value }));
    }
    let kinds = feature.into_iter();
    let feature = kinds.map(|(key, kind)| (key, Feature { kind: Some(kind) }));
    let features = Features {
        feature: feature.collect(),
    };
    Example {
        features: Some(features),
    }
    .encode_to_vec()
}

/// The files by which TFDS knows a set.
fn describe(
    folder: &Path,
    spec: &PackSpec,
    packed: &[Packed],
    class_names: &[String],
) -> Result<(), Error> {
    const FEATURES: &str = "tensorflow_datasets.core.features";
    let mut features = json!({
        "file_name": {"pythonClassName": format!("{FEATURES}.text_feature.Text"), "text": {}},
        "image": {
            "pythonClassName": format!("{FEATURES}.image_feature.Image"),
            "image": {"dtype": "uint8", "encodingFormat": "jpeg", "shape": {"dimensions": ["-1", "-1", "3"]}},
        },
    });
    let mut info = json!({
        "name": spec.name,
        "version": VERSION,
        "description": "Pictures packed by simclr.",
        "fileFormat": "tfrecord",
        "splits": packed.iter().map(|split| json!({
            "name": split.split,
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "numBytes": split.bytes.to_string(),
            "shardLengths": split.lengths.iter().map(u64::to_string).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    if !class_names.is_empty() {
        features["label"] = json!({
            "pythonClassName": format!("{FEATURES}.class_label_feature.ClassLabel"),
            "classLabel": {"numClasses": class_names.len().to_string()},
        });
        info["supervisedKeys"] =
            json!({"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}});
        write(
            &folder.join("label.labels.txt"),
            &(class_names.join("\n") + "\n"),
        )?;
    }
    let features = json!({
        "pythonClassName": format!("{FEATURES}.features_dict.FeaturesDict"),
        "featuresDict": {"features": features},
    });
    write(&folder.join("features.json"), &format!("{features:#}\n"))?;
    write(&folder.join(INFO), &format!("{info:#}\n"))
}

fn size(file: &Path) -> Result<u64, Error> {
    let found = fs::metadata(file).map_err(|cause| Error::reading(file, cause))?;
    Ok(found.len())
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(|cause| unwritable(file, cause))
}

fn unwritable(file: &Path, cause: std::io::Error) -> Error {
    Error::writing(file, cause)
}
