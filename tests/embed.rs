//! Evaluating, embedding and predicting through the program, on pictures that the test draws.

mod binary;

use binary::{refused, run, simclr, stderr, tiny};
use simclr::data::Examples;
use simclr::report::picture::Picture;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use tfrecord::protobuf::Features;
use tfrecord::{Example, ExampleWriter, Feature};

/// A folder with a run of a few steps with a classifier (`run`), and pictures: examples of the test split as PNG files in `pictures`,
/// a list of them, a larger one, and one that is none.
fn home() -> &'static Path {
    static HOME: OnceLock<tempfile::TempDir> = OnceLock::new();
    HOME.get_or_init(|| {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path();
        let more = ["train_steps=3", "weight_decay=0"];
        let output = run(&tiny(&path.join("run"), &more));
        assert!(output.status.success(), "{}", stderr(&output));
        let set = Examples::open("shapes32", "test", None).expect("shapes32");
        let set = set.memory().expect("in memory");
        let pictures = path.join("pictures/inner");
        std::fs::create_dir_all(&pictures).expect("a folder");
        let mut list = String::new();
        for number in 0..7 {
            let picture = Picture {
                width: 32,
                height: 32,
                rgb: set.image(number).to_vec(),
            };
            std::fs::write(pictures.join(format!("{number}.png")), picture.png()).expect("a file");
            list.push_str(&format!("pictures/inner/{number}.png\n"));
        }
        std::fs::write(path.join("list.txt"), list).expect("a file");
        std::fs::write(path.join("missing.txt"), "pictures/inner/0.png\ngone.png\n")
            .expect("a file");
        std::fs::write(path.join("none.png"), "no picture").expect("a file");
        std::fs::create_dir(path.join("empty")).expect("a folder");
        let large = Picture {
            width: 50,
            height: 40,
            rgb: vec![128; 50 * 40 * 3],
        };
        std::fs::write(path.join("large.png"), large.png()).expect("a file");
        home
    })
    .path()
}

