//! Sets of pictures that are streamed from disk: layouts, decoding, order, resuming, and what happens to bad ones.

mod binary;
mod common;
mod pictures;

use binary::{checkpoint, refused, run, state, stderr, tiny};
use pictures::{bytes, encoded, int, photos, picture, shard, write};
use simclr::augment::host::{Area, HostResize, centre, evaluated};
use simclr::augment::{Augmentation, Brightness, ResizeKernel};
use simclr::data::check::check;
use simclr::data::decode::decode;
use simclr::data::record::Records;
use simclr::data::{
    Crops, Error, Examples, Feed, FeedSpec, Found, Share, Task, originals, replaced,
};
use simclr::error::Class;
use simclr::hlo::{DType, Graph, Literal, Shape};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const LENGTHS: [usize; 4] = [9, 14, 1, 12];
const ALL: usize = 36;

fn spec(threads: usize, start: u64, window: usize) -> FeedSpec {
    FeedSpec {
        task: Task::Train {
            views: 2,
            seed: 5,
            window,
            pipelines: 1,
            start,
        },
        batch: 6,
        image_size: 24,
        kernel: ResizeKernel::V2HalfPixel,
        threads,
        skip_bad: false,
    }
}

fn piped(mut spec: FeedSpec, count: usize) -> FeedSpec {
    if let Task::Train { pipelines, .. } = &mut spec.task {
        *pipelines = count;
    }
    spec
}

fn open(dir: &Path) -> Arc<Examples> {
    Arc::new(Examples::open("photos", "train", Some(dir)).unwrap())
}

fn steps(examples: &Arc<Examples>, spec: FeedSpec, count: usize) -> Vec<Vec<Crops>> {
    let mut feed = Feed::start(examples.clone(), spec);
    (0..count).map(|_| feed.step().unwrap()).collect()
}

fn labels(steps: &[Vec<Crops>]) -> Vec<u32> {
    steps.iter().flatten().map(|crops| crops.label).collect()
}

fn pixels(steps: &[Vec<Crops>]) -> Vec<&[u8]> {
    steps
        .iter()
        .flatten()
        .map(|crops| crops.pixels.as_slice())
        .collect()
}

fn evaluation(examples: &Arc<Examples>) -> Result<Vec<Crops>, Error> {
    let mut feed = Feed::start(
        examples.clone(),
        FeedSpec {
            task: Task::Evaluate,
            ..spec(2, 0, 1)
        },
    );
    let mut all = Vec::new();
    loop {
        let step = feed.step()?;
        if step.is_empty() {
            return Ok(all);
        }
        all.extend(step);
    }
}

#[test]
fn an_epoch_has_every_example_once_whatever_the_window() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let examples = open(folder.path());
    assert_eq!(examples.description().examples, ALL);
    assert_eq!(examples.description().classes, 1000);
    for window in [1, 5, 100] {
        let found = labels(&steps(&examples, spec(2, 0, window), 18));
        for epoch in found.chunks_exact(ALL) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..ALL as u32).collect::<Vec<_>>());
        }
        if window > 1 {
            assert_ne!(found[..ALL], found[ALL..2 * ALL]);
        }
    }
}

/// However many processes share a step, and wherever they begin.
#[test]
fn the_parts_of_processes_make_the_step_of_one() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let examples = open(folder.path());
    // Also those that do not divide the pipelines, or are more.
    for (pipelines, processes) in [
        (1, 2),
        (1, 3),
        (1, 6),
        (2, 2),
        (2, 3),
        (3, 3),
        (3, 6),
        (6, 2),
    ] {
        let spec = || piped(spec(2, 1, 7), pipelines);
        let straight = steps(&examples, spec(), 13);
        let mut feeds: Vec<Feed> = (0..processes)
            .map(|process| {
                let share = Share { process, processes };
                Feed::of_share(examples.clone(), spec(), share)
            })
            .collect();
        let together: Vec<Vec<Crops>> = (0..straight.len())
            .map(|_| {
                feeds
                    .iter_mut()
                    .flat_map(|feed| feed.step().unwrap())
                    .collect()
            })
            .collect();
        let what = format!("{pipelines} pipelines, {processes} processes");
        assert_eq!(labels(&straight), labels(&together), "{what}");
        assert_eq!(pixels(&straight), pixels(&together), "{what}");
    }
}

