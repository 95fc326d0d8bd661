//! What a network learns: how it is run, the losses, the figures. Another objective is another variant here.

use super::trained::Trained;
use crate::augment::{Augmentation, Key};
use crate::hlo::{Literal, Value};
use crate::loss::{distill, nt_xent, supervised};
use crate::model::{Freeze, Network, Outputs};
use crate::nn::{Builder, Settings, Variable};
use std::sync::Arc;

/// What the network learns.
#[derive(Debug, Clone)]
pub enum Objective {
    /// The contrastive loss of two views; the supervised head, if the network has one, is trained on stopped features beside it.
    Pretrain {
        /// Temperature of the contrastive loss.
        temperature: f64,
        /// Whether projections are normalised.
        hidden_norm: bool,
    },
    /// The supervised head's cross-entropy on one view, cropped and flipped.
    Finetune {
        /// What of the encoder stays as it is.
        freeze: Freeze,
        /// Whether those layers of the projection head learn that the supervised head looks through (the original's first version
        /// never trains them, reference §12-10).
        projection_head: bool,
    },
    /// What another network says of one view, cropped and flipped (reference §10).
    Distill {
        /// That network; it looks with its moving statistics and learns nothing.
        teacher: Arc<Trained>,
        /// Divides the logits of both.
        temperature: f64,
        /// Share of the distillation loss; the rest is the cross-entropy with the labels.
        share: f64,
        /// Whether the images have classes; without them the share is 1.
        labelled: bool,
    },
}

