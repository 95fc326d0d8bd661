//! Two machines in one run folder of a bucket: which of them writes.

use super::*;

/// The name that another machine's process writes to a run folder.
const OTHER: &str = r#"{"machine":"elsewhere","process":7,"began":5}"#;

/// Whether it is the first writing of a file of a run.
fn first(request: &Request, file: &str) -> bool {
    request.method == "PUT" && request.again == 0 && request.path.ends_with(file)
}

/// Two machines in one folder: the one that entered last goes on, the other stops, whether it finds out before it sends or before the
/// manifest. Whoever begins then is told of that machine.
#[test]
fn the_last_that_entered_writes() {
    let met = Arc::new(AtomicU64::new(2));
    let (root, server, disk) = root(&|root| {
        let (met, name) = (met.clone(), root.join("b/run/writer.json"));
        Gcs::start(root, move |request| {
            let enters = match met.load(Ordering::Relaxed) {
                // Seen by what is sent before step 4, and after the state of step 6.
                2 => first(request, "step-00000002/manifest.json"),
                6 => first(request, "step-00000006/state.safetensors"),
                _ => false,
            };
            if enters {
                fs::write(&name, OTHER).unwrap();
            }
            Fault::None
        })
    });
    let far = root.path().join("b/run");
    let words = [
        "`gs://b/run`",
        "process 7 on `elsewhere`",
        "stop that process",
    ];
    let stops = |before: &str, whole: &[&str]| {
        let output = train(&server, "gs://b/run", &[]);
        refused(&output, 3, &words);
        let text = stderr(&output);
        assert!(!text.contains("resume-from"), "{text}");
        assert!(text.contains(before), "{text}");
        let steps = names_below(&far.join("checkpoints"));
        let manifest = |step: &String| far.join("checkpoints").join(step).join("manifest.json");
        let found: Vec<_> = steps
            .iter()
            .filter(|step| manifest(step).exists())
            .collect();
        assert_eq!(found, whole);
        assert_eq!(fs::read_to_string(far.join("writer.json")).unwrap(), OTHER);
    };
    stops("compiling", &["step-00000002"]);
    let log = fs::read_to_string(far.join("log.txt")).unwrap();
    assert!(
        !log.contains("elsewhere"),
        "written by the one that stopped: {log}"
    );
    met.store(6, Ordering::Relaxed);
    let told = "process 7 on `elsewhere` (begun 00:00:00 UTC) wrote to gs://b/run before";
    stops(told, &["step-00000002", "step-00000004"]);

    met.store(0, Ordering::Relaxed);
    let output = train(&server, "gs://b/run", &[]);
    let text = stderr(&output);
    succeeded(output);
    assert!(
        text.contains(told) && text.contains("resuming at step 4"),
        "{text}"
    );
    same(&far, &disk);
    // One's own name, of an earlier start, is nothing to tell.
    let text = stderr(&train(&server, "gs://b/run", &[]));
    assert!(!text.contains("wrote to"), "{text}");
}

