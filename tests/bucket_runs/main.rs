//! Run folders in a bucket, through all that can go wrong on the way: the same run as on disk, and never a half-written checkpoint.

#[path = "../binary/mod.rs"]
mod binary;
mod foreign;
#[path = "../gcs/mod.rs"]
mod gcs;
mod writers;

use binary::{checkpoint, refused, state, stderr, tiny};
use gcs::{Fault, Gcs, Request, program, succeeded};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const STEPS: u64 = 6;
const KEYS: [&str; 5] = [
    "train_steps=6",
    "checkpoint_steps=2",
    "keep_checkpoint_max=2",
    "train_summary_steps=1",
    "runtime.steps_per_launch=1",
];

/// A run of six steps that saves every second one and keeps two.
fn train(server: &Gcs, model_dir: &str, more: &[&str]) -> Output {
    let keys = [&KEYS[..], more].concat();
    program(server, &[])
        .args(tiny(Path::new(model_dir), &keys))
        .output()
        .unwrap()
}

/// A folder of buckets with the bucket `b`, and a run on disk beside it.
fn root(server: &dyn Fn(&Path) -> Gcs) -> (tempfile::TempDir, Gcs, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("b")).unwrap();
    let server = server(root.path());
    let disk = root.path().join("disk");
    succeeded(train(&server, disk.to_str().unwrap(), &[]));
    (root, server, disk)
}

/// Names of what lies in a run folder; those of event files hold the time.
fn names(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::from_iter(names_below(folder));
    // Who writes, by another way in each.
    names.retain(|name| name != "lock" && name != "writer.json");
    let events = |name: &String| name.starts_with("events.");
    assert!(names.iter().any(events), "{names:?}");
    names.retain(|name| !events(name));
    names
}

/// Names in a folder.
fn names_below(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// What was learned in each step.
fn losses(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        row.as_object_mut()
            .unwrap()
            .retain(|key, _| !key.starts_with("perf/"));
        row
    };
    text.lines().map(row).collect()
}

fn same(found: &Path, expected: &Path) {
    assert_eq!(names(found), names(expected));
    let steps = |folder: &Path| -> BTreeSet<_> {
        let entries = fs::read_dir(folder.join("checkpoints")).unwrap();
        let held = |path: &Path| fs::read_dir(path).unwrap().next().is_some();
        let folders = entries.map(|entry| entry.unwrap());
        let folders = folders.filter(|entry| held(&entry.path()));
        folders.map(|entry| entry.file_name()).collect()
    };
    assert_eq!(steps(found), steps(expected));
    assert!(
        state(found, STEPS) == state(expected, STEPS),
        "other arrays"
    );
    assert_eq!(losses(found), losses(expected));
}

