//! Losses and their metrics (reference §4).

use crate::hlo::{DType, DotDims, Precision, Value};

/// What the contrastive loss gives; scalars are those of this replica.
pub struct NtXent<'g> {
    /// Sum of both directions' cross-entropies, averaged over this replica's images: twice the paper's mean.
    pub loss: Value<'g>,
    /// Similarities of first views to all second views, `[n, N]`.
    pub logits_ab: Value<'g>,
    /// Share of first views whose nearest second view, of all N, is their own.
    pub accuracy: Value<'g>,
    /// Entropy of the softmax of `logits_ab`, nats.
    pub entropy: Value<'g>,
}

/// Takes self-similarities out of the softmax.
const LARGE: f64 = 1e9;

/// NT-Xent over all replicas (reference §4.1, §4.2). `z` `[2n, P]` holds this replica's first views, then its second views; row `i`
/// of both is one image. Candidates come from all replicas, in replica order.
pub fn nt_xent(z: Value, temperature: f64, hidden_norm: bool, replicas: usize) -> NtXent {
    let graph = z.graph();
    let _scope = graph.scope("nt_xent");
    let dtype = if z.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let mut z = z.convert(dtype);
    if hidden_norm {
        let norm = (z * z).sum(&[1]).max(1e-12).rsqrt();
        z = z * norm.broadcast_leading(&z.dims());
    }
    let (n, width) = (z.dim(0) / 2, z.dim(1));
    let total = n * replicas as i64;
    let mut all = z;
    let mut first = graph.scalar(0i32);
    if replicas > 1 {
        // First and second views side by side: one collective, and candidates in the order of images.
        let halves = [z.slice_dim(0, 0, n), z.slice_dim(0, n, 2 * n)];
        let gathered = graph
            .concatenate(&halves, 1)
            .all_gather(0, replicas as i64, &[]);
        let half = |k: i64| gathered.slice_dim(1, k * width, (k + 1) * width);
        all = graph.concatenate(&[half(0), half(1)], 0);
        first = graph.replica_id().convert(DType::S32) * n as f64;
    }
    // [own views, all views]: both halves of the rows against both halves of the columns.
    let similarity = pairwise(z, all) * (1.0 / temperature);
    let dims = similarity.dims();
    let (row, column) = (
        graph.iota(DType::S32, &dims, 0),
        graph.iota(DType::S32, &dims, 1),
    );
    let (second_row, second_column) = (row.ge(n as f64), column.ge(total as f64));
    let image = second_row.select(row - n as f64, row) + first;
    let same_image = second_column
        .select(column - total as f64, column)
        .eq(image);
    let other_view = second_row.xor(second_column);
    let itself = same_image.and(other_view.logical_not()).convert(dtype);
    let positive = same_image.and(other_view).convert(dtype);
    let losses = log_sum_exp(similarity - itself * LARGE) - (similarity * positive).sum(&[1]);
    let ab = similarity.slice_dim(0, 0, n).slice_dim(1, total, 2 * total);
    let hit = ab.argmax(1).eq(graph.iota(DType::S32, &[n], 0) + first);
    let log_p = ab - log_sum_exp(ab).broadcast_leading(&ab.dims());
    let p = log_p.exp();
    let entropy = -((p * (p + 1e-8).log()).sum(&[1]).mean(&[0]));
    NtXent {
        loss: losses.sum(&[0]) * (1.0 / n as f64),
        logits_ab: ab,
        accuracy: hit.convert(dtype).mean(&[0]).stop_gradient(),
        entropy: entropy.stop_gradient(),
    }
}

/// Dot products of the rows of two matrices.
fn pairwise<'g>(x: Value<'g>, y: Value<'g>) -> Value<'g> {
    x.dot_general(
        y,
        DotDims {
            lhs_contracting: vec![1],
            rhs_contracting: vec![1],
            // The temperature magnifies what rounding does to a similarity.
            precision: Precision::Highest,
            ..DotDims::default()
        },
    )
}

/// Logarithm of the sum of exponentials of each row.
fn log_sum_exp(logits: Value) -> Value {
    let top = logits.reduce_max(&[1]).stop_gradient();
    let apart = logits - top.broadcast_leading(&logits.dims());
    apart.exp().sum(&[1]).log() + top
}

/// Distillation loss (reference §10): T² times the mean cross-entropy of the student's softmax with the teacher's, both logits
/// `[B, C]` divided by the temperature T. The factor keeps gradients as large as at T = 1. No gradient reaches the teacher.
pub fn distill<'g>(teacher: Value<'g>, student: Value<'g>, temperature: f64) -> Value<'g> {
    let graph = student.graph();
    let _scope = graph.scope("distill");
    let log_softmax = |logits: Value<'g>| {
        let soft = logits * (1.0 / temperature);
        soft - log_sum_exp(soft).broadcast_leading(&soft.dims())
    };
    let wanted = log_softmax(teacher.stop_gradient()).exp();
    let rows = (wanted * log_softmax(student)).sum(&[1]);
    -rows.mean(&[0]) * (temperature * temperature)
}

/// Mean softmax cross-entropy and its accuracies.
pub struct Supervised<'g> {
    /// Mean over rows.
    pub loss: Value<'g>,
    /// Share of rows whose largest logit is the label's; the first of equals counts.
    pub top1: Value<'g>,
    /// Share of rows with fewer than five logits above the label's.
    pub top5: Value<'g>,
}

/// Supervised loss (reference §4.3): logits `[B, C]`, labels s32 `[B]`, and row weights where rows may be padding; the sum of
/// weighted rows is divided by the number of rows with a weight.
pub fn supervised<'g>(
    logits: Value<'g>,
    labels: Value<'g>,
    weights: Option<Value<'g>>,
) -> Supervised<'g> {
    let graph = logits.graph();
    let _scope = graph.scope("supervised");
    let dims = logits.dims();
    let labels = labels.convert(DType::S32);
    let one_hot = graph
        .iota(DType::S32, &dims, 1)
        .eq(labels.broadcast_leading(&dims))
        .convert(logits.dtype());
    let chosen = (logits * one_hot).sum(&[1]);
    let losses = log_sum_exp(logits) - chosen;
    let average = |rows: Value<'g>| match weights {
        None => rows.mean(&[0]),
        Some(weights) => {
            let counted = weights.ne(0.0).convert(rows.dtype()).sum(&[0]).max(1.0);
            (rows * weights).sum(&[0]) / counted
        }
    };
    let hit = logits.argmax(1).eq(labels).convert(logits.dtype());
    let above = logits
        .gt(chosen.broadcast_leading(&dims))
        .convert(logits.dtype())
        .sum(&[1]);
    let in_five = above.lt(5.0).convert(logits.dtype());
    Supervised {
        loss: average(losses),
        top1: average(hit).stop_gradient(),
        top5: average(in_five).stop_gradient(),
    }
}