/// Of unequal length, as ImageNet's: whoever goes on while they are in different epochs finds the same steps.
#[test]
fn pipelines_of_unequal_length_go_on_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &[9, 14, 1, 13]);
    let examples = open(folder.path());
    for pipelines in [2, 3] {
        let all = steps(&examples, piped(spec(2, 0, 7), pipelines), 37);
        for start in 1..37 {
            let resumed = steps(&examples, piped(spec(2, start as u64, 7), pipelines), 1);
            assert_eq!(
                labels(&all[start..=start]),
                labels(&resumed),
                "step {start}"
            );
        }
        // Six epochs: each example as often, or once more or less where the shorter pipeline is ahead.
        let mut counts = [0u32; 37];
        labels(&all)
            .iter()
            .for_each(|&label| counts[label as usize] += 1);
        assert!(
            counts.iter().all(|count| (5..=7).contains(count)),
            "{counts:?}"
        );
    }
}

/// Pipelines of equal length: each epoch has each example once, in another order than without them, and a run goes on anywhere.
#[test]
fn pipelines_together_visit_each_example_once() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let examples = open(folder.path());
    let single = labels(&steps(&examples, spec(2, 0, 7), 12));
    for pipelines in [2, 3, 6] {
        let all = steps(&examples, piped(spec(2, 0, 7), pipelines), 12);
        let found = labels(&all);
        assert_ne!(found, single);
        for epoch in found.chunks_exact(ALL) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..ALL as u32).collect::<Vec<_>>());
        }
        assert_ne!(found[..ALL], found[ALL..2 * ALL]);
        for start in [1, 5, 6, 9] {
            let resumed = steps(
                &examples,
                piped(spec(3, start as u64, 7), pipelines),
                12 - start,
            );
            assert_eq!(pixels(&all[start..]), pixels(&resumed), "step {start}");
        }
    }
}

#[test]
fn threads_and_where_a_run_goes_on_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let examples = open(folder.path());
    let straight = steps(&examples, spec(1, 0, 7), 14);
    let many = steps(&examples, spec(8, 0, 7), 14);
    assert_eq!(labels(&straight), labels(&many));
    assert_eq!(pixels(&straight), pixels(&many));
    // In the first epoch, at its end, in the third.
    for start in [1, 4, 6, 13] {
        let resumed = steps(&examples, spec(3, start as u64, 7), 14 - start);
        assert_eq!(labels(&straight[start..]), labels(&resumed), "step {start}");
        assert_eq!(pixels(&straight[start..]), pixels(&resumed), "step {start}");
    }
}

/// What is passed is not decoded: a run that begins behind a bad picture never meets it before the next epoch.
#[test]
fn what_was_passed_is_not_decoded_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let order = labels(&steps(&open(folder.path()), spec(1, 0, 4), 6));
    let bad = order[2] as usize;
    // Spoil that example wherever it is.
    let (mut at, mut number) = (0, bad);
    while number >= LENGTHS[at] {
        number -= LENGTHS[at];
        at += 1;
    }
    let begin: usize = LENGTHS[..at].iter().sum();
    write(
        &shard(&files, "train", at, 4),
        (begin..begin + LENGTHS[at]).map(|n| {
            let picture = if n == bad { vec![1, 2, 3] } else { encoded(n) };
            vec![("picture", bytes(picture)), ("kind", int(n as i64))]
        }),
    );
    let examples = open(folder.path());
    let found = labels(&steps(&examples, spec(1, 1, 4), 5));
    assert_eq!(found, order[6..]);
    let mut feed = Feed::start(examples, spec(1, 0, 4));
    let error = feed.step().unwrap_err();
    assert_eq!(error.class(), Class::Check);
    let text = error.to_string();
    for word in [
        &format!("record {number} of"),
        "neither JPEG nor PNG",
        "on_bad_record",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn evaluation_sees_every_example_in_order_and_what_the_device_would_see() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path(), &LENGTHS);
    let examples = open(folder.path());
    let found = evaluation(&examples).unwrap();
    let labels: Vec<u32> = found.iter().map(|crops| crops.label).collect();
    assert_eq!(labels, (0..ALL as u32).collect::<Vec<_>>());
    // A PNG, so that no decoder stands between; the device evaluates pictures larger than 32 pixels.
    let (rgb, height, width) = picture(4);
    for kernel in [
        ResizeKernel::V1Legacy,
        ResizeKernel::V2HalfPixel,
        ResizeKernel::Antialiased,
    ] {
        let size = 40;
        let mut host = vec![0; size * size * 3];
        HostResize::new(kernel, size).crop(&rgb, width, centre(height, width), &mut host);
        let augmentation = Augmentation {
            image_size: size,
            color_jitter_strength: 0.0,
            use_blur: false,
            brightness: Brightness::Multiplicative,
            resize: kernel,
            drop_colour_at_zero_strength: false,
        };
        let graph = Graph::new();
        let dims = [1, height as i64, width as i64, 3];
        let images = graph.parameter("images", Shape::new(DType::U8, dims));
        let module = graph
            .finish("evaluation", &[augmentation.evaluation(images)])
            .unwrap();
        let device = common::run(&module, &[Literal::new(&dims, &rgb)])[0].to_vec::<f32>();
        for (device, host) in device.iter().zip(host) {
            let difference = (device - f32::from(host) / 255.0).abs();
            assert!(difference <= 0.5 / 255.0 + 1e-5, "{device} {host}");
        }
    }
}

