use super::*;
use crate::error::Class;
use proptest::prelude::*;
use std::fs;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A bundle of three tensors and a string.
fn sample(folder: &Path) -> PathBuf {
    let prefix = folder.join("model.ckpt-7");
    let kernel: Vec<u8> = (0..24u8).collect();
    write(
        &prefix,
        &[
            Tensor::numbers("b/kernel", Dtype::F32, &[2, 3], &kernel),
            Tensor::numbers("a/step", Dtype::I64, &[], &7i64.to_le_bytes()),
            Tensor::numbers("c/none", Dtype::F32, &[0, 5], &[]),
            Tensor::text("graph", b"some bytes".to_vec()),
        ],
    )
    .expect("a bundle");
    prefix
}

#[test]
fn what_was_written_is_read_by_any_of_its_paths() {
    let folder = folder();
    let prefix = sample(folder.path());
    for path in [
        prefix.clone(),
        prefix.with_extension("ckpt-7.index"),
        prefix.with_extension("ckpt-7.data-00000-of-00001"),
        folder.path().to_owned(),
    ] {
        let bundle = Bundle::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(bundle.prefix(), prefix);
        let names: Vec<_> = bundle.entries().keys().collect();
        assert_eq!(names, ["a/step", "b/kernel", "c/none", "graph"]);
        let kernel = &bundle.entries()["b/kernel"];
        assert_eq!(
            (kernel.dtype, kernel.dims.as_slice()),
            (DataType::Numbers(Dtype::F32), &[2, 3][..])
        );
        assert_eq!(
            bundle.numbers("b/kernel").unwrap(),
            (0..24u8).collect::<Vec<_>>()
        );
        assert_eq!(bundle.numbers("a/step").unwrap(), 7i64.to_le_bytes());
        assert!(bundle.numbers("c/none").unwrap().is_empty());
        assert_eq!(bundle.strings("graph").unwrap(), [b"some bytes"]);
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        3,
        "nothing is left beside"
    );
}

/// The index of the sample, changed: `edit` gets each name with its entry.
fn with_entries(prefix: &Path, edit: impl Fn(&str, &mut BundleEntry)) {
    let index = with_suffix(prefix, ".index");
    let mut pairs = table::read(&fs::read(&index).unwrap()).unwrap();
    for (key, value) in pairs.iter_mut().skip(1) {
        let mut entry = BundleEntry::decode(value.as_slice()).unwrap();
        edit(std::str::from_utf8(key).unwrap(), &mut entry);
        *value = entry.encode_to_vec();
    }
    fs::write(&index, table::write(&pairs)).unwrap();
}

fn with_header(prefix: &Path, edit: impl Fn(&mut BundleHeader)) {
    let index = with_suffix(prefix, ".index");
    let mut pairs = table::read(&fs::read(&index).unwrap()).unwrap();
    let mut header = BundleHeader::decode(pairs[0].1.as_slice()).unwrap();
    edit(&mut header);
    pairs[0].1 = header.encode_to_vec();
    fs::write(&index, table::write(&pairs)).unwrap();
}

fn refused(path: &Path, class: Class, words: &[&str]) {
    let error = match Bundle::open(path) {
        Err(error) => error,
        Ok(bundle) => {
            let read = bundle
                .entries()
                .keys()
                .map(|name| match bundle.entries()[name].dtype {
                    DataType::Text => bundle.strings(name).map(drop),
                    _ => bundle.numbers(name).map(drop),
                });
            read.collect::<Result<Vec<()>, _>>()
                .expect_err("something is wrong")
        }
    };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is missing in: {message}");
    }
    assert_eq!(error.class(), class, "{message}");
}

#[test]
fn each_kind_of_damage_is_told() {
    type Damage = fn(&Path);
    let cases: [(Damage, Class, &[&str]); 13] = [
        (
            |p| fs::write(with_suffix(p, ".index"), [1; 90]).unwrap(),
            Class::Usage,
            &["model.ckpt-7.index", "no TensorFlow checkpoint"],
        ),
        (
            |p| {
                let path = with_suffix(p, ".index");
                let mut bytes = fs::read(&path).unwrap();
                bytes[10] ^= 4;
                fs::write(&path, bytes).unwrap();
            },
            Class::Check,
            &["model.ckpt-7.index", "damaged", "CRC"],
        ),
        (
            |p| fs::remove_file(shard_path(p, 0, 1)).unwrap(),
            Class::Check,
            &["data-00000-of-00001", "missing"],
        ),
        (
            |p| fs::write(shard_path(p, 0, 1), [0; 20]).unwrap(),
            Class::Check,
            &["data-00000-of-00001", "should end at byte", "has 20 bytes"],
        ),
        (
            |p| {
                let path = shard_path(p, 0, 1);
                let mut bytes = fs::read(&path).unwrap();
                bytes[5] ^= 1;
                fs::write(&path, bytes).unwrap();
            },
            Class::Check,
            &["data-00000-of-00001", "tensor `b/kernel`", "CRC"],
        ),
        (
            |p| with_header(p, |header| header.endianness = 1),
            Class::Check,
            &["big-endian"],
        ),
        (
            |p| {
                with_header(p, |header| {
                    header.version = Some(crate::proto::tensor_bundle::VersionDef {
                        producer: 3,
                        min_consumer: 3,
                    })
                })
            },
            Class::Check,
            &["layout 3", "at most layout 1"],
        ),
        (
            |p| with_header(p, |header| header.num_shards = -1),
            Class::Check,
            &["-1 data files"],
        ),
        (
            |p| with_entries(p, |_, entry| entry.shard_id = 4),
            Class::Check,
            &["`a/step`", "data file 4 of 1"],
        ),
        (
            |p| with_entries(p, |_, entry| entry.size = i64::MAX),
            Class::Check,
            &["`a/step`", "9223372036854775807 bytes"],
        ),
        (
            |p| {
                with_entries(p, |name, entry| {
                    if name == "b/kernel" {
                        entry.shape.as_mut().unwrap().dim[0].size = i64::MAX;
                    }
                })
            },
            Class::Check,
            &["`b/kernel`", "impossible shape"],
        ),
        (
            |p| with_entries(p, |_, entry| entry.offset = -1),
            Class::Check,
            &["impossible place"],
        ),
        (
            |p| with_entries(p, |_, entry| entry.slices = vec![Default::default()]),
            Class::Check,
            &["stored in parts"],
        ),
    ];
    for (damage, class, words) in cases {
        let folder = folder();
        let prefix = sample(folder.path());
        damage(&prefix);
        refused(&prefix, class, words);
    }
}

