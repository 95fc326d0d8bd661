//! `simclr plugins`.

use super::ui::Ui;
use crate::pjrt::{Found, Package, Plugin, install, list};
use clap::{Args, Subcommand, ValueEnum};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch a pinned plugin with pip, check its hash, keep it in the cache
    Install {
        /// Which one
        which: Which,
        /// Also NVIDIA's libraries that running on a GPU needs (1.4 GB; compiling does without)
        #[arg(long)]
        libraries: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Cpu,
    Cuda12,
    Cuda13,
    Tpu,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    match &arguments.action {
        Some(Action::Install { which, libraries }) => {
            let package = match which {
                Which::Cpu => Package::Cpu,
                Which::Cuda12 => Package::Cuda12,
                Which::Cuda13 => Package::Cuda13,
                Which::Tpu => Package::Tpu,
            };
            ui.note(&format!("fetching the {} plugin with pip", package.name()));
            let installed = install(package, *libraries)?;
            let verb = if installed.already {
                "is there already"
            } else {
                "installed, SHA-256 checked"
            };
            ui.result(&format!(
                "{} {verb}: {}",
                installed.what,
                installed.path.display()
            ))?;
            if package.has_libraries() && !libraries {
                ui.note(&format!(
                    "running on a GPU also needs NVIDIA's libraries: simclr plugins install {} --libraries (1.4 GB)",
                    package.name()
                ));
            }
        }
        None => show(arguments.json, ui)?,
    }
    Ok(0)
}

struct Row {
    found: Found,
    state: Result<String, String>,
}

fn show(json: bool, ui: &Ui) -> anyhow::Result<()> {
    let rows: Vec<Row> = list()
        .into_iter()
        .map(|found| {
            let state = Plugin::load(&found.path)
                .map(|plugin| format!("{}.{}", plugin.api_version().0, plugin.api_version().1))
                .map_err(|error| error.to_string());
            Row { found, state }
        })
        .collect();
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "platform": row.found.platform.name(),
                    "source": row.found.source.name(),
                    "path": row.found.path,
                    "api": row.state.as_ref().ok(),
                    "error": row.state.as_ref().err(),
                })
            })
            .collect();
        return ui.result(&serde_json::to_string_pretty(&rows)?);
    }
    if rows.is_empty() {
        return ui.result("no plugins found; run `simclr plugins install cpu`");
    }
    let mut text = format!(
        "{:<9} {:<17} {:<7} {}\n",
        "platform", "found in", "API", "file"
    );
    for row in rows {
        let api = row.state.as_deref().unwrap_or("–");
        text.push_str(&format!(
            "{:<9} {:<17} {:<7} {}\n",
            row.found.platform.name(),
            row.found.source.name(),
            api,
            row.found.path.display()
        ));
        if let Err(error) = &row.state {
            text.push_str(&format!("          {error}\n"));
        }
    }
    ui.result(&text)
}
