//! The original's checkpoints in a bucket, where it kept them: read there as on a disk.

use super::*;
use serde_json::Value;

/// A run on disk and, in a troubled bucket, what it was exported to for one generation of the original, `b/GENERATION`.
fn exported() -> (tempfile::TempDir, Gcs, PathBuf) {
    let (root, server, disk) = root(&|root| {
        Gcs::start(root, |request| match request.number % 17 {
            3 => Fault::Status(503),
            8 => Fault::Reset,
            _ if request.path.contains(".data-") && request.again == 0 => Fault::Cut(5_000),
            _ => Fault::None,
        })
    });
    for generation in ["tf1", "tf2"] {
        let out = root.path().join("b").join(generation);
        let arguments = ["--format", "tf-checkpoint", "--generation", generation];
        let export = program(&server, &["export"])
            .args([&disk, &out])
            .args(arguments)
            .output();
        succeeded(export.unwrap());
    }
    (root, server, disk)
}

/// The prefix of the bundle in a folder.
fn prefix(folder: &Path) -> String {
    let names = names_below(folder);
    let stem = names.iter().find_map(|name| name.strip_suffix(".index"));
    stem.expect("an index").to_owned()
}

/// What `inspect` shows, but for where it was found.
fn shown(server: &Gcs, path: &str) -> Value {
    let output = program(server, &["inspect", path, "--json"]).output();
    let mut shown: Value = serde_json::from_str(&succeeded(output.unwrap())).unwrap();
    let place = shown["facts"]["prefix"].take();
    let place = place.as_str().expect("a prefix");
    assert_eq!(
        place.starts_with("gs://"),
        path.starts_with("gs://"),
        "{place}"
    );
    shown
}

/// Both generations, by prefix, by folder, by one of the files, and as a SavedModel: the same tensors and the same run.
#[test]
fn they_are_inspected_and_imported() {
    let (root, server, disk) = exported();
    let expected = state(&disk, STEPS);
    for generation in ["tf1", "tf2"] {
        let folder = root.path().join("b").join(generation);
        let name = prefix(&folder);
        let far = format!("gs://b/{generation}");
        let data = format!("{far}/{name}.data-00000-of-00001");
        let paths = [far.clone(), format!("{far}/{name}"), data];
        let local = shown(&server, folder.to_str().unwrap());
        assert!(local["arrays"].as_array().unwrap().len() > 20);
        for path in &paths {
            assert_eq!(shown(&server, path), local, "{path}");
        }
        let saved = root.path().join("b").join(format!("{generation}-saved"));
        fs::create_dir_all(saved.join("variables")).unwrap();
        for suffix in ["index", "data-00000-of-00001"] {
            let to = saved.join(format!("variables/variables.{suffix}"));
            fs::copy(folder.join(format!("{name}.{suffix}")), to).unwrap();
        }
        assert_eq!(shown(&server, &format!("{far}-saved")), local);

        let out = root.path().join(format!("imported-{generation}"));
        let more = ["--slots", "--json"];
        let import = program(&server, &["import", &far])
            .arg(&out)
            .args(&more[usize::from(generation == "tf2")..])
            .output();
        let told: Value = serde_json::from_str(&succeeded(import.unwrap())).unwrap();
        assert_eq!(told["source"], format!("{far}/{name}"));
        assert_eq!(told["step"], STEPS);
        let taken = |name: &str| generation == "tf1" || !name.ends_with("/Momentum");
        let expected = expected.iter().filter(|(name, ..)| taken(name));
        assert!(
            state(&out, STEPS).iter().eq(expected),
            "{generation}: other arrays"
        );
    }
    let faults = server.requests().into_iter();
    assert!(faults.filter(|(_, fault)| *fault != Fault::None).count() > 10);
}

/// A folder whose list names a checkpoint elsewhere, as the original writes it into a bucket, is read where it lies.
#[test]
fn a_list_names_what_lies_beside_it() {
    let (root, server, _) = exported();
    let folder = root.path().join("b/tf1");
    let name = prefix(&folder);
    let expected = shown(&server, folder.to_str().unwrap());
    // What a list in a bucket says of disks is not about this machine's.
    let here = root.path().join("here");
    fs::create_dir(&here).unwrap();
    fs::write(here.join(format!("{name}.index")), "of something else").unwrap();
    for elsewhere in ["gs://theirs/run", "/their/machine", here.to_str().unwrap()] {
        let list = format!("model_checkpoint_path: \"{elsewhere}/{name}\"\n");
        fs::write(folder.join("checkpoint"), list).unwrap();
        assert_eq!(shown(&server, "gs://b/tf1"), expected, "{elsewhere}");
    }
    let taken_home = root.path().join("home");
    fs::rename(&folder, &taken_home).unwrap();
    let list = format!("model_checkpoint_path: \"gs://theirs/run/{name}\"\n");
    fs::write(taken_home.join("checkpoint"), list).unwrap();
    assert_eq!(shown(&server, taken_home.to_str().unwrap()), expected);
    fs::rename(&taken_home, &folder).unwrap();
    fs::write(
        folder.join("checkpoint"),
        "model_checkpoint_path: \"other\"\n",
    )
    .unwrap();
    let output = program(&server, &["inspect", "gs://b/tf1"]).output();
    refused(&output.unwrap(), 2, &["gs://b/tf1", "`other`", "no index"]);
    // Nobody asks a bucket `b.index`.
    let output = program(&server, &["inspect", "gs://b"]).output();
    refused(&output.unwrap(), 2, &["gs://b", "which holds tf1, tf2"]);
    let asked = server.requests().into_iter();
    assert!(
        !asked
            .map(|(request, _)| request.path)
            .any(|path| path.contains("b.index"))
    );
}

#[test]
fn what_is_wrong_with_them_is_one_sentence_and_leaves_nothing() {
    let (root, server, _) = exported();
    let folder = root.path().join("b/tf1");
    let name = prefix(&folder);
    let out = root.path().join("imported");
    let import = |path: &str| {
        let import = program(&server, &["import", path]).arg(&out).output();
        let before: Vec<String> = names_below(root.path());
        assert!(!before.iter().any(|name| name.contains("imported")));
        import.unwrap()
    };
    let nothing = ["gs://b/nothing", "nothing is there", "model.ckpt-1000"];
    refused(&import("gs://b/nothing"), 2, &nothing);
    let nowhere = ["gs://nowhere/model.ckpt-7", "no such bucket"];
    refused(&import("gs://nowhere/model.ckpt-7"), 3, &nowhere);
    // What wants a run says how to make one of it.
    for path in ["gs://b/tf1".to_owned(), format!("gs://b/tf1/{name}")] {
        let output = program(&server, &["evaluate", &path]).output();
        let remedy = format!("run `simclr import {path} OUT`");
        refused(&output.unwrap(), 2, &["a TensorFlow checkpoint", &remedy]);
    }
    let data = folder.join(format!("{name}.data-00000-of-00001"));
    let whole = fs::read(&data).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for (bytes, words) in [
        (&flipped[..], ["CRC", "fetch it again"]),
        (&whole[..last], ["should end at byte", "fetch it again"]),
    ] {
        fs::write(&data, bytes).unwrap();
        let inspect = program(&server, &["inspect", "gs://b/tf1"]).output();
        let place = format!("gs://b/tf1/{name}.data");
        refused(&inspect.unwrap(), 4, &[&place, words[0], words[1]]);
    }
    fs::remove_file(&data).unwrap();
    let missing = ["gs://b/tf1", "its data file", "is missing"];
    refused(&import("gs://b/tf1"), 4, &missing);
}
