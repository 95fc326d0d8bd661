//! Checkpoints, run folders and signals: what survives a full disk, `kill -9`, damage, and a second process.
//!
//! Some tests start this test binary again as a child process; [`child`] is what it then runs.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use simclr::error::Class;
use simclr::train::checkpoint::{self, Array, ArraySpec, Dtype, Error, Manifest};
use simclr::train::run_dir::{self, RunDir};
use simclr::train::signals::{Stop, StopKind};
use tempfile::tempdir;

// ---------------------------------------------------------------- helpers

fn manifest(step: u64) -> Manifest {
    Manifest {
        step,
        epoch: step as f64 / 39.0,
        data_position: step * 512,
        seed: u64::MAX - 1,
        module_hash: "00ff".to_owned(),
        compiled_hash: "ff00".to_owned(),
        config: identity(&[("resnet_depth", "18"), ("train_batch_size", "512")]),
        config_yaml: "resnet_depth: 18\ntext: \"ü\\n\"\n".to_owned(),
        class_names: vec!["ünder".to_owned(), "over".to_owned()],
    }
}

/// A small state that differs from step to step, so that no mixture of two passes for one.
fn state(step: u64) -> Vec<Array> {
    sized_state(step, 1024)
}

fn sized_state(step: u64, floats: usize) -> Vec<Array> {
    let array = |name: &str, dtype: Dtype, dims: &[usize], length: usize| Array {
        name: name.to_owned(),
        dtype,
        dims: dims.to_vec(),
        bytes: (0..length)
            .map(|i| (i as u64 * 31 + step * 7) as u8)
            .collect(),
    };
    vec![
        array(
            "encoder/conv/kernel",
            Dtype::F32,
            &[floats / 4, 4],
            floats * 4,
        ),
        array("encoder/conv/kernel/momentum", Dtype::BF16, &[3, 5], 30),
        array("step", Dtype::U32, &[], 4),
        array("empty", Dtype::F64, &[0, 7], 0),
    ]
}

fn specs(arrays: &[Array]) -> Vec<ArraySpec> {
    let spec = |array: &Array| ArraySpec {
        name: array.name.clone(),
        dtype: array.dtype,
        dims: array.dims.clone(),
    };
    arrays.iter().map(spec).collect()
}

fn identity(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
    pairs.iter().map(owned).collect()
}

fn save(dir: &Path, step: u64, keep: usize) -> PathBuf {
    checkpoint::save(dir, &manifest(step), &state(step), keep).unwrap()
}

#[track_caller]
fn check_whole(path: &Path, step: u64) {
    let (found, arrays) = checkpoint::load(path, &specs(&state(step))).unwrap();
    assert_eq!(found, manifest(step));
    assert_eq!(arrays, state(step));
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// All files below a folder with their content, to see that nothing has changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for path in names(dir).iter().map(|name| dir.join(name)) {
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

#[track_caller]
fn check_message(message: String, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains('\n'), "more than one line: {message}");
}

fn flip_last_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "`{from}` is not in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

// ---------------------------------------------------------------- child processes

const ROLE: &str = "SIMCLR_TEST_CHILD";
const FOLDER: &str = "SIMCLR_TEST_FOLDER";
/// Floats in the state of a child that saves: 1 MiB.
const CHILD_FLOATS: usize = 1 << 18;

