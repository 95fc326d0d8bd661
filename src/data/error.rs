//! What can be wrong with a data set, each with the file, what was found, what was expected and
//! what to do.

use std::path::{Path, PathBuf};

use super::example::ExampleError;
use crate::error::Class;
use crate::words::{self, plural};

/// Why a data set could not be loaded.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The fields are what the message of their variant says.
pub enum Error {
    /// A name that is no data set.
    #[error(
        "there is no data set `{name}`: `dataset` is one of {known}, or a set that TFDS has written into `data_dir`, which is not set{}",
        like_one_of(name, known)
    )]
    UnknownDataset { name: String, known: String },
    /// A split that the data set does not have.
    #[error("data set `{dataset}` has no split `{split}`: use one of {known}")]
    UnknownSplit {
        dataset: String,
        split: String,
        known: String,
    },
    /// A data set on disk, but no folder was named.
    #[error("data set `{dataset}` is read from disk: set `data_dir` to the folder that holds it")]
    NoDataDir { dataset: String },
    /// The folder does not exist, or is a file.
    #[error(
        "`data_dir` {dir} is not a folder: set it to the folder that holds data set `{dataset}`"
    )]
    DataDirMissing { dataset: String, dir: PathBuf },
    /// The folder holds something else.
    #[error(
        "no files of split `{split}` of data set `{dataset}` in `data_dir` {dir}, which holds {found}; looked for {expected}; set data_dir to the folder that has it, or train_split and eval_split to splits that it has"
    )]
    NotFound {
        dataset: String,
        split: String,
        dir: PathBuf,
        found: String,
        expected: String,
    },
    /// A folder in which nothing is a data set.
    #[error(
        "no data set in {dir}, which holds {found}; looked for {expected}; name the folder that has one"
    )]
    NoSet {
        dir: PathBuf,
        found: String,
        expected: &'static str,
    },
    /// Sets or splits, but not those that were wanted.
    #[error("no {wanted} in {dir}, which holds {found}; name one of these with {options}")]
    OtherSets {
        wanted: String,
        dir: PathBuf,
        found: String,
        options: &'static str,
    },
    /// [`Error::UnknownDataset`] of a command.
    #[error(
        "there is no data set `{name}`: expected one of {known}, or one that TFDS has written; {remedy}"
    )]
    UnknownName {
        name: String,
        known: String,
        remedy: &'static str,
    },
    /// [`Error::NoDataDir`] of a command.
    #[error("data set `{dataset}` is read from disk: {remedy}")]
    NoFolderNamed {
        dataset: String,
        remedy: &'static str,
    },
    /// [`Error::DataDirMissing`] of a command.
    #[error("{dir} is not a folder: {remedy}")]
    NoFolder { dir: PathBuf, remedy: &'static str },
    /// [`Error::NotFound`] of a command.
    #[error("no files of {wanted} in {dir}, which holds {found}; looked for {expected}; {remedy}")]
    NotThere {
        wanted: String,
        dir: PathBuf,
        found: String,
        expected: String,
        remedy: &'static str,
    },
    /// A set of which nothing is streamed.
    #[error(
        "the images of data set `{dataset}` lie in memory, so that there is nothing to read or to decode: `simclr bench` measures steps on them; name a set that is streamed"
    )]
    InMemory { dataset: String },
    /// The system has no room for threads.
    #[error("cannot start {threads} threads: {cause}; ask for fewer with --threads")]
    Threads { threads: usize, cause: String },
    /// A share that is none.
    #[error(
        "{percent} % of {examples} examples is less than half of one, expected one at least: raise --percent, or say --per-class"
    )]
    NothingDrawn { percent: f64, examples: usize },
    /// Some files of the split are there, others not.
    #[error(
        "file {file} is missing, {found} of {expected} files of its split are there: fetch or prepare the data set again"
    )]
    MissingFile {
        file: PathBuf,
        found: usize,
        expected: usize,
    },
    /// Files of two different preparations of the same split lie side by side.
    #[error(
        "{dir} holds split `{split}` twice, as {first} file{} and as {second} file{}: remove one of them",
        plural(*first), plural(*second)
    )]
    TwoShardings {
        dir: PathBuf,
        split: String,
        first: usize,
        second: usize,
    },
    /// The operating system refused to read.
    #[error("cannot read {file}: {cause}; check the disk, and that this user may read it")]
    Read {
        file: PathBuf,
        cause: std::io::Error,
    },
    /// What is never opened.
    #[error("{file} is {found}, expected a file: remove it, or name another")]
    NoFile { file: PathBuf, found: &'static str },
    /// A class folder whose name no list and no checkpoint can hold.
    #[error(
        "the name of the class folder {dir} is not UTF-8, expected one that is, as lists and checkpoints hold it; rename it"
    )]
    ClassFolderName { dir: PathBuf },
    /// A bucket that does not give what it is asked for.
    #[error("cannot {action} {place}: {cause}, {attempts}; {remedy}")]
    Bucket {
        action: &'static str,
        place: String,
        cause: String,
        attempts: String,
        remedy: Box<str>,
    },
    /// A compressed file that cannot be unpacked.
    #[error(
        "{file} is corrupt: what is packed in it by {format} ends or breaks at record {record} ({reason}); fetch the file again"
    )]
    Packing {
        file: PathBuf,
        format: &'static str,
        record: usize,
        reason: String,
    },
    /// The operating system refused to write.
    #[error("cannot write {file}: {cause}")]
    Write {
        file: PathBuf,
        cause: std::io::Error,
    },
    /// A set of this name was packed before.
    #[error("{dir} is there already, expected nothing: remove it, or pack under another --name")]
    OutputExists { dir: PathBuf },
    /// A set that was not written whole into a bucket.
    #[error(
        "{written} of the {files} files of {dir} were written, then: {cause} (what is there is no set yet; pack again, which replaces it)"
    )]
    BrokeOff {
        dir: PathBuf,
        written: usize,
        files: usize,
        cause: Box<Error>,
    },
    /// Splits of one set with different classes.
    #[error(
        "{dir} has {found} class folders, expected the {expected} of the other splits, by the same names"
    )]
    OtherClasses {
        dir: PathBuf,
        found: usize,
        expected: usize,
    },
    /// `dataset_info.json` is damaged.
    #[error(
        "{file} is not the description of a TFDS data set ({reason}): prepare the data set again, or remove the file to skip its checks"
    )]
    Info { file: PathBuf, reason: String },
    /// The description and the files disagree about the number of examples or files.
    #[error(
        "{file} holds {found} {what}, but dataset_info.json promises {expected}: fetch or prepare the data set again"
    )]
    Count {
        file: PathBuf,
        what: &'static str,
        found: u64,
        expected: u64,
    },
    /// A record goes on after the end of its file.
    #[error(
        "{file} is truncated: record {record}, at byte {offset}, has {found} bytes of {expected} for its {part}; fetch the file again"
    )]
    TruncatedRecord {
        file: PathBuf,
        record: usize,
        offset: usize,
        part: &'static str,
        found: u64,
        expected: u64,
    },
    /// A CRC does not match.
    #[error(
        "{file} is corrupt: record {record}, at byte {offset}, has {part} CRC {computed:#010x}, expected {stored:#010x}; fetch the file again"
    )]
    CorruptRecord {
        file: PathBuf,
        record: usize,
        offset: usize,
        part: &'static str,
        stored: u32,
        computed: u32,
    },
    /// A record that is not the expected `tf.train.Example`.
    #[error("record {record} of {file}: {cause}; prepare the data set again")]
    Example {
        file: PathBuf,
        record: usize,
        cause: ExampleError,
    },
    /// An image that is no PNG or a damaged one.
    #[error(
        "the image in record {record} of {file} is not a readable PNG ({reason}); prepare the data set again"
    )]
    Image {
        file: PathBuf,
        record: usize,
        reason: String,
    },
    /// An image of another size.
    #[error(
        "the image in record {record} of {file} is {found}, expected {expected}; is it another data set?"
    )]
    ImageSize {
        file: PathBuf,
        record: usize,
        found: String,
        expected: String,
    },
    /// A label beyond the number of classes.
    #[error(
        "the label in record {record} of {file} is {found}, expected 0 to {last}; is it another data set?"
    )]
    Label {
        file: PathBuf,
        record: usize,
        found: i64,
        last: usize,
    },
    /// A picture in a record that cannot be decoded.
    #[error(
        "the image in record {record} of {file} cannot be decoded: {reason}; prepare the data set again{}",
        OR_SKIP
    )]
    Picture {
        file: PathBuf,
        record: usize,
        reason: String,
    },
    /// A file of a picture that cannot be decoded.
    #[error("{file} cannot be decoded: {reason}; repair or remove it{}", OR_SKIP)]
    PictureFile { file: PathBuf, reason: String },
    /// A label of a streamed set beyond its classes.
    #[error(
        "the label in record {record} of {file} is {found}, expected {first} to {last}; is it another data set?"
    )]
    ClassLabel {
        file: PathBuf,
        record: usize,
        found: i64,
        first: i64,
        last: i64,
    },
    /// A file to be packed that cannot be decoded.
    #[error("{file} cannot be decoded: {reason}; repair or remove it")]
    PackedFile { file: PathBuf, reason: String },
    /// The stream gave less than a step needs.
    #[error(
        "the stream of examples ended: {found} of the {expected} of a step came; this is a bug, please report it with the log"
    )]
    ShortStep { found: usize, expected: usize },
    /// A bug of the thread that reads records.
    #[error(
        "the thread that reads records of {file} and the files beside it broke down; run `simclr data check`, and start again"
    )]
    ReaderPanicked { file: PathBuf },
    /// Splits whose labels count different classes.
    #[error(
        "class {class} is {found} in split `{split}`, expected {expected} as in split `{training}`, and labels are places in the list of classes: give both the same class folders, empty where there is no picture"
    )]
    ClassOrder {
        class: usize,
        found: String,
        split: String,
        expected: String,
        training: String,
    },
    /// More bad examples than may be skipped.
    #[error(
        "{skipped} example{} of an epoch could not be had, at most {most} are skipped, and never a whole batch; the last one: {}; run `simclr data check`, or set on_bad_record=fail to see the first",
        plural(*skipped), last.where_skipped()
    )]
    TooManyBad {
        skipped: usize,
        most: usize,
        last: Box<Error>,
    },
    /// A bug of a decoder.
    #[error("the decoder broke down at example {position} of the run{}", SKIP)]
    DecoderPanicked { position: u64 },
    /// Nothing says how many classes there are.
    #[error(
        "nothing beside {file} says how many classes there are, expected features.json or label.labels.txt; prepare the data set again"
    )]
    NoClasses { file: PathBuf },
    /// A subset without its list.
    #[error(
        "data set `{dataset}` is made by the original's list, which is neither {looked}: fetch it as imagenet_subsets/README.md says, or set subset_list to it"
    )]
    NoList { dataset: String, looked: String },
    /// A list that is not the original's.
    #[error(
        "{file} is not the original's list of `{dataset}`: its SHA-256 is {found}, expected {expected}; fetch it again, or set dataset={of} and subset_list to use a list of your own"
    )]
    OtherList {
        file: PathBuf,
        dataset: &'static str,
        of: &'static str,
        found: String,
        expected: &'static str,
    },
    /// A list that is none.
    #[error("line {line} of the list {file} {reason}; it holds the name of one example a line")]
    BadList {
        file: PathBuf,
        line: usize,
        reason: String,
    },
    /// A list of other examples.
    #[error(
        "no example of split `{split}` is on the list {list}, whose first is `{first}` (an example is called, for instance, `{example}`); is it a list of another data set?"
    )]
    NoneListed {
        list: PathBuf,
        first: String,
        split: String,
        example: String,
    },
    /// A listed name that is not that of one example.
    #[error(
        "{count} examples are called `{name}`, which the list {list} names once, expected names that tell examples apart; pack the pictures again (`simclr data pack` calls them CLASS/FILE now), or list others"
    )]
    NotOneExample {
        list: PathBuf,
        name: String,
        count: usize,
    },
    /// A set of whose examples no list can be made.
    #[error(
        "{count} examples are called `{name}`, expected names that tell examples apart; pack the pictures again (`simclr data pack` calls them CLASS/FILE now)"
    )]
    SameName { name: String, count: usize },
    /// A catalogue of other files of the same sizes.
    #[error(
        "record {record} of {file} is called `{found}`, expected `{expected}` by the catalogue {catalogue}; remove that, and start again"
    )]
    OldCatalogue {
        file: PathBuf,
        record: usize,
        found: String,
        expected: String,
        catalogue: String,
    },
    /// Examples that have no names.
    #[error(
        "examples of {file} have no names, which a list needs: expected one of the features {expected}"
    )]
    NoNames { file: PathBuf, expected: String },
    /// A binary file that does not consist of whole records.
    #[error(
        "{file} has {found} bytes, which is not a positive multiple of {record_size}, the size of a record: it is cut short or another file; fetch it again"
    )]
    FileSize {
        file: PathBuf,
        found: usize,
        record_size: usize,
    },
    /// A list of class names with the wrong number of lines.
    #[error("{file} names {found} classes, expected {expected}; is it another data set?")]
    ClassNames {
        file: PathBuf,
        found: usize,
        expected: usize,
    },
    /// A split without a single example.
    #[error(
        "{file} and the other files of its split hold no example: fetch or prepare the data set again"
    )]
    Empty { file: PathBuf },
}