#[test]
fn the_classic_layout_counts_labels_from_one() {
    let folder = tempfile::tempdir().unwrap();
    for part in 0..2 {
        let file = folder.path().join(format!("train-{part:05}-of-00002"));
        write(
            &file,
            (0..3).map(|i| {
                let number = part * 3 + i;
                vec![
                    ("image/encoded", bytes(encoded(number))),
                    ("image/class/label", int(number as i64 + 1)),
                    ("image/height", int(3)),
                ]
            }),
        );
    }
    let examples = Arc::new(Examples::open("imagenet2012", "train", Some(folder.path())).unwrap());
    assert_eq!(
        (
            examples.description().examples,
            examples.description().classes
        ),
        (6, 1000)
    );
    let found = evaluation(&examples).unwrap();
    assert_eq!(
        found.iter().map(|c| c.label).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5]
    );
    // Who embeds or classifies the pictures of a file knows it by its name, too.
    let file = folder.path().join("train-00001-of-00002");
    assert_eq!(simclr::data::pictures::find(&[file]).unwrap().len(), 3);
}

#[test]
fn a_folder_of_class_folders_is_a_set() {
    let folder = tempfile::tempdir().unwrap();
    for (number, class) in ["cat", "ant", "bee", "ant", "cat", "bee"]
        .iter()
        .enumerate()
    {
        let dir = folder.path().join("train").join(class);
        fs::create_dir_all(&dir).unwrap();
        // The name says nothing of the format.
        fs::write(dir.join(format!("{number}.JPEG")), encoded(number)).unwrap();
        fs::write(dir.join("notes.txt"), "no picture").unwrap();
    }
    let open = || Examples::open("folder", "train", Some(folder.path()));
    let examples = Arc::new(open().unwrap());
    assert_eq!(
        (
            examples.description().examples,
            examples.description().classes
        ),
        (6, 3)
    );
    let found = evaluation(&examples).unwrap();
    let labels: Vec<u32> = found.iter().map(|c| c.label).collect();
    assert_eq!(labels, [0, 0, 1, 1, 2, 2]);
    let trained = steps(&examples, spec(2, 0, 1), 1);
    assert_eq!(trained[0].len(), 6);
    // What is hidden is the system's, and what is no file is not opened.
    let ant = folder.path().join("train/ant");
    fs::write(ant.join(".hidden.jpg"), encoded(7)).unwrap();
    std::os::unix::net::UnixListener::bind(ant.join("socket.jpg")).unwrap();
    assert_eq!(open().unwrap().description(), examples.description());
    // What was trained on is part of a run: another picture is another set.
    let before = examples.description().fingerprint.clone();
    fs::write(folder.path().join("train/ant/9.png"), encoded(9)).unwrap();
    assert_ne!(open().unwrap().description().fingerprint, before);
}

#[test]
fn files_that_hold_more_or_fewer_examples_than_promised_are_refused() {
    for found in [8, 10] {
        let folder = tempfile::tempdir().unwrap();
        let files = photos(folder.path(), &LENGTHS);
        write(
            &shard(&files, "train", 0, 4),
            (0..found).map(|n| vec![("picture", bytes(encoded(n))), ("kind", int(n as i64))]),
        );
        let examples = open(folder.path());
        let check = |error: Error| {
            let text = error.to_string();
            assert!(text.contains(&format!("holds {found} examples")), "{text}");
            assert!(text.contains("promises 9"), "{text}");
            assert_eq!(error.class(), Class::Check);
        };
        check(evaluation(&examples).unwrap_err());
        let mut feed = Feed::start(examples, spec(2, 0, 100));
        check((0..6).find_map(|_| feed.step().err()).unwrap());
    }
}

