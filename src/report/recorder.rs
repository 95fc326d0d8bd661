//! One call that writes a step's numbers to `metrics.jsonl` and to TensorBoard.

use std::path::Path;

use super::{Error, EventFile, Metrics, Picture, Scalars, metrics};

/// Both records of a run.
pub struct Recorder {
    metrics: Metrics,
    events: EventFile,
}

impl Recorder {
    /// Opens `metrics.jsonl` and a new event file in the run folder.
    ///
    /// `resumed_step`: where the run goes on, `None` for a new one. `wall_time`: seconds since 1970.
    pub fn open(
        model_dir: &Path,
        resumed_step: Option<u64>,
        wall_time: f64,
    ) -> Result<Recorder, Error> {
        Ok(Recorder {
            metrics: Metrics::open(&model_dir.join(metrics::FILE), resumed_step)?,
            events: EventFile::create(model_dir, resumed_step, wall_time)?,
        })
    }

    /// Writes the numbers of a step; steps must not go back.
    pub fn scalars(&mut self, scalars: &Scalars, wall_time: f64) -> Result<(), Error> {
        self.metrics.write(scalars)?;
        self.events.scalars(scalars, wall_time)
    }

    /// Writes a picture, to TensorBoard only.
    pub fn image(
        &mut self,
        tag: &str,
        step: u64,
        picture: &Picture,
        wall_time: f64,
    ) -> Result<(), Error> {
        self.events.image(tag, step, picture, wall_time)
    }

    /// The metrics file.
    pub fn metrics_path(&self) -> &Path {
        self.metrics.path()
    }

    /// The event file of this start.
    pub fn events_path(&self) -> &Path {
        self.events.path()
    }
}
