//! Checkpoints and the run folder.

use super::*;

/// What does not go on with a run is told the path to give, not a flag that it does not have.
#[test]
fn whoever_opens_a_damaged_checkpoint_is_told_the_path_of_the_one_before_it() {
    let (folder, path) = copy_of_finished();
    fs::write(checkpoint(&path, 4).join("state.safetensors"), "").unwrap();
    let run_folder = path.display().to_string();
    let out = folder.path().join("out").display().to_string();
    let page = format!("{out}.html");
    let mut finetune = tiny(&folder.path().join("tuned"), &["train_steps=1"]);
    finetune[0] = "finetune".into();
    finetune.push(format!("checkpoint={run_folder}"));
    let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    let commands: [Vec<String>; 7] = [
        finetune,
        words(&["evaluate", &run_folder]),
        words(&["embed", &run_folder, "Cargo.toml", "-o", "x.npy"]),
        words(&["predict", &run_folder, "Cargo.toml"]),
        words(&["report", &run_folder, "-o", &page]),
        words(&["export", &run_folder, &out, "--format", "safetensors"]),
        words(&["inspect", &run_folder]),
    ];
    let before = checkpoint(&path, 2).display().to_string();
    let remedy = format!("give the one before it instead, `{before}`");
    for command in commands {
        let output = run(&command);
        refused(&output, 4, &["step-00000004` is damaged", &remedy]);
        let text = binary::stderr(&output);
        assert!(!text.contains("--resume-from"), "{command:?}: {text}");
    }
    let export = words(&["export", &before, &out, "--format", "safetensors"]);
    assert!(run(&export).status.success());
    fs::write(checkpoint(&path, 2).join("state.safetensors"), "").unwrap();
    let output = run(&words(&["evaluate", &run_folder]));
    refused(&output, 4, &["no whole one before it", "give another run"]);
}

#[test]
fn a_damaged_checkpoint_is_named_with_the_one_before_it() {
    let (_folder, path) = copy_of_finished();
    let state = checkpoint(&path, 4).join("state.safetensors");
    let mut bytes = fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&state, bytes).unwrap();
    let before = fs::read(checkpoint(&path, 2).join("state.safetensors")).unwrap();
    let output = run(&tiny(&path, &LONGER));
    refused(
        &output,
        4,
        &["step-00000004", "step-00000002", "--resume-from"],
    );
    assert_eq!(
        fs::read(checkpoint(&path, 2).join("state.safetensors")).unwrap(),
        before
    );
    // And the way it names works.
    let mut arguments = tiny(&path, &LONGER);
    arguments.extend([
        "--resume-from".into(),
        checkpoint(&path, 2).display().to_string(),
    ]);
    let output = run(&arguments);
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn a_foreign_checkpoint_is_refused() {
    let folder = folder();
    let other = folder.path().join("other");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("state.safetensors"), "nothing").unwrap();
    let mut arguments = tiny(&folder.path().join("run"), &LONGER);
    arguments.extend(["--resume-from".into(), other.display().to_string()]);
    refused(
        &run(&arguments),
        2,
        &[&other.display().to_string(), "not a checkpoint"],
    );
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let folder = folder();
    let mut arguments = tiny(
        &folder.path().join("run"),
        &["train_steps=4", "width_multiplier=0.25"],
    );
    arguments.extend([
        "--resume-from".into(),
        checkpoint(finished(), 4).display().to_string(),
    ]);
    refused(
        &run(&arguments),
        4,
        &["base_model/conv2d/kernel", "expected"],
    );
}

#[test]
fn a_checkpoint_of_another_depth_is_refused() {
    let folder = folder();
    let mut arguments = tiny(
        &folder.path().join("run"),
        &["train_steps=4", "resnet_depth=18"],
    );
    let from = checkpoint(finished(), 4);
    arguments.extend(["--resume-from".into(), from.display().to_string()]);
    let words = [
        "does not fit this network",
        "`base_model/conv2d_4/kernel` found f32[1,1,8,16], expected f32[3,3,8,8]",
        "other tensors differ",
    ];
    refused(&run(&arguments), 4, &words);
}