#[test]
fn bad_examples_may_be_skipped_but_not_many_and_resuming_skips_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    // A picture cut short, and a flipped bit in another's data.
    write(
        &shard(&files, "train", 3, 4),
        (24..36).map(|n| {
            let mut picture = encoded(n);
            if n == 30 {
                picture.truncate(picture.len() / 2);
            }
            vec![("picture", bytes(picture)), ("kind", int(n as i64))]
        }),
    );
    let file = shard(&files, "train", 0, 4);
    let mut content = fs::read(&file).unwrap();
    content[200] ^= 4;
    fs::write(&file, content).unwrap();
    let examples = open(folder.path());
    let skip = |start| FeedSpec {
        skip_bad: true,
        ..spec(3, start, 8)
    };
    let straight = steps(&examples, skip(0), 6);
    let found = labels(&straight);
    assert_eq!(found.len(), ALL);
    assert!(!found.contains(&0) && !found.contains(&30), "{found:?}");
    for start in 1..6 {
        let resumed = steps(&examples, skip(start as u64), 6 - start);
        assert_eq!(labels(&straight[start..]), labels(&resumed));
        assert_eq!(pixels(&straight[start..]), pixels(&resumed));
    }
    let mut feed = Feed::start(examples.clone(), skip(0));
    for _ in 0..6 {
        feed.step().unwrap();
    }
    assert_eq!(feed.skipped(), 2);
    // Two are bad, however many epochs meet them.
    for _ in 6..48 {
        feed.step().unwrap();
    }
    assert_eq!(feed.skipped(), 16);
    // Evaluation leaves them out, and counts none twice.
    let mut feed = Feed::start(
        examples.clone(),
        FeedSpec {
            task: Task::Evaluate,
            ..skip(0)
        },
    );
    let mut seen = Vec::new();
    for length in [6, 6, 6, 6, 6, 4, 0] {
        let step = feed.step().unwrap();
        assert_eq!(step.len(), length);
        seen.push(step);
    }
    let rest: Vec<u32> = (1..36).filter(|&n| n != 30).collect();
    assert_eq!(labels(&seen), rest);
    // So do those who look at a few of them uncut.
    let found = originals(&examples, &skip(0), ALL).unwrap();
    assert_eq!(found.len(), ALL);
    assert_eq!(found.iter().filter(|crops| crops.is_none()).count(), 2);
    assert_eq!(
        labels(&[replaced(found[..6].to_vec())]),
        labels(&straight[..1])
    );
    assert!(originals(&examples, &spec(3, 0, 8), ALL).is_err());
    let mut feed = Feed::start(examples, spec(2, 0, 8));
    let error = (0..6).find_map(|_| feed.step().err()).unwrap();
    assert_eq!(error.class(), Class::Check, "{error}");
    // Ten may be skipped in an epoch of so small a set, not eleven.
    write(
        &shard(&files, "train", 3, 4),
        (24..36).map(|n| vec![("picture", bytes(vec![1, 2, 3])), ("kind", int(n))]),
    );
    let mut feed = Feed::start(open(folder.path()), skip(0));
    let error = (0..6).find_map(|_| feed.step().err()).unwrap();
    let text = error.to_string();
    assert!(
        text.contains("at most 10 are skipped") && text.contains("the last one: "),
        "{text}"
    );
    assert!(!text.contains("on_bad_record=skip"), "{text}");
}

#[test]
fn small_networks_evaluate_pictures_of_their_side_as_they_are() {
    let whole = |side| Area {
        top: 0,
        left: 0,
        height: side,
        width: side,
    };
    assert_eq!(evaluated(32, 32, 32), whole(32));
    assert_eq!(evaluated(24, 24, 24), whole(24));
    assert_eq!(evaluated(40, 32, 32), centre(40, 32));
    assert_eq!(evaluated(96, 96, 96), centre(96, 96));
    // A set that is streamed is evaluated as one in memory.
    let examples = Arc::new(Examples::open("shapes32", "test", None).unwrap());
    let spec = FeedSpec {
        task: Task::Evaluate,
        image_size: 32,
        ..spec(2, 0, 1)
    };
    let step = Feed::start(examples.clone(), spec).step().unwrap();
    assert_eq!(step[0].pixels, examples.memory().unwrap().image(0));
}

