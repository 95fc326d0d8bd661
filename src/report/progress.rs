//! Where the run stands: one live line on a terminal, plain lines at intervals elsewhere, nothing when quiet.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// Seconds between two plain lines.
const PLAIN_INTERVAL: f64 = 10.0;

/// Columns before the live line.
const SPINNER: usize = 2;

/// Where a run stands. All values are of the present moment, or means over the steps since the last update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// Passes over the training set done.
    pub epoch: f64,
    /// Passes of the whole run.
    pub epochs: f64,
    /// The contrastive loss.
    pub loss: f32,
    /// Contrast accuracy, 0 to 1.
    pub contrast_accuracy: f32,
    /// Learning rate.
    pub learning_rate: f32,
    /// Original images per second.
    pub images_per_second: f64,
    /// Until the last step; `None` while the speed is unknown.
    pub seconds_left: Option<f64>,
}

/// The standing as one line.
pub fn line(standing: &Standing) -> String {
    parts(standing).map(|(_, part)| part).join("  ")
}

/// The same in so many columns, without the parts that matter least where it is too narrow for all.
pub fn line_within(standing: &Standing, columns: usize) -> String {
    let mut parts = parts(standing).to_vec();
    loop {
        let texts: Vec<&str> = parts.iter().map(|(_, part)| part.as_str()).collect();
        let line = texts.join("  ");
        if line.chars().count() <= columns || parts.len() == 1 {
            return line;
        }
        let least = parts.iter().map(|(weight, _)| *weight).min();
        parts.retain(|(weight, _)| Some(*weight) != least);
    }
}

/// The parts of the line, each with how much it matters beside the others.
fn parts(standing: &Standing) -> [(u8, String); 7] {
    let left = standing.seconds_left.map_or("–".to_owned(), duration);
    let (epochs, loss) = (short(standing.epochs), standing.loss);
    let (step, steps) = (count(standing.step), count(standing.steps));
    let speed = rate(standing.images_per_second);
    [
        (4, format!("epoch {:.2}/{epochs}", standing.epoch)),
        (7, format!("step {step}/{steps}")),
        (5, format!("loss {loss:.4}")),
        (
            2,
            format!("acc {:.1} %", 100.0 * standing.contrast_accuracy),
        ),
        (6, format!("ETA {left}")),
        (3, format!("{speed} img/s")),
        (1, format!("lr {}", significant(standing.learning_rate))),
    ]
}

/// Seconds until the last step, from the seconds of one step.
pub fn seconds_left(step: u64, steps: u64, seconds_per_step: f64) -> Option<f64> {
    (seconds_per_step.is_finite() && seconds_per_step > 0.0)
        .then(|| steps.saturating_sub(step) as f64 * seconds_per_step)
}

/// A number with its thousands set apart: `1,250`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A length of time in its two largest units: `45 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`.
pub fn duration(seconds: f64) -> String {
    // A negative or broken duration saturates to zero.
    let seconds = seconds.round() as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {:02} h", hours % 24),
        () if hours > 0 => format!("{hours} h {:02} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {:02} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

/// Images per second: whole numbers from ten on.
pub fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        count(per_second.round() as u64)
    } else {
        format!("{per_second:.1}")
    }
}

/// Four digits that tell something, so that a decaying learning rate stays readable.
fn significant(value: f32) -> String {
    if value != 0.0 && value.abs() < 1e-3 {
        format!("{value:.3e}")
    } else {
        format!("{value:.4}")
    }
}

fn short(epochs: f64) -> String {
    let text = format!("{epochs:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One line that is redrawn in place.
    Live,
    /// A line every ten seconds.
    Plain,
    /// Nothing.
    Quiet,
}

/// The one place that writes beside results: progress, and log lines that must not tear the live line.
///
/// Clones share the screen. As a `MakeWriter` it takes the lines of `tracing`; being quiet does not hold those back.
#[derive(Clone)]
pub struct Screen(Arc<Shared>);

struct Shared {
    style: Style,
    bar: Mutex<Option<ProgressBar>>,
    sink: Mutex<Box<dyn Write + Send>>,
}

impl Screen {
    /// Standard error: live on a terminal that can move its cursor, plain elsewhere.
    pub fn stderr(quiet: bool) -> Screen {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Live,
            (false, false) => Style::Plain,
        };
        Screen::new(style, Box::new(io::stderr()))
    }

    /// Any sink. A live line goes to standard error all the same, if that is a terminal.
    pub fn new(style: Style, sink: Box<dyn Write + Send>) -> Screen {
        Screen(Arc::new(Shared {
            style,
            bar: Mutex::new(None),
            sink: Mutex::new(sink),
        }))
    }

    /// How progress is shown here.
    pub fn style(&self) -> Style {
        self.0.style
    }

    /// Writes text above the live line, if there is one.
    pub fn write_above(&self, text: &[u8]) -> io::Result<()> {
        let write = || {
            let mut sink = locked(&self.0.sink);
            sink.write_all(text)?;
            sink.flush()
        };
        match &*locked(&self.0.bar) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Screen;

    fn make_writer(&'a self) -> Screen {
        self.clone()
    }
}

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.write_above(text).map(|()| text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The progress of one run on a screen; the live line goes away when this is dropped.
pub struct Progress {
    screen: Screen,
    /// When the last plain line was written.
    last: Option<f64>,
}

impl Progress {
    /// Begins to show progress towards `steps`, from `step` on.
    pub fn start(screen: &Screen, step: u64, steps: u64) -> Progress {
        if screen.style() == Style::Live {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}")
                .expect("the template is valid");
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr())
                .with_style(style)
                .with_position(step);
            *locked(&screen.0.bar) = Some(bar);
        }
        Progress {
            screen: screen.clone(),
            last: None,
        }
    }

    /// Shows where the run stands. `now`: seconds by any clock that does not go back.
    ///
    /// A sink that does not take the text (a closed pipe) does not stop a run.
    pub fn update(&mut self, standing: &Standing, now: f64) {
        match self.screen.style() {
            Style::Quiet => {}
            Style::Live => {
                if let Some(bar) = &*locked(&self.screen.0.bar) {
                    let columns = usize::from(Term::stderr().size().1);
                    bar.set_message(line_within(standing, columns.saturating_sub(SPINNER)));
                    bar.set_position(standing.step);
                }
            }
            Style::Plain => {
                let due = self.last.is_none_or(|last| now - last >= PLAIN_INTERVAL);
                if due || standing.step >= standing.steps {
                    self.last = Some(now);
                    let _ = self.screen.write_above((line(standing) + "\n").as_bytes());
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = locked(&self.screen.0.bar).take() {
            bar.finish_and_clear();
        }
    }
}

/// The data of a lock is usable even if a thread died while holding it: it is only ever replaced whole.
fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
