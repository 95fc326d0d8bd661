//! Training on a part of a data set, by a list of names.

mod binary;
mod common;
mod pictures;

use binary::{refused, run, simclr, stderr, tiny};
use pictures::{bytes, encoded, int, photos, write};
use simclr::augment::ResizeKernel;
use simclr::data::{Error, Examples, Feed, FeedSpec, Missing, OFFICIAL, Task};
use simclr::error::Class;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A set whose examples have names, `picture_N`, N being the label: shards of these lengths.
fn named(dir: &Path, lengths: &[usize]) {
    let folder = photos(dir, lengths);
    let mut number = 0;
    for (at, &length) in lengths.iter().enumerate() {
        write(
            &pictures::shard(&folder, "train", at, lengths.len()),
            (number..number + length).map(|number| {
                vec![
                    ("picture", bytes(encoded(number))),
                    ("kind", int(number as i64)),
                    ("file_name", bytes(format!("picture_{number}").into_bytes())),
                ]
            }),
        );
        number += length;
    }
}

fn listed(dir: &Path, list: &Path) -> Result<Examples, Error> {
    Examples::listed("photos", "train", Some(dir), Some(list), false)
}

fn labels(examples: Examples, task: Task, steps: usize) -> Vec<u32> {
    let spec = FeedSpec {
        task,
        batch: 4,
        image_size: 16,
        kernel: ResizeKernel::V2HalfPixel,
        threads: 2,
        skip_bad: false,
    };
    let mut feed = Feed::start(Arc::new(examples), spec);
    let mut all = Vec::new();
    for _ in 0..steps {
        all.extend(feed.step().unwrap().iter().map(|crops| crops.label));
    }
    all
}

const LENGTHS: [usize; 4] = [9, 14, 1, 12];
const CHOSEN: [u32; 12] = [0, 3, 8, 9, 10, 17, 22, 24, 25, 30, 34, 35];

#[test]
fn only_what_a_list_names_is_trained_on_each_once_an_epoch() {
    let folder = tempfile::tempdir().unwrap();
    named(folder.path(), &LENGTHS);
    let list = folder.path().join("list.txt");
    let names: Vec<String> = CHOSEN
        .iter()
        .rev()
        .map(|n| format!("picture_{n}\r\n"))
        .collect();
    fs::write(&list, names.concat() + "picture_77\n\nother\n").unwrap();
    let open = || listed(folder.path(), &list).unwrap();
    let examples = open();
    assert_eq!(examples.description().examples, CHOSEN.len());
    let missing = Missing {
        count: 2,
        of: 14,
        first: "other".into(),
    };
    assert_eq!(examples.missing(), Some(&missing));
    let expected: Vec<(String, u32)> = CHOSEN
        .iter()
        .map(|&n| (format!("picture_{n}"), n))
        .collect();
    assert_eq!(examples.names().unwrap(), expected);
    assert_eq!(labels(open(), Task::Evaluate, 4), CHOSEN);
    // Twice: what is found is kept in the cache of the machine, and read from there.
    for window in [1, 5, 100] {
        let task = |start| Task::Train {
            views: 1,
            seed: 3,
            window,
            pipelines: 1,
            start,
        };
        let straight = labels(open(), task(0), 6);
        for epoch in straight.chunks(CHOSEN.len()) {
            let seen: BTreeSet<u32> = epoch.iter().copied().collect();
            assert!(seen.iter().eq(&CHOSEN), "{epoch:?}");
        }
        assert_eq!(labels(open(), task(4), 2), straight[16..]);
    }
    let whole = Examples::open("photos", "train", Some(folder.path())).unwrap();
    assert_ne!(
        whole.description().fingerprint,
        examples.description().fingerprint
    );
    assert_eq!(whole.names().unwrap().len(), 36);
}