/// Two pictures of each class of each split; without a split, `DIR/CLASS`.
fn class_folders(dir: &Path, splits: &[(&str, &[&str])]) {
    let mut number = 0;
    for (split, classes) in splits {
        for class in *classes {
            let folder = dir.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for _ in 0..2 {
                fs::write(folder.join(format!("{number}.jpg")), encoded(number)).unwrap();
                number += 1;
            }
        }
    }
}

#[test]
fn a_folder_is_not_evaluated_on_what_it_trained_on_nor_with_other_classes() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, dir: &Path| {
        let data = format!("data_dir={}", dir.display());
        let more = [
            "dataset=folder",
            "image_size=24",
            "train_batch_size=4",
            "train_steps=1",
            "lineareval_while_pretraining=false",
            "runtime.eval=true",
            &data,
        ];
        run(&tiny(&folder.path().join(name), &more))
    };
    let evaluate = |name: &str, more: &[&str]| {
        let output = binary::simclr()
            .arg("evaluate")
            .arg(folder.path().join(name))
            .args(more)
            .output();
        output.unwrap()
    };
    let alone = folder.path().join("alone");
    class_folders(&alone, &[("", &["ant", "bee"])]);
    let output = train("a", &alone);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("no evaluation: eval_split test"), "{text}");
    refused(&evaluate("a", &[]), 2, &["`eval_split` test", "train"]);
    refused(
        &evaluate("a", &["dataset=shapes32", "eval_split=test"]),
        2,
        &["shapes32", "32 rows", "image_size is 24"],
    );

    let other = folder.path().join("other");
    class_folders(
        &other,
        &[("train", &["ant", "bee"]), ("test", &["ant", "wasp"])],
    );
    refused(
        &train("b", &other),
        4,
        &["class 1 is `wasp` in split `test`", "`bee`", "`train`"],
    );
    let data = format!("data_dir={}", other.display());
    refused(&evaluate("a", &[&data]), 4, &["class 1 is `wasp`"]);
    let output = binary::simclr()
        .args(["data", "check"])
        .arg(&other)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("class 1 is `wasp` in split `test`"), "{text}");
    // Empty folders give the labels their places.
    fs::create_dir(other.join("train/wasp")).unwrap();
    fs::create_dir(other.join("test/bee")).unwrap();
    let output = train("b", &other);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn of_several_images_and_labels_the_usual_names_count_or_those_of_supervised_keys() {
    let image = r#"{"image": {}}"#;
    let kind = |n: usize| format!(r#"{{"classLabel": {{"numClasses": "{n}"}}}}"#);
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[3]);
    let describe = |label: &str| {
        let features = format!(
            r#"{{"featuresDict": {{"features": {{"picture": {image}, "coarse": {}, "{label}": {}}}}}}}"#,
            kind(2),
            kind(7)
        );
        fs::write(files.join("features.json"), features).unwrap();
        Examples::open("photos", "train", Some(folder.path()))
    };
    assert_eq!(describe("label").unwrap().description().classes, 7);
    let error = describe("kind").unwrap_err();
    assert_eq!(error.class(), Class::Check);
    let text = error.to_string();
    assert!(text.contains("coarse, kind"), "{text}");
    let info = r#"{"supervisedKeys": {"tuple": {"items": [{"featureKey": "picture"}, {"featureKey": "kind"}]}}}"#;
    fs::write(files.join("dataset_info.json"), info).unwrap();
    assert_eq!(describe("kind").unwrap().description().classes, 7);
}

