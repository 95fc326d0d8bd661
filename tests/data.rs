//! Data sets through the public interface: real CIFAR-10 where the machine has some, otherwise
//! small sets made here, with records written by another implementation of the format (the
//! `tfrecord` crate) and images written by `png`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use simclr::data::{Error, ImageSet, facts, load};
use simclr::error::Class;
use tempfile::TempDir;
use tfrecord::protobuf::Features;
use tfrecord::{Example, ExampleWriter, Feature};

const BYTES: usize = 32 * 32 * 3;

/// A made-up image and its label.
fn picture(number: usize, classes: u32) -> (Vec<u8>, u32) {
    (
        (0..BYTES)
            .map(|i| (i * 7 + number * 31 + i * i / 50) as u8)
            .collect(),
        number as u32 * 3 % classes,
    )
}

fn encode_png(pixels: &[u8], width: u32, height: u32, colour: png::ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(colour);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(pixels)
        .unwrap();
    bytes
}

fn example(png: Vec<u8>, label: i64) -> Example {
    named_example("train_00000", png, label)
}

fn named_example(name: &str, png: Vec<u8>, label: i64) -> Example {
    let feature = HashMap::from([
        ("image".to_string(), Feature::from_bytes_iter([png])),
        ("label".to_string(), Feature::from_i64_iter([label])),
        (
            "id".to_string(),
            Feature::from_bytes_iter([name.as_bytes().to_vec()]),
        ),
    ]);
    Example {
        features: Some(Features { feature }),
    }
}

fn good_example(number: usize, classes: u32) -> Example {
    let (pixels, label) = picture(number, classes);
    named_example(
        &format!("train_{number:05}"),
        encode_png(&pixels, 32, 32, png::ColorType::Rgb),
        label.into(),
    )
}

fn write_shard(file: &Path, examples: impl IntoIterator<Item = Example>) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let mut writer = ExampleWriter::create(file).unwrap();
    examples
        .into_iter()
        .for_each(|example| writer.send(example).unwrap());
    writer.flush().unwrap();
}

/// A TFDS folder `DIR/NAME/3.0.2` with `shards` shards of 4 training examples each; the result is
/// that folder.
fn tfds_set(dir: &Path, name: &str, shards: usize) -> PathBuf {
    let classes = if name == "cifar10" { 10 } else { 100 };
    let folder = dir.join(name).join("3.0.2");
    for shard in 0..shards {
        let file = folder.join(format!("{name}-train.tfrecord-{shard:05}-of-{shards:05}"));
        write_shard(&file, (0..4).map(|i| good_example(shard * 4 + i, classes)));
    }
    folder
}

fn write_info(folder: &Path, lengths: &[usize]) {
    let lengths: Vec<_> = lengths.iter().map(|n| format!("\"{n}\"")).collect();
    let text = format!(
        r#"{{"name": "cifar10", "splits": [{{"name": "train", "shardLengths": [{}]}}]}}"#,
        lengths.join(",")
    );
    fs::write(folder.join("dataset_info.json"), text).unwrap();
}

/// A record of a binary archive: `labels`, then the planes.
fn binary_record(labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    let planes = (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).copied());
    labels.iter().copied().chain(planes).collect()
}

/// The five training files of the CIFAR-10 archive, `per_file` examples each.
fn binary_set(folder: &Path, per_file: usize) {
    fs::create_dir_all(folder).unwrap();
    for file in 0..5 {
        let records = (0..per_file).flat_map(|i| {
            let (pixels, label) = picture(file * per_file + i, 10);
            binary_record(&[label as u8], &pixels)
        });
        fs::write(
            folder.join(format!("data_batch_{}.bin", file + 1)),
            records.collect::<Vec<_>>(),
        )
        .unwrap();
    }
}

fn check_pictures(set: &ImageSet, count: usize, classes: u32) {
    assert_eq!(
        (set.len(), set.num_classes, set.class_names.len()),
        (count, classes as usize, classes as usize)
    );
    assert_eq!((set.height, set.width, set.channels), (32, 32, 3));
    for number in 0..count {
        let (pixels, label) = picture(number, classes);
        assert_eq!(set.labels[number], label, "label of {number}");
        assert!(set.image(number) == pixels, "pixels of {number}");
    }
}

/// Loading must fail with this class and a message that holds all of `words`.
fn check_error(result: Result<ImageSet, Error>, class: Class, words: &[&str]) {
    let error = result.expect_err("bad data were loaded");
    let message = error.to_string();
    assert_eq!(error.class(), class, "{message}");
    for word in words {
        assert!(message.contains(word), "no `{word}` in: {message}");
    }
    assert!(!message.contains('\n'), "{message}");
}

