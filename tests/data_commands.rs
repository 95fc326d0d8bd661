//! `simclr data`: check, show, bench, pack, through the program.

mod binary;
mod pictures;

use binary::{refused, run, simclr, stderr, tiny};
use pictures::{bytes, encoded, int, photos, shard, write};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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
        "--out",
    ];
    // As a recipe has them, for its own batch.
    let recipe = folder.path().join("recipe.yaml");
    fs::write(&recipe, "input_pipelines: 16\ndataset: cifar10\n").unwrap();
    let output = simclr()
        .args(["data", "show"])
        .arg(folder.path())
        .arg("--config")
        .arg(&recipe)
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

/// Folders that the command has made go away with it, what was there stays.
#[test]
fn a_pack_that_fails_leaves_nothing_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let images = root.join("images");
    fs::create_dir_all(images.join("ant")).unwrap();
    let pack = |out: &Path| {
        simclr()
            .args(["data", "pack"])
            .args([&images, out])
            .args(["--name", "mine"])
            .output()
            .unwrap()
    };
    let deep = root.join("new/deep");
    refused(&pack(&deep), 2, &["images"]);
    assert!(!root.join("new").exists());
    fs::write(images.join("ant/bad.jpg"), "no picture").unwrap();
    refused(&pack(&deep), 4, &["bad.jpg"]);
    assert!(!root.join("new").exists());
    let there = root.join("there");
    fs::create_dir(&there).unwrap();
    refused(&pack(&there), 4, &["bad.jpg"]);
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    fs::write(there.join("mine"), "a file").unwrap();
    refused(&pack(&there), 3, &["mine"]);
    assert_eq!(fs::read(there.join("mine")).unwrap(), b"a file");
    // A set of another version, and the folder of one.
    let other = root.join("other/mine/0.9.0");
    fs::create_dir_all(&other).unwrap();
    refused(&pack(&root.join("other")), 4, &["bad.jpg"]);
    assert!(other.is_dir());
    assert_eq!(fs::read_dir(root.join("other/mine")).unwrap().count(), 1);
}

const RECORD: usize = 1 + 3 * 32 * 32;

/// CIFAR-10's archive with six images to a file.
fn archive(dir: &Path) -> std::path::PathBuf {
    let folder = dir.join("cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    let train = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    for (file, name) in train.chain(["test_batch.bin".into()]).enumerate() {
        let mut content = Vec::new();
        for record in 0..6 {
            content.push((file + record) as u8 % 10);
            content.extend((1..RECORD).map(|byte| (byte * (record + 3) + file) as u8));
        }
        fs::write(folder.join(name), content).unwrap();
    }
    fs::write(folder.join("batches.meta.txt"), "airplane\n").unwrap();
    folder
}

#[test]
fn the_binary_archive_of_cifar_is_a_data_set_too() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join(".hidden"), "").unwrap();
    let files = archive(root);
    for (dir, more) in [
        (root, &[][..]),
        (root, &["--dataset", "cifar10"]),
        (&files, &[]),
    ] {
        let output = data(&["check", "--json"], dir, more);
        assert!(output.status.success(), "{}", stderr(&output));
        let found = json(&output);
        assert_eq!(found.as_array().unwrap().len(), 2);
        for (report, (split, count)) in found
            .as_array()
            .unwrap()
            .iter()
            .zip([("train", 5), ("test", 1)])
        {
            assert_eq!(report["dataset"], "cifar10");
            assert_eq!(report["split"], split);
            assert_eq!(report["files"], count);
            assert_eq!(report["examples"], 6 * count);
            assert_eq!(report["promised"], 6 * count);
            assert_eq!(report["classes"], 10);
            assert_eq!(report["heights"], serde_json::json!([32, 32]));
        }
    }
    let text = String::from_utf8(data(&["check"], root, &["--split", "train"]).stdout).unwrap();
    for words in [
        "30 of 30",
        "30 raw",
        "32 rows, 32 columns",
        "good      every record and label",
        "the published split has 50,000",
    ] {
        assert!(text.contains(words), "`{words}` is missing in: {text}");
    }
    refused(
        &data(&["check"], root, &["--split", "validation"]),
        2,
        &["train of cifar10, test of cifar10", "--split"],
    );
    refused(
        &data(&["bench"], root, &[]),
        2,
        &["`cifar10`", "in memory", "nothing to read"],
    );
    let out = root.join("sheet.png");
    let more = ["-n", "3", "--set", "runtime.platform=cpu", "-o"];
    let output = simclr()
        .args(["data", "show"])
        .arg(root)
        .args(more)
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(fs::read(&out).unwrap().starts_with(b"\x89PNG"));

    // A label that is none in the second file, the third cut short.
    let second = files.join("data_batch_2.bin");
    let mut content = fs::read(&second).unwrap();
    content[4 * RECORD] = 10;
    fs::write(&second, content).unwrap();
    let third = files.join("data_batch_3.bin");
    let content = fs::read(&third).unwrap();
    fs::write(&third, &content[..content.len() - 100]).unwrap();
    let output = data(&["check", "--json"], root, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let found = json(&output);
    assert_eq!(found[0]["problem_count"], 2);
    assert_eq!(
        (&found[0]["examples"], &found[0]["promised"]),
        (&29.into(), &30.into())
    );
    assert_eq!(found[1]["problem_count"], 0);
    let problems = found[0]["problems"].to_string();
    for words in [
        "record 4",
        "data_batch_2.bin is 10, expected 0 to 9",
        "data_batch_3.bin has 18338 bytes",
    ] {
        assert!(problems.contains(words), "{words}: {problems}");
    }
    fs::remove_file(&third).unwrap();
    refused(
        &data(&["check"], root, &[]),
        4,
        &["data_batch_3.bin is missing"],
    );
}

