//! What several processes of a run agree on, and who writes: runs of the whole loop, each with a device of its own, that believe to be
//! the processes of one; on threads, and, where one is killed, as processes. (That they share each step's devices and examples is tested
//! in `train/launch.rs`.)

mod binary;
mod gcs;

use binary::state;
use gcs::{Fault, Gcs};
use simclr::cluster::agreement::{Group, Trouble};
use simclr::cluster::store::{Server, Store};
use simclr::config::{Loaded, load};
use simclr::engine::{Choice, open};
use simclr::error::Class;
use simclr::report::{LogFile, Screen};
use simclr::train::Error;
use simclr::train::pretrain::{Outcome, Run, pretrain};
use simclr::train::processes::Processes;
use simclr::train::setup;
use simclr::train::signals::{Stop, StopKind};
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Enough on a busy machine.
const SOON: Duration = Duration::from_secs(30);

fn config(more: &[&str]) -> Loaded {
    let keys = [
        "dataset=shapes32",
        "resnet_depth=10",
        "width_multiplier=0.125",
        "stem_stride=2",
        "image_size=32",
        "train_batch_size=64",
        "train_steps=12",
        "checkpoint_steps=6",
        "train_summary_steps=1",
        "warmup_epochs=0",
        "num_proj_layers=1",
        "proj_out_dim=16",
        "use_blur=false",
        "color_jitter_strength=0.5",
        "runtime.eval=false",
        "runtime.steps_per_launch=2",
    ];
    let keys: Vec<String> = keys.iter().chain(more).map(|key| key.to_string()).collect();
    load(None, &keys).unwrap()
}

/// One process's part.
fn train(
    loaded: &Loaded,
    model_dir: &Path,
    processes: &Processes,
    stop: &Stop,
) -> Result<Outcome, Error> {
    let choice = Choice {
        platform: "cpu",
        plugin: None,
        devices: 1,
        cpu_devices: 1,
        passes: &setup::passes(loaded).unwrap(),
        compiler_options: &setup::compiler_options(loaded).unwrap(),
        executable_cache: true,
        preallocate: true,
        node: None,
    };
    let (engine, devices) = open(choice, &mut |_| {}).unwrap();
    pretrain(&Run {
        loaded,
        model_dir,
        engine: &engine,
        devices,
        resume_from: None,
        judged: false,
        screen: &Screen::stderr(true),
        log: &LogFile::default(),
        stop,
        processes,
    })
}

fn join(address: &str, process: usize, processes: usize) -> Processes {
    let store = Store::connect(address, SOON).unwrap();
    Processes::of(Group::join(store, process, processes).unwrap())
}

/// Runs a process per configuration; `stop` of them is asked to stop from the beginning.
fn run(model_dir: &Path, configs: &[Loaded], stop: Option<usize>) -> Vec<Result<Outcome, Error>> {
    let server = Server::start("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    std::thread::scope(|scope| {
        let threads: Vec<_> = configs
            .iter()
            .enumerate()
            .map(|(process, loaded)| {
                let (address, all) = (&address, configs.len());
                scope.spawn(move || {
                    let requests = Stop::default();
                    if stop == Some(process) {
                        requests.request(StopKind::Terminate);
                    }
                    let processes = join(address, process, all);
                    train(loaded, model_dir, &processes, &requests)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
}

/// The steps that a run has written, with their losses.
fn losses(model_dir: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(model_dir.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|row| Some((row["step"].as_u64()?, row["train/contrast_loss"].as_f64()?)))
        .collect()
}

fn headline(outcome: &Result<Outcome, Error>) -> String {
    outcome.as_ref().unwrap().summary.headline.clone()
}

#[test]
fn a_run_of_two_processes_stops_at_one_step_goes_on_everywhere_and_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let model_dir = folder.path().join("run");
    let configs = [config(&[]), config(&[])];
    // The other one hears of it.
    let stopped = run(&model_dir, &configs, Some(0));
    let at = headline(&stopped[0]);
    assert_eq!(at, "stopped and saved at step 2 of 12");
    for outcome in &stopped {
        assert_eq!(outcome.as_ref().unwrap().stopped, Some(StopKind::Terminate));
        assert_eq!(headline(outcome), at);
    }
    let ended = run(&model_dir, &configs, None);
    for outcome in &ended {
        assert_eq!(outcome.as_ref().unwrap().stopped, None);
        assert!(
            headline(outcome).contains("12 steps in all"),
            "{}",
            headline(outcome)
        );
    }
    let alone = folder.path().join("alone");
    run(&alone, &configs[..1], None).remove(0).unwrap();
    let expected = losses(&alone);
    assert_eq!(losses(&model_dir), expected, "each step once");
    assert_eq!(expected.len(), 12);
    let events = |dir: &Path| {
        let names = std::fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("tfevents")).count()
    };
    assert_eq!(events(&model_dir), 2, "one for each start");
}

#[test]
fn processes_that_disagree_do_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let model_dir = folder.path().join("run");
    for (other, words) in [
        (
            "temperature=0.7",
            &["process 1 has another temperature (0.7) than process 0 (0.1)"][..],
        ),
        // A key that a run may change when it goes on, but that makes another program.
        ("runtime.remat=block", &["process 1 has another module ("]),
        // Of the same module, too.
        (
            "runtime.passes=[-tiny-maps]",
            // Whether there are calls of loops depends on the machine.
            &[
                "process 1 has another list of passes (",
                "kernel-gradients canonical-convolutions column-sums",
                ") than process 0 (",
            ],
        ),
        (
            "runtime.compiler_options=[xla_cpu_enable_fast_min_max=true]",
            &[
                "process 1 has another list of compiler options (xla_cpu_enable_fast_min_max=true) than process 0 (none)",
            ],
        ),
    ] {
        let configs = [config(&[]), config(&[other])];
        for outcome in run(&model_dir, &configs, None) {
            let error = outcome.err().expect("an error").to_string();
            assert!(words.iter().all(|words| error.contains(words)), "{error}");
        }
        assert!(!model_dir.exists());
    }
}

/// Steps of a run of which a process is killed: enough to be killed in.
const KILLED: [&str; 2] = ["train_steps=60", "checkpoint_steps=10"];
const PART: &str = "SIMCLR_TEST_PROCESS";
const FOLDER: &str = "SIMCLR_TEST_FOLDER";
const ADDRESS: &str = "SIMCLR_TEST_ADDRESS";

/// A process of three, if it was started as one: process 0 serves. It ends with the code that the program gives to what happened.
#[test]
fn process() {
    let Ok(number) = std::env::var(PART) else {
        return;
    };
    let number: usize = number.parse().unwrap();
    let folder = std::env::var(FOLDER).unwrap();
    let address = std::env::var(ADDRESS).unwrap();
    let _server = (number == 0).then(|| Server::start(&address).unwrap());
    let processes = join(&address, number, 3);
    let ended = |words: String, class: Class| -> ! {
        eprintln!("{words}");
        std::process::exit(class.exit_code().into())
    };
    processes.watch(move |trouble| match trouble {
        Trouble::Lost(error) => ended(error.to_string(), error.class()),
        Trouble::Failed(words) => ended(words.clone(), Class::Failed),
    });
    let model_dir = Path::new(&folder).join("run");
    let loaded = config(&KILLED);
    let trained = processes
        .started()
        .and_then(|()| train(&loaded, &model_dir, &processes, &Stop::default()));
    if let Err(error) = trained {
        ended(error.to_string(), error.class());
    }
}

/// Three processes of a run in the folder `run` of this one.
fn three(folder: &str, variables: &[(&str, &str)]) -> Vec<Child> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let start = |number: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process", "--nocapture"])
            .env(PART, number.to_string())
            .env(FOLDER, folder)
            .env(ADDRESS, &address)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..3).map(start).collect()
}