/// The hashes are right; it is a name that does not fit.
#[test]
fn a_checkpoint_with_a_renamed_tensor_is_refused() {
    let (_folder, path) = copy_of_finished();
    let (manifest, arrays) = arrays(&checkpoint(&path, 4)).expect("the checkpoint");
    let mut arrays: Vec<Array> = arrays.into_values().collect();
    let kernel = arrays
        .iter_mut()
        .find(|array| array.name == "base_model/conv2d/kernel")
        .expect("the first kernel");
    kernel.name = "base_model/conv2d/weight".into();
    fs::remove_dir_all(checkpoint(&path, 4)).unwrap();
    let renamed = save(&path.join("checkpoints"), &manifest, &arrays, 9).expect("a checkpoint");
    let state = renamed.join("state.safetensors");
    let before = fs::read(&state).unwrap();
    let words = [
        "step-00000004",
        "`base_model/conv2d/kernel` found nothing, expected f32[",
        "1 other tensor differs",
    ];
    refused(&run(&tiny(&path, &LONGER)), 4, &words);
    assert_eq!(fs::read(&state).unwrap(), before);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (_folder, path) = copy_of_finished();
    let before = fs::read(checkpoint(&path, 4).join("state.safetensors")).unwrap();
    let folder = folder();
    let other = folder.path().join("run");
    let mut arguments = tiny(&other, &["train_steps=8", "runtime.seed=9"]);
    arguments.extend([
        "--resume-from".into(),
        checkpoint(&path, 2).display().to_string(),
    ]);
    let words = ["step-00000002", "another configuration", "`runtime.seed`"];
    refused(&run(&arguments), 4, &words);
    // Under the number of another step, too.
    fs::rename(checkpoint(&path, 4), checkpoint(&path, 6)).unwrap();
    let words = ["step-00000006", "damaged", "step-00000004"];
    refused(&run(&tiny(&path, &LONGER)), 4, &words);
    let after = fs::read(checkpoint(&path, 6).join("state.safetensors")).unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_file_among_the_checkpoints_is_none() {
    let (_folder, path) = copy_of_finished();
    fs::write(checkpoint(&path, 7), "a stray file").unwrap();
    let output = run(&tiny(&path, &LONGER));
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("all 4 steps are done"), "{said}");
}

#[test]
fn a_run_folder_of_another_configuration_is_refused() {
    let (_folder, path) = copy_of_finished();
    let output = run(&tiny(
        &path,
        &["train_steps=4", "checkpoint_steps=2", "temperature=0.7"],
    ));
    refused(&output, 2, &["`temperature`", "0.1", "0.7", "model_dir"]);
}

/// As after pictures were changed: the hash is no key that anybody could set back.
#[test]
fn changed_files_of_a_set_are_told_as_such() {
    let (_folder, path) = copy_of_finished();
    let file = path.join("run.json");
    let mut marker: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let pairs = marker["config"].as_array_mut().unwrap();
    let hash = pairs.iter_mut().find(|pair| pair[0] == "data").unwrap();
    hash[1] = "87f58bed".into();
    fs::write(&file, marker.to_string()).unwrap();
    let output = run(&tiny(&path, &LONGER));
    let words = [
        "a run on other data: the files of `data_dir`",
        "have changed since it began",
        "`87f58bed`",
        "bring back the files",
    ];
    refused(&output, 2, &words);
    let said = binary::stderr(&output);
    assert!(!said.contains("configuration"), "{said}");
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("thesis.tex"), "words").unwrap();
    refused(
        &run(&tiny(folder.path(), &[])),
        2,
        &["model_dir", "thesis.tex"],
    );
}

#[test]
fn a_run_folder_in_use_is_refused() {
    let (_folder, path) = copy_of_finished();
    let lock = fs::File::options()
        .read(true)
        .write(true)
        .open(path.join("lock"))
        .unwrap();
    lock.lock().unwrap();
    refused(&run(&tiny(&path, &LONGER)), 3, &["model_dir", "in use"]);
}

