//! The records of a split in shards as a stream: read side by side ahead of their use, with the window between.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::Error;
use super::record::RecordReader;
use super::shards::{RawRecord, Shards, wrong_count};
use super::window::{Epoch, WindowOrder};

/// Records in the order of use, read ahead by a thread of its own.
pub(super) struct RecordStream {
    records: Receiver<Result<RawRecord, Error>>,
    /// Until its end was seen.
    thread: Option<JoinHandle<()>>,
    /// The first file.
    file: PathBuf,
}

/// Records that wait to be taken.
const AHEAD: usize = 64;

/// Arrivals whose files are opened before they come.
const OPENED_AHEAD: usize = 256;

impl RecordStream {
    /// The records of training from a position on. Memory: the order's window and [`AHEAD`] records.
    pub(super) fn training(shards: Arc<Shards>, order: WindowOrder, position: u64) -> Self {
        let file = shards.files[0].clone();
        let mut reader = Reader::new(shards, order, position);
        RecordStream::of(file, move || Some(reader.next()))
    }

    /// All examples in the order of the files, once.
    pub(super) fn straight(shards: Arc<Shards>) -> Self {
        let first = shards.files[0].clone();
        let (mut file, mut number) = (0, 0);
        let mut open: Option<RecordReader> = None;
        RecordStream::of(first, move || {
            loop {
                let length = *shards.lengths.get(file)?;
                if number as u64 == length && (length > 0 || shards.chosen.is_some()) {
                    (file, number, open) = (file + 1, 0, None);
                    continue;
                }
                let mut reader = match open.take().map_or_else(|| shards.reader(file), Ok) {
                    Ok(reader) => reader,
                    Err(error) => return Some(Err(error)),
                };
                if length == 0 {
                    match reader.skip() {
                        Ok(false) => file += 1,
                        Ok(true) => return Some(Err(wrong_count(&shards.files[file], 1, 0))),
                        Err(error) => return Some(Err(error)),
                    }
                    continue;
                }
                let found = shards.fetch(&mut reader, file, number);
                open = Some(reader);
                number += 1;
                return Some(found);
            }
        })
    }

    fn of(
        file: PathBuf,
        mut next: impl FnMut() -> Option<Result<RawRecord, Error>> + Send + 'static,
    ) -> Self {
        let (sender, records) = sync_channel(AHEAD);
        // It ends with its last record, with an error that is not of one record alone, or when nobody takes records any more.
        let thread = std::thread::spawn(move || {
            while let Some(record) = next() {
                let failed = matches!(&record, Err(error) if !error.spoils_one_example());
                if sender.send(record).is_err() || failed {
                    return;
                }
            }
        });
        RecordStream {
            records,
            thread: Some(thread),
            file,
        }
    }

    /// The next record; none after the last one or after an error.
    pub(super) fn next(&mut self) -> Option<Result<RawRecord, Error>> {
        if let Ok(record) = self.records.recv() {
            return Some(record);
        }
        // A thread that broke down has not come to the end.
        match self.thread.take()?.join() {
            Ok(()) => None,
            Err(_) => Some(Err(Error::ReaderPanicked {
                file: self.file.clone(),
            })),
        }
    }
}

/// Reads shards side by side and keeps the window.
struct Reader {
    shards: Arc<Shards>,
    order: WindowOrder,
    number: u64,
    epoch: Epoch,
    /// Of the epoch: examples used, arrivals looked at, and arrivals whose file is open.
    used: usize,
    arrived: usize,
    opened: usize,
    /// Examples that were used before this start, by number; empty once an epoch begins at its beginning.
    passed: Vec<bool>,
    /// Of each file the last of its examples that is still to arrive, after which it is closed.
    ends: Vec<u32>,
    open: HashMap<usize, RecordReader>,
    /// A record, or what was wrong with it alone.
    window: HashMap<u32, Result<RawRecord, Error>>,
}

impl Reader {
    fn new(shards: Arc<Shards>, order: WindowOrder, position: u64) -> Self {
        let number = position / order.len();
        let used = (position % order.len()) as usize;
        let epoch = order.epoch(number);
        let mut passed = Vec::new();
        if used > 0 {
            passed = vec![false; shards.lengths.iter().sum::<u64>() as usize];
            for &example in &epoch.order[..used] {
                passed[example as usize] = true;
            }
        }
        let ends = ends(&order, &epoch, &passed);
        Reader {
            ends,
            shards,
            order,
            number,
            epoch,
            used,
            arrived: 0,
            opened: 0,
            passed,
            open: HashMap::new(),
            window: HashMap::new(),
        }
    }

