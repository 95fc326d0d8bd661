//! What a trained network is worth on a split: its supervised head, and its frozen features.

use super::Error;
use super::evaluate::{FIGURES, Worth, worth};
use super::inference::{Inference, Reach};
use super::trained::Trained;
use crate::config::Config;
use crate::data::{Description, Examples};
use crate::engine::Engine;
use crate::eval::{Classified, Features};
use std::sync::Arc;

/// What was found.
#[derive(Debug)]
pub struct Judged {
    /// Of the supervised head, if there is one and it knows the classes.
    pub classified: Option<Classified>,
    /// Of the features, if a training split was given.
    pub worth: Option<Worth>,
}

impl Judged {
    /// The figures as a run logs them: tag, name, value. Accuracies are fractions.
    pub fn figures(&self) -> Vec<(&'static str, &'static str, f64)> {
        let mut list = Vec::new();
        if let Some(found) = &self.classified {
            list.push(("eval/label_top_1_accuracy", "top-1", found.top1));
            list.push(("eval/label_top_5_accuracy", "top-5", found.top5));
        }
        if let Some(worth) = &self.worth {
            let values = worth.of(&FIGURES);
            list.extend(values.map(|(&(tag, name), value)| (tag, name, value)));
        }
        list
    }
}

/// Refuses a split on which a network cannot be measured: other classes than its head's, or, where features are measured, the very
/// images of the training split, or classes with other names.
///
/// # Errors
/// What does not fit.
pub fn suits(
    trained: &Trained,
    test: &Description,
    train: Option<&Description>,
) -> Result<(), Error> {
    if !test.has_classes() {
        let name = test.name.clone();
        return Err(Error::NoClasses {
            name,
            purpose: "to evaluate by",
            remedy: super::OTHER_SET,
        });
    }
    if let Some(classes) = trained.network.num_classes
        && classes != test.classes
    {
        return Err(Error::Classes {
            name: test.name.clone(),
            found: test.classes,
            expected: classes,
        });
    }
    let Some(train) = train else {
        return Ok(());
    };
    if test.is_also(train) {
        return Err(Error::SameImages {
            name: test.name.clone(),
            split: test.split.clone(),
            training: train.split.clone(),
        });
    }
    Ok(test.labelled_as(train)?)
}

/// Whether the classes of a split are those that the supervised head was trained on, as far as the checkpoint keeps their names.
///
/// # Errors
/// The first class with another name.
pub fn knows(trained: &Trained, test: &Description) -> Result<(), Error> {
    let (learned, found) = (&trained.manifest.class_names, &test.class_names);
    if trained.network.num_classes.is_none() || learned.is_empty() || found.is_empty() {
        return Ok(());
    }
    let all = 0..learned.len().max(found.len());
    let Some(class) = all.into_iter().find(|&i| learned.get(i) != found.get(i)) else {
        return Ok(());
    };
    let name = |names: &[String]| names.get(class).cloned().unwrap_or("missing".into());
    Err(Error::OtherClasses {
        name: test.name.clone(),
        class,
        found: name(found),
        learned: name(learned),
        trained: trained.loaded.config.dataset.clone(),
    })
}

/// Measures a network on `test`, of which `eval_steps` may leave out the end; k-NN and linear probe too if there is a training split. A head
/// that learned other classes is left out.
///
/// # Errors
/// A split that does not suit, an example that cannot be had, or a program that cannot be compiled or run.
pub fn judge(
    engine: &Engine,
    devices: usize,
    trained: &Trained,
    config: &Config,
    test: &Arc<Examples>,
    train: Option<&Arc<Examples>>,
) -> Result<Judged, Error> {
    let described = test.description();
    suits(trained, described, train.map(|train| train.description()))?;
    let batch = config.eval_batch_size.min(described.examples);
    let (network, values) = (&trained.network, &trained.values);
    let inference = Inference::new(engine, config, network, values, devices, batch)?;
    let (seen, labels) = inference.see(test, config, Reach::EvalSteps)?;
    let says = inference.classes > 0 && knows(trained, described).is_ok();
    let classified = says.then(|| Classified::new(&seen.logits, &labels, inference.classes));
    let features = |values, labels| Features {
        width: inference.width,
        values,
        labels,
    };
    let worth = match train {
        None => None,
        Some(train) => {
            let (own, own_labels) = inference.see(train, config, Reach::Whole)?;
            let train = features(own.features, own_labels);
            Some(worth(engine, &train, &features(seen.features, labels))?)
        }
    };
    Ok(Judged { classified, worth })
}
