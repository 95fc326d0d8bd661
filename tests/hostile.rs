//! Bytes that nobody wrote: files changed at random, through the readers of records, examples, descriptions, labels and pictures. None
//! may panic, hang or take memory without bound; what they find is a reading or an error.
//!
//! `SIMCLR_FUZZ_SECONDS=600 cargo test --release --test hostile` goes on for so long with each; a case that breaks something is written
//! to `target/hostile/`, and goes from there to `tests/cases/`.

mod pictures;

use pictures::{bytes, encoded, int, jpeg, photos, picture, png, shard, write};
use simclr::augment::ResizeKernel;
use simclr::data::decode::{decode, decode_into};
use simclr::data::example::Example;
use simclr::data::record::Records;
use simclr::data::{Error, Examples, Feed, FeedSpec, Task};
use simclr::error::Class;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A random number generator that gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Some changes to a file: bits, bytes, numbers at the edges of their types, pieces cut, doubled, moved, put in from another one.
    fn change(&mut self, file: &mut Vec<u8>, other: &[u8]) {
        const EDGES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 1 << 40, u64::MAX];
        for _ in 0..1 + self.below(4) {
            let at = self.below(file.len());
            let length = 1 + self.below(40.min(file.len().saturating_sub(at).max(1)));
            let end = (at + length).min(file.len());
            match self.below(8) {
                0 | 1 if !file.is_empty() => file[at] ^= 1 << self.below(8),
                2 if !file.is_empty() => file[at] = self.next() as u8,
                3 => file.truncate(at),
                4 => {
                    let piece = file[at.min(end)..end].to_vec();
                    file.splice(at.min(file.len())..at.min(file.len()), piece);
                }
                5 => {
                    file.drain(at.min(end)..end);
                }
                6 => {
                    let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.below(4)];
                    for (byte, edge) in file.iter_mut().skip(at).zip(&edge[..width]) {
                        *byte = *edge;
                    }
                }
                _ => {
                    let from = self.below(other.len());
                    let piece = &other[from..(from + length).min(other.len())];
                    let at = at.min(file.len());
                    file.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
}

/// Tries changed copies of `seeds`: as many as `cases`, or for as long as the environment says.
fn hunt(name: &str, seeds: &[Vec<u8>], cases: usize, mut attempt: impl FnMut(&[u8])) {
    let seconds = std::env::var("SIMCLR_FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // By hand each hunt is a new one.
    let seed = end.map_or(1, |_| u64::from(std::process::id()));
    let mut random = Random(seed);
    let (mut tried, mut slowest) = (0, Duration::ZERO);
    while end.map_or(tried < cases, |end| Instant::now() < end) {
        let mut case = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        random.change(&mut case, other);
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| attempt(&case)));
        slowest = slowest.max(begin.elapsed());
        if result.is_err() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hostile");
            fs::create_dir_all(&folder).unwrap();
            let file = folder.join(format!("{name}-{seed}-{tried}"));
            fs::write(&file, &case).unwrap();
            panic!("{name}: case {tried} is kept in {}", file.display());
        }
        tried += 1;
    }
    println!(
        "{name}: {tried} cases, the slowest {slowest:.1?}, at most {} MiB",
        most_memory()
    );
    // A decoded picture may take 300 MB; nothing is held from case to case.
    assert!(most_memory() < 2048, "{name} takes {} MiB", most_memory());
}

/// The most memory that this process has taken so far, in MiB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8);
    crc.to_le_bytes()
}