#[test]
fn a_full_disk_harms_no_checkpoint() {
    let folder = folder();
    let path = folder.path().join("run");
    let first = run(&tiny(
        &path,
        &[
            "train_steps=6",
            "checkpoint_steps=2",
            "keep_checkpoint_max=0",
        ],
    ));
    assert!(first.status.success(), "{}", binary::stderr(&first));
    fs::remove_dir_all(checkpoint(&path, 6)).unwrap();
    let state = checkpoint(&path, 4).join("state.safetensors");
    let before = fs::read(&state).unwrap();
    // Files may not grow past 256 KiB: the disk is full for the next checkpoint, but not for a line of metrics.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_simclr")])
        .args(tiny(
            &path,
            &[
                "train_steps=6",
                "checkpoint_steps=2",
                "keep_checkpoint_max=0",
            ],
        ))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    refused(&output, 3, &["step-00000006"]);
    assert_eq!(fs::read(&state).unwrap(), before);
    assert!(!checkpoint(&path, 6).exists());
    let left: Vec<_> = fs::read_dir(path.join("checkpoints")).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

const EXPLODING: [&str; 3] = ["optimizer=momentum", "learning_rate=1e9", "runtime.seed=5"];

#[test]
fn a_loss_that_is_no_number_names_step_and_seed() {
    let words = ["not a number", "step ", "seed 5", "learning_rate"];
    let more = [&EXPLODING[..], &["train_steps=40"]].concat();
    refused_tiny(&more, 1, &words);
}

/// The arguments of a run that, with a high rate, learns too fast after some good steps.
fn too_fast(model_dir: &Path, more: &[&str]) -> Vec<String> {
    let keys = ["train_steps=12", "train_summary_steps=4", "runtime.seed=5"];
    tiny(model_dir, &[&keys[..], more].concat())
}

/// The run folder that such a run leaves, and the step at which it ended.
fn failed(folder: &Path) -> (PathBuf, u64) {
    let path = folder.join("run");
    let output = run(&too_fast(&path, &["learning_rate=1e6"]));
    refused(
        &output,
        1,
        &["the loss is not a number", "from the beginning"],
    );
    let said = binary::stderr(&output);
    let (_, step) = said.rsplit_once(" at step ").unwrap();
    let step = step.split(' ').next().unwrap().parse().unwrap();
    (path, step)
}

#[test]
fn after_a_loss_that_is_no_number_a_corrected_command_begins_anew() {
    let folder = folder();
    let (path, step) = failed(folder.path());
    // The good steps are told, those after the last whole window too.
    let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, [4, step - 1]);
    let good = |row: &Scalars| row.get("train/contrast_loss").is_some_and(f64::is_finite);
    assert!(rows.iter().all(good), "{rows:?}");

    // A command that is refused itself takes nothing over.
    let left = |name: &str| fs::read(path.join(name)).unwrap();
    let (curves, marker) = (left("metrics.jsonl"), left("run.json"));
    let wrong = ["learning_rate=0.1", "checkpoint=/no/such/run"];
    refused(&run(&too_fast(&path, &wrong)), 2, &["/no/such/run"]);
    assert!(left("metrics.jsonl") == curves && left("run.json") == marker);

    let output = run(&too_fast(&path, &["learning_rate=0.1"]));
    let said = binary::stderr(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(left("metrics-before.jsonl"), curves);
    let line = said.lines().find(|line| line.contains("begins anew"));
    let line = line.unwrap_or_else(|| panic!("no word of it in {said}"));
    assert!(
        line.contains("`learning_rate` found `1000000.0`, expected `0.1`"),
        "{line}"
    );
    let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row.step).collect();
    assert_eq!(steps, [4, 8, 12]);
    let events = names(&path);
    let events = events.iter().filter(|name| name.contains("tfevents"));
    assert_eq!(events.count(), 1);
    let config = fs::read_to_string(path.join("config.yaml")).unwrap();
    assert!(config.contains("learning_rate: 0.1 "), "{config}");
    // The log tells of both.
    let log = fs::read_to_string(path.join("log.txt")).unwrap();
    assert!(log.contains("is not a number") && log.contains("begins anew"));

    // Now something was learned.
    let other = run(&too_fast(&path, &["learning_rate=0.2"]));
    refused(&other, 2, &["another configuration", "`learning_rate`"]);
}

#[test]
fn a_run_folder_in_which_anything_was_learned_is_not_taken_over() {
    let folder = folder();
    let (path, _) = failed(folder.path());
    let before = names(&path);
    let metrics = fs::read(path.join("metrics.jsonl")).unwrap();
    let other = || run(&too_fast(&path, &["learning_rate=0.1"]));
    for (what, put) in [
        ("checkpoints/step-00000002", "manifest.json"),
        ("checkpoints/step-00000002.aside-1", "manifest.json"),
        ("checkpoints/.tmp-step-00000002", "state.safetensors"),
        ("eval", "metrics.jsonl"),
        (".", "resumed-from"),
        (".", "notes.txt"),
    ] {
        fs::create_dir_all(path.join(what)).unwrap();
        fs::write(path.join(what).join(put), "x").unwrap();
        refused(&other(), 2, &["another configuration", "`learning_rate`"]);
        assert!(path.join(what).join(put).exists(), "{what}");
        assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), metrics);
        fs::remove_dir_all(path.join("checkpoints")).ok();
        fs::remove_dir_all(path.join("eval")).ok();
        fs::remove_file(path.join(what).join(put)).ok();
    }
    assert_eq!(names(&path), before);
    // Nor one that has curves but no log, which may be all that was kept of a run.
    let log = fs::read(path.join("log.txt")).unwrap();
    fs::remove_file(path.join("log.txt")).unwrap();
    refused(&other(), 2, &["another configuration", "`learning_rate`"]);
    assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), metrics);
    fs::write(path.join("log.txt"), log).unwrap();

    // Nor one whose checkpoints were deleted: its curves are what is left of it.
    let path = folder.path().join("learned");
    let output = run(&too_fast(&path, &[]));
    assert!(output.status.success(), "{}", binary::stderr(&output));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    let other = run(&too_fast(&path, &["learning_rate=0.1"]));
    refused(&other, 2, &["another configuration"]);
    assert_eq!(metrics::read(&path.join("metrics.jsonl")).unwrap().len(), 3);
}