#[test]
fn keys_without_effect_on_a_sheet_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    for (key, words) in [
        ("dataset=shapes32", "--dataset"),
        ("data_dir=/tmp", "name the folder"),
        ("train_split=test", "--split"),
        ("train_batch_size=4", "-n"),
        ("train_steps=3", "first step"),
        ("input_pipelines=2", "first step"),
        ("runtime.devices=2", "first step"),
        ("subset_list=x.txt", "whole split"),
    ] {
        let output = data(&["show", "--set", key], folder.path(), &[]);
        let name = key.split_once('=').unwrap().0;
        refused(&output, 2, &[&format!("`{name}"), "is not taken", words]);
    }
}

#[test]
fn a_sheet_is_a_png_and_its_number_of_examples_is_told() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let out = folder.path().join("sheet.jpg");
    let output = simclr()
        .args(["data", "show"])
        .arg(folder.path())
        .arg("-o")
        .arg(&out)
        .output()
        .unwrap();
    refused(&output, 2, &["sheet.jpg", "ends in .png"]);
    assert!(!out.exists());
    let help = simclr().args(["data", "show", "-h"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("2 to 16"), "{help}");
}

/// Nothing of keys, and no words of the program's own.
#[test]
fn errors_speak_of_what_the_commands_have() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let not_said = |output: &Output| {
        let text = stderr(output);
        for words in ["data_dir", "train_split", "eval_split", "`any`", "among"] {
            assert!(!text.contains(words), "`{words}` is said in: {text}");
        }
    };
    let none = root.join("none");
    for command in ["check", "show", "bench"] {
        let output = data(&[command], &none, &[]);
        refused(
            &output,
            2,
            &["none is not a folder: name the folder that holds the data"],
        );
        not_said(&output);
    }
    let loose = root.join("loose");
    fs::create_dir(&loose).unwrap();
    fs::write(loose.join(".hidden"), "").unwrap();
    let check = |more: &[&str]| data(&["check"], &loose, more);
    refused(&check(&[]), 2, &["which holds .hidden;"]);
    fs::write(loose.join("notes.txt"), "").unwrap();
    let output = check(&[]);
    refused(
        &output,
        2,
        &[
            "no data set in",
            "which holds notes.txt;",
            "name the folder",
        ],
    );
    not_said(&output);
    // A folder that may be a class, but has no picture.
    fs::create_dir(loose.join("empty")).unwrap();
    for more in [&[][..], &["--dataset", "cifar10"], &["--split", "test"]] {
        let output = check(more);
        refused(&output, 2, &["loose, which holds empty, notes.txt;"]);
        assert!(!stderr(&output).contains("train of"), "{}", stderr(&output));
        not_said(&output);
    }
    let pack = simclr()
        .args(["data", "pack"])
        .args([&loose, &root.join("out")])
        .output()
        .unwrap();
    refused(
        &pack,
        2,
        &["which holds empty, notes.txt;", "name the folder"],
    );
    not_said(&pack);
    let pack = simclr()
        .args(["data", "pack"])
        .args([&none, &root.join("out")])
        .output()
        .unwrap();
    refused(&pack, 2, &["none is not a folder: name the folder"]);
    not_said(&pack);
    let photographs = root.join("photographs");
    photos(&photographs, &[2]);
    let output = data(&["check", "--dataset", "cats"], &photographs, &[]);
    refused(
        &output,
        2,
        &["no data set `cats`", "holds train of photos", "--dataset"],
    );
    not_said(&output);
    let output = data(
        &["check", "--dataset", "cats", "--split", "test"],
        &photographs,
        &[],
    );
    refused(&output, 2, &["no split `test` of data set `cats`"]);
}

#[test]
fn one_is_not_many() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images/ant");
    fs::create_dir_all(&images).unwrap();
    fs::write(images.join("a.jpg"), pictures::jpeg(0)).unwrap();
    let images = images.parent().unwrap();
    let out = folder.path().join("out");
    let output = simclr()
        .args(["data", "pack"])
        .args([images, &out])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 example in 1 file\n"), "{text}");
    let (_, height, width) = pictures::picture(0);
    let output = data(&["check"], images, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        format!("{height} rows, {width} columns"),
        "1 of 1 class, 1 example each".into(),
        "good      every picture".into(),
    ] {
        assert!(text.contains(&words), "`{words}` is missing in: {text}");
    }
}

