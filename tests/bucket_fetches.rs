//! What of a bucket is fetched, and what is not: of a list's examples, of an epoch in its middle.

mod binary;
mod gcs;
mod pictures;

use gcs::{Fault, Gcs, Request, reach};
use pictures::{photos, shard};
use simclr::augment::ResizeKernel;
use simclr::data::window::{Pipeline, WindowOrder};
use simclr::data::{Crops, Error, Examples, Feed, FeedSpec, Share, Task};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const WINDOW: usize = 16;
const BATCH: usize = 6;
const SEED: u64 = 5;

fn spec(task: Task) -> FeedSpec {
    FeedSpec {
        task,
        batch: BATCH,
        image_size: 24,
        kernel: ResizeKernel::V2HalfPixel,
        threads: 2,
        skip_bad: false,
    }
}

fn training(start: u64) -> Task {
    Task::Train {
        views: 1,
        seed: SEED,
        window: WINDOW,
        pipelines: 1,
        start,
    }
}

/// Steps of a stream from its start on.
fn steps(examples: &Arc<Examples>, task: Task, count: usize) -> Result<Vec<Crops>, Error> {
    let mut feed = Feed::start(examples.clone(), spec(task));
    let mut all = Vec::new();
    for _ in 0..count {
        all.extend(feed.step()?);
    }
    Ok(all)
}

fn same(found: &[Crops], expected: &[Crops], what: &str) {
    let parts = |crops: &[Crops]| -> Vec<(u32, Vec<u8>)> {
        crops.iter().map(|c| (c.label, c.pixels.clone())).collect()
    };
    assert!(parts(found) == parts(expected), "{what}");
}

/// A PNG of noise, which cannot be packed: 1.5 MB.
fn noise(number: u32) -> Vec<u8> {
    let side = 724;
    let mut state = number + 1;
    let pixels: Vec<u8> = (0..side * side * 3)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Two shards of six large examples each below `dir`; the result is where each example begins, by shard.
fn far_apart(dir: &Path) -> [Vec<usize>; 2] {
    let files = photos(dir, &[6, 6]);
    for part in 0..2u32 {
        pictures::write(
            &shard(&files, "train", part as usize, 2),
            (6 * part..6 * part + 6).map(|number| {
                vec![
                    ("picture", pictures::bytes(noise(number))),
                    ("kind", pictures::int(number.into())),
                    ("file_name", pictures::bytes(format!("{number}").into())),
                ]
            }),
        );
    }
    [0, 1].map(|part| {
        let file = shard(&files, "train", part, 2);
        let content = fs::read(&file).unwrap();
        simclr::data::record::Records::new(&file, &content)
            .map(|record| record.unwrap().offset)
            .collect()
    })
}

fn listed(dir: &Path, list: &Path) -> Arc<Examples> {
    let found = Examples::listed("photos", "train", Some(dir), Some(list), false);
    Arc::new(found.unwrap())
}

/// A list leaves most of a large file out: what lies between two of its examples is not fetched.
#[test]
fn examples_far_apart_are_asked_for_each() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("far/sets");
    let [starts, others] = far_apart(&dir);
    let list = root.path().join("list.txt");
    fs::write(&list, "0\n5\n6\n7\n11\n").unwrap();
    // What goes wrong from now on with requests in the middle of an object.
    static TROUBLE: AtomicUsize = AtomicUsize::new(0);
    let met = AtomicUsize::new(0);
    let server = Gcs::start(root.path(), move |request| {
        let range = request.headers.get("range");
        let within = range.is_some_and(|range| !range.starts_with("bytes=0-"))
            && request.path.contains("00000-of");
        match (within, TROUBLE.load(Ordering::Relaxed)) {
            (true, 1) => [
                Fault::Cut(700_000),
                Fault::Status(503),
                Fault::Reset,
                Fault::None,
            ][met.fetch_add(1, Ordering::Relaxed) % 4],
            (true, 2) => Fault::Replaced,
            _ => Fault::None,
        }
    });
    let remote = listed(&reach("far", &server, 9), &list);
    let local = listed(&dir, &list);
    let ranges = |before: usize, part: usize| -> Vec<String> {
        let all = server.requests();
        let found = all[before..].iter();
        let found =
            found.filter(|(request, _)| request.path.ends_with(&format!("0000{part}-of-00002")));
        found
            .filter_map(|(request, _)| request.headers.get("range").cloned())
            .collect()
    };
    let expected = steps(&local, Task::Evaluate, 1).unwrap();
    assert_eq!(expected.len(), 5);
    let before = server.requests().len();
    same(
        &steps(&remote, Task::Evaluate, 1).unwrap(),
        &expected,
        "straight",
    );
    // The head, and each example alone.
    let alone = [
        "bytes=0-4095".into(),
        format!("bytes=12-{}", starts[1] - 1),
        format!("bytes={}-", starts[5]),
    ];
    assert_eq!(ranges(before, 0), alone);
    // Those that follow one another in one go.
    let together = [
        "bytes=0-4095".into(),
        format!("bytes=12-{}", others[2] - 1),
        format!("bytes={}-", others[5]),
    ];
    assert_eq!(ranges(before, 1), together);
    // In training's order, through three epochs, while those requests break off.
    let (expected, before) = (
        steps(&local, training(0), 3).unwrap(),
        server.requests().len(),
    );
    TROUBLE.store(1, Ordering::Relaxed);
    same(
        &steps(&remote, training(0), 3).unwrap(),
        &expected,
        "in trouble",
    );
    let first = format!("bytes={}-", starts[5]);
    let again = format!("bytes={}-", starts[5] + 700_000);
    for wanted in [first, again] {
        assert!(ranges(before, 0).contains(&wanted), "{wanted}");
    }
    TROUBLE.store(2, Ordering::Relaxed);
    let error = steps(&remote, Task::Evaluate, 1).err().unwrap().to_string();
    assert!(
        error.contains("it was replaced while it was read"),
        "{error}"
    );
}