#[test]
fn a_run_on_pictures_resumes_bit_for_bit_and_a_bad_one_costs_no_step() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let data = format!("data_dir={}", folder.path().display());
    let arguments = |path: &Path, more: &[&str]| {
        let mut all = vec![
            "dataset=photos",
            "train_batch_size=12",
            "train_steps=8",
            "checkpoint_steps=5",
            "shuffle_window=10",
            "learning_rate=0.01",
            "lineareval_while_pretraining=false",
            "runtime.steps_per_launch=3",
            &data,
        ];
        all.extend(more);
        tiny(path, &all)
    };
    let train = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let output = run(&arguments(&path, more));
        assert!(output.status.success(), "{}", stderr(&output));
        path
    };
    let straight = train("straight", &[]);
    let path = folder.path().join("resumed");
    fs::create_dir_all(path.join("checkpoints")).unwrap();
    fs::copy(straight.join("run.json"), path.join("run.json")).unwrap();
    let (from, to) = (checkpoint(&straight, 5), checkpoint(&path, 5));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let resumed = train("resumed", &["runtime.data_threads=5"]);
    assert!(state(&straight, 8) == state(&resumed, 8));
    let metrics = fs::read_to_string(straight.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("perf/input_wait"), "{metrics}");

    refused(
        &run(&arguments(
            &folder.path().join("r"),
            &["runtime.input=resident"],
        )),
        2,
        &["runtime.input", "streamed"],
    );
    // One bad picture in the fourth step or later: what was learned before is saved, and the sentence names the record.
    let order = labels(&steps(
        &open(folder.path()),
        FeedSpec {
            task: Task::Train {
                views: 2,
                seed: 0,
                window: 10,
                pipelines: 1,
                start: 0,
            },
            ..spec(1, 0, 1)
        },
        6,
    ));
    let bad = *order.last().unwrap() as usize;
    let (mut at, mut number) = (0, bad);
    while number >= LENGTHS[at] {
        number -= LENGTHS[at];
        at += 1;
    }
    let begin: usize = LENGTHS[..at].iter().sum();
    write(
        &shard(&files, "train", at, 4),
        (begin..begin + LENGTHS[at]).map(|n| {
            let mut picture = encoded(n);
            if n == bad {
                picture.truncate(100);
            }
            vec![("picture", bytes(picture)), ("kind", int(n as i64))]
        }),
    );
    let path = folder.path().join("bad");
    let output = run(&arguments(&path, &["runtime.steps_per_launch=1"]));
    refused(
        &output,
        4,
        &["cannot be decoded", &format!("record {number} of")],
    );
    assert!(checkpoint(&path, 2).exists(), "two steps were whole");
    // The remedy of that sentence is for the same run.
    let skipped = train("bad", &["on_bad_record=skip"]);
    let log = fs::read_to_string(skipped.join("log.txt")).unwrap();
    assert!(log.contains("skipped: "), "{log}");
    let told = &log[log.find("skipped: ").unwrap()..];
    assert!(
        !told.contains("on_bad_record=skip"),
        "what is set already is asked for: {told}"
    );
}

/// A thousand single-byte flips and as many cuts: none passes.
#[test]
fn every_flip_and_every_cut_of_a_shard_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let mut shards: Vec<_> = (0..4).map(|n| shard(&files, "train", n, 4)).collect();
    if let Some(shared) = common::shared_data() {
        let folder = shared.join("imagenet2012_sample/imagenet2012/5.1.0");
        for number in 0..4 {
            shards.push(folder.join(format!("imagenet2012-train.tfrecord-{number:05}-of-00004")));
        }
    }
    let mut random = 12345u64;
    let mut below = |bound: usize| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((random >> 33) as usize) % bound
    };
    for file in shards {
        let mut content = fs::read(&file).unwrap();
        let whole = Records::new(&file, &content).count();
        for _ in 0..250 {
            let (at, bit) = (below(content.len()), below(8));
            content[at] ^= 1 << bit;
            let found = Records::new(&file, &content).find_map(Result::err);
            assert!(found.is_some(), "byte {at}, bit {bit}");
            content[at] ^= 1 << bit;
            let end = below(content.len());
            let mut count = 0;
            let bad = Records::new(&file, &content[..end])
                .inspect(|_| count += 1)
                .any(|record| record.is_err());
            // A cut between two records is found by the count alone.
            assert!(bad || count < whole, "cut at {end}");
        }
    }
}

/// The same for the reader of training and evaluation, which never has a whole file in memory.
#[test]
fn every_flip_and_every_cut_is_found_in_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let mut place = 1usize;
    for round in 0..150 {
        let file = shard(&files, "train", [0, 1, 3][round % 3], 4);
        let good = fs::read(&file).unwrap();
        place = (place * 48_271 + round) % good.len();
        let mut flipped = good.clone();
        flipped[place] ^= 1 << (round % 8);
        for bad in [&flipped[..], &good[..place]] {
            fs::write(&file, bad).unwrap();
            let found = Examples::open("photos", "train", Some(folder.path()));
            let found = found
                .map(Arc::new)
                .and_then(|examples| evaluation(&examples));
            let error = found
                .err()
                .unwrap_or_else(|| panic!("byte {place} of {}", file.display()));
            assert_eq!(error.class(), Class::Check, "{error}");
        }
        fs::write(&file, good).unwrap();
    }
    assert_eq!(evaluation(&open(folder.path())).unwrap().len(), ALL);
}

