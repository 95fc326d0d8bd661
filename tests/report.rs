//! What a run tells: metrics, TensorBoard events, progress, pictures, the closing summary, the log.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use simclr::error::Class;
use simclr::report::picture::{Layout, contact_sheet};
use simclr::report::progress::{self, Standing, Style};
use simclr::report::scalars::tags;
use simclr::report::summary::{Figure, Next, Unit, Written};
use simclr::report::{
    EventFile, LogFile, Metrics, Progress, Recorder, Scalars, Screen, Summary, metrics,
};
use tempfile::tempdir;
use tfrecord::protobuf::event::What;
use tfrecord::protobuf::summary::value::Value;
use tfrecord::{Event, EventIter};

#[track_caller]
fn check_message(message: String, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains('\n'), "more than one line: {message}");
}

/// The numbers of a step, different for every step.
fn row(step: u64) -> Scalars {
    Scalars::new(step, step as f64 / 39.0)
        .with(tags::CONTRAST_LOSS, 5.0 - step as f32 * 0.01)
        .with(tags::LEARNING_RATE, 0.3_f32)
}

// ---------------------------------------------------------------- metrics.jsonl

fn write_rows(path: &Path, resumed: Option<u64>, steps: impl IntoIterator<Item = u64>) {
    let mut metrics = Metrics::open(path, resumed).unwrap();
    for step in steps {
        metrics.write(&row(step)).unwrap();
    }
}

fn steps(path: &Path) -> Vec<u64> {
    metrics::read(path)
        .unwrap()
        .iter()
        .map(|row| row.step)
        .collect()
}

#[test]
fn metrics_come_back_as_written() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    assert_eq!(metrics::read(&path).unwrap(), [], "no file, no rows");
    write_rows(&path, None, [1, 2, 30]);
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    assert_eq!(
        first,
        r#"{"step":1,"epoch":0.02564102564102564,"learning_rate":0.3,"train/contrast_loss":4.99}"#
    );
    let rows = metrics::read(&path).unwrap();
    assert_eq!(rows.len(), 3);
    for (found, step) in rows.iter().zip([1, 2, 30]) {
        assert_eq!((found.step, found.epoch), (step, row(step).epoch));
        for (tag, value) in &row(step).values {
            // Written with the short digits of f32.
            assert_eq!(
                found.get(tag).map(|v| v as f32),
                Some(*value as f32),
                "{tag}"
            );
        }
    }
}

/// The lines of an interrupted run beyond the checkpoint go; what is then written again is there once.
#[test]
fn a_resumed_run_has_each_step_once() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_rows(&path, None, (0..=50).step_by(5));
    let straight = fs::read(&path).unwrap();
    write_rows(&path, Some(32), (35..=50).step_by(5));
    assert_eq!(
        fs::read(&path).unwrap(),
        straight,
        "as if never interrupted"
    );
    write_rows(&path, Some(20), []);
    assert_eq!(steps(&path), [0, 5, 10, 15, 20], "the resumed step stays");
    write_rows(&path, Some(0), [5]);
    assert_eq!(steps(&path), [0, 5]);
    write_rows(&path, None, [5]);
    assert_eq!(steps(&path), [5], "a new run begins an empty file");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing is left beside"
    );
}

/// `kill -9` may leave any beginning of the last line.
#[test]
fn a_torn_last_line_is_dropped() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_rows(&path, None, [1, 2, 3]);
    let whole = fs::read(&path).unwrap();
    let second_end = whole.len() - whole.split(|&b| b == b'\n').nth(2).unwrap().len() - 1;
    for length in second_end..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(steps(&path), [1, 2], "cut to {length} bytes");
        write_rows(&path, Some(2), [3]);
        assert_eq!(fs::read(&path).unwrap(), whole, "cut to {length} bytes");
    }
}