    fn next(&mut self) -> Result<RawRecord, Error> {
        if self.used == self.epoch.order.len() {
            self.number += 1;
            self.epoch = self.order.epoch(self.number);
            (self.used, self.arrived, self.opened) = (0, 0, 0);
            self.passed.clear();
            self.ends = ends(&self.order, &self.epoch, &self.passed);
            self.open.clear();
        }
        let wanted = self.epoch.order[self.used];
        self.used += 1;
        loop {
            if let Some(record) = self.window.remove(&wanted) {
                return record;
            }
            // Every example of the order arrives, and each once: the loop ends before the arrivals do.
            self.open_ahead()?;
            let example = self.epoch.arrivals[self.arrived];
            self.arrived += 1;
            if self.passed.get(example as usize) != Some(&true) {
                match self.read(example) {
                    Err(error) if !error.spoils_one_example() => return Err(error),
                    record => self.window.insert(example, record),
                };
            }
        }
    }

    /// Opens the files of the arrivals to come: a bucket takes its time to answer.
    fn open_ahead(&mut self) -> Result<(), Error> {
        let end = (self.arrived + OPENED_AHEAD).min(self.epoch.arrivals.len());
        // Each may be read ahead: those in turn and their successors.
        let most_open = 2 * self.order.side_by_side();
        while self.opened < end && self.open.len() < most_open {
            let example = self.epoch.arrivals[self.opened];
            self.opened += 1;
            if self.passed.get(example as usize) != Some(&true) {
                let (shard, _) = self.order.locate(example);
                if let Slot::Vacant(place) = self.open.entry(shard) {
                    place.insert(self.shards.reader(shard)?);
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, example: u32) -> Result<RawRecord, Error> {
        let (shard, number) = self.order.locate(example);
        let mut reader = match self.open.remove(&shard) {
            Some(reader) => reader,
            None => self.shards.reader(shard)?,
        };
        let found = self.shards.fetch(&mut reader, shard, number);
        if example != self.ends[shard] {
            self.open.insert(shard, reader);
        }
        found
    }
}

/// Of each file the last example to arrive that was not passed; 0 where none is, which is never looked at.
fn ends(order: &WindowOrder, epoch: &Epoch, passed: &[bool]) -> Vec<u32> {
    let mut ends = vec![0; order.shards()];
    for &example in &epoch.arrivals {
        if passed.get(example as usize) != Some(&true) {
            ends[order.locate(example).0] = example;
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::frame;
    use super::super::shards::Layout;
    use super::super::window::Pipeline;
    use super::*;

    #[test]
    fn few_files_are_open_and_none_after_its_last_example() {
        let folder = tempfile::tempdir().unwrap();
        let content = frame(&[b"one", b"two", b"three"]);
        let files: Vec<PathBuf> = (0..60)
            .map(|part| {
                let file = folder.path().join(format!("{part}.tfrecord"));
                std::fs::write(&file, &content).unwrap();
                file
            })
            .collect();
        let lengths = vec![3; files.len()];
        let order = WindowOrder::new(7, &lengths, 16, Pipeline::WHOLE);
        let shards = Shards {
            layout: Layout {
                image: "image".into(),
                label: None,
                first_label: 0,
                classes: 0,
            },
            whole: String::new(),
            fingerprint: String::new(),
            sizes: vec![content.len() as u64; files.len()],
            files,
            lengths,
            chosen: None,
        };
        let mut reader = Reader::new(Arc::new(shards), order, 0);
        let mut most = 0;
        for _ in 0..180 {
            reader.next().unwrap();
            most = most.max(reader.open.len());
        }
        assert_eq!((most, reader.open.len()), (32, 0));
    }

    #[test]
    fn a_reader_that_breaks_down_is_no_end() {
        let mut broken = RecordStream::of("a.tfrecord".into(), || panic!("on purpose"));
        let error = broken.next().expect("not the end").unwrap_err();
        assert!(
            error.to_string().contains("a.tfrecord") && !error.spoils_one_example(),
            "{error}"
        );
        assert!(broken.next().is_none());
        assert!(RecordStream::of("b".into(), || None).next().is_none());
    }
}