fn load_train(dir: &Path) -> Result<ImageSet, Error> {
    load("cifar10", "train", Some(dir))
}

#[test]
fn real_cifar10_is_read() {
    let shared = std::env::var_os("SIMCLR_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    let dir = shared.join("cifar10_small");
    if !dir.is_dir() {
        eprintln!(
            "SKIPPED: no {}; set SIMCLR_TEST_DATA to a folder with cifar10_small",
            dir.display()
        );
        return;
    }
    let train = load("cifar10", "train", Some(&dir)).unwrap();
    assert_eq!((train.len(), train.num_classes), (2000, 10));
    assert_eq!(
        (train.labels[0], &train.image(0)[..3]),
        (6, &[59, 62, 63][..])
    );
    assert_eq!(train.class_names[6], "frog");
    let test = load("cifar10", "test", Some(&dir)).unwrap();
    assert_eq!(test.len(), 500);
    for (set, per_class) in [(&train, 200), (&test, 50)] {
        let mut counts = [0; 10];
        set.labels
            .iter()
            .for_each(|&label| counts[label as usize] += 1);
        assert_eq!(counts, [per_class; 10]);
    }
    // The three ways to name the folder are one.
    for inner in ["cifar10", "cifar10/3.0.2"] {
        assert!(
            load("cifar10", "test", Some(&dir.join(inner))).unwrap() == test,
            "{inner}"
        );
    }
    assert_ne!(train.fingerprint, test.fingerprint);
}

#[test]
fn tfds_shards_are_read_in_order() {
    let dir = TempDir::new().unwrap();
    let folder = tfds_set(dir.path(), "cifar10", 3);
    write_info(&folder, &[4, 4, 4]);
    for place in [dir.path(), &dir.path().join("cifar10"), &folder] {
        let set = load_train(place).unwrap();
        check_pictures(&set, 12, 10);
        assert_eq!(set.class_names[9], "truck");
    }
}

#[test]
fn cifar100_is_read_from_tfds_and_binary_alike() {
    let dir = TempDir::new().unwrap();
    tfds_set(dir.path(), "cifar100", 2);
    let tfds = load("cifar100", "train", Some(dir.path())).unwrap();
    check_pictures(&tfds, 8, 100);

    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("cifar-100-binary");
    fs::create_dir_all(&folder).unwrap();
    let records = (0..8).flat_map(|number| {
        let (pixels, label) = picture(number, 100);
        // The coarse label comes first and is not used.
        binary_record(&[19, label as u8], &pixels)
    });
    fs::write(folder.join("train.bin"), records.collect::<Vec<_>>()).unwrap();
    for place in [dir.path(), &folder] {
        assert!(load("cifar100", "train", Some(place)).unwrap() == tfds);
    }
    assert_eq!(
        (tfds.class_names[0].as_str(), tfds.class_names[99].as_str()),
        ("apple", "worm")
    );
}

/// Records come in another order than the archive, whose places are their names.
#[test]
fn examples_are_called_by_the_names_in_their_records() {
    let dir = TempDir::new().unwrap();
    let folder = tfds_set(dir.path(), "cifar10", 5);
    let shard = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("tfrecord-00000"))
        .unwrap();
    write_shard(&shard, [3, 0, 2, 1].map(|number| good_example(number, 10)));
    let set = load_train(dir.path()).unwrap();
    let names: Vec<String> = (0..5).map(|index| set.example_name(index)).collect();
    let expected = [3, 0, 2, 1, 4].map(|number| format!("train_{number:05}"));
    assert_eq!(names, expected);
}

#[test]
fn binary_files_equal_tfrecords() {
    let (tfds, binary) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    tfds_set(tfds.path(), "cifar10", 5);
    let folder = binary.path().join("cifar-10-batches-bin");
    binary_set(&folder, 4);
    let expected = load_train(tfds.path()).unwrap();
    check_pictures(&expected, 20, 10);
    for place in [binary.path(), &folder] {
        let set = load_train(place).unwrap();
        assert_eq!(set.fingerprint, expected.fingerprint);
        assert!(set == expected);
    }
}

#[test]
fn the_fingerprint_is_of_images_and_labels() {
    let dir = TempDir::new().unwrap();
    binary_set(dir.path(), 1);
    let reference = load_train(dir.path()).unwrap();
    assert_eq!(reference.fingerprint.len(), 64);
    let file = dir.path().join("data_batch_3.bin");
    let good = fs::read(&file).unwrap();
    for at in [0, 1, 3072] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_ne!(
            load_train(dir.path()).unwrap().fingerprint,
            reference.fingerprint,
            "byte {at}"
        );
    }
}

