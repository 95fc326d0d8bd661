//! `simclr data` on real photographs, from disk and from a bucket: the sample of ImageNet in the shared data.

mod binary;
mod common;
mod gcs;

use binary::stderr;
use gcs::{Fault, Gcs, program, succeeded};
use serde_json::Value;
use simclr::augment::ResizeKernel;
use simclr::data::example::Example;
use simclr::data::record::Records;
use simclr::data::{Examples, Feed, FeedSpec, Task};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Writes the photographs of a split as CLASS/FILE below `out`; the result is the classes.
fn unpack(files: &[std::path::PathBuf], names: &[String], out: &Path) -> BTreeSet<String> {
    let mut classes = BTreeSet::new();
    for file in files {
        let content = fs::read(file).unwrap();
        for record in Records::new(file, &content) {
            let record = record.unwrap();
            let example = Example::parse(record.data).unwrap();
            let class = &names[example.int("label").unwrap() as usize];
            let name = String::from_utf8(example.bytes("file_name").unwrap().to_vec()).unwrap();
            fs::create_dir_all(out.join(class)).unwrap();
            fs::write(out.join(class).join(name), example.bytes("image").unwrap()).unwrap();
            classes.insert(class.clone());
        }
    }
    classes
}

/// The one photograph that lies on its side stands upright where that is asked for, and nothing else changes.
#[test]
fn exif_orientation_is_ignored_unless_asked_for() {
    let Some(shared) = common::shared_data() else {
        return;
    };
    let dir = shared.join("imagenet2012_sample");
    let cut = |upright: bool| -> Vec<Vec<u8>> {
        let examples = Examples::open("imagenet2012", "train", Some(&dir)).unwrap();
        let spec = FeedSpec {
            task: Task::Evaluate,
            batch: 260,
            image_size: 32,
            kernel: ResizeKernel::Antialiased,
            threads: 2,
            skip_bad: false,
        };
        let mut feed = Feed::start(Arc::new(examples.upright(upright)), spec);
        let found = feed.step().unwrap();
        found.into_iter().map(|crops| crops.pixels).collect()
    };
    let (ignored, applied) = (cut(false), cut(true));
    let changed: Vec<usize> = (0..260).filter(|&n| ignored[n] != applied[n]).collect();
    // By the sample's list, orientation 6: a quarter turn clockwise.
    let list = fs::read_to_string(dir.join("manifest.tsv")).unwrap();
    let names: Vec<&str> = list
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("train"))
        .collect();
    assert_eq!(changed.len(), 1);
    assert!(names[changed[0]].contains("n02951585_90473"), "{changed:?}");
    let (lying, standing) = (&ignored[changed[0]], &applied[changed[0]]);
    let turned = |x: usize, y: usize| ((31 - x) * 32 + y) * 3;
    let as_it_was = |x: usize, y: usize| (y * 32 + x) * 3;
    let difference = |from: &dyn Fn(usize, usize) -> usize| -> f64 {
        let mut sum = 0u64;
        for y in 0..32 {
            for x in 0..32 {
                for channel in 0..3 {
                    let (a, b) = (
                        lying[from(x, y) + channel],
                        standing[as_it_was(x, y) + channel],
                    );
                    sum += u64::from(a.abs_diff(b));
                }
            }
        }
        sum as f64 / lying.len() as f64
    };
    // The centre of an odd number of pixels is one off when it is turned.
    let (right, wrong) = (difference(&turned), difference(&as_it_was));
    assert!(right < 4.0 && wrong > 20.0, "{right}, {wrong}");
}

