//! Streamed input: the host draws the same boxes as the device and cuts the same crops, and a run fed by it learns the same.

mod binary;
mod common;

use binary::{checkpoint, run, state, stderr, tiny};
use simclr::augment::host::{HostDraws, HostResize};
use simclr::augment::{Augmentation, Brightness, Draws, Key, ResizeKernel, sample_crop};
use simclr::data::{Examples, Feed, FeedSpec, Order, Task};
use simclr::hlo::{DType, Graph, Literal, Shape};
use std::path::Path;
use std::sync::Arc;

const SEED: u64 = 0x0123_4567_89ab_cdef;

fn key(graph: &Graph, step: u32) -> Key<'_> {
    Key {
        seed: [graph.scalar(SEED as u32), graph.scalar((SEED >> 32) as u32)],
        step: graph.scalar(step),
    }
}

#[test]
fn the_host_draws_the_boxes_of_the_device() {
    let n = 2000;
    for (step, [height, width]) in [[32, 32], [375, 500], [500, 375], [1, 7], [20, 400]]
        .into_iter()
        .enumerate()
    {
        let graph = Graph::new();
        let example = graph.iota(DType::U32, &[n], 0);
        let draws = Draws::both_views(key(&graph, step as u32), example);
        let crop = sample_crop(&draws, height, width, 1.0);
        let outputs = [crop.top, crop.left, crop.height, crop.width];
        let module = graph.finish("crops", &outputs).unwrap();
        let device: Vec<Vec<i32>> = common::run(&module, &[])
            .iter()
            .map(Literal::to_vec::<i32>)
            .collect();
        let host = HostDraws::new(SEED, step as u32);
        for view in 0..2 {
            for example in 0..n as u32 {
                let area = host.crop(example, view, height as usize, width as usize);
                let found = [area.top, area.left, area.height, area.width].map(|x| x as i32);
                let row = view as usize * n as usize + example as usize;
                let expected = [0, 1, 2, 3].map(|part: usize| device[part][row]);
                assert_eq!(
                    found, expected,
                    "{height}×{width}, view {view} of {example}"
                );
            }
        }
    }
}

fn augmentation(kernel: ResizeKernel) -> Augmentation {
    Augmentation {
        image_size: 32,
        color_jitter_strength: 0.0,
        use_blur: false,
        brightness: Brightness::Multiplicative,
        resize: kernel,
        drop_colour_at_zero_strength: false,
    }
}

fn spec(kernel: ResizeKernel, threads: usize, start: u64) -> FeedSpec {
    FeedSpec {
        task: Task::Train {
            views: 2,
            seed: SEED,
            window: 1,
            pipelines: 1,
            start,
        },
        batch: 24,
        image_size: 32,
        kernel,
        threads,
        skip_bad: false,
    }
}