#[test]
fn numbers_of_the_newest_step_join_its_line() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    write_rows(&path, None, [1, 2]);
    // Also right after a resume, when the line was written by another process.
    let mut metrics = Metrics::open(&path, Some(2)).unwrap();
    metrics
        .write(&Scalars::new(2, 0.5).with("eval/knn", 0.25))
        .unwrap();
    metrics
        .write(&Scalars::new(2, 0.5).with("zz", 1.0))
        .unwrap();
    // A shorter line than before leaves no tail.
    metrics
        .write(&Scalars::new(2, 0.5).with(tags::CONTRAST_LOSS, 4.0))
        .unwrap();
    metrics.write(&row(3)).unwrap();
    let rows = metrics::read(&path).unwrap();
    assert_eq!(
        rows.iter().map(|row| row.step).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let second = &rows[1];
    assert_eq!(second.values.len(), 4);
    assert_eq!(
        (second.get("eval/knn"), second.get("zz")),
        (Some(0.25), Some(1.0))
    );
    assert_eq!(second.get(tags::CONTRAST_LOSS), Some(4.0));
    assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
}

#[test]
fn steps_do_not_go_back() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut metrics = Metrics::open(&path, None).unwrap();
    metrics.write(&row(7)).unwrap();
    let error = metrics.write(&row(6)).unwrap_err();
    assert_eq!(error.class(), Class::Failed);
    check_message(error.to_string(), &["step 6", "step 7"]);
    metrics.write(&Scalars::new(7, 0.0).with("x", 1.0)).unwrap();
    metrics.write(&row(8)).unwrap();
    assert_eq!(steps(&path), [7, 8], "the refused one left no trace");
}

#[test]
fn a_line_that_is_not_ours_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let good = "{\"step\":1,\"epoch\":0.5}\n";
    let cases = [
        ("garbage\n", "not JSON"),
        ("[1]\n", "not an object"),
        ("{\"step\":2}\n", "without `step` or `epoch`"),
        ("{\"step\":-2,\"epoch\":1}\n", "without `step` or `epoch`"),
        (
            "{\"step\":2,\"epoch\":1,\"x\":\"y\"}\n",
            "not a number under `x`",
        ),
        (good, "step 1 after step 1"),
    ];
    for (bad, part) in cases {
        let text = format!("{good}{bad}");
        fs::write(&path, &text).unwrap();
        let error = Metrics::open(&path, Some(5)).unwrap_err();
        assert_eq!(error.class(), Class::Check);
        check_message(
            error.to_string(),
            &["line 2", "metrics.jsonl", part, "delete"],
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "left as it was");
    }
}

#[test]
fn not_a_number_is_null_and_comes_back() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut metrics = Metrics::open(&path, None).unwrap();
    metrics
        .write(&Scalars::new(1, 0.5).with("x", f32::NAN))
        .unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"x\":null"));
    assert!(metrics::read(&path).unwrap()[0].get("x").unwrap().is_nan());
}

#[test]
fn a_disk_that_says_no_is_an_error_of_the_environment() {
    let nowhere = tempdir().unwrap().path().join("gone");
    let path = nowhere.join("metrics.jsonl");
    let error = Metrics::open(&path, None).unwrap_err();
    assert_eq!(error.class(), Class::Environment);
    check_message(error.to_string(), &["cannot write", "metrics.jsonl"]);
    let error = LogFile::default()
        .open(&nowhere.join("log.txt"))
        .unwrap_err();
    check_message(error.to_string(), &["cannot open", "log.txt"]);
    let error = EventFile::create(Path::new("/proc/nothing"), None, 0.0)
        .err()
        .unwrap();
    assert_eq!(error.class(), Class::Environment);
    check_message(error.to_string(), &["cannot create", "/proc/nothing"]);
}

// ---------------------------------------------------------------- TensorBoard

/// Reads a file with the other side's parser, which checks both checksums of every record.
fn events(path: &Path) -> Vec<Event> {
    let events = EventIter::open(path, Default::default()).unwrap();
    events.map(|event| event.unwrap()).collect()
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.to_string_lossy().contains("tfevents"))
        .collect();
    files.sort();
    files
}

fn summary(event: &Event) -> Vec<(&str, &Value)> {
    let Some(What::Summary(summary)) = &event.what else {
        panic!("no summary: {event:?}")
    };
    let values = summary.value.iter();
    values
        .map(|v| (v.tag.as_str(), v.value.as_ref().unwrap()))
        .collect()
}

