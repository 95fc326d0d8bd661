//! `simclr devices`.

use super::Configuration;
use super::ui::Ui;
use clap::Args;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configuration: Configuration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments.configuration.load()?;
    let (engine, used) = super::pretrain::open(&loaded, ui)?;
    let client = engine.client();
    if arguments.json {
        let devices: Vec<_> = client
            .devices()
            .iter()
            .enumerate()
            .map(|(i, device)| {
                let memory = client.device_memory(device);
                serde_json::json!({
                    "id": device.id(), "kind": device.kind(), "description": device.description(),
                    "used": i < used,
                    "bytes_in_use": memory.map(|m| m.in_use),
                    "bytes_limit": memory.and_then(|m| m.limit),
                })
            })
            .collect();
        ui.result(&serde_json::to_string_pretty(&serde_json::json!({
            "platform": client.platform_name(),
            "platform_version": client.platform_version(),
            "devices": devices,
        }))?)?;
        return Ok(0);
    }
    let mut text = format!(
        "platform {} ({})\n",
        client.platform_name(),
        client.platform_version()
    );
    for (i, device) in client.devices().iter().enumerate() {
        let memory = client.device_memory(device).and_then(|m| m.limit);
        let memory = memory.map_or(String::new(), |b| {
            format!(", {:.1} GiB", b as f64 / f64::from(1u32 << 30))
        });
        let used = if i < used { "" } else { " (not used)" };
        text.push_str(&format!(
            "{:>3}  {}{memory}{used}\n",
            device.id(),
            device.kind()
        ));
    }
    ui.result(&text)?;
    Ok(0)
}