fn call(arguments: &[&str]) -> Output {
    simclr()
        .current_dir(home())
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn ok(arguments: &[&str]) -> String {
    let output = call(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The elements of a NumPy file of f32 with two dimensions, read by its documented layout.
fn npy(path: &Path) -> ([usize; 2], Vec<f32>) {
    let bytes = std::fs::read(path).expect("a file");
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert_eq!(header % 64, 0, "the elements begin at a multiple of 64");
    let text = std::str::from_utf8(&bytes[10..header]).expect("ASCII");
    assert!(
        text.contains("'descr': '<f4', 'fortran_order': False"),
        "{text}"
    );
    let shape = text.split(['(', ')']).nth(1).expect("a shape");
    let dims: Vec<usize> = shape
        .split(", ")
        .map(|d| d.parse().expect("a number"))
        .collect();
    let values = bytes[header..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    ([dims[0], dims[1]], values.collect())
}

#[test]
fn features_of_folders_lists_and_files_are_the_same_in_every_format() {
    let text = ok(&["embed", "run", "pictures", "-o", "a.npy"]);
    assert!(text.contains("7 pictures, 64 features each"), "{text}");
    let (dims, folder) = npy(&home().join("a.npy"));
    assert_eq!(dims, [7, 64]);
    assert!(folder.iter().all(|x| x.is_finite()) && folder.iter().any(|&x| x != folder[0]));
    let names = std::fs::read_to_string(home().join("a.npy.names.txt")).expect("names");
    assert_eq!(names.lines().nth(2), Some("pictures/inner/2.png"));

    // In launches of two, from a list; as safetensors and CSV.
    ok(&[
        "embed",
        "run",
        "list.txt",
        "-o",
        "b.safetensors",
        "--set",
        "eval_batch_size=2",
        "--set",
        "runtime.devices=2",
    ]);
    let bytes = std::fs::read(home().join("b.safetensors")).expect("a file");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = tensors.tensor("features").expect("features");
    assert_eq!(view.shape(), [7, 64]);
    let listed = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    for (a, b) in folder.iter().zip(listed) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
    }
    ok(&[
        "embed",
        "run",
        "pictures/inner/3.png",
        "large.png",
        "-o",
        "c.csv",
    ]);
    let csv = std::fs::read_to_string(home().join("c.csv")).expect("a file");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("name,f0,f1,") && lines[1].starts_with("\"pictures/inner/3.png\",")
    );
    let row = lines[1]
        .split(',')
        .skip(1)
        .map(|x| x.parse::<f32>().expect("a number"));
    for (a, b) in folder[3 * 64..4 * 64].iter().zip(row) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
    }
}

#[test]
fn predictions_are_probabilities_of_named_classes() {
    let text = ok(&["predict", "run", "pictures", "--top", "10", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = list.as_array().expect("a list");
    assert_eq!(list.len(), 7);
    for entry in list {
        let classes = entry["classes"].as_array().expect("classes");
        let p: Vec<f64> = classes
            .iter()
            .map(|c| c["probability"].as_f64().expect("a number"))
            .collect();
        assert_eq!(p.len(), 10);
        assert!(
            (p.iter().sum::<f64>() - 1.0).abs() < 1e-9 && p.windows(2).all(|w| w[0] >= w[1]),
            "{p:?}"
        );
        let name = classes[0]["name"].as_str().expect("a name");
        assert!(name.parse::<usize>().is_err(), "a word, not {name}");
    }
    let text = ok(&["predict", "run", "pictures/inner/0.png"]);
    assert!(
        text.starts_with("pictures/inner/0.png  ") && text.contains('%'),
        "{text}"
    );
}

/// Record files, read record by record as launches want them: the rows of the same pictures as files, in whatever order they are named.
#[test]
fn pictures_in_record_files_are_those_of_files() {
    for (name, numbers) in [("a.tfrecord", 0..5), ("b.tfrecord-00000-of-00001", 5..7)] {
        let mut writer = ExampleWriter::create(home().join(name)).expect("a file");
        for number in numbers {
            let picture = home().join(format!("pictures/inner/{number}.png"));
            let bytes = std::fs::read(picture).expect("a picture");
            let key = if number % 2 == 0 {
                "image"
            } else {
                "image/encoded"
            };
            let feature = HashMap::from([(key.to_owned(), Feature::from_bytes_iter([bytes]))]);
            let features = Some(Features { feature });
            writer.send(Example { features }).expect("written");
        }
        writer.flush().expect("written");
    }
    let (_, files) = {
        ok(&["embed", "run", "pictures", "-o", "files.npy"]);
        npy(&home().join("files.npy"))
    };
    let second = "b.tfrecord-00000-of-00001";
    let sources = [second, "pictures/inner/3.png", "a.tfrecord", "a.tfrecord"];
    let mut arguments = vec!["embed", "run"];
    arguments.extend(sources);
    arguments.extend(["-o", "records.npy", "--set", "eval_batch_size=3"]);
    ok(&arguments);
    let (dims, records) = npy(&home().join("records.npy"));
    let order = [5, 6, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4];
    assert_eq!(dims, [order.len(), 64]);
    for (row, number) in records.chunks_exact(64).zip(order) {
        let file = &files[number * 64..(number + 1) * 64];
        let same = row
            .iter()
            .zip(file)
            .all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs()));
        assert!(same, "picture {number}");
    }
    let names = std::fs::read_to_string(home().join("records.npy.names.txt")).expect("names");
    assert_eq!(names.lines().nth(1), Some("b.tfrecord-00000-of-00001#1"));
}

/// A head learned on class folders says their names, also when the folders are gone.
#[test]
fn predictions_say_the_names_of_class_folders() {
    for (split, count) in [("train", 4), ("test", 2)] {
        for class in ["apple", "pear"] {
            let folder = home().join("fruit").join(split).join(class);
            std::fs::create_dir_all(&folder).expect("a folder");
            for number in 0..count {
                let from = home().join(format!("pictures/inner/{number}.png"));
                std::fs::copy(from, folder.join(format!("{number}.png"))).expect("a copy");
            }
        }
    }
    let fruit = home().join("fruit");
    let mut arguments = tiny(&home().join("fruit_run"), &["train_steps=1"]);
    arguments.extend(["dataset=folder".into(), "train_batch_size=4".into()]);
    arguments.push(format!("data_dir={}", fruit.display()));
    let output = run(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    std::fs::remove_dir_all(fruit).expect("removed");
    let text = ok(&["predict", "fruit_run", "pictures/inner/0.png", "--top", "2"]);
    assert!(text.contains("apple ") && text.contains("pear "), "{text}");
}

/// A checkpoint of TensorFlow tells neither its data set nor the names of its classes.
#[test]
fn an_imported_head_says_whose_names_its_classes_have() {
    ok(&["export", "run", "head_tf", "--format", "tf-checkpoint"]);
    let said = ok(&["import", "head_tf", "again", "stem_stride=2"]);
    for words in [
        "assumed  dataset=cifar10 (the default; it has as many classes",
        "next     simclr predict again PICTURES",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let predict = |more: &[&str]| {
        let picture = ["pictures/inner/0.png", "--top", "10"];
        let output = call(&[&["predict"], more, &picture[..]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (text, stderr(&output))
    };
    let (text, said) = predict(&["again"]);
    assert!(text.contains("airplane "), "{text}");
    assert!(
        said.contains("keeps no names of its classes, which have those of cifar10 here"),
        "{said}"
    );
    let (text, said) = predict(&["again", "--set", "dataset=cifar100"]);
    assert!(text.contains(" 9 ") && !text.contains("apple"), "{text}");
    let words = "classes are numbers here: the supervised head has 10, cifar100 has names for 100";
    assert!(said.contains(words), "{said}");
    // What the user says is kept.
    let said = ok(&[
        "import",
        "head_tf",
        "told",
        "stem_stride=2",
        "dataset=shapes32",
    ]);
    assert!(!said.contains("dataset="), "{said}");
    let (text, said) = predict(&["told"]);
    assert!(text.contains("crescent "), "{text}");
    assert!(!said.contains("names"), "{said}");
}

/// A head that learned other classes gives no figures of these.
#[test]
fn a_head_that_learned_other_classes_is_left_out() {
    let folder = home().join("others/cifar10/3.0.2");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (split, count) in [("train", 40), ("test", 20)] {
        let name = format!("cifar10-{split}.tfrecord-00000-of-00001");
        let mut writer = ExampleWriter::create(folder.join(name)).expect("a file");
        for number in 0..count {
            let picture = home().join(format!("pictures/inner/{}.png", number % 7));
            let bytes = std::fs::read(picture).expect("a picture");
            let feature = HashMap::from([
                ("image".to_owned(), Feature::from_bytes_iter([bytes])),
                ("label".to_owned(), Feature::from_i64_iter([number % 10])),
            ]);
            let features = Some(Features { feature });
            writer.send(Example { features }).expect("written");
        }
        writer.flush().expect("written");
    }
    let others = ["evaluate", "run", "dataset=cifar10", "data_dir=others"];
    let text = ok(&[&others[..], &["--json"]].concat());
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let figures = found["figures"].as_object().expect("figures");
    assert!(figures.contains_key("knn_20") && !figures.contains_key("top_1"));
    let words = "class 0 of the supervised head is `disc`, that of `cifar10` is `airplane`";
    let note = found["notes"][0].as_str().unwrap_or_default();
    assert!(
        note.starts_with("the supervised head is left out: ") && note.contains(words),
        "{text}"
    );
    let text = ok(&others);
    assert!(
        text.contains("  note: the supervised head is left out"),
        "{text}"
    );
    let output = call(&[&others[..], &["--head-only"]].concat());
    refused(&output, 2, &[words, "evaluate it on `shapes32`"]);
}

#[test]
fn images_that_were_seen_before_are_a_note() {
    let network = "  note: by its configuration the network was trained on shapes32 (train) itself";
    let neighbours = "  note: k-NN and linear probe learn from the very images";
    let seen = ok(&["evaluate", "run", "eval_split=train", "--head-only"]);
    assert!(
        seen.contains(network) && !seen.contains(neighbours),
        "{seen}"
    );
    let asked = ok(&["evaluate", "run", "train_split=test"]);
    assert!(
        asked.contains(neighbours) && !asked.contains(network),
        "{asked}"
    );
    assert!(!ok(&["evaluate", "run", "--head-only"]).contains("note"));
}

/// Nothing is evaluated with a value that cannot be heeded.
#[test]
fn keys_that_change_nothing_are_refused() {
    let evaluate = [
        "data (dataset, data_dir,",
        "eval_batch_size, eval_steps",
        "runtime.platform",
    ];
    for key in [
        "width_multiplier=0.5",
        "resnet_depth=18",
        "proj_out_dim=8",
        "temperature=0.5",
        "learning_rate=0.1",
        "image_size=24",
        "runtime.remat=block",
    ] {
        let name = key.split('=').next().unwrap_or_default();
        let own = format!("`{name}` changes nothing here");
        let words = [&[own.as_str(), "the checkpoint"], &evaluate[..]].concat();
        refused(&call(&["evaluate", "run", key, "--head-only"]), 2, &words);
        let words = [own.as_str(), "how pictures are cut (behaviour"];
        let picture = "pictures/inner/0.png";
        let embed = ["embed", "run", picture, "-o", "x.npy", "--set", key];
        refused(&call(&embed), 2, &words);
        refused(&call(&["predict", "run", picture, "--set", key]), 2, &words);
        let report = [
            "report",
            "run",
            "-o",
            "x.html",
            "--curves-only",
            "--set",
            key,
        ];
        refused(&call(&report), 2, &[&own, "the views (train_batch_size"]);
    }
    let output = call(&["evaluate", "run", "temperatur=1"]);
    refused(&output, 2, &["did you mean `temperature`"]);
}

#[test]
fn evaluation_says_what_predictions_say() {
    let all = ["evaluate", "run", "--json"];
    let text = ok(&all);
    let found: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let figures = &found["figures"];
    let confusion: Vec<Vec<u32>> =
        serde_json::from_value(figures["confusion"].clone()).expect("a table");
    let examples: u32 = confusion.iter().flatten().sum();
    let right: u32 = (0..10).map(|c| confusion[c][c]).sum();
    let top1 = figures["top_1"].as_f64().expect("a number");
    assert_eq!(top1, f64::from(right) / f64::from(examples));
    assert!(figures["top_5"].as_f64().expect("a number") >= top1);
    for (class, row) in confusion.iter().enumerate() {
        let right = f64::from(row[class]) / f64::from(row.iter().sum::<u32>());
        assert_eq!(figures["class_accuracy"][class].as_f64(), Some(right));
    }
    for figure in ["knn_20", "knn_200", "linear_probe"] {
        let value = figures[figure].as_f64().expect("a number");
        assert!((0.0..=1.0).contains(&value), "{figure} {value}");
    }
    // `eval_steps` limits what is evaluated, not the neighbours and the examples that the probe learns from.
    let text = ok(&[
        "evaluate",
        "run",
        "eval_steps=1",
        "eval_batch_size=2000",
        "--json",
    ]);
    let limited: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for figure in ["top_1", "knn_20", "knn_200"] {
        assert_eq!(limited["figures"][figure], figures[figure], "{figure}");
    }
    // As exact on four devices.
    let text = ok(&["evaluate", "run", "runtime.devices=4", "--json"]);
    let four: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(four["figures"]["confusion"], figures["confusion"]);
    // A few of the same examples by `predict`: row by row what the table counts.
    let text = ok(&[
        "evaluate",
        "run",
        "eval_steps=1",
        "eval_batch_size=7",
        "--head-only",
        "--json",
    ]);
    let few: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let few: Vec<Vec<u32>> =
        serde_json::from_value(few["figures"]["confusion"].clone()).expect("a table");
    let text = ok(&["predict", "run", "list.txt", "--top", "1", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut columns = vec![0u32; 10];
    for entry in said.as_array().expect("a list") {
        columns[entry["classes"][0]["class"].as_u64().expect("a number") as usize] += 1;
    }
    let counted: Vec<u32> = (0..10)
        .map(|c| few.iter().map(|row| row[c]).sum())
        .collect();
    assert_eq!(counted, columns);
    let text = ok(&["evaluate", "run", "--head-only"]);
    assert!(
        text.contains("top-1") && text.contains("rows: true class"),
        "{text}"
    );
    let mut lines = text.lines().skip_while(|line| !line.contains("rows: "));
    let head = lines.nth(1).unwrap_or_default();
    let names: Vec<&str> = head.split_whitespace().collect();
    assert_eq!(names[..3], ["right", "disc", "ring"], "{text}");
    assert_eq!(names.len(), 11, "{text}");
    let row: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert!(
        row[0] == "disc" && row[2] == "%" && row.len() == 13,
        "{text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 120),
        "{text}"
    );
}

#[test]
fn bad_input_is_refused_in_a_sentence_and_nothing_is_written() {
    let headless = home().join("headless");
    let made = run(&tiny(
        &headless,
        &["train_steps=1", "lineareval_while_pretraining=false"],
    ));
    assert!(made.status.success(), "{}", stderr(&made));
    let cases: [(&[&str], i32, &str); 14] = [
        (
            &["evaluate", "headless", "--head-only"],
            2,
            "has no supervised head",
        ),
        (
            &["predict", "run", "pictures", "--top", "0"],
            2,
            "invalid value '0' for '--top <TOP>'",
        ),
        (
            &["embed", "run", "empty", "-o", "x.npy"],
            2,
            "`empty` holds no picture",
        ),
        (
            &["embed", "run", "nowhere", "-o", "x.npy"],
            2,
            "`nowhere` is not there",
        ),
        (
            &["embed", "run", "none.png", "-o", "x.npy"],
            4,
            "`none.png` cannot be decoded",
        ),
        (
            &["embed", "run", "missing.txt", "-o", "x.npy"],
            4,
            "line 2 of `missing.txt` names `gone.png`",
        ),
        (
            &["embed", "run", "pictures", "-o", "x.parquet"],
            2,
            "must end in .npy",
        ),
        (
            &["embed", "run", "pictures", "-o", "no/such/x.npy"],
            3,
            "cannot write `no/such/x.npy`",
        ),
        (
            &["embed", "run", "pictures", "-o", "folder.npy"],
            3,
            "give the name of a file",
        ),
        (
            &["predict", "run", "none.png"],
            4,
            "`none.png` cannot be decoded",
        ),
        (
            &["embed", "pictures", "pictures", "-o", "x.npy"],
            2,
            "`pictures` is no run and no checkpoint",
        ),
        (
            &["predict", "headless", "pictures"],
            2,
            "has no supervised head",
        ),
        (
            &["evaluate", "run", "dataset=cifar100", "data_dir=/nowhere"],
            2,
            "/nowhere",
        ),
        (
            &["evaluate", "nowhere"],
            2,
            "`nowhere` is no run and no checkpoint",
        ),
    ];
    std::fs::remove_file(home().join("x.npy")).ok();
    std::fs::create_dir(home().join("folder.npy")).expect("a folder");
    for (arguments, code, words) in cases {
        let output = call(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
        let left: Vec<PathBuf> = [
            "x.npy",
            "x.npy.names.txt",
            "x.parquet",
            "folder.npy.names.txt",
        ]
        .iter()
        .map(|name| home().join(name))
        .collect();
        assert!(
            left.iter().all(|path| !path.exists()),
            "{arguments:?} has written something"
        );
    }
}

/// Nothing that may never end is opened, and nothing is left out without a word.
#[test]
fn what_a_folder_has_beside_pictures_is_named_and_no_file_is_refused() {
    let odd = home().join("odd");
    std::fs::create_dir_all(odd.join(".trash")).expect("a folder");
    let copy = |name: &OsStr| {
        std::fs::copy(home().join("pictures/inner/0.png"), odd.join(name)).expect("a copy");
    };
    let latin = OsStr::from_bytes(b"caf\xe9.png");
    for name in [".hidden.png", ".trash/1.png", "a.png"] {
        copy(OsStr::new(name));
    }
    copy(latin);
    // What would wait for a writer, if it were opened.
    std::os::unix::net::UnixListener::bind(odd.join("z.png")).expect("a socket");
    let found = simclr::data::pictures::find(std::slice::from_ref(&odd)).expect("pictures");
    assert_eq!(found.len(), 1);
    let output = call(&["embed", "run", "odd", "-o", "odd.npy"]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for words in [
        "passed over in `odd`: 1 that is no file but a fifo, a socket or a device: odd/z.png",
        "1 whose name is not UTF-8: odd/caf\u{fffd}.png",
    ] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    assert!(!said.contains("hidden"), "{said}");
    // What is named is taken whatever its name.
    let named = [odd.join(".hidden.png"), odd.join(latin)];
    let found = simclr::data::pictures::find(&named).expect("pictures");
    assert_eq!(found.len(), 2);
    let hidden = simclr::data::pictures::find(&[odd.join(".trash")]).expect("pictures");
    assert_eq!(hidden.len(), 1);
    for (path, words) in [
        ("/dev/zero", "`/dev/zero` is a device, expected a file"),
        ("odd/z.png", "z.png` is a socket, expected a file"),
    ] {
        let error = simclr::data::pictures::find(&[home().join(path)]).expect_err("no picture");
        assert!(error.to_string().contains(words), "{error}");
    }
    refused(
        &call(&["predict", "run", "odd/z.png"]),
        2,
        &["`odd/z.png` is a socket"],
    );
    std::fs::write(odd.join("list.txt"), "a.png\nz.png\n").expect("a file");
    refused(
        &call(&["predict", "run", "odd/list.txt"]),
        4,
        &["line 2 of `odd/list.txt` names `z.png`, which is a socket"],
    );
}

/// The names of a NumPy file go with its rows, whatever they hold.
#[test]
fn a_name_of_two_lines_is_one_line_of_names() {
    let lines = home().join("lines");
    std::fs::create_dir_all(&lines).expect("a folder");
    for name in ["a\nb.png", "a\\nb.png", "c\r.png", "d.png"] {
        std::fs::copy(home().join("pictures/inner/0.png"), lines.join(name)).expect("a copy");
    }
    ok(&["embed", "run", "lines", "-o", "lines.npy"]);
    assert_eq!(npy(&home().join("lines.npy")).0, [4, 64]);
    let names = std::fs::read_to_string(home().join("lines.npy.names.txt")).expect("names");
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(
        names,
        [
            r"lines/a\nb.png",
            r"lines/a\\nb.png",
            r"lines/c\r.png",
            "lines/d.png"
        ]
    );
}

#[test]
fn features_take_no_place_of_a_checkpoints_files_or_of_a_picture() {
    let state = "run/checkpoints/step-00000003/state.safetensors";
    let before = std::fs::read(home().join(state)).expect("a checkpoint");
    let output = call(&["embed", "run", "pictures", "-o", state]);
    refused(&output, 2, &[state, "is a checkpoint", "another path"]);
    assert!(std::fs::read(home().join(state)).expect("a checkpoint") == before);
    std::fs::copy(home().join("pictures/inner/0.png"), home().join("own.csv")).expect("a copy");
    let output = call(&["embed", "run", "pictures", "own.csv", "-o", "own.csv"]);
    refused(&output, 2, &["own.csv", "one of the pictures"]);
    // Beside the files of a run there is room.
    ok(&["embed", "run", "pictures/inner/0.png", "-o", "run/x.csv"]);
    ok(&["embed", "run", "pictures/inner/1.png", "-o", "run/x.csv"]);
}
