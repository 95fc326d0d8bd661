//! Bad input through the binary: one sentence naming file or key, what was found and expected, the right exit code, and no
//! checkpoint harmed.

#[path = "../binary/mod.rs"]
mod binary;
mod configuration;
mod plugins;
mod runs;

use binary::{checkpoint, refused, run, simclr, tiny};
use simclr::report::{Scalars, metrics};
use simclr::train::checkpoint::{Array, arrays, save};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn refused_tiny(more: &[&str], code: i32, words: &[&str]) {
    let folder = folder();
    refused(&run(&tiny(&folder.path().join("run"), more)), code, words);
}

/// A finished run of four steps, made once; tests copy it.
fn finished() -> &'static Path {
    static RUN: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = RUN.get_or_init(|| {
        let folder = folder();
        let path = folder.path().join("run");
        let output = run(&tiny(&path, &["train_steps=4", "checkpoint_steps=2"]));
        assert!(output.status.success(), "{}", binary::stderr(&output));
        (folder, path)
    });
    path
}

fn copy_of_finished() -> (tempfile::TempDir, PathBuf) {
    let folder = folder();
    let path = folder.path().join("run");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(finished())
        .arg(&path)
        .status();
    assert!(copied.expect("cp").success());
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

const LONGER: [&str; 2] = ["train_steps=4", "checkpoint_steps=2"];

fn cifar(data_dir: &Path) -> Output {
    let folder = folder();
    let data = format!("data_dir={}", data_dir.display());
    run(&tiny(
        &folder.path().join("run"),
        &["dataset=cifar10", &data],
    ))
}

#[test]
fn missing_data_are_named() {
    refused_tiny(&["dataset=cifar10"], 2, &["data_dir"]);
    refused(&cifar(Path::new("/no/such/data")), 2, &["/no/such/data"]);
    let empty = folder();
    refused(
        &cifar(empty.path()),
        2,
        &[&empty.path().display().to_string()],
    );
}

#[test]
fn a_cifar_file_of_the_wrong_size_is_refused() {
    let data = folder();
    let batches = data.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    for i in 1..=5 {
        fs::write(
            batches.join(format!("data_batch_{i}.bin")),
            vec![0; 3073 * 40],
        )
        .unwrap();
    }
    fs::write(batches.join("data_batch_3.bin"), vec![0; 3073 * 40 - 1]).unwrap();
    refused(&cifar(data.path()), 4, &["data_batch_3.bin", "3073"]);
    fs::remove_file(batches.join("data_batch_3.bin")).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["data_batch_3.bin", "is missing", "4 of 5"],
    );
}

#[test]
fn a_missing_shard_is_named() {
    let data = folder();
    let set = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&set).unwrap();
    fs::write(set.join("cifar10-train.tfrecord-00000-of-00002"), []).unwrap();
    let words = ["00001-of-00002", "is missing", "1 of 2"];
    refused(&cifar(data.path()), 4, &words);
}

#[test]
fn corrupt_and_truncated_records_are_refused() {
    let data = folder();
    let version = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&version).unwrap();
    let shard = version.join("cifar10-train.tfrecord-00000-of-00001");
    fs::write(&shard, [7u8; 64]).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["cifar10-train.tfrecord-00000-of-00001"],
    );
    // A whole header that promises more than there is.
    let length = 1000u64.to_le_bytes();
    let crc = crc32c::crc32c(&length);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let mut bytes = length.to_vec();
    bytes.extend(masked.to_le_bytes());
    bytes.extend([0u8; 20]);
    fs::write(&shard, bytes).unwrap();
    refused(
        &cifar(data.path()),
        4,
        &["cifar10-train.tfrecord-00000-of-00001", "truncated"],
    );
}

/// A record as TFRecord files have it: length and data, each with its masked CRC.
fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| {
        let crc = crc32c::crc32c(bytes).rotate_right(15);
        crc.wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length)[..], data, &masked(data)].concat()
}

#[test]
fn a_flipped_byte_in_a_records_data_is_found() {
    let data = folder();
    let version = data.path().join("cifar10/3.0.2");
    fs::create_dir_all(&version).unwrap();
    let name = "cifar10-train.tfrecord-00000-of-00001";
    // Two whole records (an empty example each): their CRCs are right, so it is what they hold that is refused.
    let mut bytes = [record(&[10, 0]), record(&[10, 0])].concat();
    fs::write(version.join(name), &bytes).unwrap();
    let output = cifar(data.path());
    refused(&output, 4, &[name, "record 0"]);
    assert!(!binary::stderr(&output).contains("CRC"));
    bytes[18 + 12] ^= 1;
    fs::write(version.join(name), bytes).unwrap();
    let words = [
        name,
        "record 1, at byte 18",
        "data CRC 0x",
        "expected 0x",
        "fetch the file again",
    ];
    refused(&cifar(data.path()), 4, &words);
}
