//! The command line: arguments, output, exit codes. The only module that prints results and ends the process.

mod bench;
mod compile;
mod configuration;
mod data;
mod devices;
mod doctor;
mod embed;
mod evaluate;
mod exit;
mod export;
mod flags;
mod import;
mod inspect;
mod isolated;
mod plugins;
mod pretrain;
mod report;
mod run;
mod target;
mod together;
mod topologies;
mod ui;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use ui::Ui;

const AFTER_HELP: &str = "\
Examples:
  simclr pretrain --config configs/quickstart.yaml
  simclr pretrain --config configs/cifar10_resnet18.yaml data_dir=/path/to/tfds
  simclr finetune --config configs/quickstart_linear.yaml checkpoint=runs/quickstart
  simclr config configs/quickstart.yaml temperature=0.2
  simclr bench --config configs/quickstart.yaml --json
  simclr data check /path/to/tfds
  simclr compile --config configs/cifar10_resnet18.yaml --topology v5e:2x2

Exit codes:
  0 done   1 the run failed   2 wrong usage or configuration
  3 plugin, device, disk, permission or network   4 data or a checkpoint that may not be used, a step that does not fit
  75 saved after SIGTERM or SIGHUP, or another process is gone: start me again
  130 saved after Ctrl-C (a second one ends at once)

Environment:
  SIMCLR_PLUGIN_CPU, SIMCLR_PLUGIN_CUDA, SIMCLR_PLUGIN_TPU   a plugin file instead of the search
  SIMCLR_LOG   what to log, such as debug or simclr::pjrt=trace
  NO_COLOR     no colours";

/// SimCLR pretraining: the whole step as one XLA program, run through PJRT plugins on TPU, GPU or CPU.
#[derive(Parser)]
#[command(name = "simclr", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// More words on standard error; twice for debugging
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// Fewer words: no progress, only warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Colours in messages
    #[arg(long, value_enum, default_value = "auto", global = true)]
    color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Subcommand)]