#[test]
fn sets_in_memory_and_folders_have_names_too() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list.txt");
    fs::write(&list, "test_00003\ntest_00011\n").unwrap();
    let whole = Examples::open("shapes32", "test", None).unwrap();
    let names = whole.names().unwrap();
    let part = Examples::listed("shapes32", "test", None, Some(&list), false).unwrap();
    assert_eq!(part.names().unwrap().len(), 2);
    for (place, number) in [3, 11].into_iter().enumerate() {
        let (whole, part) = (whole.memory().unwrap(), part.memory().unwrap());
        assert_eq!(whole.image(number), part.image(place));
        assert_eq!(whole.labels[number], part.labels[place]);
        assert_eq!(
            names[number],
            (format!("test_{number:05}"), part.labels[place])
        );
    }

    let pictures = folder.path().join("pictures");
    for (class, number) in [("a", 0), ("a", 1), ("b", 2), ("b", 3)] {
        fs::create_dir_all(pictures.join(class)).unwrap();
        fs::write(
            pictures.join(class).join(format!("{number}.jpg")),
            encoded(number),
        )
        .unwrap();
    }
    fs::write(&list, "b/3.jpg\na/0.jpg\n").unwrap();
    let part = Examples::listed("folder", "train", Some(&pictures), Some(&list), false).unwrap();
    assert_eq!(
        part.names().unwrap(),
        [("a/0.jpg".into(), 0), ("b/3.jpg".into(), 1)]
    );
    assert_eq!(labels(part, Task::Evaluate, 1), [0, 1]);
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    named(folder.path(), &LENGTHS);
    let list = folder.path().join("list.txt");
    let of = |text: &[u8]| {
        fs::write(&list, text).unwrap();
        listed(folder.path(), &list).unwrap_err()
    };
    for (text, words) in [
        (
            &b"picture_1\npicture_2\npicture_1\n"[..],
            &["line 3", "`picture_1` a second time"][..],
        ),
        (b"\n\n", &["nothing is named"]),
        (b"picture_1\n\xff\n", &["line 2", "UTF-8"]),
        (
            b"n01440764_1.JPEG\n",
            &[
                "no example of split `train`",
                "n01440764_1.JPEG",
                "`picture_0`",
            ],
        ),
    ] {
        let error = of(text);
        assert_eq!(error.class(), Class::Check, "{error}");
        for word in words.iter().chain(&["list.txt"]) {
            assert!(
                error.to_string().contains(word),
                "`{word}` is missing in: {error}"
            );
        }
    }
    let error = listed(folder.path(), &folder.path().join("none.txt")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
    let unnamed = folder.path().join("unnamed");
    photos(&unnamed, &LENGTHS);
    fs::write(&list, "a\n").unwrap();
    let error = listed(&unnamed, &list).unwrap_err();
    assert!(error.to_string().contains("file_name, id"), "{error}");
    // Through the program.
    let command = |more: &[&str]| run(&tiny(&folder.path().join("run"), more));
    let dir = format!("data_dir={}", folder.path().display());
    refused(
        &command(&["dataset=imagenet2012_subset/1pct", &dir]),
        2,
        &["1percent.txt nor ", "imagenet_subsets", "subset_list"],
    );
    let list = format!("subset_list={}", list.display());
    refused(
        &command(&["dataset=imagenet2012_subset/1pct", &dir, &list]),
        4,
        &[
            "not the original's list",
            OFFICIAL[0].sha256,
            "dataset=imagenet2012",
        ],
    );
}