/// They may lie on a disk that is not mounted; what is left of the run, its curves, is kept too.
#[test]
fn a_run_whose_checkpoints_are_gone_does_not_begin_anew() {
    let (folder, path) = copy_of_finished();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(path.join("checkpoints"), &elsewhere).unwrap();
    let words = ["no checkpoint of", "come to step 4", "mounted", "anew"];
    let gone = || {
        let left = names(&path);
        refused(&run(&tiny(&path, &LONGER)), 4, &words);
        assert_eq!(names(&path), left);
        let rows = metrics::read(&path.join("metrics.jsonl")).unwrap();
        assert_eq!(rows.last().map(|row| row.step), Some(4));
    };
    gone();
    fs::create_dir(path.join("checkpoints")).unwrap();
    gone();
    fs::remove_dir(path.join("checkpoints")).unwrap();
    std::os::unix::fs::symlink("/not/mounted", path.join("checkpoints")).unwrap();
    gone();
    // Mounted again, or from a copy, it goes on.
    fs::remove_file(path.join("checkpoints")).unwrap();
    let mut from_copy = tiny(&path, &LONGER);
    let copy = elsewhere.join("step-00000002").display().to_string();
    from_copy.extend(["--resume-from".into(), copy]);
    let output = run(&from_copy);
    assert!(output.status.success(), "{}", binary::stderr(&output));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, path.join("checkpoints")).unwrap();
    let output = run(&tiny(&path, &LONGER));
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn metrics_that_end_before_the_checkpoint_are_told() {
    let folder = folder();
    let path = folder.path().join("run");
    let every = ["train_summary_steps=2", "checkpoint_steps=5"];
    let begun = |steps: &str| {
        let output = run(&tiny(&path, &[&every[..], &[steps]].concat()));
        assert!(output.status.success(), "{}", binary::stderr(&output));
        binary::stderr(&output)
    };
    begun("train_steps=10");
    // All is there.
    assert!(!begun("train_steps=10").contains("lost"));
    let file = path.join("metrics.jsonl");
    let whole = fs::read_to_string(&file).unwrap();
    let four: String = whole.split_inclusive('\n').take(2).collect();
    fs::write(&file, four).unwrap();
    let said = begun("train_steps=10");
    let line = said.lines().find(|line| line.contains("lost"));
    let line = line.unwrap_or_else(|| panic!("no word of it in {said}"));
    assert!(line.contains("no line after step 4"), "{line}");
    assert!(line.contains("metrics.jsonl"), "{line}");
    fs::remove_file(&file).unwrap();
    assert!(begun("train_steps=10").contains("no line after step 0"));
    // Of the step after which a run stopped there need be no line.
    let last = checkpoint(&path, 10);
    fs::remove_dir_all(&last).unwrap();
    let four: String = whole.split_inclusive('\n').take(2).collect();
    fs::write(&file, four).unwrap();
    assert!(!begun("train_steps=10").contains("lost"));
}

/// From its last checkpoint a run goes on only in the configuration that failed; another run takes its weights.
#[test]
fn after_a_checkpoint_the_remedy_is_a_new_run_from_its_weights() {
    let folder = folder();
    let path = folder.path().join("run");
    let failing = ["learning_rate=1e6", "checkpoint_steps=2"];
    let output = run(&too_fast(&path, &failing));
    refused(&output, 1, &["another model_dir", "checkpoint="]);
    let said = binary::stderr(&output);
    let from = said
        .split_whitespace()
        .find(|word| word.starts_with("checkpoint="));
    let more = [from.unwrap(), "learning_rate=0.1"];
    let output = run(&too_fast(&folder.path().join("next"), &more));
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

#[test]
fn a_state_with_no_numbers_is_not_saved() {
    let folder = folder();
    let path = folder.path().join("run");
    let more = [&EXPLODING[..], &["train_steps=40", "checkpoint_steps=1"]].concat();
    let output = run(&tiny(&path, &more));
    refused(&output, 1, &["not a number", "seed 5"]);
    // What is offered to go on from is there, and good.
    let named = checkpoint(&path, 1);
    assert!(
        binary::stderr(&output).contains(&named.display().to_string()),
        "{}",
        binary::stderr(&output)
    );
    let log = fs::read_to_string(path.join("log.txt")).unwrap();
    assert!(log.contains("not a number"), "{log}");
    for entry in fs::read_dir(path.join("checkpoints")).unwrap() {
        let bytes = fs::read(entry.unwrap().path().join("state.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors.iter() {
            let mut numbers = tensor.data().chunks_exact(4);
            let finite = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite();
            assert!(
                tensor.dtype() != safetensors::Dtype::F32 || numbers.all(finite),
                "{name}"
            );
        }
    }
}
