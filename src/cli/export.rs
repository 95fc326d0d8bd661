//! `simclr export`.

use super::ui::Ui;
use crate::interop;
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
    /// tf-checkpoint: the generation of the original that restores it, by names (tf1, the default) or by objects (tf2)
    #[arg(long, value_enum)]
    generation: Option<GenerationName>,
    /// hlo, stablehlo: images in a call; 1 if left out
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// hlo, stablehlo: where the weights are; inside if left out
    #[arg(long, value_enum)]
    weights: Option<WeightsName>,
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

/// Refuses what says nothing about the chosen format.
fn check_flags(arguments: &Arguments) -> Result<(), interop::Error> {
    const PROGRAMS: &str = "hlo, stablehlo";
    let (program, original) = match arguments.format {
        FormatName::Hlo | FormatName::Stablehlo => (true, false),
        FormatName::TfCheckpoint => (false, true),
        FormatName::Safetensors | FormatName::Torchvision | FormatName::Timm => (false, false),
    };
    let given = [
        (
            "generation",
            arguments.generation.is_some(),
            original,
            "tf-checkpoint",
        ),
        ("batch", arguments.batch.is_some(), program, PROGRAMS),
        ("weights", arguments.weights.is_some(), program, PROGRAMS),
        (
            "endpoints",
            !arguments.endpoints.is_empty(),
            program,
            PROGRAMS,
        ),
    ];
    match given
        .into_iter()
        .find(|(_, given, fits, _)| *given && !fits)
    {
        None => Ok(()),
        Some((flag, _, _, formats)) => Err(interop::Error::WithoutEffect {
            flag,
            format: arguments
                .format
                .to_possible_value()
                .map_or(String::new(), |value| value.get_name().to_owned()),
            formats,
        }),
    }
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    check_flags(arguments)?;
    let program = Program {
        batch: arguments.batch.unwrap_or(1) as usize,
        weights: match arguments.weights {
            None | Some(WeightsName::Inside) => Weights::Inside,
            Some(WeightsName::Parameters) => Weights::Parameters,
        },
        endpoints: arguments.endpoints.clone(),
    };
    let format = match arguments.format {
        FormatName::Safetensors => Format::Safetensors,
        FormatName::Torchvision => Format::Torchvision,
        FormatName::Timm => Format::Timm,
        FormatName::TfCheckpoint => Format::TfCheckpoint(match arguments.generation {
            None | Some(GenerationName::Tf1) => Generation::First,
            Some(GenerationName::Tf2) => Generation::Second,
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
