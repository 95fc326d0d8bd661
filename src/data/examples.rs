//! Where the examples of a split come from, whatever holds them.

use std::path::Path;

use super::{Error, ImageSet, facts, load};

/// What a run must know of a split before it reads an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The data set's name, e.g. `cifar10`.
    pub name: String,
    /// Its split, e.g. `train`.
    pub split: String,
    /// The number of examples; at least 1.
    pub examples: usize,
    /// Classes the labels count.
    pub classes: usize,
    /// Height and width, where all images have the same.
    pub image: Option<[usize; 2]>,
    /// Tells this content from any other.
    pub fingerprint: String,
}

impl Description {
    /// A published split as it should be, without looking for it.
    ///
    /// # Errors
    /// If the data set or split is unknown.
    pub fn published(dataset: &str, split: &str) -> Result<Self, Error> {
        let facts = facts(dataset, split)?;
        Ok(Description {
            name: dataset.into(),
            split: split.into(),
            examples: facts.examples,
            classes: facts.classes,
            image: Some([facts.image_size; 2]),
            fingerprint: String::new(),
        })
    }
}

/// The examples of a split.
#[derive(Debug)]
pub struct Examples {
    description: Description,
    memory: ImageSet,
}

/// A decoded example.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    /// u8 `[height, width, 3]`.
    pub(super) pixels: &'a [u8],
    pub(super) label: u32,
}

impl Examples {
    /// Finds the examples of a split; small sets are read into memory (see [`load`]).
    ///
    /// # Errors
    /// As [`load`].
    pub fn open(dataset: &str, split: &str, data_dir: Option<&Path>) -> Result<Self, Error> {
        let memory = load(dataset, split, data_dir)?;
        Ok(Examples {
            description: Description {
                name: memory.name.clone(),
                split: memory.split.clone(),
                examples: memory.len(),
                classes: memory.num_classes,
                image: Some([memory.height, memory.width]),
                fingerprint: memory.fingerprint.clone(),
            },
            memory,
        })
    }

    /// What they are.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// All of them, if they are in memory.
    pub fn memory(&self) -> Option<&ImageSet> {
        Some(&self.memory)
    }

    pub(super) fn image(&self, index: usize) -> Image<'_> {
        Image {
            height: self.memory.height,
            width: self.memory.width,
            pixels: self.memory.image(index),
            label: self.memory.labels[index],
        }
    }
}