/// What may be done about a bad example, as the end of a sentence.
const OR_SKIP: &str = ", or set on_bad_record=skip";
const SKIP: &str = "; set on_bad_record=skip";

/// The known name that an unknown one is like, as the end of a sentence.
fn like_one_of(name: &str, known: &str) -> String {
    let nearest = words::nearest(name, known.split(", "));
    nearest.map_or(String::new(), |nearest| {
        format!("; did you mean `{nearest}`?")
    })
}

/// What a command says where a run speaks of its keys.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// What to do about a folder that is none.
    pub no_folder: &'static str,
    /// What to do about one that holds something else.
    pub not_there: &'static str,
}

impl Error {
    /// The same in the words of a command that has no such keys.
    pub fn in_words_of(self, words: &Words) -> Self {
        let (remedy, elsewhere) = (words.no_folder, words.not_there);
        match self {
            Error::UnknownDataset { name, known } => Error::UnknownName {
                name,
                known,
                remedy,
            },
            Error::NoDataDir { dataset } => Error::NoFolderNamed { dataset, remedy },
            Error::DataDirMissing { dir, .. } => Error::NoFolder { dir, remedy },
            Error::NotFound {
                dataset,
                split,
                dir,
                found,
                expected,
            } => Error::NotThere {
                wanted: format!("split `{split}` of data set `{dataset}`"),
                dir,
                found,
                expected,
                remedy: elsewhere,
            },
            other => other,
        }
    }

