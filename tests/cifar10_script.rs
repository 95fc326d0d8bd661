//! `scripts/cifar10_91.sh` on a CIFAR-10 of a few made-up pictures and a narrow network: stopped, killed, started again.

mod binary;

use binary::{checkpoint, state, stderr};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// 500 and 100 pictures in the layout of CIFAR-10's binary archive: one colour a class, and noise.
fn archive(folder: &Path) {
    let folder = folder.join("cifar-10-batches-bin");
    fs::create_dir_all(&folder).unwrap();
    let names = (1..=5).map(|number| format!("data_batch_{number}"));
    for (file, name) in names.chain(["test_batch".to_string()]).enumerate() {
        let records = (0..100u32).flat_map(|i| {
            let label = (i % 10) as u8;
            let noise = (0..3072u32).map(move |at| {
                let mixed = (at + 3072 * (i + 100 * file as u32)).wrapping_mul(2_654_435_761);
                (mixed >> 26) as u8
            });
            std::iter::once(label).chain(noise.map(move |noise| 18 * label + noise))
        });
        fs::write(
            folder.join(format!("{name}.bin")),
            records.collect::<Vec<_>>(),
        )
        .unwrap();
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        archive(&folder.path().join("data"));
        Place { folder }
    }

    /// The folder of the run below `runs`.
    fn run(&self, runs: &str) -> PathBuf {
        self.folder.path().join(runs).join("1-epochs-f32")
    }

    fn script(&self, runs: &str, more: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cifar10_91.sh");
        let mut command = Command::new(script);
        command
            .args(["resnet_depth=10", "width_multiplier=0.125", "stem_stride=2"])
            .args(["train_batch_size=64", "warmup_epochs=0", "train_steps=60"])
            .args(["checkpoint_steps=10", "keep_checkpoint_max=0"])
            .args(["head:train_batch_size=64", "head:train_steps=200"])
            .args(["head:checkpoint_steps=10", "head:keep_checkpoint_max=0"])
            .args(["runtime.devices=1", "runtime.steps_per_launch=1"])
            .arg("runtime.eval=false")
            .args(more)
            .env("SIMCLR", env!("CARGO_BIN_EXE_simclr"))
            .env("RUNS", self.folder.path().join(runs))
            .env("DATA_DIR", self.folder.path().join("data"))
            .env("PLATFORM", "cpu")
            .env("EPOCHS", "1")
            .env("BENCH_STEPS", "2")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts the script and sends a signal once a file is there: to the script itself, or to the program that trains in `train`.
    fn disturbed(&self, runs: &str, signal: &str, after: &Path, train: Option<&Path>) -> Output {
        let mut script = self.script(runs, &[]);
        let mut child = script
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(after, &mut child);
        let process = match train {
            None => child.id().to_string(),
            Some(train) => fs::read_to_string(train.join("lock")).unwrap(),
        };
        let sent = Command::new("kill")
            .args(["-s", signal, process.trim()])
            .status();
        assert!(sent.unwrap().success());
        child.wait_with_output().unwrap()
    }
}

fn wait_for(path: &Path, child: &mut Child) {
    let watchdog = Instant::now();
    while !path.exists() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before {}", path.display());
        if watchdog.elapsed() > Duration::from_secs(300) {
            child.kill().ok();
            panic!("no {} after five minutes", path.display());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn it_goes_on_where_it_was_stopped_or_killed() {
    let place = Place::new();
    let straight = place.script("straight", &[]).output().unwrap();
    assert!(straight.status.success(), "{}", stderr(&straight));
    let table = String::from_utf8(straight.stdout).unwrap();
    let row = table
        .lines()
        .find(|line| line.starts_with("| 1 | f32 | "))
        .expect("a row");
    assert_eq!(row.matches('%').count(), 4, "{row}");
    assert!(!row.contains('–'), "{row}");
    let whole = place.run("straight");
    for file in ["evaluate.json", "bench.json", "report.html"] {
        assert!(whole.join(file).is_file(), "{file}");
    }

    // The last part of the cycle: features of pictures by what was trained.
    let picture = simclr::report::picture::Picture {
        width: 32,
        height: 32,
        rgb: vec![90; 3072],
    };
    fs::write(whole.join("grey.png"), picture.png()).unwrap();
    let embed = Command::new(env!("CARGO_BIN_EXE_simclr"))
        .current_dir(&whole)
        .args(["embed", "pretrain", "grey.png", "-o", "features.csv"])
        .output()
        .unwrap();
    assert!(embed.status.success(), "{}", stderr(&embed));
    assert!(whole.join("features.csv").is_file());

    let run = place.run("parts");
    let (pretrain, linear) = (run.join("pretrain"), run.join("linear"));
    let stopped = place.disturbed("parts", "TERM", &checkpoint(&pretrain, 10), None);
    assert_eq!(stopped.status.code(), Some(75), "{}", stderr(&stopped));
    assert!(!linear.exists(), "it went on after a stop");
    let killed = place.disturbed("parts", "KILL", &checkpoint(&linear, 10), Some(&linear));
    assert_eq!(killed.status.code(), Some(137), "{}", stderr(&killed));
    assert!(
        stderr(&killed).contains("resuming at step"),
        "{}",
        stderr(&killed)
    );
    let rest = place.script("parts", &[]).output().unwrap();
    let text = stderr(&rest);
    assert!(rest.status.success(), "{text}");
    assert!(text.contains("done before: simclr pretrain"), "{text}");
    assert!(text.contains("resuming at step"), "{text}");
    for (part, last) in [("pretrain", 60), ("linear", 200)] {
        let (a, b) = (state(&whole.join(part), last), state(&run.join(part), last));
        assert!(a == b, "{part} differs from the straight run");
    }

    // Once more: nothing is left to do; with other settings it is not taken for done.
    let again = place.script("parts", &[]).output().unwrap();
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(stderr(&again).matches("done before").count(), 5);
    let other = place
        .script("parts", &["temperature=0.2"])
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(2), "{}", stderr(&other));
    assert!(
        stderr(&other).contains("`temperature`"),
        "{}",
        stderr(&other)
    );
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let place = Place::new();
    for (name, value, words) in [
        ("EPOCHS", "ten", "EPOCHS holds `ten`"),
        ("PRECISION", "f16", "PRECISION holds `f16`"),
        ("SIMCLR", "/nowhere/simclr", "no program `/nowhere/simclr`"),
    ] {
        let output = place
            .script("refused", &[])
            .env(name, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = place.script("refused", &["epochs"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(!place.folder.path().join("refused").exists());
}

/// The head has the exact settings of the original's second command (reference §14.1; the pattern).
#[test]
fn the_head_is_the_original_s() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cifar10_linear.yaml");
    let config = simclr::config::load(Some(&file), &[]).unwrap().config;
    assert!(config.finetune && config.zero_init_logits_layer && !config.global_bn);
    assert_eq!(config.fine_tune_after_block, 4);
    let pattern = "(?!global_step|(?:.*/|^)LARSOptimizer|head)";
    assert_eq!(config.variable_schema.as_deref(), Some(pattern));
    assert_eq!((config.learning_rate, config.weight_decay), (0.1, 0.0));
    assert_eq!((config.train_epochs, config.train_batch_size), (100, 512));
    assert_eq!((config.warmup_epochs, config.momentum), (0.0, 0.9));
}