#[test]
fn a_run_in_a_troubled_bucket_is_the_run_on_disk() {
    let (root, server, disk) = root(&|root| {
        Gcs::start(root, |request| match request.number % 7 {
            2 => Fault::Status(503),
            4 => Fault::Reset,
            5 if request.method != "GET" => Fault::Mute,
            5 => Fault::Cut(50),
            _ => Fault::None,
        })
    });
    let far = root.path().join("b/runs/one");
    let text = succeeded(train(&server, "gs://b/runs/one", &[]));
    assert!(text.contains("gs://b/runs/one/checkpoints"), "{text}");
    same(&far, &disk);
    let puts = server.requests().into_iter();
    let puts = puts.filter(|(request, _)| request.method == "PUT");
    assert!(puts.filter(|(_, fault)| *fault != Fault::None).count() > 2);

    // The same command again goes on, and leaves what is there.
    let text = succeeded(train(&server, "gs://b/runs/one", &[]));
    assert!(text.contains("all 6 steps are done"), "{text}");
    assert!(state(&far, STEPS) == state(&disk, STEPS));
    let log = fs::read_to_string(far.join("log.txt")).unwrap();
    assert_eq!(log.matches("all 6 steps are done").count(), 1, "{log}");
    assert!(log.contains("pretrained 6 steps"), "what was logged before");
    // A start that is refused changes nothing.
    let before = server.requests().len();
    let output = train(&server, "gs://b/runs/one", &["temperature=0.7"]);
    refused(&output, 2, &["gs://b/runs/one", "`temperature`"]);
    let since = server.requests().split_off(before);
    assert!(
        !since.is_empty()
            && since
                .iter()
                .all(|(request, _)| request.method == "GET" || request.method == "HEAD")
    );
    fs::create_dir(root.path().join("b/other")).unwrap();
    fs::write(root.path().join("b/other/letter.txt"), "dear").unwrap();
    let output = train(&server, "gs://b/other", &[]);
    refused(&output, 2, &["gs://b/other", "holds `letter.txt` but no"]);

    // What comes after training reads from there.
    let tuned = |from: &str, to: &str| {
        let checkpoint = format!("checkpoint={from}");
        let mut arguments = tiny(Path::new(to), &[&checkpoint, "train_steps=2"]);
        arguments[0] = "finetune".into();
        succeeded(program(&server, &[]).args(arguments).output().unwrap());
    };
    let near = root.path().join("tuned");
    tuned(disk.to_str().unwrap(), near.to_str().unwrap());
    tuned("gs://b/runs/one", "gs://b/runs/tuned");
    assert!(state(&root.path().join("b/runs/tuned"), 2) == state(&near, 2));
    let inspected = |run: &str| {
        let text = succeeded(
            program(&server, &["inspect", run, "--json"])
                .output()
                .unwrap(),
        );
        let mut found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let folder = found["facts"]["folder"].take();
        assert!(folder.as_str().unwrap().starts_with(run), "{folder}");
        // The configurations differ in their folders.
        found["facts"]["configuration"].take();
        found
    };
    let found = inspected("gs://b/runs/one");
    assert_eq!(found, inspected(disk.to_str().unwrap()));
    assert_eq!(found["kind"], "checkpoint of simclr");
    let file = checkpoint(Path::new("gs://b/runs/one"), STEPS).join("state.safetensors");
    let output = program(&server, &["inspect"]).arg(file).output().unwrap();
    let text = succeeded(output);
    assert!(text.contains("safetensors file"), "{text}");
    for (nothing, words) in [("gs://b/runs", "one, tuned"), ("gs://b/none", "nothing")] {
        let output = program(&server, &["inspect", nothing]).output().unwrap();
        refused(&output, 2, &[nothing, words]);
    }
    let figures = |run: &str| {
        let more = [
            "evaluate",
            run,
            "--head-only",
            "--json",
            "runtime.platform=cpu",
        ];
        let text = succeeded(program(&server, &more).output().unwrap());
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(found["checkpoint"].as_str().unwrap().starts_with(run));
        found["figures"].clone()
    };
    let found = figures("gs://b/runs/tuned");
    assert_eq!(found, figures(near.to_str().unwrap()));
    assert!(found["top_1"].is_number(), "{found}");
    let page = root.path().join("page.html");
    let more = [
        "report",
        "gs://b/runs/one",
        "gs://b/runs/tuned",
        "--curves-only",
        "-o",
    ];
    succeeded(program(&server, &more).arg(&page).output().unwrap());
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("6 steps") && page.contains("tuned"));

    // Evaluation writes beside it.
    let more = ["run", "mode=train_then_eval", "runtime.eval=true"];
    let mut arguments = tiny(
        Path::new("gs://b/runs/tuned"),
        &["checkpoint=gs://b/runs/one"],
    );
    arguments[0] = more[0].into();
    arguments.retain(|argument| argument != "runtime.eval=false");
    arguments.extend(more[1..].iter().map(|key| key.to_string()));
    arguments.extend(["train_mode=finetune".into(), "train_steps=2".into()]);
    succeeded(program(&server, &[]).args(arguments).output().unwrap());
    let tuned = root.path().join("b/runs/tuned");
    for name in [
        "result.json",
        "result_2.json",
        "flags.json",
        "eval/metrics.jsonl",
    ] {
        assert!(tuned.join(name).is_file(), "{name}");
    }
    names(&tuned.join("eval"));
}