#[test]
fn the_newest_version_is_read() {
    let dir = TempDir::new().unwrap();
    let old = dir.path().join("cifar10/3.0.2");
    write_shard(
        &old.join("cifar10-train.tfrecord-00000-of-00001"),
        [good_example(0, 10)],
    );
    let new = dir.path().join("cifar10/3.0.10");
    write_shard(
        &new.join("cifar10-train.tfrecord-00000-of-00001"),
        (0..2).map(|i| good_example(i, 10)),
    );
    check_pictures(&load_train(dir.path()).unwrap(), 2, 10);
    check_pictures(&load_train(&old).unwrap(), 1, 10);
}

#[test]
fn grey_and_transparent_images_become_rgb() {
    let dir = TempDir::new().unwrap();
    let grey: Vec<u8> = (0..1024).map(|i| (i / 5) as u8).collect();
    let rgba: Vec<u8> = (0..4096).map(|i| (i % 251) as u8).collect();
    let examples = [
        example(encode_png(&grey, 32, 32, png::ColorType::Grayscale), 0),
        example(encode_png(&rgba, 32, 32, png::ColorType::Rgba), 1),
    ];
    write_shard(
        &dir.path().join("cifar10-train.tfrecord-00000-of-00001"),
        examples,
    );
    // A folder with the shards themselves needs no name of its own.
    let set = load_train(dir.path()).unwrap();
    assert!(
        set.image(0)
            .chunks(3)
            .zip(&grey)
            .all(|(pixel, &value)| pixel == [value; 3])
    );
    assert!(
        set.image(1)
            .chunks(3)
            .zip(rgba.chunks(4))
            .all(|(pixel, source)| pixel == &source[..3])
    );
}

#[test]
fn unknown_names_are_refused() {
    check_error(
        load("imagenet", "train", None),
        Class::Usage,
        &["`imagenet`", "cifar10, cifar100, shapes32"],
    );
    check_error(
        load("cifar10", "validation", None),
        Class::Usage,
        &["`validation`", "cifar10", "train, test"],
    );
    check_error(
        load("shapes32", "eval", None),
        Class::Usage,
        &["`eval`", "train, test"],
    );
    check_error(
        load("cifar10", "train", None),
        Class::Usage,
        &["`data_dir`", "cifar10"],
    );
    assert_eq!(facts("cifar10", "dev").unwrap_err().class(), Class::Usage);
}

#[test]
fn an_absent_folder_or_set_is_named() {
    let dir = TempDir::new().unwrap();
    let absent = dir.path().join("absent");
    check_error(load_train(&absent), Class::Usage, &["absent", "data_dir"]);
    check_error(
        load_train(dir.path()),
        Class::Usage,
        &[
            "holds nothing",
            "cifar10-train.tfrecord",
            "data_batch_1.bin",
        ],
    );
    // Hidden files are the system's, unless there is nothing else.
    fs::write(dir.path().join(".system"), "x").unwrap();
    check_error(load_train(dir.path()), Class::Usage, &["holds .system;"]);
    fs::write(dir.path().join("holiday.jpg"), "x").unwrap();
    check_error(
        load_train(&dir.path().join("holiday.jpg")),
        Class::Usage,
        &["not a folder"],
    );
    // The set is there, but the other split or the other set is wanted.
    tfds_set(dir.path(), "cifar10", 1);
    let found = ["holds cifar10, holiday.jpg;", "looked for"];
    check_error(
        load("cifar10", "test", Some(dir.path())),
        Class::Usage,
        &[found[0], found[1], "split `test`"],
    );
    check_error(
        load("cifar100", "train", Some(dir.path())),
        Class::Usage,
        &[found[0], found[1], "`cifar100`"],
    );
}

#[test]
fn a_missing_file_is_named() {
    let dir = TempDir::new().unwrap();
    let folder = tfds_set(dir.path(), "cifar10", 3);
    fs::remove_file(folder.join("cifar10-train.tfrecord-00001-of-00003")).unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["cifar10-train.tfrecord-00001-of-00003 is missing", "2 of 3"],
    );
    write_shard(
        &folder.join("cifar10-train.tfrecord-00000-of-00001"),
        [good_example(0, 10)],
    );
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["twice", "3 files", "1 file "],
    );

    let dir = TempDir::new().unwrap();
    binary_set(dir.path(), 1);
    fs::remove_file(dir.path().join("data_batch_4.bin")).unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["data_batch_4.bin is missing", "4 of 5"],
    );
}

