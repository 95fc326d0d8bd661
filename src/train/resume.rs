//! Where a run goes on: at its newest checkpoint, at the one that the user names, or at the start.

use super::checkpoint;
use super::pretrain::{Run, say};
use super::run_dir::{self, RunDir, differences};
use super::step::StepModule;
use super::{Error, start, state};
use crate::config::{self, Plan};
use crate::hlo::Literal;
use crate::report::{disk, metrics};
use std::path::{Path, PathBuf};

/// In the run folder: the checkpoint that `--resume-from` named last. A restart of the same command, which a supervisor makes after
/// a stop, then goes on instead of going back again.
const TAKEN: &str = "resumed-from";

/// The state that a run goes on with.
pub(super) struct Point {
    /// Steps done.
    pub(super) step: u64,
    /// The state's arrays.
    pub(super) values: Vec<Literal>,
    /// Whether there was a checkpoint.
    pub(super) resumed: bool,
    /// Hash of the module that computed it, as that was compiled; empty where it is not known.
    compiled_hash: String,
    /// The configuration by which it was computed, if that was in this run folder.
    config_yaml: Option<String>,
    /// The checkpoint, if the user named it and it was not taken before.
    named: Option<PathBuf>,
}

impl Point {
    /// Finds and reads it. Nothing is changed in the run folder yet.
    ///
    /// # Errors
    /// If the checkpoint is damaged, or of another network or configuration.
    pub(super) fn find(
        run: &Run,
        identity: &[(String, String)],
        module: &StepModule,
    ) -> Result<Self, Error> {
        let checkpoints = run_dir::checkpoints(run.model_dir);
        let (newest_step, newest) = checkpoint::list(&checkpoints)?.pop().unzip();
        let named = match (run.resume_from, newest_step) {
            (Some(path), Some(newest)) if was_taken(run.model_dir, path, newest)? => None,
            (named, _) => named,
        };
        if let (Some(path), None, Some(newest)) = (run.resume_from, named, &newest) {
            say(
                run.screen,
                &format!(
                    "this run went on from {} before; going on from {} (delete {} to go back once more)",
                    path.display(),
                    newest.display(),
                    run.model_dir.join(TAKEN).display()
                ),
            );
        }
        let named = named.map(Path::to_path_buf);
        let Some(path) = named.clone().or(newest) else {
            run_dir::refuse_lost(run.model_dir)?;
            return Ok(Point {
                step: 0,
                values: start::values(run.loaded, module)?,
                resumed: false,
                compiled_hash: String::new(),
                config_yaml: None,
                named: None,
            });
        };
        let (manifest, arrays) = checkpoint::load(&path, &state::specs(&module.state))?;
        let differences = differences(&manifest.config, identity);
        if !differences.is_empty() {
            return Err(checkpoint::Error::OtherConfig { path, differences }.into());
        }
        say(
            run.screen,
            &format!("resuming at step {} from {}", manifest.step, path.display()),
        );
        // The curves of another run's are not here.
        let own = absolute(&path).parent() == absolute(&checkpoints.join("step")).parent();
        Ok(Point {
            step: manifest.step,
            values: state::literals(&module.state, arrays),
            resumed: true,
            compiled_hash: manifest.compiled_hash,
            config_yaml: own.then_some(manifest.config_yaml),
            named,
        })
    }

    /// What to say if the step that goes on was compiled from another module than the checkpoint's.
    pub(super) fn otherwise_compiled(&self, compiled_hash: &str) -> Option<String> {
        let known = !self.compiled_hash.is_empty();
        (known && self.compiled_hash != compiled_hash).then(|| {
            "the checkpoint was computed by a step compiled otherwise (other devices, plugin, passes, compiler options, runtime.remat or paired_views, or version \
             of this program; other steps per launch change nothing); the run goes on, but its numbers may differ in the last digits from \
             those of a run without the stop"
                .into()
        })
    }

    /// What to say if the metrics do not reach as far as the checkpoint, of which they told before it was saved.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub(super) fn hole(&self, metrics: &Path, plan: &Plan) -> Result<Option<String>, Error> {
        let then = self.config_yaml.as_ref();
        let then = then.and_then(|yaml| config::load_text(yaml, metrics, &[]).ok());
        let Some(then) = then.and_then(|then| Plan::new(&then, plan.examples, plan.replicas).ok())
        else {
            return Ok(None);
        };
        let due = self.step - self.step % then.summary_steps;
        let rows = metrics::read(metrics)?;
        let last = rows.iter().rev().find(|row| row.step <= self.step);
        let told = last.map_or(0, |row| row.step);
        Ok((told < due).then(|| {
            format!(
                "{} has no line after step {told}, though the checkpoint is of step {}: what it told between is lost, and curves have a gap there",
                metrics.display(),
                self.step
            )
        }))
    }

    /// Sets later checkpoints aside if the user went back, now that the run is about to go on.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(super) fn settle(&self, run_dir: &RunDir) -> Result<(), Error> {
        let Some(path) = &self.named else {
            return Ok(());
        };
        checkpoint::set_aside_after(&run_dir.checkpoints(), self.step)?;
        let taken = run_dir.path().join(TAKEN);
        let path = absolute(path).as_os_str().as_encoded_bytes().to_vec();
        Ok(run_dir::replace(&taken, path)?)
    }
}

/// Whether the run has gone on from this checkpoint and come at least as far by a checkpoint of its own, the newest.
fn was_taken(model_dir: &Path, path: &Path, newest: u64) -> Result<bool, Error> {
    let taken = run_dir::content(&model_dir.join(TAKEN))?;
    let same = taken.is_some_and(|bytes| bytes == absolute(path).as_os_str().as_encoded_bytes());
    Ok(same && checkpoint::step_at(path).is_none_or(|step| step <= newest))
}

/// The same, whether the checkpoint is still there or not.
fn absolute(path: &Path) -> PathBuf {
    let folder = disk::parent(path).canonicalize();
    match (folder, path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}