/// A machine that hangs while it saves, is given up, and comes back when another has done the rest: what that wrote stays.
#[test]
fn one_that_was_taken_for_dead_stops() {
    let (came, hangs) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(true)),
    );
    let (root, server, disk) = root(&|root| {
        let (came, hangs) = (came.clone(), hangs.clone());
        Gcs::start(root, move |request| {
            while of_step_4(request, "state.safetensors") && hangs.load(Ordering::Relaxed) {
                came.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
            Fault::None
        })
    });
    let far = root.path().join("b/run");
    let first = program(&server, &[])
        .args(tiny(Path::new("gs://b/run"), &KEYS))
        .env("SIMCLR_GS_ATTEMPTS", "30")
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while !came.load(Ordering::Relaxed) {
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "it never came so far"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let other = Gcs::start(root.path(), |_| Fault::None);
    let output = train(&other, "gs://b/run", &[]);
    let text = stderr(&output);
    succeeded(output);
    assert!(text.contains("resuming at step 2"), "{text}");
    hangs.store(false, Ordering::Relaxed);
    let output = first.wait_with_output().unwrap();
    refused(
        &output,
        3,
        &["`gs://b/run` names process", "stop that process"],
    );
    same(&far, &disk);
    let log = fs::read_to_string(far.join("log.txt")).unwrap();
    assert!(log.contains("pretrained 4 steps"), "{log}");
}

/// A start gives way to a run that makes checkpoints meanwhile, and leaves its name; so does one that is refused before its first step.
#[test]
fn a_start_beside_a_living_run_gives_way() {
    let (root, server, _) = root(&|root| {
        let name = root.join("b/run/writer.json");
        Gcs::start(root, move |request| {
            if first(request, "step-00000002/manifest.json") {
                fs::write(&name, OTHER).unwrap();
            }
            Fault::None
        })
    });
    let far = root.path().join("b/run");
    refused(&train(&server, "gs://b/run", &[]), 3, &["elsewhere"]);
    let files = ["writer.json", "config.yaml", "metrics.jsonl", "log.txt"];
    let content = || files.map(|file| fs::read_to_string(far.join(file)).unwrap());

    // Refused before its first step, it leaves but a line in the log, and not even that where somebody has written to it meanwhile.
    let nowhere = [
        "keep_checkpoint_max=3",
        "--resume-from",
        "gs://b/run/checkpoints/step-00000001",
    ];
    let before = content();
    refused(
        &train(&server, "gs://b/run", &nowhere),
        2,
        &["step-00000001"],
    );
    let after = content();
    assert_eq!(after[..3], before[..3]);
    refused(
        &train(&server, "gs://b/run", &nowhere),
        2,
        &["step-00000001"],
    );
    let lines = |text: &str| text.matches(" ERROR ").count();
    let twice = lines(&before[3]) + 2;
    assert_eq!(lines(&content()[3]), twice, "{}", content()[3]);
    let log = far.join("log.txt");
    let written = Gcs::start(root.path(), move |request| {
        if request.path.contains("step-00000001") {
            fs::write(&log, "of the one that lives").unwrap();
        }
        Fault::None
    });
    refused(
        &train(&written, "gs://b/run", &nowhere),
        2,
        &["step-00000001"],
    );
    assert_eq!(content()[3], "of the one that lives");

    // A checkpoint comes when the start has read what it goes on from.
    let comes = far.join("checkpoints/step-00000004");
    let at = comes.clone();
    let living = Gcs::start(root.path(), move |request| {
        let read = request.path.ends_with("step-00000002/state.safetensors");
        if request.method == "GET" && read && request.again == 0 {
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("manifest.json"), "{}").unwrap();
        }
        Fault::None
    });
    let before = content();
    let output = train(&living, "gs://b/run", &["keep_checkpoint_max=3"]);
    let words = "`gs://b/run` is in use by process 7 on `elsewhere`";
    refused(&output, 3, &[words, "a checkpoint has appeared"]);
    assert_eq!(stderr(&output).matches(words).count(), 1);
    assert_eq!(content(), before);
    assert_eq!(names_below(&comes), ["manifest.json"]);
    // Of its curves nothing is left for the next start. That deletes what is half-written, but not of later steps: another may be at it.
    fs::remove_dir_all(&comes).unwrap();
    let half = |step: u64| checkpoint(&far, step).join("state.safetensors");
    for step in [1, 9] {
        fs::create_dir_all(half(step).parent().unwrap()).unwrap();
        fs::write(half(step), "a part").unwrap();
    }
    let events = || {
        let names = names_below(&far).into_iter();
        names.filter(|name| name.starts_with("events.")).count()
    };
    let curves = events();
    succeeded(train(&living, "gs://b/run", &[]));
    assert_eq!(events(), curves + 1);
    assert_eq!([1, 9].map(|step| half(step).exists()), [false, true]);
}

/// Where nobody's name is left, the state is kept.
#[test]
fn a_name_that_is_gone_costs_nothing() {
    let (root, server, _) = root(&|root| {
        let name = root.join("b/run/writer.json");
        Gcs::start(root, move |request| {
            if first(request, "step-00000002/manifest.json") {
                fs::remove_file(&name).unwrap();
            }
            Fault::None
        })
    });
    let output = train(&server, "gs://b/run", &[]);
    let words = [
        "gs://b/run/writer.json` is gone",
        "the state of step 4 is kept",
    ];
    refused(&output, 3, &words);
    assert_eq!(
        names_below(&root.path().join("b/run/checkpoints")),
        ["step-00000002"]
    );
}