/// A record with right CRCs around these bytes, whatever they are; its length says `length`.
fn framed(length: u64, data: &[u8]) -> Vec<u8> {
    let length = length.to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// Opens a set and goes through all of it, as evaluation and as training do.
fn go_through(dir: &Path) -> Result<(), Error> {
    let examples = Arc::new(Examples::open("photos", "train", Some(dir))?);
    for task in [
        Task::Evaluate,
        Task::Train {
            views: 2,
            seed: 1,
            window: 3,
            pipelines: 1,
            start: 1,
        },
    ] {
        let mut feed = Feed::start(
            examples.clone(),
            FeedSpec {
                task,
                batch: 4,
                image_size: 8,
                kernel: ResizeKernel::V2HalfPixel,
                threads: 1,
                skip_bad: true,
            },
        );
        for _ in 0..4 {
            if feed.step()?.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// What is wrong with data is said to be wrong with data.
fn of_data(result: Result<(), Error>) {
    if let Err(error) = result {
        assert_ne!(error.class(), Class::Failed, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn records() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[3, 4]);
    let file = shard(&files, "train", 1, 2);
    let plain = fs::read(&file).unwrap();
    let pack = |level| {
        use std::io::Write;
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
        zlib.write_all(&plain).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        gzip.write_all(&plain).unwrap();
        [zlib.finish().unwrap(), gzip.finish().unwrap()]
    };
    let [zlib, gzip] = pack(6);
    // Lengths beyond any memory, under right CRCs; and a file that unpacks to much more than it is.
    let long = [u64::MAX, u64::MAX - 20, 1 << 40, 1 << 31].map(|length| framed(length, b"short"));
    let bomb = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&framed(1 << 33, &vec![0; 1 << 24])).unwrap();
        gzip.finish().unwrap()
    };
    let seeds: Vec<Vec<u8>> =
        [vec![plain.clone(), zlib, gzip, bomb.clone()], long.to_vec()].concat();
    for case in seeds[3..].iter() {
        fs::write(&file, case).unwrap();
        assert!(go_through(folder.path()).is_err());
    }
    hunt("records", &seeds, 300, |case| {
        fs::write(&file, case).unwrap();
        of_data(go_through(folder.path()));
        assert!(Records::new(&file, case).count() <= case.len() / 16 + 1);
    });
}

#[test]
fn examples_under_right_crcs() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[3, 1]);
    let file = shard(&files, "train", 1, 2);
    let mut seeds = Vec::new();
    for example in [
        vec![("picture", bytes(encoded(1))), ("kind", int(3))],
        vec![
            ("picture", bytes(png(2))),
            ("kind", int(-1)),
            ("more", int(i64::MAX)),
        ],
        vec![("kind", bytes(vec![0; 40])), ("picture", int(7))],
    ] {
        write(&file, [example]);
        let content = fs::read(&file).unwrap();
        let record = Records::new(&file, &content).next().unwrap().unwrap();
        seeds.push(record.data.to_vec());
    }
    hunt("examples", &seeds, 2000, |case| {
        if let Ok(example) = Example::parse(case) {
            for (key, _) in example.features() {
                example.bytes(key).ok();
                example.int(key).ok();
            }
        }
        // The whole way, now and then: it writes a file.
        if case.len().is_multiple_of(8) {
            fs::write(&file, framed(case.len() as u64, case)).unwrap();
            of_data(go_through(folder.path()));
        }
    });
}

#[test]
fn descriptions() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[3, 4]);
    for (name, more) in [
        (
            "features.json",
            r#"{"featuresDict": {"features": {"a": {"image": {}}, "b": {"classLabel": {"numClasses": 1e300}}}}}"#,
        ),
        (
            "dataset_info.json",
            r#"{"splits": [{"name": "train", "shardLengths": ["3", 99999999999999999999, -1, null]}]}"#,
        ),
    ] {
        let file = files.join(name);
        let good = fs::read(&file).unwrap();
        let deep = [vec![b'['; 5000], vec![b'{'; 5000]].concat();
        let seeds = [good.clone(), more.as_bytes().to_vec(), deep];
        hunt(name, &seeds, 300, |case| {
            fs::write(&file, case).unwrap();
            of_data(go_through(folder.path()));
        });
        fs::write(&file, good).unwrap();
    }
}

#[test]
fn lists_of_labels_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let files = photos(folder.path(), &[3, 4]);
    let labels = files.join("label.labels.txt");
    fs::remove_file(files.join("features.json")).unwrap();
    let names: String = (0..20).map(|n| format!("class {n}\n")).collect();
    let seeds = [
        names.clone().into_bytes(),
        b"\xff\xfe\n\r\n\0".to_vec(),
        Vec::new(),
    ];
    hunt("labels", &seeds, 300, |case| {
        fs::write(&labels, case).unwrap();
        of_data(go_through(folder.path()));
    });
    hunt("subset lists", &seeds, 300, |case| {
        fs::write(&labels, case).unwrap();
        let found = Examples::listed("shapes32", "test", None, Some(&labels), false);
        of_data(found.map(|_| ()));
    });
}

