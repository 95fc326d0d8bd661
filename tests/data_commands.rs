//! `simclr data`: check, show, bench, pack, through the program.

mod binary;
mod pictures;

use binary::{refused, simclr, stderr};
use pictures::{bytes, encoded, int, photos, shard, write};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;

const LENGTHS: [usize; 3] = [9, 14, 7];

fn data(arguments: &[&str], dir: &Path, more: &[&str]) -> Output {
    simclr()
        .arg("data")
        .args(arguments)
        .arg(dir)
        .args(more)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(output)))
}

#[test]
fn a_good_set_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    // From each of the three folders that may be named.
    for dir in [folder.path(), files.parent().unwrap(), &files] {
        let output = data(&["check", "--json"], dir, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        let found = &json(&output)[0];
        assert_eq!(found["dataset"], "photos");
        assert_eq!(found["split"], "train");
        assert_eq!(found["files"], 3);
        assert_eq!(
            (&found["examples"], &found["promised"]),
            (&30.into(), &30.into())
        );
        assert_eq!(
            (&found["formats"]["JPEG"], &found["formats"]["PNG"]),
            (&24.into(), &6.into())
        );
        assert_eq!(found["features"], serde_json::json!(["kind", "picture"]));
        let labels = found["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 1000);
        assert!(labels[..30].iter().all(|n| n == 1) && labels[30..].iter().all(|n| n == 0));
        let sizes: Vec<(usize, usize)> = (0..30)
            .map(|n| (pictures::picture(n).1, pictures::picture(n).2))
            .collect();
        let heights = [
            sizes.iter().map(|s| s.0).min(),
            sizes.iter().map(|s| s.0).max(),
        ];
        assert_eq!(found["heights"], serde_json::json!(heights));
        let widths = [
            sizes.iter().map(|s| s.1).min(),
            sizes.iter().map(|s| s.1).max(),
        ];
        assert_eq!(found["widths"], serde_json::json!(widths));
    }
    let text = String::from_utf8(data(&["check"], folder.path(), &[]).stdout).unwrap();
    for words in ["30 of 30", "24 JPEG, 6 PNG", "30 of 1000 classes", "good"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn every_bad_thing_is_named_and_the_code_says_no() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    // In the first file a flipped bit of data, in the second a bad picture and a label that is none, the third is cut short.
    let first = shard(&files, "train", 0, 3);
    let mut content = fs::read(&first).unwrap();
    content[300] ^= 1;
    fs::write(&first, content).unwrap();
    write(
        &shard(&files, "train", 1, 3),
        (9..23).map(|n| {
            let picture = if n == 12 {
                b"nothing".to_vec()
            } else {
                encoded(n)
            };
            let label = if n == 20 { 1000 } else { n as i64 };
            vec![("picture", bytes(picture)), ("kind", int(label))]
        }),
    );
    let third = shard(&files, "train", 2, 3);
    let content = fs::read(&third).unwrap();
    fs::write(&third, &content[..content.len() - 100]).unwrap();
    let output = data(&["check", "--json"], folder.path(), &[]);
    assert_eq!(output.status.code(), Some(4));
    let found = &json(&output)[0];
    assert_eq!(found["problem_count"], 4);
    let problems: Vec<&str> = found["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect();
    for (problem, words) in problems.iter().zip([
        ["00000-of-00003", "record 0", "data CRC"],
        ["00001-of-00003", "record 3", "neither JPEG nor PNG"],
        ["00001-of-00003", "record 11", "1000, expected 0 to 999"],
        ["00002-of-00003", "record 6", "truncated"],
    ]) {
        for word in words {
            assert!(problem.contains(word), "{word}: {problem}");
        }
    }
    // The bad record's file goes on behind it.
    assert_eq!(found["examples"], 8 + 14 + 6);
    fs::remove_file(&third).unwrap();
    refused(
        &data(&["check"], folder.path(), &[]),
        4,
        &["00002-of-00003 is missing"],
    );
}

#[test]
fn folders_are_packed_so_that_they_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    for (split, count) in [("train", 20), ("validation", 4)] {
        for number in 0..count {
            let class = ["ant", "bee"][number % 2];
            let dir = images.join(split).join(class);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("{number:02}.jpg")), encoded(number)).unwrap();
        }
    }
    let out = folder.path().join("out");
    let output = simclr()
        .args(["data", "pack"])
        .args([&images, &out])
        .args(["--name", "insects"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for (dir, dataset) in [(&images, "folder"), (&out, "insects")] {
        let output = data(&["check", "--json"], dir, &[]);
        assert!(output.status.success(), "{}", stderr(&output));
        let found = json(&output);
        for (report, count) in found.as_array().unwrap().iter().zip([20, 4]) {
            assert_eq!(report["dataset"], dataset);
            assert_eq!(report["examples"], count);
            assert_eq!(report["labels"], serde_json::json!([count / 2, count / 2]));
        }
    }
    let names = fs::read_to_string(out.join("insects/1.0.0/label.labels.txt")).unwrap();
    assert_eq!(names, "ant\nbee\n");
    // Not class by class: the first ten records are not all ants.
    let file = out.join("insects/1.0.0/insects-train.tfrecord-00000-of-00001");
    let content = fs::read(&file).unwrap();
    let (labels, names): (Vec<i64>, Vec<String>) =
        simclr::data::record::Records::new(&file, &content)
            .map(|record| {
                let record = record.unwrap();
                let example = simclr::data::example::Example::parse(record.data).unwrap();
                let name = example.bytes("file_name").unwrap().to_vec();
                (
                    example.int("label").unwrap(),
                    String::from_utf8(name).unwrap(),
                )
            })
            .unzip();
    assert!(labels[..10].contains(&1), "{labels:?}");
    // What a list calls them, as in the folder.
    assert!(names.contains(&"ant/00.jpg".into()) && names.contains(&"bee/19.jpg".into()));
    // The same pictures, the same bytes.
    let twice = folder.path().join("twice");
    let output = simclr()
        .args(["data", "pack"])
        .args([&images, &twice])
        .args(["--name", "insects"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for entry in fs::read_dir(out.join("insects/1.0.0")).unwrap() {
        let entry = entry.unwrap();
        let again = twice.join("insects/1.0.0").join(entry.file_name());
        assert!(fs::read(entry.path()).unwrap() == fs::read(again).unwrap());
    }

    let again = |images: &Path, name: &str| {
        simclr()
            .args(["data", "pack"])
            .args([images, &out])
            .args(["--name", name])
            .output()
            .unwrap()
    };
    refused(
        &again(&images, "insects"),
        2,
        &["insects/1.0.0 is there already"],
    );
    fs::write(images.join("train/ant/bad.jpg"), "no picture").unwrap();
    // What an attempt that was killed has left does not get into the next one.
    let partial = out.join("more/1.0.0.partial");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("left"), "over").unwrap();
    let output = again(&images, "more");
    refused(&output, 4, &["bad.jpg cannot be decoded"]);
    assert!(
        !stderr(&output).contains("on_bad_record"),
        "no key of this command"
    );
    assert!(!out.join("more/1.0.0").exists(), "only whole sets appear");
    assert!(!partial.exists(), "nor does what failed remain");
    fs::remove_file(images.join("train/ant/bad.jpg")).unwrap();
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("left"), "over").unwrap();
    assert!(again(&images, "more").status.success());
    assert!(!out.join("more/1.0.0/left").exists());
    let loose = folder.path().join("loose");
    fs::create_dir(&loose).unwrap();
    refused(&again(&loose, "none"), 2, &["holds nothing"]);
    fs::write(loose.join("a"), encoded(1)).unwrap();
    assert!(again(&loose, "loose").status.success());
    let output = data(&["check", "--json", "--dataset", "loose"], &out, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(json(&output)[0]["classes"], 1);
}

#[test]
fn speeds_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let more = ["-n", "40", "--image-size", "24", "--json"];
    let output = data(&["bench"], folder.path(), &more);
    assert!(output.status.success(), "{}", stderr(&output));
    let found = json(&output);
    for stage in ["read", "decode", "crop", "whole"] {
        assert!(found[stage].as_f64().unwrap() > 0.0, "{found}");
    }
    let shares: f64 = (0..3).map(|i| found["shares"][i].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-6);
}

#[test]
fn views_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let out = folder.path().join("sheet.png");
    let more = [
        "-n",
        "3",
        "--set",
        "image_size=48",
        "--set",
        "runtime.platform=cpu",
        // As a recipe has them, for its own batch.
        "--set",
        "input_pipelines=16",
        "--out",
    ];
    let output = simclr()
        .args(["data", "show"])
        .arg(folder.path())
        .args(more)
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(&out).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    // Two groups beside each other of three pictures of 48 pixels, doubled.
    let group = 3 * 96 + 2 * 2;
    assert_eq!(reader.info().width as usize, 10 + 2 * (group + 10));
    assert_eq!(reader.info().height as usize, 10 + 2 * (96 + 10));
    // Fine-tuning sees one view.
    let output = simclr()
        .args(["data", "show"])
        .arg(folder.path())
        .args(["--set", "train_mode=finetune"])
        .args(more)
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_folder_without_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(
        &data(&["check"], folder.path(), &[]),
        2,
        &["holds nothing", "tfrecord"],
    );
    refused(
        &data(&["check"], &folder.path().join("no"), &[]),
        2,
        &["not a folder"],
    );
    photos(folder.path(), &[2]);
    refused(
        &data(&["bench", "--split", "test"], folder.path(), &[]),
        2,
        &["train of photos", "--split"],
    );
}