/// Each command gives from a bucket, which sometimes fails, what it gives from disk; and that is what the sample's description says.
#[test]
fn the_commands_work_on_the_sample_from_disk_and_from_a_bucket() {
    let Some(shared) = common::shared_data() else {
        return;
    };
    let sample = shared.join("imagenet2012_sample").canonicalize().unwrap();
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&sample, root.path().join("sample")).unwrap();
    // A listing begins anew where it breaks off, and this server's pages are short.
    let server = Gcs::start(root.path(), |request| match request.number % 7 {
        _ if request.path.trim_matches('/') == "pictures" => Fault::None,
        3 => Fault::Cut(300_000),
        5 => Fault::Status(503),
        _ => Fault::None,
    });
    let run = |arguments: &[&str]| succeeded(program(&server, arguments).output().unwrap());
    let disk = sample.to_str().unwrap();
    let places = [disk, "gs://sample"];

    let [local, mut remote] = places.map(|place| json(&run(&["data", "check", place, "--json"])));
    for (number, (split, files, count)) in [("train", 4, 260), ("validation", 1, 20)]
        .into_iter()
        .enumerate()
    {
        let report = &local[number];
        assert_eq!(report["dataset"], "imagenet2012");
        assert_eq!(report["split"], split);
        assert_eq!(
            (&report["files"], &report["examples"], &report["promised"]),
            (&files.into(), &count.into(), &count.into())
        );
        assert_eq!(report["problem_count"], 0);
        assert_eq!(report["classes"], 1000);
        remote[number]["dir"] = report["dir"].clone();
    }
    // One photograph is a PNG by the name of a JPEG.
    let formats = |format: &str| -> u64 {
        let of = |report: &Value| report["formats"][format].as_u64().unwrap_or(0);
        local.as_array().unwrap().iter().map(of).sum()
    };
    assert_eq!((formats("JPEG"), formats("PNG")), (279, 1));
    assert_eq!(remote, local);

    for place in places {
        let more = ["-n", "64", "--image-size", "64", "--json"];
        let speeds = json(&run(&[&["data", "bench", place], &more[..]].concat()));
        for stage in ["read", "decode", "crop", "whole"] {
            assert!(speeds[stage].as_f64().unwrap() > 0.0, "{place}: {speeds}");
        }
    }

    let sheets = places.map(|place| {
        let sheet = root.path().join("sheet.png");
        let more = ["-n", "4", "--set", "image_size=64", "--set"];
        let mut command = program(&server, &["data", "show", place]);
        let output = command
            .args(more)
            .args(["runtime.platform=cpu", "-o"])
            .arg(&sheet)
            .output()
            .unwrap();
        succeeded(output);
        fs::read(sheet).unwrap()
    });
    assert!(sheets[0].starts_with(b"\x89PNG") && sheets[0] == sheets[1]);

    // The photographs as files in a bucket, packed into another, are the sample again.
    let folder = sample.join("imagenet2012/5.1.0");
    let text = fs::read_to_string(folder.join("label.labels.txt")).unwrap();
    let names: Vec<String> = text.lines().map(String::from).collect();
    let pictures = root.path().join("pictures");
    let shards: Vec<_> = (0..4)
        .map(|number| folder.join(format!("imagenet2012-train.tfrecord-{number:05}-of-00004")))
        .collect();
    let classes = unpack(&shards, &names, &pictures);
    let pack = |images: &str, out: &str| {
        let arguments = ["data", "pack", images, out, "--name", "again"];
        let more = ["--shard-size", "8"];
        run(&[&arguments[..], &more].concat());
    };
    let out = root.path().join("packed");
    fs::create_dir(root.path().join("sets")).unwrap();
    pack(pictures.to_str().unwrap(), out.to_str().unwrap());
    pack("gs://pictures", "gs://sets");
    let files = |dir: &Path| -> Vec<(String, Vec<u8>)> {
        let mut found: Vec<_> = fs::read_dir(dir.join("again/1.0.0"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        found.sort();
        found
    };
    let packed = files(&out);
    assert!(packed == files(&root.path().join("sets")));
    assert!(packed.len() > 4, "several shards and what describes them");
    let again = json(&run(&["data", "check", "gs://sets", "--json"]));
    for key in ["examples", "bytes", "formats", "heights", "widths"] {
        assert_eq!(again[0][key], local[0][key], "{key}");
    }
    assert_eq!(again[0]["classes"], classes.len());
    let faults = server.requests();
    let faults = faults.iter().filter(|(_, fault)| *fault != Fault::None);
    assert!(faults.count() > 10, "the server was too kind");
    // Damage in the bucket is found as on disk.
    let bad = root.path().join("sets/again/1.0.0");
    let mut content = packed
        .iter()
        .find(|(name, _)| name.contains("tfrecord"))
        .unwrap()
        .clone();
    content.1[1000] ^= 1;
    fs::write(bad.join(&content.0), content.1).unwrap();
    let output = program(&server, &["data", "check", "gs://sets"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}