#[test]
fn paths_that_lead_to_no_bundle_say_what_is_there() {
    let folder = folder();
    refused(
        &folder.path().join("no"),
        Class::Usage,
        &["nothing is there"],
    );
    refused(folder.path(), Class::Usage, &["a folder without an index"]);
    fs::write(folder.path().join("picture.png"), "x").unwrap();
    refused(
        &folder.path().join("picture.png"),
        Class::Usage,
        &["a file of another kind"],
    );
    fs::write(folder.path().join("a.data-00000-of-00001"), "x").unwrap();
    refused(
        &folder.path().join("a.data-00000-of-00001"),
        Class::Usage,
        &["`a.index` is not beside it"],
    );
    fs::write(
        folder.path().join(CHECKPOINT_FILE),
        "model_checkpoint_path: \"gone-3\"\n",
    )
    .unwrap();
    refused(folder.path(), Class::Usage, &["`gone-3`"]);
    fs::write(folder.path().join(CHECKPOINT_FILE), "nothing\n").unwrap();
    refused(folder.path(), Class::Usage, &["names no checkpoint"]);
}

#[test]
fn a_folder_of_several_needs_its_list() {
    let folder = folder();
    let first = sample(folder.path());
    for suffix in [".index", ".data-00000-of-00001"] {
        fs::copy(
            with_suffix(&first, suffix),
            folder.path().join(format!("other{suffix}")),
        )
        .unwrap();
    }
    assert_eq!(Bundle::open(folder.path()).unwrap().prefix(), first);
    fs::remove_file(folder.path().join(CHECKPOINT_FILE)).unwrap();
    refused(folder.path(), Class::Usage, &["2 indices"]);
    // A folder that was moved: the list has the old place.
    fs::write(
        folder.path().join(CHECKPOINT_FILE),
        "model_checkpoint_path: \"/old/place/other\"\n",
    )
    .unwrap();
    assert_eq!(
        Bundle::open(folder.path()).unwrap().prefix(),
        folder.path().join("other")
    );
}

#[test]
fn nothing_is_left_of_a_bundle_that_could_not_be_written() {
    let folder = folder();
    let prefix = folder.path().join("no/such/folder/model");
    let tensors = [Tensor::numbers("a", Dtype::F32, &[1], &[0; 4])];
    let error = write(&prefix, &tensors).unwrap_err();
    assert!(error.to_string().contains("no/such/folder"), "{error}");
    assert_eq!(error.class(), Class::Environment);
    let odd = [Tensor::numbers("a", Dtype::F8_E4M3, &[1], &[0; 1])];
    assert!(write(&folder.path().join("model"), &odd).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

proptest! {
    #[test]
    fn strings_come_back(text in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = folder();
        let prefix = folder.path().join("m");
        write(&prefix, &[Tensor::text("t", text.clone())]).unwrap();
        prop_assert_eq!(Bundle::open(&prefix).unwrap().strings("t").unwrap(), [text]);
    }

    #[test]
    fn any_strings_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60), count in 0usize..9) {
        if let Some((strings, _)) = write::parse_strings(&bytes, count) {
            prop_assert_eq!(strings.len(), count);
        }
    }

    /// Entries with any bytes, under right CRCs, give an error or tensors within the data file.
    #[test]
    fn any_entries_are_survived(
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        random in any::<bool>(),
    ) {
        let folder = folder();
        let prefix = sample(folder.path());
        let index = with_suffix(&prefix, ".index");
        let mut pairs = table::read(&fs::read(&index).unwrap()).unwrap();
        if random {
            for ((_, value), other) in pairs.iter_mut().zip(values) {
                *value = other;
            }
        } else {
            for (at, byte) in edits {
                let at = at.index(pairs.len() * 8);
                if let Some(place) = pairs[at / 8].1.get_mut(at % 8) {
                    *place = byte;
                }
            }
        }
        fs::write(&index, table::write(&pairs)).unwrap();
        if let Ok(bundle) = Bundle::open(&prefix) {
            for (name, entry) in bundle.entries() {
                // What is stored in parts is not read, and its size not looked at.
                prop_assert!(entry.partitioned || entry.bytes() <= 100);
                let _ = bundle.numbers(name);
                let _ = bundle.strings(name);
            }
        }
    }
}