enum Command {
    /// Pretrain a network; started again with the same model_dir, go on where it stopped
    Pretrain(pretrain::Arguments),
    /// Fine-tune a trained network, or a linear head on it; started again with the same model_dir, go on where it stopped
    Finetune(pretrain::Arguments),
    /// Train a network to say what another one says (teacher=RUN), with or without labels
    Distill(pretrain::Arguments),
    /// Train, evaluate every checkpoint as it appears, or both, as `mode` and `train_mode` say (the original's program)
    Run(pretrain::Arguments),
    /// Measure a trained network on its evaluation split: top-1, top-5, confusion, k-NN, linear probe
    Evaluate(evaluate::Arguments),
    /// Write the features of pictures
    Embed(embed::Arguments),
    /// Classify pictures with a fine-tuned network
    Predict(embed::PredictArguments),
    /// Write one HTML page about runs: curves, accuracies, pairs of views, nearest neighbours, a map of the features
    Report(report::Arguments),
    /// Print the resolved configuration with where each value comes from
    Config(configuration::Arguments),
    /// Check, show, measure, pack or subset a data set
    #[command(subcommand)]
    Data(data::Command),
    /// Compile the training step for devices that need not be there; say whether it fits and how fast it could be
    Compile(compile::Arguments),
    /// List the TPU slices that can be compiled for
    Topologies(topologies::Arguments),
    /// Look at what a TPU worker needs: plugin, chips, lock, metadata, other workers; say what to do where it is missing
    Doctor(doctor::Arguments),
    /// List plugins, or install one
    Plugins(plugins::Arguments),
    /// List the devices that a plugin sees
    Devices(devices::Arguments),
    /// Measure compile time, step time, images per second and host wait of a configuration
    Bench(bench::Arguments),
    /// Write a trained network for other programs
    Export(export::Arguments),
    /// Take over a TensorFlow checkpoint of the original, as a folder that can be opened like a run
    Import(import::Arguments),
    /// Show what a checkpoint, a TensorFlow checkpoint, a record file or a compiled program holds
    Inspect(inspect::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which configuration: a file, overrides, a plugin.
#[derive(Args)]
struct Configuration {
    /// YAML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Values that go before the file's, such as temperature=0.5 or runtime.devices=2
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// PJRT plugin file (the same as runtime.plugin)
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

impl Configuration {
    fn load(&self) -> Result<crate::config::Loaded, crate::config::Error> {
        self.load_with(&[])
    }

    /// With overrides that go before the file's values, but behind the user's.
    fn load_with(&self, more: &[&str]) -> Result<crate::config::Loaded, crate::config::Error> {
        let mut overrides: Vec<String> = more.iter().map(|text| text.to_string()).collect();
        overrides.extend(self.overrides.iter().cloned());
        if let Some(plugin) = &self.plugin {
            overrides.push(format!("runtime.plugin={}", serde_json::json!(plugin)));
        }
        crate::config::load(self.config.as_deref(), &overrides)
    }
}

impl Command {
    /// Whether it opens devices without joining other processes.
    fn works_alone(&self) -> bool {
        matches!(
            self,
            Command::Evaluate(_)
                | Command::Embed(_)
                | Command::Predict(_)
                | Command::Report(_)
                | Command::Data(data::Command::Show(_))
                | Command::Devices(_)
                | Command::Bench(_)
        )
    }
}

/// Runs the program and gives its exit code.
pub fn main() -> ExitCode {
    let begin = std::time::Instant::now();
    // First of all, while there is one thread.
    crate::pjrt::prepare_process();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; a closed pipe is no failure.
            let arguments = std::env::args_os().skip(1);
            let arguments: Vec<String> = arguments
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect();
            match flags::instead(&error, &Cli::command(), &arguments) {
                Some(text) => writeln!(std::io::stderr(), "error: {text}").ok(),
                None => match error.print() {
                    Err(source)
                        if !error.use_stderr() && source.kind() != ErrorKind::BrokenPipe =>
                    {
                        let unwritten = ui::Unwritten { source };
                        writeln!(std::io::stderr(), "error: {unwritten}").ok();
                        return ExitCode::from(unwritten.class().exit_code());
                    }
                    printed => printed.ok(),
                },
            };
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let colored = match cli.global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && std::io::IsTerminal::is_terminal(&std::io::stderr())
        }
    };
    let ui = Ui::new(cli.global.verbose, cli.global.quiet, colored, begin);
    if cli.command.works_alone() {
        together::alone();
    }
    let result = match &cli.command {
        Command::Pretrain(arguments) => pretrain::run(arguments, &ui),
        Command::Finetune(arguments) => pretrain::finetune(arguments, &ui),
        Command::Distill(arguments) => pretrain::distill(arguments, &ui),
        Command::Run(arguments) => run::run(arguments, &ui),
        Command::Evaluate(arguments) => evaluate::run(arguments, &ui),
        Command::Embed(arguments) => embed::run(arguments, &ui),
        Command::Predict(arguments) => embed::predict(arguments, &ui),
        Command::Report(arguments) => report::run(arguments, &ui),
        Command::Config(arguments) => configuration::run(arguments, &ui),
        Command::Data(command) => data::run(command, &ui),
        Command::Plugins(arguments) => plugins::run(arguments, &ui),
        Command::Devices(arguments) => devices::run(arguments, &ui),
        Command::Bench(arguments) => bench::run(arguments, &ui),
        Command::Export(arguments) => export::run(arguments, &ui),
        Command::Import(arguments) => import::run(arguments, &ui),
        Command::Inspect(arguments) => inspect::run(arguments, &ui),
        Command::Doctor(arguments) => doctor::run(arguments, &ui),
        Command::Compile(arguments) => compile::run(arguments, &ui),
        Command::Topologies(arguments) => topologies::run(arguments, &ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "simclr", &mut script);
            ui.result(&String::from_utf8_lossy(&script)).map(|()| 0)
        }
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if exit::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            ui.error(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}
