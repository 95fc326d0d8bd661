//! Says when a run is input-bound, and by which stage.

use crate::data::Stages;
use std::time::Duration;

/// Notices when the devices wait for examples.
#[derive(Default)]
pub(super) struct InputWatch {
    waited: Duration,
    total: Duration,
    stages: Stages,
    told: bool,
    /// Whether a launch was seen.
    begun: bool,
}

impl InputWatch {
    /// Looked at together: long enough for one slow launch not to count.
    const SPAN: Duration = Duration::from_secs(20);
    /// A share of waiting below this is no matter.
    const SHARE: f64 = 0.05;

    /// A line when waiting becomes a matter, once in a run.
    pub(super) fn add(
        &mut self,
        waited: Duration,
        total: Duration,
        stages: Stages,
    ) -> Option<String> {
        // The first one waits for threads that began with it.
        if !std::mem::replace(&mut self.begun, true) {
            self.stages = stages;
            return None;
        }
        self.waited += waited;
        self.total += total;
        if self.total < Self::SPAN {
            return None;
        }
        let share = self.waited.as_secs_f64() / self.total.as_secs_f64();
        let (stage, part) = stages.since(&self.stages).longest();
        let tell = share > Self::SHARE && !self.told;
        *self = InputWatch {
            stages,
            told: self.told || tell,
            begun: true,
            ..InputWatch::default()
        };
        tell.then(|| {
            format!(
                "input-bound: the devices waited for examples {:.0} % of the time; most of the host's work is {stage} ({:.0} %)",
                100.0 * share,
                100.0 * part
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn stages(read: u32, decode: u32, crop: u32) -> Stages {
        Stages {
            read: SECOND * read,
            decode: SECOND * decode,
            crop: SECOND * crop,
        }
    }

    #[test]
    fn a_run_that_waits_says_so_once_and_names_the_stage() {
        let mut watch = InputWatch::default();
        // At the beginning everybody waits.
        assert_eq!(watch.add(SECOND * 30, SECOND * 30, stages(9, 0, 0)), None);
        // Before the twentieth second nothing is known.
        assert_eq!(watch.add(SECOND * 5, SECOND * 19, stages(9, 1, 1)), None);
        let found = watch.add(SECOND, SECOND, stages(10, 27, 8));
        let line = found.expect("a line");
        for words in ["30 % of the time", "decoding (75 %)"] {
            assert!(line.contains(words), "{line}");
        }
        assert_eq!(watch.add(SECOND * 9, SECOND * 20, stages(50, 30, 9)), None);
    }

    #[test]
    fn only_what_was_done_in_the_meantime_counts() {
        let mut watch = InputWatch::default();
        assert_eq!(watch.add(SECOND, SECOND, stages(0, 1, 0)), None);
        assert_eq!(watch.add(SECOND, SECOND * 20, stages(0, 90, 5)), None);
        let found = watch.add(SECOND * 2, SECOND * 20, stages(9, 91, 5));
        let line = found.expect("it waits since");
        assert!(line.contains("10 % of the time") && line.contains("reading (90 %)"));
    }
}
