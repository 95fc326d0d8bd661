//! `simclr import`.

use super::ui::Ui;
use crate::data::store;
use crate::interop::import::{Choice, Imported, LeftOut, MEMORY_FILE, What, describe, import};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub(super) struct Arguments {
    /// The checkpoint, here or in a bucket: a prefix such as DIR/model.ckpt-1000, one of its files, its folder, or a SavedModel
    checkpoint: PathBuf,
    /// Folder to make; it can then be opened like a run
    out: PathBuf,
    /// What a checkpoint does not tell, such as ft_proj_selector=1 or dataset=imagenet2012
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Take the moving average of the weights (`ema_model/…`) instead of the weights
    #[arg(long)]
    average: bool,
    /// Take the optimizer's slots too; they are those of the weights, not of their average
    #[arg(long, conflicts_with = "average")]
    slots: bool,
    /// Keep the memory of negatives too, in OUT/memory.safetensors; nothing here trains with it
    #[arg(long)]
    memory: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let choice = Choice {
        average: arguments.average,
        slots: arguments.slots,
        memory: arguments.memory,
    };
    if store::is_remote(&arguments.checkpoint) {
        ui.note(&format!("reading {}", arguments.checkpoint.display()));
    }
    let imported = import(
        &arguments.checkpoint,
        &arguments.out,
        choice,
        &arguments.overrides,
    )?;
    ui.result(&if arguments.json {
        json(&imported)?
    } else {
        text(&imported, &arguments.out)
    })?;
    Ok(0)
}

fn text(imported: &Imported, out: &Path) -> String {
    let mut lines = vec![
        (
            "found",
            format!(
                "TF{} checkpoint {} of step {}, {} tensors",
                imported.generation,
                imported.source.display(),
                imported.step,
                imported.tensors
            ),
        ),
        ("network", describe(&imported.network)),
        ("used", format!("{} variables", imported.variables)),
    ];
    if imported.slots > 0 {
        lines.push(("used", format!("{} optimizer slots", imported.slots)));
    }
    if imported.memory > 0 {
        let text = "tensors of the memory of negatives, which no training here reads";
        let text = format!("{} {text}, in {MEMORY_FILE}", imported.memory);
        lines.push(("kept", text));
    }
    for left in &imported.ignored {
        let LeftOut {
            what,
            count,
            first,
            flag,
        } = left;
        let more = if *count > 1 { ", …" } else { "" };
        let instead = match what {
            What::Average => " instead of the weights",
            _ => "",
        };
        let take = flag.map_or(String::new(), |flag| {
            format!("; {flag} takes them{instead}")
        });
        lines.push((
            "ignored",
            format!("{count} × {what} (`{first}`{more}){take}"),
        ));
    }
    for what in &imported.assumed {
        lines.push(("assumed", what.clone()));
    }
    lines.push(("written", imported.checkpoint.display().to_string()));
    let next = match imported.network.num_classes {
        Some(_) => format!("simclr predict {} PICTURES", out.display()),
        None => format!("simclr embed {} PICTURES -o features.npy", out.display()),
    };
    lines.push(("next", next));
    lines
        .iter()
        .map(|(what, text)| format!("{what:<9}{text}\n"))
        .collect()
}

fn json(imported: &Imported) -> anyhow::Result<String> {
    let ignored: Vec<_> = imported
        .ignored
        .iter()
        .map(|left| {
            serde_json::json!({
                "what": left.what.to_string(), "count": left.count, "first": left.first, "flag": left.flag,
            })
        })
        .collect();
    let network = &imported.network;
    Ok(serde_json::to_string_pretty(&serde_json::json!({
        "generation": imported.generation,
        "source": imported.source,
        "tensors": imported.tensors,
        "step": imported.step,
        "network": {
            "resnet_depth": network.resnet_depth,
            "width_multiplier": network.width_multiplier,
            "image_size": network.image_size,
            "sk_ratio": network.sk_ratio,
            "se_ratio": network.se_ratio,
            "num_proj_layers": network.num_proj_layers,
            "proj_out_dim": network.proj_out_dim,
            "ft_proj_selector": network.ft_proj_selector,
            "num_classes": network.num_classes,
        },
        "variables": imported.variables,
        "slots": imported.slots,
        "memory": imported.memory,
        "ignored": ignored,
        "assumed": imported.assumed,
        "checkpoint": imported.checkpoint,
    }))?)
}