/// Figures of a step of pretraining, averaged over replicas, in the order in which the program returns them. Of either objective the
/// first two are a loss and an accuracy, the last the rate.
pub const METRICS: [&str; 8] = [
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/supervised_loss",
    "train/supervised_acc",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// Those of a step of pretraining without a classifier.
pub const CONTRAST_METRICS: [&str; 6] = [
    "train/contrast_loss",
    "train/contrast_acc",
    "train/contrast_entropy",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// Those of a step of fine-tuning.
pub const FINETUNE_METRICS: [&str; 5] = [
    "train/supervised_loss",
    "train/supervised_acc",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// Those of a step of distillation.
pub const DISTILL_METRICS: [&str; 6] = [
    "train/distill_loss",
    "train/supervised_acc",
    "train/supervised_loss",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// Those of a step of distillation on images without classes; the accuracy is the share of images that student and teacher give the
/// same class.
pub const UNLABELLED_METRICS: [&str; 5] = [
    "train/distill_loss",
    "train/teacher_acc",
    "train/weight_decay",
    "train/total_loss",
    "learning_rate",
];

/// Nothing of the encoder stays as it is.
const FREE: Freeze = Freeze {
    after_block: -1,
    moving_statistics: false,
};

impl Objective {
    /// Views of each image.
    pub fn views(&self) -> usize {
        match self {
            Objective::Pretrain { .. } => 2,
            Objective::Finetune { .. } | Objective::Distill { .. } => 1,
        }
    }

    /// The views of images u8 `[n, H, W, 3]`: f32 `[views · n, S, S, 3]`.
    pub fn cut<'g>(
        &self,
        augmentation: &Augmentation,
        images: Value<'g>,
        key: Key<'g>,
        place: Value<'g>,
    ) -> Value<'g> {
        match self {
            Objective::Pretrain { .. } => augmentation.two_views(images, key, place),
            Objective::Finetune { .. } | Objective::Distill { .. } => {
                augmentation.one_view(images, key, place)
            }
        }
    }

    /// The same from crops u8 `[n, views, S, S, 3]` that the host has cut.
    pub fn take<'g>(
        &self,
        augmentation: &Augmentation,
        crops: Value<'g>,
        key: Key<'g>,
        place: Value<'g>,
    ) -> Value<'g> {
        match self {
            Objective::Pretrain { .. } => augmentation.two_views_of_crops(crops, key, place),
            Objective::Finetune { .. } | Objective::Distill { .. } => {
                augmentation.one_view_of_crops(crops, key, place)
            }
        }
    }

    /// Names of a step's figures, in order, of a network with or without a classifier.
    pub fn metrics(&self, classifier: bool) -> &'static [&'static str] {
        match self {
            Objective::Pretrain { .. } if !classifier => &CONTRAST_METRICS,
            Objective::Pretrain { .. } => &METRICS,
            Objective::Finetune { .. } => &FINETUNE_METRICS,
            Objective::Distill {
                labelled: false, ..
            } => &UNLABELLED_METRICS,
            Objective::Distill { .. } => &DISTILL_METRICS,
        }
    }

    /// Runs the network as the objective wants it.
    pub fn forward<'g>(
        &self,
        network: &Network,
        builder: &mut Builder<'g>,
        views: Value<'g>,
    ) -> Outputs<'g> {
        match *self {
            Objective::Pretrain { .. } => network.forward(builder, views),
            Objective::Finetune { freeze, .. } => network.finetune(builder, views, freeze),
            Objective::Distill { .. } => network.finetune(builder, views, FREE),
        }
    }

    /// A scalar in which everything is that the loss reads: what its gradient does not reach is not trained.
    pub(super) fn reads<'g>(&self, outputs: &Outputs<'g>) -> Value<'g> {
        let z = matches!(self, Objective::Pretrain { .. }).then(|| outputs.z());
        let read = z.into_iter().chain(outputs.logits).map(Value::sum_all);
        read.reduce(|sum, read| sum + read)
            .unwrap_or_else(|| outputs.z().sum_all().stop_gradient())
    }

    /// Whether a variable that the loss reads stays as it is all the same.
    pub(super) fn keeps(&self, variable: &Variable) -> bool {
        let kept = matches!(
            self,
            Objective::Finetune {
                projection_head: false,
                ..
            }
        );
        kept && variable.projection_head()
    }

    /// Variables of a teacher with their values; none without one.
    pub fn teacher(&self) -> impl Iterator<Item = (&Variable, &Literal)> {
        let teacher = match self {
            Objective::Distill { teacher, .. } => Some(teacher),
            Objective::Pretrain { .. } | Objective::Finetune { .. } => None,
        };
        teacher
            .into_iter()
            .flat_map(|teacher| teacher.variables.iter().zip(&teacher.values))
    }

    /// Logits of the teacher for views `[n, S, S, 3]`, whose variables have these values.
    pub(super) fn taught<'g>(
        &self,
        settings: &Settings,
        values: &[Value<'g>],
        views: Value<'g>,
    ) -> Option<Value<'g>> {
        let Objective::Distill { teacher, .. } = self else {
            return None;
        };
        let graph = views.graph();
        let _scope = graph.scope("teacher");
        let settings = Settings {
            training: false,
            ..settings.clone()
        };
        let mut builder = Builder::with_values(graph, settings, values.to_vec());
        let outputs = teacher.network.forward(&mut builder, views);
        outputs.logits.map(Value::stop_gradient)
    }

    /// The loss less decay, and the objective's own figures.
    pub(super) fn losses<'g>(
        &self,
        settings: &Settings,
        outputs: &Outputs<'g>,
        labels: Value<'g>,
        taught: Option<Value<'g>>,
    ) -> (Value<'g>, Vec<Value<'g>>) {
        let graph = labels.graph();
        let nothing = graph.scalar_of(settings.dtype, 0.0);
        let classified = |labels| match outputs.logits {
            Some(logits) => {
                let found = supervised(logits, labels, None);
                (found.loss, found.top1)
            }
            None => (nothing, nothing),
        };
        match *self {
            Objective::Pretrain {
                temperature,
                hidden_norm,
            } => {
                let contrast = nt_xent(outputs.z(), temperature, hidden_norm, settings.replicas);
                let mut figures = vec![contrast.loss, contrast.accuracy, contrast.entropy];
                if outputs.logits.is_none() {
                    return (contrast.loss, figures);
                }
                let (loss, accuracy) = classified(graph.concatenate(&[labels, labels], 0));
                figures.extend([loss, accuracy]);
                (contrast.loss + loss, figures)
            }
            Objective::Finetune { .. } => {
                let (loss, accuracy) = classified(labels);
                (loss, vec![loss, accuracy])
            }
            Objective::Distill {
                temperature,
                share,
                labelled,
                ..
            } => {
                let (Some(teacher), Some(student)) = (taught, outputs.logits) else {
                    let what = "a teacher and a student with a classifier each";
                    let failed = graph.fail("distill", what);
                    return (failed, vec![failed]);
                };
                let imitated = distill(teacher, student, temperature);
                if !labelled {
                    let agreed = supervised(student, teacher.argmax(1), None).top1;
                    return (imitated, vec![imitated, agreed]);
                }
                let (loss, accuracy) = classified(labels);
                (
                    imitated * share + loss * (1.0 - share),
                    vec![imitated, accuracy, loss],
                )
            }
        }
    }
}