/// Its exit code and last words.
fn end(mut child: Child) -> (Option<i32>, String) {
    let mut words = String::new();
    let mut pipe = child.stderr.take().unwrap();
    pipe.read_to_string(&mut words).unwrap();
    (child.wait().unwrap().code(), words)
}

/// A run of three processes in the folder of a folder, of which one is killed after the first checkpoint; started again, it ends as a run
/// of one process that nobody killed. `near` is where the run's folder is on this machine.
fn killed(folder: &str, near: &Path, variables: &[(&str, &str)], kill: usize) {
    let mut all = three(folder, variables);
    let first = near.join("checkpoints/step-00000010/manifest.json");
    let begin = Instant::now();
    while !first.exists() {
        assert!(begin.elapsed() < 4 * SOON, "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut killed = all.remove(kill);
    killed.kill().unwrap();
    assert_eq!(end(killed).0, None, "in the middle of training");
    for left in all {
        let (code, words) = end(left);
        assert_eq!(code, Some(75), "{words}");
        let sentence = format!("process {kill} is gone without a word");
        assert!(words.contains(&sentence), "{words}");
    }
    assert!(!near.join("checkpoints/step-00000060").exists());
    for one in three(folder, variables) {
        let (code, words) = end(one);
        assert_eq!(code, Some(0), "{words}");
    }
    let other = tempfile::tempdir().unwrap();
    let alone = other.path().join("alone");
    run(&alone, &[config(&KILLED)], None).remove(0).unwrap();
    assert_eq!(losses(near), losses(&alone), "each step once");
    assert!(state(near, 60) == state(&alone, 60), "other arrays");
}

#[test]
fn a_run_of_which_a_process_is_killed_goes_on_from_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let near = folder.path().join("run");
    killed(folder.path().to_str().unwrap(), &near, &[], 2);
}

/// Also in a bucket that does not answer every time, from which all processes go on.
#[test]
fn a_run_in_a_bucket_of_which_process_0_is_killed_goes_on_from_its_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("b")).unwrap();
    let server = Gcs::start(root.path(), |request| match request.number % 5 {
        3 => Fault::Status(503),
        _ => Fault::None,
    });
    let cache = server.cache();
    let variables = [
        ("STORAGE_EMULATOR_HOST", &server.host[..]),
        ("XDG_CACHE_HOME", cache.parent().unwrap().to_str().unwrap()),
        ("HOME", "/nonexistent"),
        ("NO_PROXY", "127.0.0.1"),
    ];
    killed("gs://b", &root.path().join("b/run"), &variables, 0);
    // Process 0 writes, and all restore.
    let of_checkpoint = |method: &str| {
        let all = server.requests().into_iter();
        let of = |path: &str| path.contains("/step-") && path.ends_with("/state.safetensors");
        let good = all.filter(|(request, fault)| {
            *fault == Fault::None && request.method == method && of(&request.path)
        });
        good.count()
    };
    assert_eq!(of_checkpoint("GET"), 3, "one for each process");
}