/// A run in `gs://b/run` that is killed when the bucket has met something.
fn killed(server: &Gcs, more: &[&str], met: &dyn Fn() -> bool) {
    let keys = [&KEYS[..], more].concat();
    let mut child = program(server, &[])
        .args(tiny(Path::new("gs://b/run"), &keys))
        .env("SIMCLR_GS_ATTEMPTS", "30")
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !met() {
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "it never came so far"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn of_step_4(request: &Request, file: &str) -> bool {
    request.method == "PUT" && request.path.ends_with(&format!("step-00000004/{file}"))
}

/// A process that dies between the two objects of a checkpoint has not written it.
#[test]
fn a_kill_between_objects_goes_on_from_the_checkpoint_before() {
    let closed = Arc::new(AtomicBool::new(true));
    let (root, server, disk) = root(&|root| {
        let closed = closed.clone();
        Gcs::start(root, move |request| {
            let late = of_step_4(request, "manifest.json") && closed.load(Ordering::Relaxed);
            match late {
                true => Fault::Status(503),
                false => Fault::None,
            }
        })
    });
    let far = root.path().join("b/run");
    killed(&server, &[], &|| {
        let all = server.requests();
        all.iter().any(|(r, _)| of_step_4(r, "manifest.json"))
    });
    let half = checkpoint(&far, 4);
    assert!(half.join("state.safetensors").is_file() && !half.join("manifest.json").exists());
    closed.store(false, Ordering::Relaxed);
    let half = ["evaluate", "gs://b/run/checkpoints/step-00000004"];
    let output = program(&server, &half).output().unwrap();
    refused(&output, 2, &["step-00000004", "no run and no checkpoint"]);
    let output = train(&server, "gs://b/run", &[]);
    let text = stderr(&output);
    succeeded(output);
    let words = "resuming at step 2 from gs://b/run/checkpoints/step-00000002";
    assert!(text.contains(words), "{text}");
    same(&far, &disk);

    // Going back sets aside what cannot be read, too.
    fs::remove_file(checkpoint(&far, 6).join("state.safetensors")).unwrap();
    let from = "gs://b/run/checkpoints/step-00000004";
    succeeded(train(&server, "gs://b/run", &["--resume-from", from]));
    assert!(state(&far, STEPS) == state(&disk, STEPS));
    let aside = far.join("checkpoints/step-00000006.aside-1");
    assert!(aside.join("manifest.json").is_file());
}

/// A bucket that takes nothing any more costs nothing: the state is kept on this machine with what was written since, and the run goes on
/// from it, even where it is killed before its next checkpoint.
#[test]
fn a_state_that_cannot_be_sent_is_kept() {
    // 0: it takes everything; 2: nothing after that step; 6: all but the state of that step.
    let closed = Arc::new(AtomicU64::new(2));
    let done = Arc::new(AtomicBool::new(false));
    let (root, server, disk) = root(&|root| {
        let (closed, done) = (closed.clone(), done.clone());
        Gcs::start(root, move |request| {
            let put = |end: &str| request.method == "PUT" && request.path.ends_with(end);
            let refused = match closed.load(Ordering::Relaxed) {
                2 => done.load(Ordering::Relaxed) && put(""),
                6 => put("step-00000006/state.safetensors"),
                _ => false,
            };
            if put("step-00000002/manifest.json") {
                done.store(true, Ordering::Relaxed);
            }
            match refused {
                true => Fault::Status(503),
                false => Fault::None,
            }
        })
    });
    let output = train(&server, "gs://b/run", &[]);
    let text = stderr(&output);
    let words = [
        "cannot write gs://b/run/",
        "503",
        "the state of step 4 is kept",
    ];
    refused(&output, 3, &words);
    let failed = |(_, fault): &&(Request, Fault)| *fault != Fault::None;
    assert_eq!(
        server.requests().iter().filter(failed).count(),
        4,
        "not again at the end"
    );
    let kept = text.split("--resume-from ").nth(1).unwrap();
    let kept = Path::new(kept.split('`').next().unwrap());
    let more = ["--resume-from", kept.to_str().unwrap()];

    closed.store(6, Ordering::Relaxed);
    let met = || {
        let all = server.requests();
        let of_step_6 = |r: &Request| r.method == "PUT" && r.path.contains("step-00000006");
        all.iter().any(|(request, _)| of_step_6(request))
    };
    killed(&server, &more, &met);
    closed.store(0, Ordering::Relaxed);
    let output = train(&server, "gs://b/run", &more);
    let text = stderr(&output);
    succeeded(output);
    assert!(text.contains("resuming at step 4"), "{text}");
    assert!(!kept.exists(), "the bucket has a later one");
    let far = root.path().join("b/run");
    let text = succeeded(train(&server, "gs://b/run", &more));
    assert!(text.contains("all 6 steps are done"), "{text}");
    fs::remove_file(far.join("resumed-from")).unwrap();
    // Step 4 was not written to the bucket by the process that went on from it.
    let step = checkpoint(&disk, 4);
    fs::rename(&step, checkpoint(&disk, 2)).unwrap();
    same(&far, &disk);
    let log = fs::read_to_string(far.join("log.txt")).unwrap();
    assert!(log.contains("the state of step 4 is kept"), "{log}");
    assert_eq!(log.matches("resuming at step 4").count(), 2, "{log}");
}

/// Why a run ended stands in its log; where neither bucket nor disk takes the state, both are named.
#[test]
fn the_log_and_the_error_say_what_happened() {
    let root = tempfile::tempdir().unwrap();
    let far = root.path().join("b/run");
    fs::create_dir_all(root.path().join("b")).unwrap();
    let server = Gcs::start(root.path(), |request| {
        let refused = request.path.ends_with("state.safetensors");
        match request.method == "PUT" && refused {
            true => Fault::Status(400),
            false => Fault::None,
        }
    });
    let output = train(
        &server,
        "gs://b/run",
        &["learning_rate=1e9", "optimizer=momentum"],
    );
    let words = [
        "is not a number",
        "from the beginning, in another model_dir",
    ];
    refused(&output, 1, &words);
    let log = fs::read_to_string(far.join("log.txt")).unwrap();
    assert_eq!(log.matches("is not a number").count(), 1, "{log}");

    fs::remove_dir_all(far).unwrap();
    let folders = || fs::read_dir(server.cache().join("runs")).unwrap();
    let near = folders().next().unwrap().unwrap().path();
    fs::write(near.join("unsent"), "no folder").unwrap();
    // The same place.
    let output = train(&server, "gs://b//run/", &[]);
    let words = [
        "cannot write gs://b/run/checkpoints/step-00000002/state.safetensors",
        "the state of step 2 could not be kept on this machine: cannot",
        "/unsent",
    ];
    refused(&output, 3, &words);
    assert_eq!(folders().count(), 1);
}

/// What `simclr doctor` says of a bucket: as whom it is asked, what may be done there, and what to do about what may not.
#[test]
fn the_doctor_says_what_may_be_done_in_a_bucket_and_as_whom() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("b/sets/imagenet/1.0.0");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir(root.path().join("b/empty")).unwrap();
    fs::write(folder.join("train.tfrecord"), "x").unwrap();
    // Requests of this method, on such a path, are answered with this status.
    type Refused = (&'static str, &'static str, u16);
    let look = |refused: Option<Refused>, machine: bool, places: [&str; 2]| {
        let server = Gcs::start(root.path(), move |request| match refused {
            Some((method, part, status))
                if request.method.contains(method) && request.path.contains(part) =>
            {
                Fault::Status(status)
            }
            _ => Fault::None,
        });
        let mut command = program(&server, &["doctor", "--json"]);
        command.args([
            format!("data_dir=gs://{}", places[0]),
            format!("model_dir=gs://{}", places[1]),
        ]);
        if machine {
            command.env("GCE_METADATA_HOST", &server.host);
        }
        let command = command.env("GCE_METADATA_IP", &server.host);
        let output = command.output().unwrap();
        let found: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
        ["data_dir", "model_dir"].map(|what| {
            let one = found.iter().find(|finding| finding["what"] == what);
            let one = one.unwrap_or_else(|| panic!("nothing of {what}: {found:?}"));
            ["state", "words", "remedy"].map(|part| one[part].as_str().unwrap().to_string())
        })
    };
    let check = |found: &[String; 3], words: &str, remedy: &str| {
        let state = if remedy.is_empty() { "good" } else { "bad" };
        assert_eq!(found[0], state, "{found:?}");
        assert!(found[1].contains(words), "{words}: {found:?}");
        assert!(found[2].contains(remedy), "{remedy}: {found:?}");
        assert_eq!(found[2].is_empty(), remedy.is_empty(), "{found:?}");
    };
    let account = gcs::ACCOUNT;
    let places = ["b/sets", "b/runs/one"];

    let [data, run] = look(None, true, places);
    let words = format!("gs://b/sets: readable as {account}");
    check(&data, &words, "");
    let words = format!("gs://b/runs/one: readable and writable as {account}");
    check(&run, &words, "");
    let left = fs::read_dir(root.path().join("b/runs/one")).unwrap();
    assert_eq!(left.count(), 0, "what it wrote is gone");
    let [data, run] = look(None, false, places);
    check(&data, "readable as nobody (none are wanted)", "");
    check(&run, "writable as nobody", "");

    // Read only; write and not delete; list and not read.
    let [data, run] = look(Some(("PUT", "", 403)), true, places);
    check(&data, "readable", "");
    let words = format!("as {account}: the server answered 403");
    check(&run, &words, "Storage Object User");
    check(&run, "cannot write gs://b/runs/one/doctor-", "User");
    let [_, run] = look(Some(("DELETE", "", 403)), true, places);
    check(&run, "cannot delete gs://b/runs/one/doctor-", "User");
    let [data, _] = look(Some(("GET", ".tfrecord", 403)), true, places);
    check(&data, "cannot read gs://b/sets/imagenet/", "Viewer");

    // Nothing at all.
    for (status, remedy) in [(403, "Storage Object Viewer"), (401, "gcloud auth")] {
        for found in look(Some(("", "/b", status)), true, places) {
            let words = format!("as {account}: the server answered {status}");
            check(&found, &words, remedy);
        }
    }
    let [data, run] = look(None, true, ["b/empty", "none/one"]);
    check(&data, "gs://b/empty holds nothing", "check the name");
    check(&run, "there is no such bucket", "check the name");
}