/// A command that runs [`child`] in a role; `wrapper` is a shell text that ends by running `"$0" "$@"`.
fn child_command(wrapper: &str, role: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", wrapper])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a child and waits for its line `ready`.
fn start(role: &str, folder: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = child_command(r#"exec "$0" "$@""#, role, folder)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, "ready");
    (child, lines)
}

fn wait_for(lines: &mut impl BufRead, word: &str) {
    let mut all = String::new();
    while !all.contains(word) {
        let length = lines.read_line(&mut all).unwrap();
        assert!(length > 0, "the child ended before it said `{word}`: {all}");
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(status.unwrap().success());
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| panic!("ended by {status}"))
}

/// Not a test by itself: what a child process does. Does nothing in the test run proper.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    // No test waits for ever for a child that does not end, and none is left behind.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        std::process::exit(9);
    });
    let say = |text: &str| {
        println!("{text}");
        std::io::stdout().flush().unwrap();
    };
    match role.as_str() {
        "save-for-ever" => {
            let resumed = checkpoint::list(&folder).unwrap();
            let resumed = resumed.last().map_or(0, |(step, _)| *step);
            say("ready");
            for step in resumed + 1.. {
                let state = sized_state(step, CHILD_FLOATS);
                checkpoint::save(&folder, &manifest(step), &state, 2).unwrap();
                say("saved");
            }
        }
        "save-large" => {
            let saved = checkpoint::save(
                &folder,
                &manifest(20),
                &sized_state(20, 4 * CHILD_FLOATS),
                1,
            );
            let error = saved.expect_err("4 MiB do not fit");
            say(&format!("class {:?}: {error}", error.class()));
        }
        "hold" => {
            let _run = RunDir::open(&folder, &identity(&[("a", "1")]), "a: 1\n").unwrap();
            say("ready");
            // Until the parent goes away or kills this process.
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        "stop" => {
            let stop = Stop::listen().unwrap();
            stop.wait_for_save();
            assert_eq!(stop.requested(), None);
            say("ready");
            while stop.requested().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let kind = stop.requested().unwrap();
            say(&format!("{kind:?}"));
            // Saves for as long as the parent says.
            std::io::stdin().read_line(&mut String::new()).unwrap();
            std::process::exit(i32::from(kind.exit_code()));
        }
        other => panic!("no role {other}"),
    }
}

// ---------------------------------------------------------------- checkpoints

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("checkpoints");
    assert_eq!(
        checkpoint::latest(&dir).unwrap(),
        None,
        "no folder, no checkpoint"
    );
    let path = save(&dir, 120, 0);
    assert_eq!(path, dir.join("step-00000120"));
    assert_eq!(names(&path), ["manifest.json", "state.safetensors"]);
    assert_eq!(names(&dir), ["step-00000120"], "nothing is left beside");
    check_whole(&path, 120);
    assert_eq!(checkpoint::verify(&path).unwrap(), manifest(120));

    // In the order asked for, whatever the order in the file.
    let mut reversed = state(120);
    reversed.reverse();
    let (_, arrays) = checkpoint::load(&path, &specs(&reversed)).unwrap();
    assert_eq!(arrays, reversed);
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let (one, two) = (tempdir().unwrap(), tempdir().unwrap());
    let (one, two) = (save(one.path(), 7, 0), save(two.path(), 7, 0));
    for file in ["state.safetensors", "manifest.json"] {
        let (one, two) = (fs::read(one.join(file)), fs::read(two.join(file)));
        assert_eq!(one.unwrap(), two.unwrap(), "{file}");
    }
}

#[test]
fn epochs_of_all_kinds_of_digits_are_no_damage() {
    let folder = tempdir().unwrap();
    for step in 1..200 {
        let manifest = Manifest {
            epoch: step as f64 * 0.1 / 3.0,
            ..manifest(step)
        };
        let path = checkpoint::save(folder.path(), &manifest, &[], 1).unwrap();
        assert_eq!(checkpoint::verify(&path).unwrap(), manifest);
    }
}

#[test]
fn the_newest_ones_are_kept() {
    let folder = tempdir().unwrap();
    let dir = folder.path();
    for step in [5, 10, 15, 20] {
        save(dir, step, 2);
    }
    assert_eq!(names(dir), ["step-00000015", "step-00000020"]);
    for step in [25, 100_000_000] {
        save(dir, step, 0);
    }
    let list = checkpoint::list(dir).unwrap();
    let steps: Vec<u64> = list.iter().map(|(step, _)| *step).collect();
    assert_eq!(
        steps,
        [15, 20, 25, 100_000_000],
        "0 keeps all; sorted as numbers"
    );
    check_whole(&checkpoint::latest(dir).unwrap().unwrap(), 100_000_000);
}

#[test]
fn what_others_left_in_the_folder_is_not_ours() {
    let folder = tempdir().unwrap();
    let dir = folder.path();
    save(dir, 10, 1);
    for other in ["step-20", "step-00000030.aside-1", "step-x", "notes"] {
        fs::create_dir(dir.join(other)).unwrap();
    }
    // Of a process that was killed: swept.
    fs::create_dir(dir.join(".tmp-step-00000011")).unwrap();
    fs::write(dir.join(".tmp-step-00000011/state.safetensors"), "half").unwrap();
    save(dir, 11, 1);
    let left = [
        "notes",
        "step-00000011",
        "step-00000030.aside-1",
        "step-20",
        "step-x",
    ];
    assert_eq!(names(dir), left);
    check_whole(&checkpoint::latest(dir).unwrap().unwrap(), 11);
}

