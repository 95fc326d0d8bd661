//! `simclr config`.

use super::ui::Ui;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct Arguments {
    /// YAML file; without one, the defaults
    file: Option<PathBuf>,
    /// Values that go before the file's, such as temperature=0.5
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// As JSON: key, value, origin
    #[arg(long)]
    json: bool,
    /// List every key with its default, its meaning and the words it takes instead
    #[arg(long)]
    keys: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    if arguments.keys {
        let mut text = String::new();
        for key in crate::config::schema::KEYS {
            let words = key.kind.words();
            let words = words.map_or(String::new(), |words| format!(" [{words}]"));
            text.push_str(&format!(
                "{:<30} {:<14} {}{words}\n",
                key.name, key.default, key.help
            ));
        }
        ui.result(&text)?;
        return Ok(0);
    }
    // `simclr config temperature=0.5` means the defaults with an override.
    let mut overrides = arguments.overrides.clone();
    let mut file = arguments.file.clone();
    if let Some(text) = file.as_ref().and_then(|path| path.to_str())
        && text.contains('=')
        && !std::path::Path::new(text).exists()
    {
        overrides.insert(0, text.to_string());
        file = None;
    }
    let loaded = crate::config::load(file.as_deref(), &overrides)?;
    if arguments.json {
        let entries: Vec<_> = loaded
            .entries()
            .map(|(key, value, origin)| {
                serde_json::json!({
                    "key": key.name, "value": value.to_string(), "origin": origin.to_string(),
                })
            })
            .collect();
        ui.result(&serde_json::to_string_pretty(&entries)?)?;
    } else {
        ui.result(&loaded.to_yaml())?;
    }
    Ok(0)
}