fn session_start(event: &Event) -> i64 {
    let Some(What::SessionLog(log)) = &event.what else {
        panic!("no start of a session: {event:?}")
    };
    assert_eq!(log.status, 1, "START");
    event.step
}

#[test]
fn event_files_are_named_and_begun_as_tensorboard_wants() {
    let folder = tempdir().unwrap();
    let file = EventFile::create(folder.path(), None, 1_700_000_000.75).unwrap();
    let name = file.path().file_name().unwrap().to_str().unwrap();
    let parts: Vec<&str> = name.split('.').collect();
    let [events, out, tfevents, seconds, host, pid, n] = parts[..] else {
        panic!("{name}")
    };
    assert_eq!((events, out, tfevents), ("events", "out", "tfevents"));
    assert_eq!((seconds, n), ("1700000000", "0"));
    assert!(!host.is_empty());
    assert_eq!(pid, std::process::id().to_string());
    // On the disk without closing the file.
    let found = self::events(file.path());
    assert_eq!(found.len(), 2);
    assert_eq!(session_start(&found[1]), 0);
    assert_eq!(found[0].wall_time, 1_700_000_000.75);
    assert_eq!(
        found[0].what,
        Some(What::FileVersion("brain.Event:2".to_owned()))
    );
}

#[test]
fn scalars_and_images_are_read_back_by_another_parser() {
    let folder = tempdir().unwrap();
    let mut file = EventFile::create(folder.path(), None, 100.0).unwrap();
    file.scalars(&row(10), 101.5).unwrap();
    let views = vec![0.5; 2 * 4 * 4 * 3];
    let sheet = contact_sheet(&[&views, &views], [2, 4, 4, 3], Layout::for_side(4)).unwrap();
    file.image(tags::IMAGE, 11, &sheet, 102.0).unwrap();
    let found = events(file.path());
    assert_eq!(found.len(), 4);

    assert_eq!((found[2].step, found[2].wall_time), (10, 101.5));
    let values = summary(&found[2]);
    let expected = [
        ("learning_rate", 0.3_f32),
        ("train/contrast_loss", 5.0 - 10.0 * 0.01),
    ];
    assert_eq!(values.len(), expected.len());
    for ((tag, value), (expected_tag, expected)) in values.iter().zip(expected) {
        assert_eq!(*tag, expected_tag);
        assert_eq!(**value, Value::SimpleValue(expected));
    }

    assert_eq!(found[3].step, 11);
    let values = summary(&found[3]);
    let [("image", Value::Image(image))] = values[..] else {
        panic!("{values:?}")
    };
    assert_eq!(
        (image.width as usize, image.height as usize),
        (sheet.width, sheet.height)
    );
    assert_eq!(image.colorspace, 3);
    assert_eq!(
        decode(&image.encoded_image_string),
        (sheet.width, sheet.height, sheet.rgb)
    );
}

#[test]
fn a_resumed_run_adds_a_file_and_says_where_it_goes_on() {
    let folder = tempdir().unwrap();
    {
        let mut recorder = Recorder::open(folder.path(), None, 100.0).unwrap();
        for step in [10, 20, 30] {
            recorder.scalars(&row(step), 101.0).unwrap();
        }
    }
    let first = fs::read(&event_files(folder.path())[0]).unwrap();
    // In the same second, by the same process: even then no file is overwritten.
    let mut recorder = Recorder::open(folder.path(), Some(20), 100.0).unwrap();
    recorder.scalars(&row(30), 111.0).unwrap();

    let files = event_files(folder.path());
    assert_eq!(files.len(), 2);
    assert_eq!(fs::read(&files[0]).unwrap(), first);
    assert_eq!(recorder.events_path(), files[1]);
    let found = events(&files[1]);
    assert_eq!(found.len(), 3);
    // TensorBoard forgets steps from that of the second start of a session on.
    assert_eq!(session_start(&found[1]), 21);
    assert_eq!(found[2].step, 30);
    assert_eq!(steps(recorder.metrics_path()), [10, 20, 30]);
}

// ---------------------------------------------------------------- pictures

fn decode(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut reader = png::Decoder::new(io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Rgb, png::BitDepth::Eight)
    );
    (info.width as usize, info.height as usize, pixels)
}