#[test]
fn damaged_tfrecords_are_refused() {
    let dir = TempDir::new().unwrap();
    let folder = tfds_set(dir.path(), "cifar10", 2);
    let name = "cifar10-train.tfrecord-00001-of-00002";
    let file = folder.join(name);
    let good = fs::read(&file).unwrap();
    let first = 16 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;

    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&file, bad).unwrap();
        load_train(dir.path())
    };
    let record_1 = format!("record 1, at byte {first}");
    for at in [0, 7, 8, 11] {
        check_error(
            flipped(at),
            Class::Check,
            &[name, "corrupt", "record 0, at byte 0", "length"],
        );
        check_error(
            flipped(first + at),
            Class::Check,
            &[name, "corrupt", &record_1, "length"],
        );
    }
    for at in [12, first / 2, first - 4, first - 1] {
        check_error(
            flipped(at),
            Class::Check,
            &[name, "corrupt", "record 0, at byte 0", "data"],
        );
    }
    for cut in [first + 1, first + 11, first + 12, first + 500] {
        fs::write(&file, &good[..cut]).unwrap();
        check_error(
            load_train(dir.path()),
            Class::Check,
            &[name, "truncated", &record_1, "fetch the file again"],
        );
    }
    fs::write(&file, &good).unwrap();
    check_pictures(&load_train(dir.path()).unwrap(), 8, 10);

    // Cut between two records: only dataset_info.json can tell.
    write_info(&folder, &[4, 4]);
    fs::write(&file, &good[..first]).unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &[name, "1 examples", "promises 4"],
    );
    fs::write(&file, &good).unwrap();
    write_info(&folder, &[4, 4, 4]);
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["2 files", "promises 3"],
    );
    fs::write(folder.join("dataset_info.json"), "{\"splits\": 3}").unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["dataset_info.json", "expected a sequence"],
    );
    fs::remove_file(folder.join("dataset_info.json")).unwrap();

    fs::write(folder.join("label.labels.txt"), "cat\ndog\n").unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["label.labels.txt", "2 classes, expected 10"],
    );
    fs::remove_file(folder.join("label.labels.txt")).unwrap();

    for shard in [0, 1] {
        fs::write(
            folder.join(format!("cifar10-train.tfrecord-{shard:05}-of-00002")),
            "",
        )
        .unwrap();
    }
    check_error(load_train(dir.path()), Class::Check, &["no example"]);
}

#[test]
fn bad_examples_are_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("cifar10-train.tfrecord-00000-of-00001");
    let load_with = |bad: Example| {
        write_shard(&file, [good_example(0, 10), bad, good_example(1, 10)]);
        load_train(dir.path())
    };
    let good = encode_png(&picture(0, 10).0, 32, 32, png::ColorType::Rgb);
    let is = |words: &'static str| ["record 1", "cifar10-train.tfrecord-00000-of-00001", words];

    check_error(
        load_with(example(b"not a PNG".to_vec(), 0)),
        Class::Check,
        &is("not a readable PNG"),
    );
    check_error(
        load_with(example(good[..good.len() / 2].to_vec(), 0)),
        Class::Check,
        &is("not a readable PNG"),
    );
    for at in [20, 60, 200] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        check_error(
            load_with(example(bad, 0)),
            Class::Check,
            &is("not a readable PNG"),
        );
    }
    let small = encode_png(&vec![0; 28 * 30 * 3], 28, 30, png::ColorType::Rgb);
    check_error(
        load_with(example(small, 0)),
        Class::Check,
        &is("28x30, expected 32x32"),
    );
    for label in [10, -1, i64::MAX] {
        check_error(
            load_with(example(good.clone(), label)),
            Class::Check,
            &is("expected 0 to 9"),
        );
    }
    let mut bad = good_example(0, 10);
    bad.features.as_mut().unwrap().feature.remove("image");
    check_error(load_with(bad), Class::Check, &is("no feature `image`"));
    let mut bad = good_example(0, 10);
    bad.features
        .as_mut()
        .unwrap()
        .feature
        .insert("label".into(), Feature::from_f32_iter([1.0]));
    check_error(load_with(bad), Class::Check, &is("expected one integer"));

    // Records that are framed well but hold no example.
    let mut writer = tfrecord::BytesWriter::create(&file).unwrap();
    writer.send(vec![0xff; 30]).unwrap();
    writer.flush().unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["record 0", "no tf.train.Example"],
    );
}

