//! Learning from few labels: drawing a list through the program and fine-tuning on it, the script that fetches the original's lists,
//! the recipes.

mod binary;
mod common;

use binary::{refused, run, simclr, stderr, tiny};
use sha2::{Digest, Sha256};
use simclr::data::Examples;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn subset(folder: &Path, arguments: &[&str]) -> Output {
    simclr()
        .current_dir(folder)
        .args(["data", "subset"])
        .args(arguments)
        .output()
        .unwrap()
}

/// Examples of each class that a list names.
fn counts(list: &Path, examples: &Examples) -> BTreeMap<u32, usize> {
    let classes: HashMap<String, u32> = examples.names().unwrap().into_iter().collect();
    let mut found = BTreeMap::new();
    for name in fs::read_to_string(list).unwrap().lines() {
        *found.entry(classes[name]).or_default() += 1;
    }
    found
}

#[test]
fn a_list_is_drawn_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let size = ["shapes32", "--per-class", "13"];
    for (file, seed) in [("a.txt", "5"), ("b.txt", "5"), ("c.txt", "6")] {
        let mut arguments = size.to_vec();
        arguments.extend(["--seed", seed, "-o", file]);
        let output = subset(home, &arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("130 of 10,000 examples of shapes32 (train), 13 of each of 10 classes")
        );
    }
    let read = |name: &str| fs::read(home.join(name)).unwrap();
    assert_eq!(read("a.txt"), read("b.txt"));
    assert_ne!(read("a.txt"), read("c.txt"));
    let whole = Examples::open("shapes32", "train", None).unwrap();
    let expected: BTreeMap<u32, usize> = (0..10).map(|class| (class, 13)).collect();
    assert_eq!(counts(&home.join("a.txt"), &whole), expected);

    // Fine-tuning on it: an epoch of 130 examples.
    let list = format!("subset_list={}", home.join("a.txt").display());
    let mut arguments = tiny(&home.join("run"), &[&list, "train_epochs=2"]);
    arguments[0] = "finetune".into();
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("5 steps of 64 images"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn cifar_10_gives_lists_too() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let data = data.join("cifar10_small");
    let folder = tempfile::tempdir().unwrap();
    let dir = data.display().to_string();
    let arguments = [
        "cifar10",
        "--data-dir",
        &dir,
        "--percent",
        "2.5",
        "-o",
        "list.txt",
    ];
    let output = subset(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let whole = Examples::open("cifar10", "train", Some(&data)).unwrap();
    let found = counts(&folder.path().join("list.txt"), &whole);
    assert_eq!(found.values().sum::<usize>(), 50);
    assert!(found.values().all(|&count| count == 5), "{found:?}");
}

/// Class folders `a`, `b`, … with so many files each.
fn folders(dir: &Path, sizes: &[usize]) {
    for (class, &size) in ('a'..).zip(sizes) {
        let class = dir.join(class.to_string());
        fs::create_dir_all(&class).unwrap();
        for number in 0..size {
            fs::write(class.join(format!("{number}.jpg")), "").unwrap();
        }
    }
}

#[test]
fn what_a_small_class_lacks_the_others_give() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    folders(&home.join("two"), &[2, 12]);
    folders(&home.join("four"), &[0, 2, 9, 12]);
    // Folder, size, examples of each class, what is said.
    type Case<'a> = (&'a str, [&'a str; 2], &'a [usize], &'a [&'a str]);
    let cases: [Case; 6] = [
        (
            "two",
            ["--percent", "50"],
            &[2, 5],
            &[
                "7 of 14 examples of folder (train), 2 to 5 of each of 2 classes",
                "1 of the classes has fewer than 5 examples and gives all it has",
            ],
        ),
        ("two", ["--percent", "100"], &[2, 12], &["14 of 14"]),
        (
            "two",
            ["--per-class", "5"],
            &[2, 5],
            &["1 of the classes has fewer than 5 examples and gives all it has"],
        ),
        (
            "four",
            ["--per-class", "10"],
            &[0, 2, 9, 10],
            &["3 of the classes have fewer than 10 examples and give all they have"],
        ),
        ("four", ["--percent", "100"], &[0, 2, 9, 12], &["23 of 23"]),
        ("two", ["--per-class", "2"], &[2, 2], &["2 of each of 2"]),
    ];
    for (dir, size, expected, words) in cases {
        let mut arguments = vec!["folder", "--data-dir", dir, "-o", "list.txt"];
        arguments.extend(size);
        let output = subset(home, &arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let whole = Examples::open("folder", "train", Some(&home.join(dir))).unwrap();
        let found = counts(&home.join("list.txt"), &whole);
        let found: Vec<usize> = (0..expected.len() as u32)
            .map(|class| found.get(&class).copied().unwrap_or(0))
            .collect();
        assert_eq!(found, expected, "{dir} {size:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
        let short = text.contains("fewer than");
        assert_eq!(short, words.iter().any(|w| w.contains("fewer")), "{text}");
    }
    // Less than half an example is nothing to train on.
    let arguments = [
        "folder",
        "--data-dir",
        "two",
        "--percent",
        "1",
        "-o",
        "x.txt",
    ];
    refused(&subset(home, &arguments), 2, &["14 examples", "--percent"]);
    assert!(!home.join("x.txt").exists());
}

/// 260 of its 1,000 classes have a picture.
#[test]
fn of_the_sample_of_imagenet_the_whole_share_is_drawn() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let data = data.join("imagenet2012_sample").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (percent, expected) in [("10", 26), ("100", 260)] {
        let arguments = [
            "imagenet2012",
            "--data-dir",
            &data,
            "--percent",
            percent,
            "-o",
            "list.txt",
        ];
        let output = subset(folder.path(), &arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let list = fs::read_to_string(folder.path().join("list.txt")).unwrap();
        assert_eq!(list.lines().count(), expected, "{percent} %");
    }
}

/// What the program drew before it gave others what a small class lacks.
#[test]
fn where_no_class_is_small_the_draw_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "shapes32",
        "--percent",
        "1.23",
        "--seed",
        "5",
        "-o",
        "list.txt",
    ];
    let output = subset(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let list = fs::read(folder.path().join("list.txt")).unwrap();
    let digest: String = Sha256::digest(list)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        digest,
        "b272d0c57b87653bce83702bf48e20055166ff1883b568e8f1e8595ce2bedd1a"
    );
}