/// Where the last record of a file breaks off, nothing of it is taken for another record.
#[test]
fn a_record_that_breaks_off_is_told_alike_by_training_and_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let file = shard(&files, "train", 3, 4);
    let good = fs::read(&file).unwrap();
    let found = Found {
        dataset: "photos".into(),
        split: "train".into(),
        dir: folder.path().into(),
    };
    for cut in [1, 3, 100, 400] {
        fs::write(&file, &good[..good.len() - cut]).unwrap();
        let report = check(&found, &|_| {}).unwrap();
        assert_eq!(report.problem_count, 1, "cut by {cut}");
        let expected = &report.problems[0];
        assert!(expected.contains("is truncated: record 11"), "{expected}");
        let examples = open(folder.path());
        let error = evaluation(&examples).err().unwrap();
        assert_eq!(error.to_string(), *expected);
        for count in [1, 3] {
            let mut feed = Feed::start(examples.clone(), piped(spec(2, 0, 8), count));
            let error = (0..6).find_map(|_| feed.step().err()).unwrap();
            assert_eq!(error.to_string(), *expected, "{count} pipelines");
        }
    }
}

/// Every photograph of the sample, whatever is odd about it: grey, CMYK, progressive, a PNG by the name of a JPEG, EXIF orientation.
#[test]
fn the_sample_of_imagenet_is_readable() {
    let Some(shared) = common::shared_data() else {
        return;
    };
    let dir = shared.join("imagenet2012_sample");
    for (split, count) in [("train", 260), ("validation", 20)] {
        let examples = Arc::new(Examples::open("imagenet2012", split, Some(&dir)).unwrap());
        assert_eq!(examples.description().examples, count);
        assert_eq!(examples.description().classes, 1000);
        assert_eq!(evaluation(&examples).unwrap().len(), count);
    }
    let dir = shared.join("imagenet_classic_fixture");
    let examples = Arc::new(Examples::open("imagenet2012", "train", Some(&dir)).unwrap());
    assert_eq!(evaluation(&examples).unwrap().len(), 8);
}

/// The two ways to send the same coefficients, in every colour that photographs come in.
#[test]
fn progressive_pictures_are_the_plain_ones() {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    let (height, width) = (53, 70);
    let wave = |i: usize, of: usize| ((i / 3 * of) % 256) as u8;
    let inks: Vec<u8> = (0..height * width * 4)
        .map(|i| wave(i, i % 4 + 1))
        .collect();
    for (colour, channels) in [
        (ColorType::Luma, 1),
        (ColorType::Rgb, 3),
        (ColorType::Cmyk, 4),
        (ColorType::CmykAsYcck, 4),
    ] {
        let encoded = |progressive| {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 90);
            encoder.set_progressive(progressive);
            if colour == ColorType::Cmyk {
                // As every program writes four inks.
                encoder.set_sampling_factor(SamplingFactor::F_1_1);
            }
            let pixels = &inks[..height * width * channels];
            let size = [width as u16, height as u16];
            encoder.encode(pixels, size[0], size[1], colour).unwrap();
            bytes
        };
        let [plain, progressive] = [false, true].map(|way| {
            let bytes = encoded(way);
            decode(&bytes).unwrap_or_else(|reason| panic!("{colour:?}, {way}: {reason}"))
        });
        assert!(plain == progressive, "{colour:?}");
        assert!(plain.rgb.iter().any(|&v| v > 200) && plain.rgb.iter().any(|&v| v < 50));
    }
}