/// Reading alone is measured in one thread, so that the whole may be faster.
#[test]
fn the_table_of_speeds_says_how_many_threads_each_line_has() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let more = ["-n", "40", "--image-size", "24", "--threads", "3"];
    let output = data(&["bench"], folder.path(), &more);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |stage: &str| {
        let line = text.lines().find(|line| line.starts_with(stage));
        let words = line.unwrap_or_default().split_whitespace();
        words.map(String::from).collect::<Vec<_>>()
    };
    for (stage, threads) in [
        ("reading", "1"),
        ("decoding", "3"),
        ("cropping", "3"),
        ("whole", "3"),
    ] {
        assert_eq!(line(stage)[1], threads, "{text}");
    }
    assert!(text.contains("stage      threads   images/s"), "{text}");
}

/// Waits for a command that hangs if it opens what it should not.
fn within_a_minute(command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A class of two pictures with a fifo and a name that is not UTF-8 beside them, and another class.
fn odd_folders(images: &Path) {
    for (class, count) in [("ant", 2), ("bee", 2)] {
        let dir = images.join(class);
        fs::create_dir_all(&dir).unwrap();
        for number in 0..count {
            fs::write(dir.join(format!("{number}.jpg")), encoded(number)).unwrap();
        }
    }
    fifo(&images.join("ant/z.jpg"));
    let latin = OsStr::from_bytes(b"ant/caf\xe9.jpg");
    fs::write(images.join(latin), encoded(3)).unwrap();
    fs::write(images.join("bee/notes.txt"), "no picture").unwrap();
    fs::write(images.join("bee/more.txt"), "no picture").unwrap();
    fs::write(images.join("bee/.hidden.jpg"), "the system's").unwrap();
}

const PASSED_OVER: [&str; 5] = [
    "passed over in the class folders: 2 files or folders whose names end in none of .jpg",
    "the first ",
    "bee/more.txt; 1 that is no file but a fifo, a socket or a device: ",
    "ant/z.jpg; 1 whose name is not UTF-8: ",
    "ant/caf\u{fffd}.jpg",
];

#[test]
fn what_is_passed_over_in_class_folders_is_not_opened_but_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images");
    odd_folders(&images);
    let output = within_a_minute(simclr().args(["data", "check", "--json"]).arg(&images));
    assert!(output.status.success(), "{}", stderr(&output));
    let found = &json(&output)[0];
    assert_eq!(found["examples"], 4);
    let note = found["passed_over"].as_str().unwrap();
    let out = folder.path().join("out");
    let pack = within_a_minute(simclr().args(["data", "pack"]).args([&images, &out]));
    assert!(pack.status.success(), "{}", stderr(&pack));
    for words in PASSED_OVER {
        assert!(note.contains(words), "`{words}` is missing in: {note}");
        let said = stderr(&pack);
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    // A class that is left out would change the labels of the others.
    let latin = images.join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&latin).unwrap();
    for command in ["check", "bench"] {
        let words = ["class folder", "caf\u{fffd}", "not UTF-8", "rename it"];
        refused(&data(&[command], &images, &[]), 4, &words);
    }
}

/// By their names they are files of the sets.
#[test]
fn what_is_no_file_is_refused_in_a_set_too() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let first = shard(&files, "train", 0, 3);
    fs::remove_file(&first).unwrap();
    fifo(&first);
    let output = within_a_minute(simclr().args(["data", "check"]).arg(folder.path()));
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let words = "00000-of-00003 is a fifo, expected a file: remove it";
    assert!(text.contains(words), "{text}");
}

/// Without a checksum a file that was cut where a record ends is a smaller set.
#[test]
fn training_says_that_an_archive_is_smaller_than_the_published_one() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let mut arguments = tiny(&folder.path().join("run"), &["train_steps=1"]);
    arguments.extend(["dataset=cifar10".into(), "train_batch_size=10".into()]);
    arguments.push(format!("data_dir={}", folder.path().display()));
    let output = run(&arguments);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for words in [
        "the published split `train` of `cifar10` has 50000 examples, this one 30",
        "data_batch_1.bin 6, expected 10000",
    ] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
}

/// A sheet among them would be one of them.
#[test]
fn a_sheet_takes_no_pictures_place() {
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("train/ant");
    fs::create_dir_all(&class).unwrap();
    for number in 0..3 {
        fs::write(class.join(format!("{number}.png")), pictures::png(number)).unwrap();
    }
    for name in ["0.png", "new.png"] {
        let more = ["-n", "2", "--set", "runtime.platform=cpu", "-o"];
        let output = simclr()
            .args(["data", "show"])
            .arg(folder.path())
            .args(more)
            .arg(class.join(name))
            .output()
            .unwrap();
        refused(&output, 2, &[name, "among the pictures", "another path"]);
    }
    assert!(fs::read(class.join("0.png")).unwrap() == pictures::png(0));
    assert!(!class.join("new.png").exists());
}