#[test]
fn what_cannot_be_drawn_is_refused_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let cases: [(&[&str], i32, &str); 10] = [
        (&["shapes32", "-o", "x.txt"], 2, "--percent"),
        (
            &["shapes32", "--per-class", "0", "-o", "x.txt"],
            2,
            "--per-class",
        ),
        (
            &["shapes32", "--percent", "101", "-o", "x.txt"],
            2,
            "at most 100",
        ),
        (
            &[
                "shapes32",
                "--percent",
                "1",
                "--per-class",
                "1",
                "-o",
                "x.txt",
            ],
            2,
            "cannot be used with",
        ),
        (
            &["circles", "--percent", "1", "-o", "x.txt"],
            2,
            "`circles`",
        ),
        (
            &[
                "shapes32",
                "--split",
                "dev",
                "--percent",
                "1",
                "-o",
                "x.txt",
            ],
            2,
            "`dev`",
        ),
        // In words of this command, not of a configuration.
        (
            &["folder", "--percent", "1", "-o", "x.txt"],
            2,
            "set --data-dir to the folder",
        ),
        (
            &[
                "folder",
                "--data-dir",
                "none",
                "--percent",
                "1",
                "-o",
                "x.txt",
            ],
            2,
            "none is not a folder: set --data-dir",
        ),
        (
            &[
                "cifar10",
                "--data-dir",
                ".",
                "--percent",
                "1",
                "-o",
                "x.txt",
            ],
            2,
            "set --data-dir to the folder that has it, or --split to one of its splits",
        ),
        (
            &["shapes32", "--percent", "1", "-o", "none/x.txt"],
            3,
            "none/x.txt",
        ),
    ];
    for (arguments, code, words) in cases {
        let output = subset(home, arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        for key in ["data_dir", "train_split"] {
            assert!(!text.contains(key), "no key of this command: {text}");
        }
        assert_eq!(fs::read_dir(home).unwrap().count(), 0, "{arguments:?}");
    }
}