/// Crops and labels of `steps` batches.
fn take(examples: &Arc<Examples>, spec: FeedSpec, steps: usize) -> (Vec<u8>, Vec<i32>) {
    let mut feed = Feed::start(examples.clone(), spec);
    let (mut crops, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..steps {
        for found in feed.step().unwrap() {
            crops.extend(found.pixels);
            labels.push(found.label as i32);
        }
    }
    (crops, labels)
}

/// With colours left alone, a view of the device's own crop and of the host's differ by the rounding to bytes and nothing else.
#[test]
fn crops_of_the_host_are_those_of_the_device_rounded_to_bytes() {
    let examples = Arc::new(Examples::open("shapes32", "test", None).unwrap());
    let set = examples.memory().unwrap();
    for kernel in [
        ResizeKernel::V1Legacy,
        ResizeKernel::V2HalfPixel,
        ResizeKernel::Antialiased,
    ] {
        let step = 3;
        let spec = spec(kernel, 2, step);
        let n = spec.batch;
        let (crops, labels) = take(&examples, spec, 1);
        let chosen = Order::new(SEED, set.len()).indices(step * n as u64, n);
        let mut images = Vec::new();
        for (&index, &label) in chosen.iter().zip(&labels) {
            images.extend_from_slice(set.image(index as usize));
            assert_eq!(label, set.labels[index as usize] as i32);
        }
        let graph = Graph::new();
        let n = n as i64;
        let place = graph.iota(DType::U32, &[n], 0);
        let augmentation = augmentation(kernel);
        let images_in = graph.parameter("images", Shape::new(DType::U8, [n, 32, 32, 3]));
        let crops_in = graph.parameter("crops", Shape::new(DType::U8, [n, 2, 32, 32, 3]));
        let key = key(&graph, step as u32);
        let module = graph
            .finish(
                "views",
                &[
                    augmentation.two_views(images_in, key, place),
                    augmentation.two_views_of_crops(crops_in, key, place),
                ],
            )
            .unwrap();
        let results = common::run(
            &module,
            &[
                Literal::new(&[n, 32, 32, 3], &images),
                Literal::new(&[n, 2, 32, 32, 3], &crops),
            ],
        );
        let (device, host) = (results[0].to_vec::<f32>(), results[1].to_vec::<f32>());
        let (mut most, mut moved) = (0f32, 0);
        for (a, b) in device.iter().zip(&host) {
            most = most.max((a - b).abs());
            moved += usize::from(a != b);
        }
        assert!(most <= 0.5 / 255.0 + 1e-5, "{kernel:?}: {most}");
        assert!(moved > 1000, "the two sides are not two computations");
    }
}

/// A picture that already has the size of the crop, cut whole, comes out as it went in.
#[test]
fn a_whole_picture_of_the_right_size_is_left_alone() {
    let set = simclr::data::load("shapes32", "test", None).unwrap();
    for kernel in [
        ResizeKernel::V1Legacy,
        ResizeKernel::V2HalfPixel,
        ResizeKernel::Antialiased,
    ] {
        let resize = HostResize::new(kernel, 32);
        let mut out = vec![0; 32 * 32 * 3];
        let whole = simclr::augment::host::Area {
            top: 0,
            left: 0,
            height: 32,
            width: 32,
        };
        for index in 0..20 {
            resize.crop(set.image(index), 32, whole, &mut out);
            assert_eq!(out, set.image(index));
        }
    }
}

#[test]
fn a_stream_does_not_depend_on_threads_or_on_where_it_begins() {
    let examples = Arc::new(Examples::open("shapes32", "test", None).unwrap());
    let of = |threads, start, steps| {
        take(
            &examples,
            spec(ResizeKernel::V2HalfPixel, threads, start),
            steps,
        )
    };
    let (crops, labels) = of(1, 0, 6);
    assert_eq!((&crops, &labels), (&of(8, 0, 6).0, &of(8, 0, 6).1));
    let (tail, tail_labels) = of(3, 4, 2);
    let bytes = crops.len() / 6;
    assert_eq!(tail, crops[4 * bytes..]);
    assert_eq!(tail_labels, labels[4 * 24..]);
    assert_ne!(crops[..bytes], crops[bytes..2 * bytes]);
}

/// Losses by step, from the metrics file.
fn losses(model_dir: &Path) -> Vec<f64> {
    std::fs::read_to_string(model_dir.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["train/contrast_loss"].as_f64()
        })
        .collect()
}

#[test]
fn a_streamed_run_learns_what_a_resident_one_does_and_resumes_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let mut all = vec![
            "train_steps=8",
            "checkpoint_steps=4",
            "train_summary_steps=1",
            "learning_rate=0.01",
        ];
        all.extend(more);
        let output = run(&tiny(&path, &all));
        assert!(output.status.success(), "{}", stderr(&output));
        path
    };
    let resident = losses(&train("resident", &[]));
    let streamed = train("streamed", &["runtime.input=streamed"]);
    let found = losses(&streamed);
    assert_eq!(found.len(), 8);
    for (a, b) in resident.iter().zip(&found) {
        assert!((a - b).abs() < 0.02 * a, "{resident:?}\n{found:?}");
    }
    assert_ne!(resident, found, "bytes round");

    // On two devices, with launches of three steps, begun anew at step 4: the same numbers as straight through.
    let more = [
        "runtime.input=streamed",
        "runtime.devices=2",
        "runtime.steps_per_launch=3",
        "runtime.data_threads=3",
    ];
    let straight = train("straight", &more);
    let path = folder.path().join("resumed");
    std::fs::create_dir_all(path.join("checkpoints")).unwrap();
    std::fs::copy(straight.join("run.json"), path.join("run.json")).unwrap();
    let (from, to) = (checkpoint(&straight, 4), checkpoint(&path, 4));
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    train("resumed", &more);
    assert!(
        state(&straight, 8) == state(&path, 8),
        "resuming changed a bit"
    );
    for (a, b) in found.iter().zip(losses(&straight)) {
        assert!((a - b).abs() < 1e-3 * a, "{a} on one device, {b} on two");
    }
}