#[test]
fn saving_a_step_again_never_destroys_what_was_there() {
    let folder = tempdir().unwrap();
    let path = save(folder.path(), 10, 3);
    let before = contents(&path);
    save(folder.path(), 10, 3);
    assert_eq!(
        names(folder.path()),
        ["step-00000010"],
        "the same content stays"
    );
    assert_eq!(contents(&path), before);

    fs::write(path.join("state.safetensors"), "damaged").unwrap();
    save(folder.path(), 10, 1);
    check_whole(&path, 10);
    let aside = folder.path().join("step-00000010.aside-1");
    assert_eq!(
        fs::read(aside.join("state.safetensors")).unwrap(),
        b"damaged"
    );
}

/// Every kind of damage to a checkpoint is found, named, and leaves the disk as it was.
#[test]
fn damage_is_named_and_the_one_before_it_is_offered() {
    const STATE: &str = "state.safetensors";
    const MANIFEST: &str = "manifest.json";
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 8] = [
        (
            "a flipped bit",
            |p| flip_last_bit(&p.join(STATE)),
            "SHA-256",
        ),
        ("a cut state", |p| cut(&p.join(STATE)), "bytes, expected"),
        (
            "no state",
            |p| fs::remove_file(p.join(STATE)).unwrap(),
            "`state.safetensors` is missing",
        ),
        (
            "no manifest",
            |p| fs::remove_file(p.join(MANIFEST)).unwrap(),
            "`manifest.json` is missing",
        ),
        ("a cut manifest", |p| cut(&p.join(MANIFEST)), "not our JSON"),
        (
            "another position",
            |p| replace(&p.join(MANIFEST), "10240", "10241"),
            "differ",
        ),
        (
            "another seed",
            |p| replace(&p.join(MANIFEST), "18446744073709551614", "7"),
            "differ",
        ),
        (
            "another hash",
            |p| replace(&p.join(MANIFEST), r#""sha256": ""#, r#""sha256": "0"#),
            "SHA-256",
        ),
    ];
    for (name, damage, what) in cases {
        let folder = tempdir().unwrap();
        let dir = folder.path();
        let newest = [5, 10, 15, 20].map(|step| save(dir, step, 0))[3].clone();
        damage(&newest);
        // The one right before is damaged as well: the offer must be one that works.
        flip_last_bit(&dir.join("step-00000015/state.safetensors"));
        let before = contents(dir);

        let latest = checkpoint::latest(dir).unwrap().unwrap();
        assert_eq!(latest, newest, "{name}: not passed over in silence");
        let error = checkpoint::load(&latest, &specs(&state(20))).expect_err(name);
        assert_eq!(error.class(), Class::Check, "{name}");
        let offer = format!("--resume-from {}", dir.join("step-00000010").display());
        check_message(
            error.to_string(),
            &["step-00000020", "damaged", what, &offer],
        );
        assert_eq!(
            contents(dir),
            before,
            "{name}: nothing is deleted or changed"
        );

        // On the user's word the run goes on from there; the damaged ones step aside, unharmed.
        check_whole(&dir.join("step-00000010"), 10);
        assert_eq!(checkpoint::set_aside_after(dir, 10).unwrap().len(), 2);
        save(dir, 15, 1);
        save(dir, 20, 1);
        check_whole(&checkpoint::latest(dir).unwrap().unwrap(), 20);
        let left = [
            "step-00000015.aside-1",
            "step-00000020",
            "step-00000020.aside-1",
        ];
        assert_eq!(names(dir), left, "{name}");
    }
}

#[test]
fn damage_without_an_earlier_one_says_so() {
    let folder = tempdir().unwrap();
    let path = save(folder.path(), 5, 0);
    cut(&path.join("state.safetensors"));
    let error = checkpoint::verify(&path).unwrap_err();
    check_message(
        error.to_string(),
        &["step-00000005", "no whole one before it"],
    );
}

#[test]
fn foreign_folders_are_told_from_damaged_ones() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    for path in ["", "nowhere", "file"] {
        let error = checkpoint::verify(&folder.path().join(path)).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
        check_message(error.to_string(), &["is not a checkpoint", "manifest.json"]);
    }

    let path = save(folder.path(), 5, 0);
    let manifest = path.join("manifest.json");
    replace(
        &manifest,
        r#""format_version": 1"#,
        r#""format_version": 2"#,
    );
    let error = checkpoint::verify(&path).unwrap_err();
    assert_eq!(error.class(), Class::Check);
    check_message(error.to_string(), &["format version 2", "expected 1"]);
}