#[test]
fn a_contact_sheet_has_every_pixel_where_it_belongs() {
    // Three pairs of 2×1 images in two columns, twice enlarged: the value tells image, view, x and channel.
    let (n, height, width, channels) = (3, 1, 2, 3);
    let value = |view: usize, i: usize, x: usize, c: usize| (view * 100 + i * 20 + x * 5 + c) as u8;
    let batch = |view: usize| -> Vec<f32> {
        let index = |at: usize| {
            (
                at / (width * channels),
                at / channels % width,
                at % channels,
            )
        };
        let values = (0..n * height * width * channels).map(index);
        values
            .map(|(i, x, c)| f32::from(value(view, i, x, c)) / 255.0)
            .collect()
    };
    let layout = Layout {
        columns: 2,
        scale: 2,
        gap: 1,
        margin: 3,
    };
    let sheet = contact_sheet(
        &[&batch(0), &batch(1)],
        [n, height, width, channels],
        layout,
    )
    .unwrap();
    // margin + 2 · (two views of 4 + gap + margin); margin + 2 · (2 + margin)
    assert_eq!(
        (sheet.width, sheet.height),
        (3 + 2 * (4 + 1 + 4 + 3), 3 + 2 * (2 + 3))
    );
    let mut expected = vec![[255; 3]; sheet.width * sheet.height];
    for i in 0..n {
        let (left, top) = (3 + (i % 2) * 12, 3 + (i / 2) * 5);
        for (view, x, y) in [0, 1]
            .into_iter()
            .flat_map(|v| (0..8).map(move |p| (v, p % 4, p / 4)))
        {
            let at = (top + y) * sheet.width + left + view * 5 + x;
            expected[at] = [0, 1, 2].map(|c| value(view, i, x / 2, c));
        }
    }
    assert_eq!(sheet.rgb, expected.concat());
    assert_eq!(decode(&sheet.png()), (sheet.width, sheet.height, sheet.rgb));
}

#[test]
fn grey_views_are_grey_and_values_are_clamped() {
    let layout = Layout {
        columns: 9,
        scale: 0,
        gap: 0,
        margin: 0,
    };
    let sheet = contact_sheet(&[&[-1.0, 0.5], &[2.0, f32::NAN]], [1, 2, 1, 1], layout).unwrap();
    assert_eq!((sheet.width, sheet.height), (2, 2));
    assert_eq!(sheet.rgb, [[0; 3], [255; 3], [128; 3], [0; 3]].concat());
}

#[test]
fn pixels_that_do_not_fit_are_refused() {
    let pixels = vec![0.0; 2 * 4 * 4 * 3];
    let layout = Layout::for_side(4);
    let refused = |first: &[f32], second: &[f32], dims, parts: &[&str]| {
        let error = contact_sheet(&[first, second], dims, layout).unwrap_err();
        assert_eq!(error.class(), Class::Failed);
        check_message(error.to_string(), parts);
    };
    refused(
        &pixels,
        &pixels,
        [2, 4, 4, 2],
        &["channels", "found 2", "expected 1 or 3"],
    );
    refused(
        &pixels[1..],
        &pixels,
        [2, 4, 4, 3],
        &["values of a batch", "found 95", "expected 96"],
    );
    refused(
        &pixels,
        &pixels[2..],
        [2, 4, 4, 3],
        &["values of a batch", "found 94", "expected 96"],
    );
    refused(&[], &[], [0, 4, 4, 3], &["images", "at least 1"]);
}

// ---------------------------------------------------------------- progress

fn standing(step: u64) -> Standing {
    Standing {
        step,
        steps: 39_000,
        epoch: step as f64 / 390.0,
        epochs: 100.0,
        loss: 4.123_45,
        contrast_accuracy: 0.625,
        learning_rate: 0.3,
        images_per_second: 1234.4,
        seconds_left: Some(3725.0),
    }
}