/// A catalogue is kept by names and sizes of files: other files of the same sizes are not taken for those that it was made of.
#[test]
fn a_catalogue_of_other_files_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [3, 5];
    named(folder.path(), &lengths);
    let list = folder.path().join("list.txt");
    fs::write(&list, "picture_1\npicture_6\n").unwrap();
    assert_eq!(
        labels(listed(folder.path(), &list).unwrap(), Task::Evaluate, 1),
        [1, 6]
    );
    // The first two examples change places: record 1 is as long as before, but called picture_0.
    let file = pictures::shard(&folder.path().join("photos/1.0.0"), "train", 0, 2);
    let content = fs::read(&file).unwrap();
    let records: Vec<&[u8]> = simclr::data::record::Records::new(&file, &content)
        .map(|record| record.unwrap().data)
        .collect();
    let size = |n: usize| records[n].len() + 16;
    let [first, second] = [&content[..size(0)], &content[size(0)..size(0) + size(1)]];
    fs::write(
        &file,
        [second, first, &content[size(0) + size(1)..]].concat(),
    )
    .unwrap();
    let mut feed = Feed::start(
        Arc::new(listed(folder.path(), &list).unwrap()),
        FeedSpec {
            task: Task::Evaluate,
            batch: 2,
            image_size: 16,
            kernel: ResizeKernel::V2HalfPixel,
            threads: 1,
            skip_bad: true,
        },
    );
    let error = feed.step().unwrap_err();
    assert_eq!(error.class(), Class::Check, "{error}");
}

/// Names that are not of one example each: a list cannot say which is meant.
#[test]
fn names_of_several_examples_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[4]);
    let record = |number: usize, name: &str| {
        vec![
            ("picture", bytes(encoded(number))),
            ("kind", int(number as i64)),
            ("file_name", bytes(name.as_bytes().to_vec())),
        ]
    };
    let names = ["0001.jpg", "0002.jpg", "0001.jpg", "0003.jpg"];
    write(
        &pictures::shard(&files, "train", 0, 1),
        names.iter().enumerate().map(|(n, name)| record(n, name)),
    );
    let list = folder.path().join("list.txt");
    fs::write(&list, "0002.jpg\n0001.jpg\n").unwrap();
    let error = listed(folder.path(), &list).unwrap_err();
    assert_eq!(error.class(), Class::Check);
    let text = error.to_string();
    assert!(text.contains("2 examples are called `0001.jpg`"), "{text}");
    // Others of the set are told apart.
    fs::write(&list, "0003.jpg\n0002.jpg\n").unwrap();
    let part = listed(folder.path(), &list).unwrap();
    assert_eq!(labels(part, Task::Evaluate, 1), [1, 3]);
    // Nor is such a list made.
    let output = simclr()
        .args(["data", "subset", "photos", "--per-class", "1", "--data-dir"])
        .arg(folder.path())
        .arg("-o")
        .arg(folder.path().join("drawn.txt"))
        .output()
        .unwrap();
    refused(&output, 4, &["2 examples are called `0001.jpg`"]);
}