#[test]
fn pictures_that_are_none_are_refused_with_a_reason() {
    let whole = pictures::jpeg(3);
    assert!(decode(&whole).is_ok());
    assert!(decode(&[]).is_err());
    assert!(
        decode(b"GIF89a")
            .unwrap_err()
            .contains("neither JPEG nor PNG")
    );
    for end in [3, 20, whole.len() / 3, whole.len() - 20] {
        assert!(decode(&whole[..end]).is_err(), "cut at {end}");
    }
    let png = pictures::png(3);
    for end in [8, 40, png.len() / 2, png.len() - 5] {
        assert!(decode(&png[..end]).is_err(), "cut at {end}");
    }
    for end in 0..700 {
        let reason = decode(&whole[..end]).unwrap_err();
        assert!(!reason.contains('\n'), "two lines at {end}: {reason}");
    }
    // A header that promises 2³¹ × 2³¹ pixels takes no memory.
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    assert!(decode(&huge).is_err());
}

#[test]
fn names_and_folders_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let run_with = |more: &[&str]| run(&tiny(&folder.path().join("run"), more));
    refused(
        &run_with(&["dataset=cifar11"]),
        2,
        &["cifar11", "cifar10", "data_dir"],
    );
    refused(&run_with(&["dataset=imagenet2012"]), 2, &["data_dir"]);
    let data = format!("data_dir={}", folder.path().display());
    refused(
        &run_with(&["dataset=imagenet2012", &data]),
        2,
        &["imagenet2012-train.tfrecord-*"],
    );
    refused(
        &run_with(&["dataset=folder", &data]),
        2,
        &["folders of pictures"],
    );
    let files = photos(folder.path(), &[3]);
    fs::write(files.join("features.json"), "{}").unwrap();
    refused(
        &run_with(&["dataset=photos", &data]),
        4,
        &["features.json", "featuresDict"],
    );
    fs::remove_file(files.join("features.json")).unwrap();
    refused(
        &run_with(&["dataset=photos", &data]),
        4,
        &["how many classes", "label.labels.txt"],
    );
}

/// Packs a file anew as TensorFlow's `TFRecordOptions` do, by gzip or zlib.
fn repack(file: &Path, gzip: bool) -> Vec<u8> {
    use flate2::{Compression, write};
    use std::io::Write;
    let plain = fs::read(file).unwrap();
    if gzip {
        let mut packed = write::GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&plain).unwrap();
        packed.finish().unwrap()
    } else {
        let mut packed = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&plain).unwrap();
        packed.finish().unwrap()
    }
}

#[test]
fn packed_shards_are_read_as_plain_ones_and_no_damage_to_them_passes() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &LENGTHS);
    let expected = steps(&open(folder.path()), spec(2, 0, 7), 14);
    let all = evaluation(&open(folder.path())).unwrap();
    // Gzip, zlib and plain side by side.
    for (number, gzip) in [(0, true), (1, false), (3, true)] {
        let file = shard(&files, "train", number, 4);
        fs::write(&file, repack(&file, gzip)).unwrap();
    }
    let examples = open(folder.path());
    for start in [0, 5] {
        let found = steps(&examples, spec(3, start as u64, 7), 14 - start);
        assert_eq!(pixels(&found), pixels(&expected[start..]));
        assert_eq!(labels(&found), labels(&expected[start..]));
    }
    assert_eq!(evaluation(&examples).unwrap().len(), all.len());
    // Without the counts of dataset_info.json: counted by reading.
    fs::remove_file(files.join("dataset_info.json")).unwrap();
    assert_eq!(open(folder.path()).description().examples, ALL);

    let mut unnoticed = Vec::new();
    for number in [0, 1] {
        let file = shard(&files, "train", number, 4);
        let good = fs::read(&file).unwrap();
        let last = good.len() - 1;
        let cuts = [1, 2, 5, 300, good.len() / 2, last - 9, last - 4, last];
        for cut in cuts.map(|at| good[..at].to_vec()) {
            let at = cut.len();
            fs::write(&file, cut).unwrap();
            match Examples::open("photos", "train", Some(folder.path())) {
                Ok(examples) => {
                    if evaluation(&Arc::new(examples)).is_ok() {
                        unnoticed.push(at);
                    }
                }
                Err(error) => assert_eq!(error.class(), Class::Check, "{error}"),
            }
        }
        // What is appended is no second set of records.
        fs::write(&file, [&good[..], b"more"].concat()).unwrap();
        let error = Examples::open("photos", "train", Some(folder.path())).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Packing { .. }), "{text}");
        assert!(
            text.contains(if number == 0 { "gzip" } else { "zlib" }),
            "{text}"
        );
        fs::write(&file, good).unwrap();
    }
    assert_eq!(
        unnoticed,
        Vec::<usize>::new(),
        "lengths of cut files that were read as whole"
    );
}