#[test]
fn tensors_of_another_network_are_all_listed() {
    let folder = tempdir().unwrap();
    let path = save(folder.path(), 5, 0);
    let mut expected = specs(&state(5));
    expected[0].dims = vec![3, 3];
    expected[1].dtype = Dtype::F32;
    expected[2].name = "steps".to_owned();
    let error = checkpoint::load(&path, &expected).unwrap_err();
    assert_eq!(error.class(), Class::Check);
    let first = "`encoder/conv/kernel` found f32[256,4], expected f32[3,3]";
    check_message(
        error.to_string(),
        &[first, "3 other tensors", "configuration"],
    );
    let Error::Mismatch { mismatches, .. } = error else {
        panic!("another error: {error}")
    };
    let lines: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines[1..],
        [
            "tensor `encoder/conv/kernel/momentum` found bf16[3,5], expected f32[3,5]",
            "tensor `steps` found nothing, expected u32[]",
            "tensor `step` found u32[], expected nothing",
        ]
    );
}

#[test]
fn arrays_that_make_no_state_are_refused_before_anything_is_written() {
    let folder = tempdir().unwrap();
    let refused = |arrays: &[Array], manifest: &Manifest, part: &str| {
        let error = checkpoint::save(folder.path(), manifest, arrays, 0).unwrap_err();
        assert_eq!(error.class(), Class::Failed);
        check_message(error.to_string(), &[part]);
        assert!(names(folder.path()).is_empty());
    };
    let mut short = state(1);
    short[0].bytes.pop();
    refused(&short, &manifest(1), "does not fit its shape");
    let twice = [state(1), state(1)].concat();
    refused(&twice, &manifest(1), "is there twice");
    let endless = Manifest {
        epoch: f64::NAN,
        ..manifest(1)
    };
    refused(&state(1), &endless, "NaN");
}

/// The child may write files of at most 1 MiB: the system refuses the rest, as a full disk does.
#[test]
fn a_refused_write_harms_no_earlier_checkpoint() {
    let folder = tempdir().unwrap();
    save(folder.path(), 10, 1);
    // Blocks of 512 bytes; with the signal ignored the write returns an error.
    let wrapper = r#"trap '' XFSZ; ulimit -f 2048; exec "$0" "$@""#;
    let output = child_command(wrapper, "save-large", folder.path())
        .output()
        .unwrap();
    check_full(&output, folder.path(), folder.path());
}

