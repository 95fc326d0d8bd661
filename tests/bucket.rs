//! Sets of pictures in a bucket, through all that can go wrong on the way: the same batches as from disk, or a sentence.

mod binary;
mod common;
mod gcs;
mod pictures;

use binary::{refused, simclr, stderr};
use gcs::{Fault, Gcs, Request, program, reach, succeeded};
use pictures::{photos, shard};
use simclr::augment::ResizeKernel;
use simclr::data::{Crops, Error, Examples, Feed, FeedSpec, Task};
use simclr::error::Class;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LENGTHS: [usize; 4] = [9, 14, 1, 12];

/// A folder with a bucket of this name in it, and in that the set `photos`.
fn root(bucket: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    photos(&root.path().join(bucket).join("sets"), &LENGTHS);
    root
}

fn spec(threads: usize, start: u64) -> FeedSpec {
    FeedSpec {
        task: Task::Train {
            views: 2,
            seed: 5,
            window: 7,
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

fn open(dir: &Path) -> Result<Arc<Examples>, Error> {
    Examples::open("photos", "train", Some(dir)).map(Arc::new)
}

/// Steps from `start` up to step 14: two epochs and a bit.
fn steps(examples: &Arc<Examples>, threads: usize, start: u64) -> Result<Vec<Crops>, Error> {
    let mut feed = Feed::start(examples.clone(), spec(threads, start));
    let mut all = Vec::new();
    for _ in start..14 {
        all.extend(feed.step()?);
    }
    Ok(all)
}

fn same(found: &[Crops], expected: &[Crops], what: &str) {
    let labels = |crops: &[Crops]| crops.iter().map(|c| c.label).collect::<Vec<_>>();
    assert_eq!(labels(found), labels(expected), "{what}");
    let equal = found
        .iter()
        .zip(expected)
        .all(|(a, b)| a.pixels == b.pixels);
    assert!(equal, "{what}: other pixels");
}

/// Everything goes wrong, for each object in turn: a function of the object and of how often it was asked for, not of time.
fn troubled(request: &Request) -> Fault {
    const FAULTS: [Fault; 13] = [
        Fault::Cut(700),
        Fault::Status(503),
        Fault::None,
        Fault::Reset,
        Fault::Cut(0),
        Fault::Delay(30),
        Fault::Status(429),
        Fault::Cut(5000),
        Fault::None,
        Fault::Status(408),
        Fault::Status(500),
        Fault::Cut(1),
        Fault::None,
    ];
    match request.again {
        // Where silence costs the patience of a test: once.
        1 if request.path.contains("00003-of") => Fault::Stall(100),
        again => FAULTS[again % FAULTS.len()],
    }
}

#[test]
fn batches_from_a_troubled_bucket_are_those_of_the_disk() {
    let root = root("troubled");
    let server = Gcs::start(root.path(), troubled);
    let remote = open(&reach("troubled", &server, 30)).unwrap();
    let local = open(&root.path().join("troubled/sets")).unwrap();
    assert_eq!(remote.description(), local.description());
    let expected = steps(&local, 1, 0).unwrap();
    for (threads, start) in [(1, 0), (8, 0), (3, 4), (2, 13)] {
        let found = steps(&remote, threads, start).unwrap();
        let what = format!("{threads} threads from step {start}");
        same(&found, &expected[6 * start as usize..], &what);
    }
    let met = |wanted: fn(&Fault) -> bool| {
        let all = server.requests();
        all.iter().filter(|(_, fault)| wanted(fault)).count()
    };
    for (fault, least) in [
        (met(|fault| matches!(fault, Fault::Cut(_))), 5),
        (met(|fault| matches!(fault, Fault::Status(_))), 5),
        (met(|fault| *fault == Fault::Reset), 2),
        (met(|fault| matches!(fault, Fault::Stall(_))), 1),
    ] {
        assert!(fault >= least, "the server was too kind");
    }
    // Reading went on at the byte reached.
    let later = |request: &Request| {
        request
            .headers
            .get("range")
            .is_some_and(|r| r == "bytes=700-")
    };
    assert!(server.requests().iter().any(|(request, _)| later(request)));
}

/// What a run ends with when a request for the shards is always answered so.
fn end(bucket: &str, fault: Fault) -> Error {
    let root = root(bucket);
    let server = Gcs::start(root.path(), move |request| {
        match request.path.contains("00001-of") {
            true => fault,
            false => Fault::None,
        }
    });
    let dir = reach(bucket, &server, 3);
    let error = open(&dir)
        .and_then(|examples| steps(&examples, 2, 0))
        .unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[test]
fn what_does_not_pass_ends_with_a_sentence() {
    let name = "/sets/photos/1.0.0/photos-train.tfrecord-00001-of-00004";
    for (bucket, fault, words) in [
        (
            "down",
            Fault::Status(503),
            &["503", "last of 3 attempts", "check the network"][..],
        ),
        ("slow", Fault::Status(429), &["429", "last of 3 attempts"]),
        (
            "gone",
            Fault::Status(404),
            &["no such object", "first attempt"],
        ),
        (
            "closed",
            Fault::Status(403),
            &["403", "no credentials were shown", "gcloud auth"],
        ),
        (
            "who",
            Fault::Status(401),
            &["401", "no credentials were shown"],
        ),
        ("odd", Fault::Status(400), &["400", "first attempt"]),
        ("cut", Fault::Cut(10), &["last of 3 attempts"]),
        (
            "lies",
            Fault::Shorter(40),
            &["were listed", "last of 3 attempts"],
        ),
        ("mute", Fault::Reset, &["last of 3 attempts"]),
    ] {
        let error = end(bucket, fault);
        let text = error.to_string();
        assert!(
            text.contains(&format!("cannot read gs://{bucket}{name}")),
            "{text}"
        );
        for word in words {
            assert!(text.contains(word), "`{word}` is missing in: {text}");
        }
        assert_eq!(error.class(), Class::Environment);
    }
}

/// What is tried again is told once, not for each attempt; a signal meanwhile loses nothing and ends the program.
#[test]
fn a_bucket_that_does_not_answer_is_told_and_left_on_a_signal() {
    let root = root("silent");
    let server = Gcs::start(root.path(), |_| Fault::Status(503));
    let model_dir = root.path().join("run");
    let errors = root.path().join("errors");
    let keys = ["dataset=photos", "data_dir=gs://silent/sets"];
    let mut child = program(&server, &[])
        .args(binary::tiny(&model_dir, &keys))
        .env("SIMCLR_GS_ATTEMPTS", "14")
        .stdout(Stdio::null())
        .stderr(fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&errors).unwrap();
    let begin = Instant::now();
    while !said().contains("is tried again") && begin.elapsed() < Duration::from_secs(30) {
        assert_eq!(child.try_wait().unwrap(), None, "{}", said());
        sleep(Duration::from_millis(20));
    }
    // Two more attempts.
    let made = server.requests().len();
    while server.requests().len() < made + 2 && begin.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let signalled = Instant::now();
    while child.try_wait().unwrap().is_none() && signalled.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(20));
    }
    child.kill().ok();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", said());
    let told = said();
    let told: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("is tried again"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for word in ["gs://silent/sets", "503", "for about 7 min", "14 attempts"] {
        assert!(told[0].contains(word), "no {word} in {told:?}");
    }
    assert!(!model_dir.exists());
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_is_not_mixed() {
    let root = root("replaced");
    let server = Gcs::start(root.path(), |request| {
        match (
            request.path.contains("00001-of"),
            request.headers.contains_key("range"),
        ) {
            (true, false) => Fault::Cut(2000),
            (true, true) => Fault::Replaced,
            _ => Fault::None,
        }
    });
    let examples = open(&reach("replaced", &server, 5)).unwrap();
    let error = steps(&examples, 2, 0).unwrap_err().to_string();
    assert!(
        error.contains("it was replaced while it was read"),
        "{error}"
    );
}

#[test]
fn what_is_not_there_is_said() {
    let root = root("there");
    let server = Gcs::start(root.path(), |_| Fault::None);
    let dir = reach("there", &server, 3);
    reach("nowhere", &server, 3);
    let of = |dir: &str| open(Path::new(dir)).unwrap_err();
    let error = of("gs://nowhere/sets");
    assert!(
        error
            .to_string()
            .contains("cannot list gs://nowhere/sets: there is no such bucket"),
        "{error}"
    );
    let error = of("gs://there/other");
    assert_eq!(error.class(), Class::Usage, "{error}");
    assert!(error.to_string().contains("gs://there/other"), "{error}");
    let error = Examples::open("nope", "train", Some(&dir)).unwrap_err();
    assert!(error.to_string().contains("which holds photos"), "{error}");
    for bad in ["gs://", "gs:///x"] {
        assert!(of(bad).to_string().contains("names no bucket"), "{bad}");
    }
    fs::remove_file(shard(
        &root.path().join("there/sets/photos/1.0.0"),
        "train",
        2,
        4,
    ))
    .unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, Error::MissingFile { .. }), "{error}");
}

/// A machine's token is refused from some request on, as if it had expired: a new one is asked for, and nothing is lost.
#[test]
fn a_token_that_expires_is_renewed() {
    let root = root("vm");
    let server = Gcs::start(root.path(), |request| {
        let token = request.headers.get("authorization").map(String::as_str);
        match (request.path.starts_with("/vm"), token) {
            (false, _) => Fault::None,
            (true, Some("Bearer token-0")) if request.number < 9 => Fault::None,
            (true, Some("Bearer token-0") | None) => Fault::Status(401),
            (true, Some(_)) => Fault::None,
        }
    });
    let output = program(&server, &["data", "check", "gs://vm/sets"])
        .env("GCE_METADATA_HOST", &server.host)
        .output()
        .unwrap();
    let text = succeeded(output);
    assert!(
        text.contains("examples  36 of 36") && text.contains("good"),
        "{text}"
    );
    assert!(server.tokens() >= 2, "no new token was asked for");
    let refused: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|(_, fault)| *fault == Fault::Status(401))
        .collect();
    assert!(!refused.is_empty(), "the first token lasted");
}

#[test]
fn the_commands_take_a_bucket() {
    let root = root("commands");
    let server = Gcs::start(root.path(), |request| match request.number % 6 {
        4 => Fault::Status(503),
        _ => Fault::None,
    });
    let text = succeeded(
        program(&server, &["data", "check", "gs://commands/sets", "--json"])
            .output()
            .unwrap(),
    );
    let local = simclr()
        .args(["data", "check", "--json"])
        .arg(root.path().join("commands/sets"))
        .output()
        .unwrap();
    let remote: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut local: serde_json::Value = serde_json::from_slice(&local.stdout).unwrap();
    local[0]["dir"] = remote[0]["dir"].clone();
    assert_eq!(remote, local);
    let text = succeeded(
        program(
            &server,
            &[
                "data",
                "bench",
                "gs://commands/sets",
                "-n",
                "40",
                "--image-size",
                "32",
                "--shuffle-window",
                "8",
            ],
        )
        .output()
        .unwrap(),
    );
    assert!(text.contains("reading"), "{text}");
    let out = root.path().join("sheet.png");
    succeeded(
        program(
            &server,
            &[
                "data",
                "show",
                "gs://commands/sets",
                "-n",
                "2",
                "--set",
                "image_size=32",
                "--set",
                "runtime.platform=cpu",
            ],
        )
        .args(["-o".as_ref(), out.as_os_str()])
        .output()
        .unwrap(),
    );
    assert!(fs::read(&out).unwrap().starts_with(b"\x89PNG"));
    refused(
        &program(&server, &["data", "check", "gs://no-such-bucket/x"])
            .output()
            .unwrap(),
        Class::Environment.exit_code().into(),
        &["gs://no-such-bucket/x", "no such bucket"],
    );
}

/// A run that learns from a bucket learns what one from disk learns, bit for bit.
#[test]
fn a_run_from_a_bucket_is_the_run_from_disk() {
    let root = root("runs");
    let server = Gcs::start(root.path(), |request| match request.number % 9 {
        3 => Fault::Cut(900),
        7 => Fault::Status(429),
        _ => Fault::None,
    });
    let train = |name: &str, dir: &str| {
        let path = root.path().join(name);
        let data = format!("data_dir={dir}");
        let more = [
            "dataset=photos",
            &data,
            "image_size=32",
            "train_batch_size=12",
            "train_steps=4",
            "checkpoint_steps=4",
            "shuffle_window=7",
        ];
        let output = program(&server, &[])
            .args(binary::tiny(&path, &more))
            .output()
            .unwrap();
        succeeded(output);
        binary::state(&path, 4)
    };
    let local = root.path().join("runs/sets");
    assert!(train("disk", local.to_str().unwrap()) == train("bucket", "gs://runs/sets"));
}

/// A service account shows a token that it signs itself; the key is made for this test.
#[test]
fn a_service_account_signs_its_token() {
    let root = root("account");
    let made = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output();
    let Ok(Output { stdout: key, .. }) = made else {
        eprintln!("SKIPPED: no openssl to make a key with");
        return;
    };
    let file = root.path().join("account.json");
    let account = serde_json::json!({
        "type": "service_account",
        "client_email": "reader@project",
        "private_key_id": "1",
        "private_key": String::from_utf8(key).unwrap(),
    });
    fs::write(&file, account.to_string()).unwrap();
    let server = Gcs::start(root.path(), |request| {
        let token = request.headers.get("authorization");
        match token.and_then(|token| token.strip_prefix("Bearer ")) {
            Some(token) if token.split('.').count() == 3 => Fault::None,
            _ => Fault::Status(401),
        }
    });
    let check = |file: &Path| {
        program(&server, &["data", "check", "gs://account/sets"])
            .env("GOOGLE_APPLICATION_CREDENTIALS", file)
            .output()
            .unwrap()
    };
    succeeded(check(&file));
    // A file that is none.
    fs::write(&file, "{}").unwrap();
    refused(&check(&file), 3, &["gs://account/sets", "type"]);
}

/// From a bucket and into one: what is packed is what is packed on disk, and is written again where writing fails.
#[test]
fn packing_reads_and_writes_buckets() {
    let root = tempfile::tempdir().unwrap();
    let pictures = root.path().join("pack/pictures");
    for (class, number) in [("a", 0), ("a", 1), ("b", 2), ("b", 4), ("b", 6)] {
        fs::create_dir_all(pictures.join(class)).unwrap();
        let file = pictures.join(class).join(format!("{number}.jpg"));
        fs::write(file, pictures::encoded(number)).unwrap();
    }
    let server = Gcs::start(root.path(), |request| {
        match (request.method.as_str(), request.again) {
            ("PUT", 0) => Fault::Status(503),
            ("PUT", 1) => Fault::Reset,
            ("PUT", 2) => Fault::Mute,
            _ => Fault::None,
        }
    });
    let pack = |images: &str, out: &str| {
        let more = [
            "data",
            "pack",
            images,
            out,
            "--shard-size",
            "1",
            "--name",
            "small",
        ];
        program(&server, &more).output().unwrap()
    };
    let disk = root.path().join("disk");
    succeeded(pack(pictures.to_str().unwrap(), disk.to_str().unwrap()));
    succeeded(pack("gs://pack/pictures", "gs://pack/sets"));
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let (one, other) = (
        disk.join("small/1.0.0"),
        root.path().join("pack/sets/small/1.0.0"),
    );
    assert_eq!(names(&one), names(&other));
    for name in names(&one) {
        let [one, other] = [&one, &other].map(|folder| fs::read(folder.join(&name)).unwrap());
        assert!(one == other, "{name:?}");
    }
    let [one, other] = [disk, root.path().join("pack/sets")].map(|dir| {
        let examples = Examples::open("small", "train", Some(&dir)).unwrap();
        examples.names().unwrap()
    });
    assert_eq!(one, other);
    let last = server
        .requests()
        .into_iter()
        .rev()
        .find(|(request, _)| request.method == "PUT")
        .unwrap();
    assert!(
        last.0.path.ends_with("dataset_info.json"),
        "{}",
        last.0.path
    );
    refused(
        &pack("gs://pack/pictures", "gs://pack/sets"),
        2,
        &["gs://pack/sets/small/1.0.0", "there already"],
    );
    let text = succeeded(
        program(&server, &["data", "check", "gs://pack/sets"])
            .output()
            .unwrap(),
    );
    assert!(text.contains("5 of 5"), "{text}");
    // Files of another set, of which no description tells.
    let other = root.path().join("pack/more/small/1.0.0");
    fs::create_dir_all(&other).unwrap();
    let other = other.join("train-00000-of-01024");
    fs::write(&other, "of the user").unwrap();
    refused(
        &pack("gs://pack/pictures", "gs://pack/more"),
        2,
        &["gs://pack/more/small/1.0.0", "there already"],
    );
    assert!(other.is_file());
}

/// An upload that breaks off leaves no set, says so, and is in nobody's way.
#[test]
fn an_upload_that_broke_off_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let pictures = root.path().join("pictures/a");
    fs::create_dir_all(&pictures).unwrap();
    for number in [0, 1, 2] {
        let file = pictures.join(format!("{number}.jpg"));
        fs::write(file, pictures::encoded(number)).unwrap();
    }
    fs::create_dir_all(root.path().join("full")).unwrap();
    let full = Arc::new(AtomicBool::new(true));
    let server = Gcs::start(root.path(), {
        let full = full.clone();
        move |request| {
            let label = request.path.ends_with("label.labels.txt");
            match request.method == "PUT" && label && full.load(Ordering::Relaxed) {
                true => Fault::Status(507),
                false => Fault::None,
            }
        }
    });
    let pack = || {
        let out = ["gs://full/sets", "--name", "small"];
        program(&server, &["data", "pack"])
            .arg(root.path().join("pictures"))
            .args(out)
            .output()
            .unwrap()
    };
    refused(
        &pack(),
        3,
        &[
            "1 of the 4 files of gs://full/sets/small/1.0.0",
            "507",
            "pack again",
        ],
    );
    let folder = root.path().join("full/sets/small/1.0.0");
    // As if the pictures had filled more files then.
    let first = "small-train.tfrecord-00000-of-00001";
    let other = "small-train.tfrecord-00002-of-00003";
    fs::rename(folder.join("features.json"), folder.join(other)).unwrap();
    fs::write(folder.join("notes.txt"), "of the user").unwrap();
    full.store(false, Ordering::Relaxed);
    let output = pack();
    assert!(
        stderr(&output).contains("1 file of an upload that broke off was removed"),
        "{}",
        stderr(&output)
    );
    succeeded(output);
    assert!(!folder.join(other).exists() && folder.join(first).exists());
    assert!(folder.join("notes.txt").exists(), "it is not ours");
    let check = program(&server, &["data", "check", "gs://full/sets"]);
    let text = succeeded({ check }.output().unwrap());
    assert!(text.contains("3 of 3"), "{text}");
}

/// A machine with an account that cannot be had for a moment does not go on as nobody.
#[test]
fn a_token_that_is_not_given_at_once_is_asked_for_again() {
    let root = root("account");
    let check = |times: usize, status: u16| {
        let server = Gcs::start(root.path(), move |request| {
            let asked = request.path.ends_with("/token");
            match (asked, request.headers.contains_key("authorization")) {
                (true, _) if request.again < times => Fault::Status(status),
                (false, false) => Fault::Status(401),
                _ => Fault::None,
            }
        });
        program(&server, &["data", "check", "gs://account/sets"])
            .env("GCE_METADATA_HOST", &server.host)
            // Asked when the first does not answer.
            .env("GCE_METADATA_IP", &server.host)
            .output()
            .unwrap()
    };
    let text = succeeded(check(2, 503));
    assert!(text.contains("36 of 36"), "{text}");
    refused(
        &check(usize::MAX, 503),
        3,
        &[
            "no token of this machine's service account",
            "503",
            "last of 4 attempts",
        ],
    );
    // A machine that has none asks as nobody.
    refused(
        &check(usize::MAX, 404),
        3,
        &["401", "this machine has no service account", "gcloud auth"],
    );
}
