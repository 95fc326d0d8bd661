//! Sets of pictures of many sizes, made by the tests themselves.
#![allow(dead_code)] // each test binary uses its part

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tfrecord::protobuf::Features;
use tfrecord::{Example, ExampleWriter, Feature};

/// A smooth picture, different for each number: RGB, with its height and width.
pub fn picture(number: usize) -> (Vec<u8>, usize, usize) {
    let (height, width) = (40 + number * 7 % 50, 36 + number * 11 % 60);
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let at = |scale: f32| {
                let wave =
                    (x as f32 * scale + number as f32).sin() + (y as f32 * scale * 0.7).cos();
                (wave * 60.0 + 128.0) as u8
            };
            pixels.extend([at(0.05), at(0.11), at(0.17 + number as f32 * 0.01)]);
        }
    }
    (pixels, height, width)
}

pub fn jpeg(number: usize) -> Vec<u8> {
    let (pixels, height, width) = picture(number);
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(
            &pixels,
            width as u16,
            height as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .unwrap();
    bytes
}

pub fn png(number: usize) -> Vec<u8> {
    let (pixels, height, width) = picture(number);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Every fifth is a PNG among the JPEGs.
pub fn encoded(number: usize) -> Vec<u8> {
    if number % 5 == 4 {
        png(number)
    } else {
        jpeg(number)
    }
}

pub fn bytes(value: Vec<u8>) -> Feature {
    Feature::from_bytes_iter([value])
}

pub fn int(value: i64) -> Feature {
    Feature::from_i64_iter([value])
}

pub fn write(file: &Path, examples: impl IntoIterator<Item = Vec<(&'static str, Feature)>>) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut writer = ExampleWriter::create(file).unwrap();
    for example in examples {
        let feature: HashMap<String, Feature> = example
            .into_iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect();
        let features = Some(Features { feature });
        writer.send(Example { features }).unwrap();
    }
    writer.flush().unwrap();
}

pub const FEATURES: &str = r#"{"featuresDict": {"features": {
    "picture": {"image": {"encodingFormat": "jpeg"}, "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"},
    "kind": {"classLabel": {"numClasses": "1000"}, "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel"}
}}, "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict"}"#;

pub fn shard(folder: &Path, split: &str, number: usize, of: usize) -> PathBuf {
    folder.join(format!("photos-{split}.tfrecord-{number:05}-of-{of:05}"))
}

/// A set `photos` below `dir`, as TFDS writes it: shards of these lengths, the label of each example being its number. The result is
/// the folder of its files.
pub fn photos(dir: &Path, lengths: &[usize]) -> PathBuf {
    let folder = dir.join("photos/1.0.0");
    let mut number = 0;
    for (at, &length) in lengths.iter().enumerate() {
        let file = shard(&folder, "train", at, lengths.len());
        write(
            &file,
            (number..number + length).map(|number| {
                vec![
                    ("picture", bytes(encoded(number))),
                    ("kind", int(number as i64)),
                ]
            }),
        );
        number += length;
    }
    fs::write(folder.join("features.json"), FEATURES).unwrap();
    let lengths: Vec<String> = lengths.iter().map(|n| format!("\"{n}\"")).collect();
    let info = format!(
        r#"{{"name": "photos", "splits": [{{"name": "train", "shardLengths": [{}]}}]}}"#,
        lengths.join(",")
    );
    fs::write(folder.join("dataset_info.json"), info).unwrap();
    folder
}