#[test]
fn photographs() {
    let mut seeds = Vec::new();
    for number in 0..3 {
        let (pixels, height, width) = picture(number);
        let grey: Vec<u8> = pixels.iter().step_by(3).copied().collect();
        let ink: Vec<u8> = pixels
            .iter()
            .flat_map(|&v| [v, 255 - v])
            .take(height * width * 4)
            .collect();
        for (colour, pixels) in [
            (jpeg_encoder::ColorType::Rgb, &pixels),
            (jpeg_encoder::ColorType::Luma, &grey),
            (jpeg_encoder::ColorType::Cmyk, &ink),
        ] {
            for progressive in [false, true] {
                for restart in [0, 3] {
                    let mut bytes = Vec::new();
                    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
                    if restart > 0 {
                        // Of an orientation.
                        let entry = b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
                        let exif = [&b"MM\0\x2a\0\0\0\x08"[..], entry].concat();
                        encoder.add_exif_metadata(&exif).unwrap();
                    }
                    encoder.set_progressive(progressive);
                    if restart > 0 {
                        encoder.set_restart_interval(restart);
                    }
                    let [w, h] = [width as u16, height as u16];
                    encoder.encode(pixels, w, h, colour).unwrap();
                    seeds.push(bytes);
                }
            }
        }
        seeds.push(jpeg(number));
    }
    // All are read but the progressive ones of four inks of which one is finer than the first, which this encoder alone writes.
    seeds.retain(|seed| decode(seed).is_ok());
    assert_eq!(seeds.len(), 33);
    hunt("jpeg", &seeds, 4000, sized);
}

/// What was found before: pictures by which a decoder panicked.
#[test]
fn cases_that_were_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let case = fs::read(entry.unwrap().path()).unwrap();
        let reason = decode(&case).unwrap_err();
        assert!(reason.contains("broke down"), "{reason}");
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn drawings() {
    let mut seeds: Vec<Vec<u8>> = (0..3).map(png).collect();
    for (colour, depth, samples) in [
        (png::ColorType::Grayscale, png::BitDepth::One, 1),
        (png::ColorType::Grayscale, png::BitDepth::Sixteen, 16),
        (png::ColorType::GrayscaleAlpha, png::BitDepth::Eight, 16),
        (png::ColorType::Rgba, png::BitDepth::Sixteen, 64),
        (png::ColorType::Indexed, png::BitDepth::Four, 4),
    ] {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 16, 9);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == png::ColorType::Indexed {
            encoder.set_palette((0..48).collect::<Vec<u8>>());
        }
        let mut writer = encoder.write_header().unwrap();
        let pixels: Vec<u8> = (0..16 * 9 * samples / 8).map(|i| (i * 7) as u8).collect();
        writer.write_image_data(&pixels).unwrap();
        writer.finish().unwrap();
        seeds.push(bytes);
    }
    assert!(seeds.iter().all(|seed| decode(seed).is_ok()));
    hunt("png", &seeds, 3000, |case| {
        sized(case);
        // With right CRCs, without which nothing behind a change is looked at.
        sized(&mended(case));
    });
}

/// What is decoded has the size that it says.
fn sized(case: &[u8]) {
    let mut upright = Vec::new();
    if let Ok([height, width]) = decode_into(case, true, &mut upright) {
        assert_eq!(upright.len(), height * width * 3);
    }
    if let Ok(found) = decode(case) {
        assert_eq!(found.rgb.len(), found.height * found.width * 3);
        assert!(found.height > 0 && found.width > 0);
    }
}

/// A PNG whose chunks have right CRCs.
fn mended(case: &[u8]) -> Vec<u8> {
    let mut case = case.to_vec();
    let mut at = 8;
    while let Some(head) = case.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        let Some(covered) = case.get(at + 4..end) else {
            break;
        };
        let crc = crc32(covered).to_be_bytes();
        if let Some(stored) = case.get_mut(end..end + 4) {
            stored.copy_from_slice(&crc);
        }
        at = end + 4;
    }
    case
}

/// The CRC of PNG and gzip, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
        })
    };
    !bytes.iter().fold(!0, step)
}
