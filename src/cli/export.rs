//! `simclr export`.

use super::ui::Ui;
use crate::interop::export::{ENDPOINTS, Exported, Format, Generation, Program, Weights, export};
use crate::train::trained;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Arguments {
    /// A run folder (its newest checkpoint) or a checkpoint
    run: PathBuf,
    /// Folder to make
    out: PathBuf,
    /// What to write
    #[arg(long, value_enum)]
    format: FormatName,
    /// tf-checkpoint: the generation of the original that restores it, by names (tf1) or by objects (tf2)
    #[arg(long, value_enum, default_value = "tf1")]
    generation: GenerationName,
    /// hlo, stablehlo: images in a call
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// hlo, stablehlo: where the weights are
    #[arg(long, value_enum, default_value = "inside")]
    weights: WeightsName,
    /// hlo, stablehlo: the values to give, such as final_avg_pool,logits_sup; all if left out
    #[arg(long, value_delimiter = ',', value_name = "NAMES", long_help = endpoints_help())]
    endpoints: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    /// Variables under our names (docs/formats.md)
    Safetensors,
    /// Names and layouts of torchvision's ResNets
    Torchvision,
    /// The same with timm's config.json
    Timm,
    /// A TensorFlow checkpoint that the original restores
    TfCheckpoint,
    /// The encoder as an HloModuleProto
    Hlo,
    /// The encoder as StableHLO text
    Stablehlo,
}

#[derive(Clone, Copy, ValueEnum)]
enum GenerationName {
    Tf1,
    Tf2,
}

#[derive(Clone, Copy, ValueEnum)]
enum WeightsName {
    /// In the program
    Inside,
    /// Parameters before the images; their values go into weights.safetensors
    Parameters,
}

fn endpoints_help() -> String {
    format!(
        "hlo, stablehlo: the values to give, all if left out: {}",
        ENDPOINTS.join(", ")
    )
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let program = Program {
        batch: arguments.batch as usize,
        weights: match arguments.weights {
            WeightsName::Inside => Weights::Inside,
            WeightsName::Parameters => Weights::Parameters,
        },
        endpoints: arguments.endpoints.clone(),
    };
    let format = match arguments.format {
        FormatName::Safetensors => Format::Safetensors,
        FormatName::Torchvision => Format::Torchvision,
        FormatName::Timm => Format::Timm,
        FormatName::TfCheckpoint => Format::TfCheckpoint(match arguments.generation {
            GenerationName::Tf1 => Generation::First,
            GenerationName::Tf2 => Generation::Second,
        }),
        FormatName::Hlo => Format::Hlo(program),
        FormatName::Stablehlo => Format::StableHlo(program),
    };
    let trained = trained::open(&arguments.run)?;
    let Exported { files, notes } = export(&trained, &arguments.out, &format)?;
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&serde_json::json!({
            "checkpoint": trained.checkpoint, "files": files, "notes": notes,
        }))?)?;
        return Ok(0);
    }
    for note in &notes {
        ui.note(note);
    }
    let lines: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    ui.result(&lines.join("\n"))?;
    Ok(0)
}