#[test]
fn the_progress_line_says_where_the_run_stands() {
    let line = progress::line(&standing(1250));
    let until = line.find("img/s").unwrap() - "  1,234 ".len();
    assert!(until <= 78, "80 columns show all up to the ETA");
    assert_eq!(
        line,
        "epoch 3.21/100  step 1,250/39,000  loss 4.1234  acc 62.5 %  ETA 1 h 02 min  1,234 img/s  lr 0.3000"
    );
    let early = Standing {
        step: 0,
        steps: 5,
        epoch: 0.0,
        epochs: 0.128,
        loss: f32::NAN,
        learning_rate: 1.25e-5,
        images_per_second: 0.84,
        seconds_left: None,
        ..standing(0)
    };
    assert_eq!(
        progress::line(&early),
        "epoch 0.00/0.13  step 0/5  loss NaN  acc 62.5 %  ETA –  0.8 img/s  lr 1.250e-5"
    );
}

#[test]
fn a_narrow_terminal_shows_fewer_parts_but_whole_ones() {
    let within = |columns| progress::line_within(&standing(1250), columns);
    let whole = progress::line(&standing(1250));
    assert_eq!(within(whole.chars().count()), whole);
    for (columns, line) in [
        (
            96,
            "epoch 3.21/100  step 1,250/39,000  loss 4.1234  acc 62.5 %  ETA 1 h 02 min  1,234 img/s",
        ),
        (
            80,
            "epoch 3.21/100  step 1,250/39,000  loss 4.1234  ETA 1 h 02 min  1,234 img/s",
        ),
        (
            70,
            "epoch 3.21/100  step 1,250/39,000  loss 4.1234  ETA 1 h 02 min",
        ),
        (50, "step 1,250/39,000  loss 4.1234  ETA 1 h 02 min"),
        (40, "step 1,250/39,000  ETA 1 h 02 min"),
        (20, "step 1,250/39,000"),
        (5, "step 1,250/39,000"),
    ] {
        assert_eq!(within(columns), line, "{columns}");
    }
}

#[test]
fn lengths_of_time_and_counts_are_readable() {
    let durations = [
        (-1.0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185.0, "3 min 05 s"),
        (3600.0, "1 h 00 min"),
        (86_399.0, "23 h 59 min"),
        (3.0 * 86_400.0 + 4.5 * 3600.0, "3 d 04 h"),
        (f64::NAN, "0 s"),
    ];
    for (seconds, text) in durations {
        assert_eq!(progress::duration(seconds), text);
    }
    for (number, text) in [
        (0, "0"),
        (999, "999"),
        (1000, "1,000"),
        (12_345_678, "12,345,678"),
    ] {
        assert_eq!(progress::count(number), text);
    }
    assert_eq!(progress::rate(9.949), "9.9");
    assert_eq!(progress::rate(9.951), "10");
    assert_eq!(progress::seconds_left(10, 30, 0.5), Some(10.0));
    assert_eq!(progress::seconds_left(31, 30, 0.5), Some(0.0));
    assert_eq!(progress::seconds_left(10, 30, f64::NAN), None);
    assert_eq!(progress::seconds_left(10, 30, 0.0), None);
}

/// A sink whose text a test can read.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[test]
fn plain_progress_is_a_line_at_intervals_and_at_the_end() {
    let sink = Sink::default();
    let screen = Screen::new(Style::Plain, Box::new(sink.clone()));
    let mut progress = Progress::start(&screen, 0, 39_000);
    let mut lines = |step: u64, now: f64| {
        progress.update(&standing(step), now);
        sink.text().lines().count()
    };
    assert_eq!(lines(1, 100.0), 1, "the first");
    assert_eq!(lines(2, 109.9), 1, "too early");
    assert_eq!(lines(3, 110.1), 2);
    assert_eq!(lines(4, 120.0), 2);
    assert_eq!(lines(39_000, 120.1), 3, "the last");
    assert!(sink.text().ends_with("lr 0.3000\n"));
    assert!(!sink.text().contains('\x1b'), "no control characters");
}

#[test]
fn quiet_and_live_progress_write_nothing_to_the_sink() {
    for style in [Style::Quiet, Style::Live] {
        let sink = Sink::default();
        let screen = Screen::new(style, Box::new(sink.clone()));
        let mut progress = Progress::start(&screen, 0, 39_000);
        progress.update(&standing(1), 0.0);
        progress.update(&standing(39_000), 100.0);
        assert_eq!(sink.text(), "");
        // Log lines pass, whether or not there is a live line.
        screen.write_above(b"a warning\n").unwrap();
        drop(progress);
        screen.write_above(b"another\n").unwrap();
        assert_eq!(sink.text(), "a warning\nanother\n");
    }
}