#[test]
fn bad_binary_files_are_refused() {
    let dir = TempDir::new().unwrap();
    binary_set(dir.path(), 2);
    let file = dir.path().join("data_batch_2.bin");
    let good = fs::read(&file).unwrap();
    for bytes in [&good[..good.len() - 1], &good[..1], &[]] {
        fs::write(&file, bytes).unwrap();
        let found = format!("{} bytes", bytes.len());
        check_error(
            load_train(dir.path()),
            Class::Check,
            &["data_batch_2.bin", &found, "3073"],
        );
    }
    let mut bad = good.clone();
    bad[3073] = 10;
    fs::write(&file, bad).unwrap();
    check_error(
        load_train(dir.path()),
        Class::Check,
        &["record 1", "data_batch_2.bin", "label", "expected 0 to 9"],
    );

    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("test.bin"), vec![0; 3073]).unwrap();
    check_error(
        load("cifar100", "test", Some(dir.path())),
        Class::Check,
        &["test.bin", "3074"],
    );
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_the_machines_fault() {
    let dir = TempDir::new().unwrap();
    // A folder in place of a file: cannot be read even by a user who may read everything.
    fs::create_dir(dir.path().join("cifar10-train.tfrecord-00000-of-00001")).unwrap();
    check_error(
        load_train(dir.path()),
        Class::Environment,
        &["cannot read", "cifar10-train.tfrecord-00000-of-00001"],
    );
}

#[test]
fn shapes32_is_what_its_facts_say_and_never_changes() {
    let expected = [
        (
            "train",
            "f60048001b97a75341086c621c951913e1cbd48f4972e385e3334a3821bc2a00",
        ),
        (
            "test",
            "0b4cf1fa83c88ffce0227892783dfa26cdd20d9762961fd77afa135bcc66c9ca",
        ),
    ];
    for (split, fingerprint) in expected {
        let set = load("shapes32", split, None).unwrap();
        let facts = facts("shapes32", split).unwrap();
        assert_eq!(
            (set.len(), set.num_classes, set.height),
            (facts.examples, facts.classes, facts.image_size)
        );
        assert_eq!(set.fingerprint, fingerprint, "{split}");
        // Every class equally often, also in any run of ten examples.
        assert!(
            set.labels
                .chunks(10)
                .all(|ten| ten.iter().copied().eq(0..10))
        );
    }
}

/// The embedded set has to be hard for pixels: accuracy of 20 nearest neighbours (cosine, on
/// mean-subtracted pixels).
#[test]
fn shapes32_is_hard_for_nearest_neighbours_on_pixels() {
    use rayon::prelude::*;
    let (train, test) = (
        load("shapes32", "train", None).unwrap(),
        load("shapes32", "test", None).unwrap(),
    );
    let mut mean = vec![0.0; BYTES];
    for index in 0..train.len() {
        train
            .image(index)
            .iter()
            .zip(&mut mean)
            .for_each(|(&p, m)| *m += f32::from(p) / train.len() as f32);
    }
    let unit = |image: &[u8]| -> Vec<f32> {
        let centred: Vec<f32> = image
            .iter()
            .zip(&mean)
            .map(|(&p, m)| f32::from(p) - m)
            .collect();
        let norm = centred.iter().map(|v| v * v).sum::<f32>().sqrt();
        centred.iter().map(|v| v / norm).collect()
    };
    let bank: Vec<_> = (0..train.len()).map(|i| unit(train.image(i))).collect();
    // A third of the test images is enough to know the accuracy to 2 points.
    let queries: Vec<usize> = (0..test.len()).step_by(3).collect();
    let correct = queries.par_iter().filter(|&&query| {
        let image = unit(test.image(query));
        let mut scored: Vec<(f32, u32)> = bank
            .iter()
            .zip(&train.labels)
            .map(|(other, &label)| (dot(&image, other), label))
            .collect();
        scored.select_nth_unstable_by(20, |a, b| b.0.total_cmp(&a.0));
        let mut votes = [0; 10];
        scored[..20]
            .iter()
            .for_each(|&(_, label)| votes[label as usize] += 1);
        (0..10).max_by_key(|&c| votes[c]) == Some(test.labels[query] as usize)
    });
    let accuracy = correct.count() as f64 / queries.len() as f64;
    eprintln!("20-NN on raw pixels: {accuracy:.3}");
    assert!((0.11..0.35).contains(&accuracy), "{accuracy}");
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, so that the compiler may use vector instructions.
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum()
}