/// A damaged record has no name. With on_bad_record=skip that does not keep the others from theirs, at the first start, when all names
/// are read, and at the next, when they are kept.
#[test]
fn a_damaged_record_is_no_end_of_a_list() {
    let folder = tempfile::tempdir().unwrap();
    // Of other sizes than those of the other tests: their names are kept in the cache of the machine.
    named(folder.path(), &[9, 11]);
    let file = pictures::shard(&folder.path().join("photos/1.0.0"), "train", 1, 2);
    let mut content = fs::read(&file).unwrap();
    let [second, fourth] = [1, 3].map(|number| {
        let mut records = simclr::data::record::Records::new(&file, &content);
        records.nth(number).unwrap().unwrap().offset
    });
    content[second + 40] ^= 1;
    content[fourth + 40] ^= 1;
    fs::write(&file, &content).unwrap();
    // Of an earlier run of this test there are names of all.
    let whole = Examples::open("photos", "train", Some(folder.path())).unwrap();
    let name = format!("{}.gz", whole.description().fingerprint);
    let kept = simclr::places::cache_folder().map(|cache| cache.join("catalogues").join(name));
    kept.map(fs::remove_file);
    let list = folder.path().join("list.txt");
    // Damaged are picture_10 and picture_12, of which the list has the first.
    let names = [0, 8, 9, 10, 17].map(|n| format!("picture_{n}\n"));
    fs::write(&list, names.concat()).unwrap();
    let mut without = Vec::new();
    for _ in 0..2 {
        let error = listed(folder.path(), &list).unwrap_err().to_string();
        assert!(error.contains("is corrupt: record 1"), "{error}");
        let part = Examples::listed("photos", "train", Some(folder.path()), Some(&list), true);
        let part = part.unwrap();
        let missing = part.missing().unwrap();
        assert_eq!((missing.count, missing.first.as_str()), (1, "picture_10"));
        without.push(part.description().fingerprint.clone());
        assert_eq!(labels(part, Task::Evaluate, 1), [0, 8, 9, 17]);
    }
    // Mended without a change of its size, one of them, then the other.
    content[fourth + 40] ^= 1;
    fs::write(&file, &content).unwrap();
    let part = Examples::listed("photos", "train", Some(folder.path()), Some(&list), true);
    without.push(part.unwrap().description().fingerprint.clone());
    assert_ne!(without[0], without[2]);
    content[second + 40] ^= 1;
    fs::write(&file, &content).unwrap();
    let part = listed(folder.path(), &list).unwrap();
    assert_eq!(part.missing(), None);
    // A run that began without it is another one.
    let fingerprint = &part.description().fingerprint;
    assert!(!without.contains(fingerprint));
    assert_eq!(without[0], without[1]);
    assert_eq!(labels(part, Task::Evaluate, 2), [0, 8, 9, 10, 17]);
}

/// The original's lists against the sample of ImageNet, which holds a few of their images.
#[test]
fn the_originals_lists_find_their_images_in_the_sample() {
    let Some(shared) = common::shared_data() else {
        return;
    };
    let data = shared.join("imagenet2012_sample");
    let manifest = fs::read_to_string(data.join("manifest.tsv")).unwrap();
    for (official, column) in OFFICIAL.iter().zip([12, 13]) {
        let packed = shared
            .join("imagenet_subsets")
            .join(format!("{}.xz", official.file));
        let text = match Command::new("xz").arg("-dc").arg(&packed).output() {
            Ok(output) if output.status.success() => output.stdout,
            _ => {
                eprintln!("SKIPPED: no xz to unpack the lists with");
                return;
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join(official.file);
        fs::write(&list, text).unwrap();
        let found =
            Examples::listed(official.dataset, "train", Some(&data), Some(&list), false).unwrap();
        let expected: BTreeSet<String> = manifest
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .filter(|row| row[0] == "train" && row[column] == "1")
            .map(|row| row[3].to_string())
            .collect();
        assert!(!expected.is_empty());
        let names: BTreeSet<String> = found
            .names()
            .unwrap()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, expected, "{}", official.dataset);
        let missing = found.missing().unwrap();
        assert_eq!(
            (missing.of, missing.count),
            (official.lines, official.lines - expected.len())
        );
        let validation = Examples::open(official.dataset, "validation", Some(&data)).unwrap();
        assert_eq!(validation.description().examples, 20);
    }
}

#[test]
fn a_run_on_a_list_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    named(folder.path(), &LENGTHS);
    let list = folder.path().join("list.txt");
    let names: Vec<String> = CHOSEN.iter().map(|n| format!("picture_{n}\n")).collect();
    fs::write(&list, names.concat() + "picture_99\n").unwrap();
    let more = [
        "dataset=photos".to_string(),
        format!("data_dir={}", folder.path().display()),
        format!("subset_list={}", list.display()),
        "train_batch_size=4".into(),
        "train_steps=3".into(),
    ];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let output = simclr()
        .args(tiny(&folder.path().join("run"), &more))
        .output()
        .unwrap();
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("3 steps of 4 images"), "{text}");
    assert!(
        text.contains("1 of the 13 examples")
            && text.contains("is not in split")
            && text.contains("picture_99"),
        "{text}"
    );
}
