//! `simclr run`: what the original's program does, by `mode` and `train_mode`.

use super::pretrain::{Arguments, Session, inherited};
use super::ui::Ui;
use crate::config::{Loaded, Mode};
use crate::train::follow::{self, Follow, Found};
use crate::train::signals::StopKind;

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    let loaded = arguments.configuration.load()?;
    let mode = loaded.config.mode;
    // An evaluated checkpoint says itself what it was trained on.
    let loaded = match mode {
        Mode::Eval => loaded,
        Mode::Train | Mode::TrainThenEval => inherited(loaded, arguments)?,
    };
    let evaluates = mode != Mode::Train;
    if evaluates {
        something_to_evaluate(&loaded)?;
    }
    let session = Session::open(arguments, &loaded, ui)?;
    if mode != Mode::Eval {
        let stopped = session.train(arguments, &loaded, ui, evaluates)?;
        if stopped.is_some() || !evaluates {
            return Ok(code(stopped));
        }
    }
    if !session.processes.leads() {
        // The leader's devices are enough to measure.
        return Ok(0);
    }
    session.stop.wait_for_save();
    let own = session.engine.client().devices().len();
    let following = Follow {
        loaded: &loaded,
        model_dir: &session.model_dir,
        engine: &session.engine,
        devices: session.devices.min(own),
        screen: &ui.screen,
        stop: &session.stop,
    };
    let stopped = if mode == Mode::Eval {
        let mut tell = |found: &Found| {
            ui.result(&text(found, arguments.json))
                .map_err(std::io::Error::other)
        };
        follow::follow(&following, &mut tell)?
    } else {
        let found = follow::newest(&following)?;
        ui.result(&text(&found, arguments.json))?;
        None
    };
    Ok(code(stopped))
}

fn code(stopped: Option<StopKind>) -> u8 {
    stopped.map_or(0, StopKind::exit_code)
}

/// Pretraining without a classifier has nothing to be evaluated but its features (the original's program breaks there).
fn something_to_evaluate(loaded: &Loaded) -> anyhow::Result<()> {
    let config = &loaded.config;
    let head = config.finetune || config.distill.is_some() || config.lineareval_while_pretraining;
    if head || config.runtime.eval {
        return Ok(());
    }
    let expected = "train: with lineareval_while_pretraining and runtime.eval false there is nothing to evaluate; set one of them";
    Err(loaded.bad("mode", expected).into())
}

fn text(found: &Found, json: bool) -> String {
    if json {
        return serde_json::to_string(found).unwrap_or_default();
    }
    let number = |name: &str| found.get(name).and_then(serde_json::Value::as_f64);
    let mut text = format!(
        "evaluated step {}:",
        number("global_step").unwrap_or_default()
    );
    for (name, value) in found {
        let Some(value) = value.as_f64().filter(|_| name != "global_step") else {
            continue;
        };
        let name = name.trim_start_matches("eval/");
        if name.ends_with("loss") {
            text.push_str(&format!("  {name} {value:.4}"));
        } else {
            text.push_str(&format!("  {name} {:.2} %", 100.0 * value));
        }
    }
    text
}