    /// What went wrong when `file` was read: an error of ours that came by way of the system's type, or the system's own.
    pub(super) fn reading(file: &Path, cause: std::io::Error) -> Self {
        cause.downcast().unwrap_or_else(|cause| Error::Read {
            file: file.into(),
            cause,
        })
    }

    /// What the system said when `file` was written.
    pub(super) fn writing(file: &Path, cause: std::io::Error) -> Self {
        Error::Write {
            file: file.into(),
            cause,
        }
    }

    /// The sentence where the example is skipped, which need not be asked for then.
    pub(super) fn where_skipped(&self) -> String {
        let text = self.to_string();
        let asked = [OR_SKIP, SKIP]
            .iter()
            .find_map(|end| text.strip_suffix(end));
        asked.map_or(text.clone(), String::from)
    }

    /// Whether what follows in the data can be trusted all the same.
    pub(super) fn spoils_one_example(&self) -> bool {
        matches!(
            self,
            Error::Example { .. }
                | Error::Picture { .. }
                | Error::PictureFile { .. }
                | Error::ClassLabel { .. }
                | Error::DecoderPanicked { .. }
                | Error::CorruptRecord { part: "data", .. }
        )
    }

    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        match self {
            Error::UnknownDataset { .. }
            | Error::UnknownSplit { .. }
            | Error::NoDataDir { .. }
            | Error::DataDirMissing { .. }
            | Error::NotFound { .. }
            | Error::NoSet { .. }
            | Error::OtherSets { .. }
            | Error::UnknownName { .. }
            | Error::NoFolderNamed { .. }
            | Error::NoFolder { .. }
            | Error::NotThere { .. }
            | Error::InMemory { .. }
            | Error::NothingDrawn { .. }
            | Error::NoList { .. }
            | Error::OutputExists { .. } => Class::Usage,
            Error::Read { .. }
            | Error::Write { .. }
            | Error::Bucket { .. }
            | Error::Threads { .. } => Class::Environment,
            Error::MissingFile { .. }
            | Error::TwoShardings { .. }
            | Error::Info { .. }
            | Error::NoFile { .. }
            | Error::ClassFolderName { .. }
            | Error::Count { .. }
            | Error::OtherList { .. }
            | Error::BadList { .. }
            | Error::NoneListed { .. }
            | Error::NotOneExample { .. }
            | Error::SameName { .. }
            | Error::NoNames { .. }
            | Error::OldCatalogue { .. }
            | Error::Packing { .. }
            | Error::TruncatedRecord { .. }
            | Error::CorruptRecord { .. }
            | Error::Example { .. }
            | Error::Image { .. }
            | Error::ImageSize { .. }
            | Error::Label { .. }
            | Error::Picture { .. }
            | Error::PictureFile { .. }
            | Error::ClassLabel { .. }
            | Error::NoClasses { .. }
            | Error::OtherClasses { .. }
            | Error::TooManyBad { .. }
            | Error::DecoderPanicked { .. }
            | Error::FileSize { .. }
            | Error::ClassNames { .. }
            | Error::PackedFile { .. }
            | Error::ClassOrder { .. }
            | Error::Empty { .. } => Class::Check,
            Error::BrokeOff { cause, .. } => cause.class(),
            Error::ShortStep { .. } | Error::ReaderPanicked { .. } => Class::Failed,
        }
    }
}