// ---------------------------------------------------------------- the closing summary

fn closing() -> Summary {
    let figure = |name: &str, unit, before, after| Figure {
        name: name.to_owned(),
        unit,
        before,
        after,
    };
    Summary {
        headline: "pretrained resnet18 on shapes32: 20 epochs, 780 steps in 3 min 12 s".to_owned(),
        figures: vec![
            figure("linear probe", Unit::Share, Some(0.312), Some(0.625)),
            figure("k-NN, k = 20", Unit::Share, Some(0.4), Some(0.35)),
            figure("contrastive loss", Unit::Number, None, Some(4.125)),
        ],
        notes: vec!["measured on the test split".to_owned()],
        paths: vec![Written {
            name: "checkpoint".to_owned(),
            path: PathBuf::from("runs/quickstart/checkpoints/step-00000780"),
        }],
        next: vec![Next {
            purpose: "watch the curves".to_owned(),
            command: "tensorboard --logdir runs/quickstart".to_owned(),
        }],
    }
}

#[test]
fn the_summary_is_aligned_and_complete() {
    let expected = "\
pretrained resnet18 on shapes32: 20 epochs, 780 steps in 3 min 12 s

                    before   after        change
  linear probe      31.2 %  62.5 %  +31.3 points
  k-NN, k = 20      40.0 %  35.0 %   -5.0 points
  contrastive loss       –  4.1250
  note: measured on the test split

written
  checkpoint  runs/quickstart/checkpoints/step-00000780

next
  watch the curves  tensorboard --logdir runs/quickstart
";
    assert_eq!(closing().text(), expected);
    let bare = Summary {
        figures: vec![],
        notes: vec![],
        paths: vec![],
        next: vec![],
        ..closing()
    };
    assert_eq!(bare.text(), closing().headline + "\n");
}

#[test]
fn the_summary_has_no_columns_that_hold_nothing() {
    let mut tuned = closing();
    tuned.figures.retain(|figure| figure.before.is_none());
    tuned.figures.push(Figure {
        name: "top-1".to_owned(),
        unit: Unit::Share,
        before: None,
        after: Some(0.535),
    });
    let expected = "
                     after
  contrastive loss  4.1250
  top-1             53.5 %
  note: ";
    let text = tuned.text();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn the_summary_for_machines_says_the_same() {
    let value: serde_json::Value = serde_json::from_str(&closing().json()).unwrap();
    assert_eq!(value["figures"][0]["after"], 0.625);
    assert_eq!(value["figures"][0]["unit"], "share");
    assert!(value["figures"][2]["before"].is_null());
    assert_eq!(
        value["paths"][0]["path"],
        "runs/quickstart/checkpoints/step-00000780"
    );
    assert_eq!(
        value["next"][0]["command"],
        "tensorboard --logdir runs/quickstart"
    );
}

// ---------------------------------------------------------------- the log

#[test]
fn the_log_file_holds_what_was_said_before_and_after_it_was_opened() {
    use tracing_subscriber::layer::SubscriberExt;

    let folder = tempdir().unwrap();
    let path = folder.path().join("log.txt");
    fs::write(&path, "of an earlier start\n").unwrap();
    let sink = Sink::default();
    let screen = Screen::new(Style::Plain, Box::new(sink.clone()));
    let log = LogFile::default();
    let terminal = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(screen);
    let subscriber = tracing_subscriber::registry()
        .with(log.layer())
        .with(terminal);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(devices = 4, "early");
        log.open(&path).unwrap();
        tracing::warn!("late");
    });
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "of an earlier start");
    assert!(
        lines[1].contains("INFO") && lines[1].contains("early devices=4"),
        "{text}"
    );
    assert!(
        lines[2].contains("WARN") && lines[2].contains("late"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "no colours");
    assert_eq!(
        sink.text().lines().count(),
        2,
        "the terminal has both as well"
    );
}