/// Who goes on in the middle of an epoch asks for no shard that is used up, and has at most 32 open.
#[test]
fn a_resumed_epoch_asks_for_what_is_still_to_come() {
    const LENGTHS: [usize; 60] = [15; 60];
    let root = tempfile::tempdir().unwrap();
    photos(&root.path().join("middle/sets"), &LENGTHS);
    let server = Gcs::start(root.path(), |_| Fault::None);
    let open = |dir: PathBuf| Arc::new(Examples::open("photos", "train", Some(&dir)).unwrap());
    let remote = open(reach("middle", &server, 3));
    let local = open(root.path().join("middle/sets"));
    // 750 of 900 examples were used.
    let start = 125;
    let order =
        WindowOrder::new(SEED, &LENGTHS.map(|n| n as u64), WINDOW, Pipeline::WHOLE).epoch(0);
    let to_come: BTreeSet<usize> = order.order[start * BATCH..]
        .iter()
        .map(|&example| example as usize / 15)
        .collect();
    let before = server.requests().len();
    let found = steps(&remote, training(start as u64), 2).unwrap();
    let all = server.requests();
    let asked: Vec<&Request> = all[before..].iter().map(|(request, _)| request).collect();
    let shards: BTreeSet<usize> = asked
        .iter()
        .filter_map(|request| request.path.split("tfrecord-").nth(1)?[..5].parse().ok())
        .collect();
    assert!(shards.is_subset(&to_come), "{shards:?}, {to_come:?}");
    assert!(to_come.len() < 30, "most of the epoch was used");
    let expected = steps(&local, training(start as u64), 2).unwrap();
    same(&found, &expected, "resumed");
    // And so do several processes, each its part of a step.
    let mut feeds: Vec<Feed> = (0..2)
        .map(|process| {
            let share = Share {
                process,
                processes: 2,
            };
            Feed::of_share(remote.clone(), spec(training(start as u64)), share)
        })
        .collect();
    let mut together = Vec::new();
    for _ in 0..2 {
        for feed in &mut feeds {
            together.extend(feed.step().unwrap());
        }
    }
    same(&together, &expected, "of two processes");
    let labels: Vec<u32> = found.iter().map(|crops| crops.label).collect();
    assert_eq!(labels, order.order[start * BATCH..(start + 2) * BATCH]);
    // At the beginning all 60 are to come, and 256 arrivals would be of 16 at a time.
    let before = server.requests().len();
    let mut feed = Feed::start(remote, spec(training(0)));
    feed.step().unwrap();
    let asked = server.requests().len() - before;
    assert!((16..=32).contains(&asked), "{asked}");
}

/// Of several pipelines a process asks for the shards of its own alone, and two processes together for each shard once.
#[test]
fn a_process_asks_only_for_its_pipelines() {
    const LENGTHS: [usize; 60] = [15; 60];
    let root = tempfile::tempdir().unwrap();
    photos(&root.path().join("pipelines/sets"), &LENGTHS);
    // 150 steps of 6 are an epoch of 900 examples; after 80 the 64 records that wait in each stream do not reach the next epoch.
    const STEPS: usize = 80;
    // Of each process the shards that it asked for, and those whose examples it gave.
    let asked = |count: usize, processes: usize| -> Vec<(Vec<usize>, BTreeSet<usize>)> {
        let mut of_processes = Vec::new();
        for process in 0..processes {
            // Of its own: what was asked for may come late.
            let server = Gcs::start(root.path(), |_| Fault::None);
            let dir = reach("pipelines", &server, 3);
            let remote = Arc::new(Examples::open("photos", "train", Some(&dir)).unwrap());
            let before = server.requests().len();
            let mut task = training(0);
            if let Task::Train { pipelines, .. } = &mut task {
                *pipelines = count;
            }
            let share = Share { process, processes };
            let mut feed = Feed::of_share(remote, spec(task), share);
            let mut given = BTreeSet::new();
            for _ in 0..STEPS {
                let step = feed.step().unwrap();
                given.extend(step.iter().map(|crops| crops.label as usize / 15));
            }
            drop(feed);
            let all = server.requests();
            let shards = all[before..].iter().filter_map(|(request, _)| {
                request.path.split("tfrecord-").nth(1)?[..5].parse().ok()
            });
            of_processes.push((shards.collect(), given));
        }
        of_processes
    };
    // 480 examples are of 32 shards at least, which both ask for.
    for (shards, _) in asked(1, 2) {
        assert!(shards.len() >= 32, "{shards:?}");
    }
    for count in [2, 6] {
        let lengths = LENGTHS.map(|n| n as u64);
        let own = |process: usize| -> BTreeSet<usize> {
            (process * count / 2..(process + 1) * count / 2)
                .map(|number| WindowOrder::new(SEED, &lengths, WINDOW, Pipeline { number, count }))
                .flat_map(|order| order.epoch(0).arrivals)
                .map(|example| example as usize / 15)
                .collect()
        };
        assert_eq!(own(0).len() + own(1).len(), 60);
        for (process, (shards, given)) in asked(count, 2).into_iter().enumerate() {
            let different: BTreeSet<usize> = shards.iter().copied().collect();
            let what = format!("{count} pipelines, process {process}: {shards:?}");
            assert!(shards.len() == different.len(), "each once, {what}");
            assert!(different.is_subset(&own(process)), "{what}");
            assert!(given.is_subset(&different) && given.len() >= 16, "{what}");
        }
    }
}