/// The same on a disk that is really full; needs a system that lets a user mount one in a namespace of his own.
#[test]
fn a_full_disk_harms_no_earlier_checkpoint() {
    let mounted = tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o size=3m tmpfs "$SIMCLR_TEST_FOLDER""#;
    let probe = Command::new("unshare")
        .args(["-Urm", "sh", "-c", mount])
        .env(FOLDER, mounted.path())
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED: a_full_disk_harms_no_earlier_checkpoint: no permission to mount a tmpfs"
        );
        return;
    }
    // Only the child sees the mount: its content comes from a folder outside and goes back there.
    let outside = tempdir().unwrap();
    save(outside.path(), 10, 1);
    let inner = format!(
        r#"{mount} && cp -r "$OUTSIDE"/. "$SIMCLR_TEST_FOLDER" && "$0" "$@"; code=$?
           rm -r "$OUTSIDE"/*; cp -r "$SIMCLR_TEST_FOLDER"/. "$OUTSIDE"; exit $code"#
    );
    let output = child_command(
        r#"exec unshare -Urm sh -c "$INNER" "$0" "$@""#,
        "save-large",
        mounted.path(),
    )
    .env("INNER", inner)
    .env("OUTSIDE", outside.path())
    .output()
    .unwrap();
    check_full(&output, outside.path(), mounted.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("No space left on device"), "{text}");
}

/// `dir`: what is on the disk now. `named`: the folder that the child was given.
#[track_caller]
fn check_full(output: &Output, dir: &Path, named: &Path) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let line = text.lines().find(|line| line.contains("class ")).unwrap();
    let path = named.join(".tmp-step-00000020/state.safetensors");
    let path = path.display().to_string();
    let parts = [
        "class Environment",
        &path,
        "free some space",
        "earlier checkpoints are untouched",
    ];
    check_message(line.to_owned(), &parts);
    assert_eq!(
        names(dir),
        ["step-00000010"],
        "only the unfinished folder is gone"
    );
    check_whole(&dir.join("step-00000010"), 10);
}

/// A process that saves without pause is killed at many moments; what is found afterwards is always whole.
#[test]
fn a_killed_process_leaves_whole_checkpoints() {
    let folder = tempdir().unwrap();
    let dir = folder.path();
    let (mut rounds, mut unfinished) = (0, 0);
    // Until some were killed in the middle of a save, however fast this machine is.
    while rounds < 24 || unfinished < 4 {
        assert!(
            rounds < 400,
            "only {unfinished} processes were killed while they saved"
        );
        let (mut child, mut lines) = start("save-for-ever", dir);
        wait_for(&mut lines, "saved");
        // Any moment is a good one; the result must hold for all of them.
        std::thread::sleep(Duration::from_micros(617 * (rounds % 16)));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = checkpoint::list(dir).unwrap();
        assert!(!found.is_empty(), "the first save was complete");
        assert!(
            found.len() <= 3,
            "two are kept, one may be on its way out: {found:?}"
        );
        for (step, path) in found {
            let expected = sized_state(step, CHILD_FLOATS);
            let (found, arrays) = checkpoint::load(&path, &specs(&expected)).unwrap();
            assert_eq!(found, manifest(step));
            assert!(arrays == expected, "step {step} holds another state");
        }
        unfinished += usize::from(names(dir).iter().any(|name| name.starts_with(".tmp-")));
        rounds += 1;
    }
}

// ---------------------------------------------------------------- run folders

fn pairs() -> Vec<(String, String)> {
    identity(&[("resnet_depth", "18"), ("temperature", "0.5")])
}

#[test]
fn a_new_folder_becomes_a_run_and_opens_again() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs/one");
    let run = RunDir::open(&path, &pairs(), "resnet_depth: 18\n").unwrap();
    assert!(run.is_new());
    let config = || fs::read_to_string(path.join("config.yaml")).unwrap();
    assert_eq!(config(), "resnet_depth: 18\n");
    assert_eq!(names(&path), ["config.yaml", "lock", "run.json"]);
    drop(run);
    // What does not decide the training may change.
    let run = RunDir::open(&path, &pairs(), "plugin: other\n").unwrap();
    assert!(!run.is_new());
    assert_eq!(config(), "plugin: other\n");
    assert_eq!(run.checkpoints(), path.join("checkpoints"));
}

#[test]
fn an_empty_folder_and_what_an_early_death_leaves_are_welcome() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("lock"), "").unwrap();
    fs::write(folder.path().join(".tmp-run.json"), "{").unwrap();
    assert!(RunDir::open(folder.path(), &pairs(), "").unwrap().is_new());
}

#[test]
fn a_folder_with_other_things_is_refused_and_untouched() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("thesis.tex");
    fs::write(&file, "years").unwrap();
    let error = RunDir::open(folder.path(), &pairs(), "").unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    let parts = [
        "`model_dir`",
        "holds `thesis.tex`",
        "choose another `model_dir`",
    ];
    check_message(error.to_string(), &parts);
    assert_eq!(names(folder.path()), ["thesis.tex"]);

    let error = RunDir::open(&file, &pairs(), "").unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    check_message(error.to_string(), &["is not a folder"]);
    let error = RunDir::open(&file.join("below"), &pairs(), "").unwrap_err();
    assert_eq!(error.class(), Class::Usage);
}

#[test]
fn another_configuration_is_refused_with_every_key_that_differs() {
    let folder = tempdir().unwrap();
    let open = |pairs: &[(&str, &str)]| RunDir::open(folder.path(), &identity(pairs), "two");
    drop(RunDir::open(folder.path(), &pairs(), "one").unwrap());
    let error = open(&[
        ("resnet_depth", "50"),
        ("temperature", "0.5"),
        ("width", "2"),
    ])
    .unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    let (depth, width) = (
        "`resnet_depth` found `18`, expected `50`",
        "`width` found nothing, expected `2`",
    );
    check_message(
        error.to_string(),
        &[depth, width, "another `model_dir`", "delete"],
    );
    assert!(!error.to_string().contains("temperature"));
    let error = open(&[("resnet_depth", "18")]).unwrap_err();
    check_message(
        error.to_string(),
        &["`temperature` found `0.5`, expected nothing"],
    );
    let config = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    assert_eq!(config, "one", "a refused start writes nothing");
    // A refusal does not keep the lock.
    RunDir::open(folder.path(), &pairs(), "one").unwrap();
}

#[test]
fn a_damaged_marker_is_named() {
    let folder = tempdir().unwrap();
    let cases = [
        ("{", "not our JSON"),
        (r#"{"format_version": 9, "config": []}"#, "format version 9"),
    ];
    for (text, part) in cases {
        fs::write(folder.path().join("run.json"), text).unwrap();
        let error = RunDir::open(folder.path(), &pairs(), "").unwrap_err();
        assert_eq!(error.class(), Class::Check);
        check_message(error.to_string(), &["run.json", part]);
    }
}

#[test]
fn one_process_at_a_time_and_a_killed_one_lets_go() {
    let folder = tempdir().unwrap();
    let open = || RunDir::open(folder.path(), &identity(&[("a", "1")]), "");
    let (mut child, _lines) = start("hold", folder.path());
    let error = open().unwrap_err();
    assert_eq!(error.class(), Class::Environment);
    let pid = format!("in use by process {}", child.id());
    check_message(error.to_string(), &["`model_dir`", &pid, "choose another"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let run = open().unwrap();
    assert!(!run.is_new());
    // Within one process as well.
    let own = std::process::id();
    let error = open().unwrap_err();
    assert!(matches!(error, run_dir::Error::InUse { by, .. } if by == format!("process {own}")));
    drop(run);
    open().unwrap();
}

/// A child process that is just being started holds copies of all open files, the lock's among them.
#[test]
fn letting_go_takes_effect_whatever_processes_are_being_started() {
    let folder = tempdir().unwrap();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            for _ in 0..300 {
                let status = Command::new("true").status();
                assert!(status.unwrap().success());
            }
        });
        while !starting.is_finished() {
            drop(RunDir::open(folder.path(), &pairs(), "").unwrap());
        }
    });
}

#[test]
fn a_folder_without_permission_is_an_error_of_the_environment() {
    let folder = tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    // The superuser may write everywhere but to the kernel's own folders.
    let parent = match fs::write(closed.join("probe"), "") {
        Ok(()) => PathBuf::from("/sys"),
        Err(_) => closed,
    };
    let path = parent.join("run");
    let error = RunDir::open(&path, &pairs(), "").unwrap_err();
    assert_eq!(error.class(), Class::Environment);
    check_message(
        error.to_string(),
        &["cannot create", &path.display().to_string()],
    );
    let error = checkpoint::save(&path, &manifest(1), &state(1), 0).unwrap_err();
    assert_eq!(error.class(), Class::Environment);
}

// ---------------------------------------------------------------- signals

#[test]
fn ctrl_c_and_sigterm_are_flags_with_their_exit_codes() {
    let folder = tempdir().unwrap();
    for (name, kind, code) in [("INT", "Interrupt", 130), ("TERM", "Terminate", 75)] {
        let (mut child, mut lines) = start("stop", folder.path());
        signal(&child, name);
        wait_for(&mut lines, kind);
        if name == "TERM" {
            // A supervisor repeats itself: the run still saves and ends in order.
            signal(&child, name);
        }
        writeln!(child.stdin.take().unwrap()).unwrap();
        assert_eq!(code_of(child.wait().unwrap()), code);
    }
}

#[test]
fn a_second_ctrl_c_ends_the_process_at_once() {
    let folder = tempdir().unwrap();
    let (mut child, mut lines) = start("stop", folder.path());
    signal(&child, "INT");
    wait_for(&mut lines, "Interrupt");
    // The child now waits for a line that never comes: `wait` alone would close its input.
    let _open = child.stdin.take();
    signal(&child, "INT");
    assert_eq!(code_of(child.wait().unwrap()), 130);
}

#[test]
fn a_stop_can_be_asked_for_without_a_signal() {
    let stop = Stop::default();
    assert_eq!(stop.requested(), None);
    stop.clone().request(StopKind::Terminate);
    assert_eq!(stop.requested(), Some(StopKind::Terminate));
    stop.request(StopKind::Interrupt);
    assert_eq!(
        stop.requested(),
        Some(StopKind::Interrupt),
        "the person's wish goes first"
    );
}
