//! What several processes of a run agree on, and who writes: two runs of the whole loop, each with a device of its own, that believe
//! to be two processes of one. (That they share each step's devices and examples is tested in `train/launch.rs`.)

use simclr::cluster::agreement::Group;
use simclr::cluster::store::{Server, Store};
use simclr::config::{Loaded, load};
use simclr::engine::{Choice, open};
use simclr::report::{LogFile, Screen};
use simclr::train::Error;
use simclr::train::pretrain::{Outcome, Run, pretrain};
use simclr::train::processes::Processes;
use simclr::train::signals::{Stop, StopKind};
use std::path::Path;
use std::time::Duration;

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
                    let choice = Choice {
                        platform: "cpu",
                        plugin: None,
                        devices: 1,
                        cpu_devices: 1,
                        disable_passes: &[],
                        compiler_options: &[],
                        executable_cache: true,
                        preallocate: true,
                        node: None,
                    };
                    let (engine, devices) = open(choice, &mut |_| {}).unwrap();
                    let store = Store::connect(address, Duration::from_secs(10)).unwrap();
                    let requests = Stop::default();
                    if stop == Some(process) {
                        requests.request(StopKind::Terminate);
                    }
                    pretrain(&Run {
                        loaded,
                        model_dir,
                        engine: &engine,
                        devices,
                        resume_from: None,
                        judged: false,
                        screen: &Screen::stderr(true),
                        log: &LogFile::default(),
                        stop: &requests,
                        processes: &Processes::of(Group::new(store, process, all)),
                    })
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap();
        threads.into_iter().map(join).collect()
    })
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
    let lines = std::fs::read_to_string(model_dir.join("metrics.jsonl")).unwrap();
    let alone = folder.path().join("alone");
    run(&alone, &configs[..1], None).remove(0).unwrap();
    let figures = |text: &str| -> Vec<(u64, f64)> {
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter_map(|row| Some((row["step"].as_u64()?, row["train/contrast_loss"].as_f64()?)))
            .collect()
    };
    let expected = figures(&std::fs::read_to_string(alone.join("metrics.jsonl")).unwrap());
    assert_eq!(figures(&lines), expected, "each step once");
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
    let configs = [config(&[]), config(&["temperature=0.7"])];
    for outcome in run(&model_dir, &configs, None) {
        let error = outcome.err().expect("an error").to_string();
        assert!(
            error.contains("process 1 has another temperature (0.7) than process 0"),
            "{error}"
        );
    }
    assert!(!model_dir.exists());
}