fn fetch(from: &Path, to: &Path) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("imagenet_subsets/fetch.sh");
    Command::new(script)
        .arg(to)
        .env("SIMCLR_SUBSETS_FROM", format!("file://{}", from.display()))
        .output()
        .unwrap()
}

/// The script keeps nothing that is not the original's; where the lists are at hand it keeps those.
#[test]
fn the_script_takes_the_original_s_lists_only() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::write(from.join("1percent.txt"), "n01440764_10026.JPEG\n").unwrap();
    for (place, words) in [(&from, "another SHA-256"), (&to, "could not be fetched")] {
        let output = fetch(place, &to);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
    let Some(data) = common::shared_data() else {
        return;
    };
    for name in ["1percent", "10percent"] {
        let packed = data.join(format!("imagenet_subsets/{name}.txt.xz"));
        let unpacked = Command::new("xz").arg("-dc").arg(&packed).output();
        let Some(unpacked) = unpacked.ok().filter(|output| output.status.success()) else {
            eprintln!("SKIPPED: {} cannot be unpacked here", packed.display());
            return;
        };
        fs::write(from.join(format!("{name}.txt")), unpacked.stdout).unwrap();
    }
    for _ in 0..2 {
        let output = fetch(&from, &to);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(text.contains("12811 images of 1000 classes"), "{text}");
        assert!(text.contains("128116 images of 1000 classes"), "{text}");
        // The second time nothing is fetched.
        fs::remove_dir_all(&from).ok();
    }
    fs::write(to.join("1percent.txt"), "other\n").unwrap();
    let output = fetch(&from, &to);
    assert!(
        stderr(&output).contains("move it away"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read(to.join("1percent.txt")).unwrap(), b"other\n");
}

/// Rates after scaling and numbers of steps of both papers' recipes (reference §5.1, §10, §14.2).
#[test]
fn the_recipes_are_the_papers() {
    let cases = [
        ("imagenet_1pct", 12_811, 0.8, 188, 0),
        ("imagenet_10pct", 128_116, 0.8, 939, 0),
        ("imagenet_1pct_v2", 12_811, 0.16, 751, 1),
        ("imagenet_10pct_v2", 128_116, 0.16, 3_754, 1),
    ];
    for (name, examples, rate, steps, selector) in cases {
        let file: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("configs/{name}.yaml"));
        let loaded = simclr::config::load(Some(&file), &[]).unwrap();
        let plan = simclr::config::Plan::new(&loaded, examples, 1).unwrap();
        assert!(
            (plan.scaled_rate - rate).abs() < 1e-12,
            "{name}: {}",
            plan.scaled_rate
        );
        assert_eq!((plan.total_steps, plan.warmup_steps), (steps, 0), "{name}");
        let config = loaded.config;
        assert_eq!(config.ft_proj_selector, selector, "{name}");
        assert!(config.finetune && config.weight_decay == 0.0, "{name}");
    }
    let output = simclr()
        .args([
            "finetune",
            "dataset=imagenet2012_subset/1pct",
            "data_dir=/nowhere",
        ])
        .args(["eval_split=validation", "train_batch_size=64"])
        .output()
        .unwrap();
    refused(&output, 2, &["1percent.txt"]);
}
