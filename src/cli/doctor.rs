//! `simclr doctor`.

use super::Configuration;
use super::isolated::{self, run_again};
use super::ui::Ui;
use crate::cluster::doctor::{Finding, State, account, chips, lock, metadata, others, runtime};
use crate::cluster::identity::{Identity, Wanted, asks_server};
use crate::cluster::metadata::Metadata;
use crate::config::Loaded;
use crate::data;
use crate::data::store::{self, Asker};
use crate::error::Class;
use crate::pjrt::{Platform, Plugin, WITHOUT_TPU, find, tpu_chips};
use clap::Args;
use std::path::Path;
use std::time::Duration;

/// How long another worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct Arguments {
    /// The run whose buckets are looked at
    #[command(flatten)]
    configuration: Configuration,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Load the plugin in this very process and say its version
    #[arg(long, hide = true)]
    here: bool,
}

pub(super) fn run(arguments: &Arguments, ui: &Ui) -> anyhow::Result<u8> {
    if arguments.here {
        isolated::end_with_parent();
        let plugin = Plugin::load(&find(Platform::Tpu, None)?.path)?;
        let (major, minor) = plugin.api_version();
        ui.result(&format!("PJRT API {major}.{minor}"))?;
        return Ok(0);
    }
    let findings = look(&arguments.configuration.load()?);
    if arguments.json {
        ui.result(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        let mut text = String::new();
        for finding in &findings {
            let mark = match finding.state {
                State::Good => "ok",
                State::Absent => "–",
                State::Bad => "BAD",
            };
            text.push_str(&format!("{mark:<4}{:<10}{}\n", finding.what, finding.words));
            if !finding.remedy.is_empty() {
                text.push_str(&format!("              {}\n", finding.remedy));
            }
        }
        ui.result(&text)?;
    }
    let bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(if bad {
        Class::Environment.exit_code()
    } else {
        0
    })
}

fn look(loaded: &Loaded) -> Vec<Finding> {
    let there = tpu_chips();
    let variable = |name: &str| std::env::var(name).ok();
    let server = Metadata::new();
    let (told, worker) = metadata(&server, there > 0 && asks_server(&variable));
    let silent = told.state == State::Bad;
    let mut findings = vec![
        plugin(),
        chips(there, worker.is_some()),
        lock(Path::new("/proc"), Path::new("/tmp/libtpu_lockfile"), there),
        told,
    ];
    if let Some(worker) = &worker {
        findings.push(runtime(worker));
        findings.push(account(&server));
    }
    let metadata = worker.is_some().then_some(&server);
    findings.push(
        match Identity::find(Wanted::default(), &variable, metadata) {
            _ if silent => Finding::absent("workers", "unknown without the metadata", ""),
            Ok(identity) => others(&identity, PATIENCE),
            Err(error) => Finding::bad(
                "workers",
                error.to_string(),
                "correct that, or say it by hand: --process N --processes N --coordinator HOST:PORT",
            ),
        },
    );
    let (data_dir, model_dir) = (&loaded.config.data_dir, &loaded.config.model_dir);
    for (key, place) in [("data_dir", data_dir), ("model_dir", model_dir)] {
        if let Some(place) = place.as_deref().filter(|place| store::is_remote(place)) {
            findings.push(bucket(key, place, &server));
        }
    }
    findings
}

/// Whether a bucket gives what a run needs of it: of `data_dir` to be read, of `model_dir` to be written, too.
fn bucket(key: &'static str, place: &Path, server: &Metadata) -> Finding {
    let shown = place.display();
    let bad = |error: data::Error, whom: &str| match error {
        data::Error::Bucket {
            action,
            place,
            cause,
            remedy,
            ..
        } => Finding::bad(
            key,
            format!("cannot {action} {place}{whom}: {cause}"),
            &remedy,
        ),
        other => {
            let remedy = "check the address, gs://BUCKET/FOLDER, and try again";
            Finding::bad(key, other.to_string(), remedy)
        }
    };
    let asker = match store::asker(place) {
        Ok(asker) => asker,
        Err(error) => return bad(error, ""),
    };
    let whom = match asker {
        Asker::Nobody(why) => format!("nobody ({why})"),
        Asker::Named(account) => account,
        Asker::Machine => match server.account() {
            Ok(Some(account)) => account,
            _ => "this machine's service account".into(),
        },
    };
    let whom = format!(" as {whom}");
    let writes = key == "model_dir";
    let tried = store::try_reading(place).and_then(|found| {
        if writes {
            store::try_writing(place)?;
        }
        Ok(found)
    });
    match tried {
        Err(error) => bad(error, &whom),
        Ok(_) if writes => Finding::good(key, format!("{shown}: readable and writable{whom}")),
        Ok(Some(_)) => Finding::good(key, format!("{shown}: readable{whom}")),
        Ok(None) => Finding::bad(
            key,
            format!("{shown} holds nothing that can be listed{whom}"),
            "check the name",
        ),
    }
}

/// Whether libtpu is there and loads, without taking the chips.
fn plugin() -> Finding {
    let what = "plugin";
    let path = match find(Platform::Tpu, None) {
        Ok(found) => found.path,
        Err(error) => {
            let remedy = "run `simclr plugins install tpu`, or correct SIMCLR_PLUGIN_TPU";
            return Finding::bad(what, error.to_string(), remedy);
        }
    };
    match run_again(&["--here"], &WITHOUT_TPU) {
        Ok(ended) if ended.code == 0 => Finding::good(
            what,
            format!("{} ({})", path.display(), ended.output.trim()),
        ),
        Ok(ended) => Finding::bad(
            what,
            ended.words.trim().to_string(),
            "run `simclr plugins install tpu`",
        ),
        Err(error) => Finding::bad(what, error.to_string(), "run `simclr plugins install tpu`"),
    }
}
