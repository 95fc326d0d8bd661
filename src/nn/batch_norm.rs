//! Batch normalisation over the global batch (reference §3.4), with a hand-written adjoint. Collectives are not joined
//! by hand: the compilers of devices that gain by it do so, and the CPU would compile the joining.

use super::{Builder, Init, Kind};
use crate::hlo::{DType, Value, Vjp};

/// Added to the variance.
const EPSILON: f64 = 1e-5;

impl<'g> Builder<'g> {
    /// Batch normalisation of the last dimension, numbered like the original's.
    pub fn batch_norm(&mut self, x: Value<'g>, gamma_init: f64, centre: bool) -> Value<'g> {
        let name = Self::numbered(&mut self.normalisations, "batch_normalization");
        self.named_batch_norm(&name, x, gamma_init, centre)
    }

    fn named_batch_norm(
        &mut self,
        name: &str,
        x: Value<'g>,
        gamma_init: f64,
        centre: bool,
    ) -> Value<'g> {
        let graph = self.graph();
        let _scope = graph.scope(name);
        let channels = x.dim(x.rank().saturating_sub(1));
        let c = [channels];
        let (_, gamma) = self.variable(
            &format!("{name}/gamma"),
            &c,
            Kind::Gamma,
            Init::Constant(gamma_init),
        );
        let beta = centre.then(|| {
            self.variable(&format!("{name}/beta"), &c, Kind::Beta, Init::Constant(0.0))
                .1
        });
        let (mean_number, moving_mean) = self.variable(
            &format!("{name}/moving_mean"),
            &c,
            Kind::MovingMean,
            Init::Constant(0.0),
        );
        let (variance_number, moving_variance) = self.variable(
            &format!("{name}/moving_variance"),
            &c,
            Kind::MovingVariance,
            Init::Constant(1.0),
        );
        let settings = self.settings().clone();
        if !settings.training {
            let scale = gamma * (moving_variance + EPSILON).rsqrt();
            let wide = x.convert(settings.dtype);
            let mut y = (wide - moving_mean.broadcast_trailing(&x.dims()))
                * scale.broadcast_trailing(&x.dims());
            if let Some(beta) = beta {
                y = y + beta.broadcast_trailing(&x.dims());
            }
            return y.convert(x.dtype());
        }
        let shared = if settings.global_bn {
            settings.replicas
        } else {
            1
        };
        let shift = settings.one_pass_statistics.then_some(moving_mean);
        let known = self.known.pop();
        let (y, mean, variance) = normalise(x, gamma, beta, shared, settings.dtype, shift, known);
        self.statistics.push((mean, variance));
        let rows = rows(x) * shared as i64;
        // The factor is rounded to f32 also where variables are wider (reference §3.4).
        let factor = f64::from((1.0 - settings.batch_norm_decay) as f32);
        let average = |value: Value<'g>| {
            // Per-replica statistics differ; their mean is kept, so that every replica holds the same state.
            if settings.global_bn || settings.replicas == 1 {
                value
            } else {
                value.all_reduce_sum() * (1.0 / settings.replicas as f64)
            }
        };
        // The original's fused operation, the one that corrects, takes images only (reference §3.4).
        let correction = if settings.unbiased_moving_variance && x.rank() == 4 && rows > 1 {
            rows as f64 / (rows - 1) as f64
        } else {
            1.0
        };
        let follow = |moving: Value<'g>, batch: Value<'g>| {
            (moving - (moving - average(batch)) * factor).stop_gradient()
        };
        let new_mean = follow(moving_mean, mean);
        let new_variance = follow(
            moving_variance,
            if correction == 1.0 {
                variance
            } else {
                variance * correction
            },
        );
        self.moving.push((mean_number, new_mean));
        self.moving.push((variance_number, new_variance));
        y
    }
}

/// All dimensions but the last.
fn reduced(x: Value) -> Vec<i64> {
    (0..x.rank() as i64 - 1).collect()
}

/// How many rows are averaged on this replica.
fn rows(x: Value) -> i64 {
    let dims = x.dims();
    dims[..dims.len().saturating_sub(1)].iter().product()
}

/// `(mean, biased variance)` over the batches of `replicas` replicas.
fn statistics<'g>(wide: Value<'g>, replicas: usize) -> (Value<'g>, Value<'g>) {
    let over = reduced(wide);
    let mean = wide.mean(&over);
    let centred = wide - mean.broadcast_trailing(&wide.dims());
    let variance = (centred * centred).mean(&over);
    if replicas <= 1 {
        return (mean, variance);
    }
    // Every replica sees all means and variances; the variance within replicas and that between them add up. Averages of μ, σ²
    // and μ² alone would do with less traffic, but μ² − μ² cancels where means exceed deviations: gradients on four replicas
    // were five times as far from those on one.
    let channels = mean.dim(0);
    let everywhere = |value: Value<'g>| {
        value
            .reshape(&[1, channels])
            .all_gather(0, replicas as i64, &[])
    };
    let (means, variances) = (everywhere(mean), everywhere(variance));
    let mean = means.mean(&[0]);
    let apart = means - mean.broadcast_trailing(&means.dims());
    (mean, (variances + apart * apart).mean(&[0]))
}

/// As [`statistics`], in one pass over `wide` and one all-reduce: sums of x − s and of its square. What cancels in the difference
/// is (μ − s)², and s, the moving mean, is near μ.
fn one_pass_statistics<'g>(
    wide: Value<'g>,
    shift: Value<'g>,
    replicas: usize,
) -> (Value<'g>, Value<'g>) {
    let over = reduced(wide);
    let channels = wide.dim(wide.rank() - 1);
    let shift = shift.stop_gradient();
    let from = wide - shift.broadcast_trailing(&wide.dims());
    let both = [from.sum(&over), (from * from).sum(&over)];
    let mut sums = wide.graph().concatenate(&both, 0);
    if replicas > 1 {
        sums = sums.all_reduce_sum();
    }
    let averages = sums * (1.0 / (rows(wide) * replicas as i64) as f64);
    let distance = averages.slice_dim(0, 0, channels);
    let squares = averages.slice_dim(0, channels, 2 * channels);
    let variance = (squares - distance * distance).max(0.0);
    (distance + shift, variance)
}

/// `(y, mean, biased variance)`; statistics over the batches of `replicas` replicas, in one pass if a shift is given, unless they are
/// known.
fn normalise<'g>(
    x: Value<'g>,
    gamma: Value<'g>,
    beta: Option<Value<'g>>,
    replicas: usize,
    dtype: DType,
    shift: Option<Value<'g>>,
    known: Option<(Value<'g>, Value<'g>)>,
) -> (Value<'g>, Value<'g>, Value<'g>) {
    let dims = x.dims();
    let wide = x.convert(dtype);
    let (mean, variance) = match (known, shift) {
        (Some(known), _) => known,
        (None, None) => statistics(wide, replicas),
        (None, Some(shift)) => one_pass_statistics(wide, shift, replicas),
    };
    let inverse = (variance + EPSILON).rsqrt();
    let normal = (wide - mean.broadcast_trailing(&dims)) * inverse.broadcast_trailing(&dims);
    let mut y = normal * gamma.broadcast_trailing(&dims);
    if let Some(beta) = beta {
        y = y + beta.broadcast_trailing(&dims);
    }
    let y = y.convert(x.dtype());
    let mut inputs = vec![x, gamma];
    inputs.extend(beta);
    let outputs = x
        .graph()
        .custom_vjp(&inputs, &[y], &[mean, inverse], move |vjp: &Vjp| {
            adjoint(vjp, replicas, dtype)
        });
    (outputs[0], mean, variance)
}

/// dx = γ·r·(dy − avg dy − x̂·avg(dy·x̂)), averages over the global batch; x̂ is computed again rather than kept.
fn adjoint<'g>(vjp: &Vjp<'g>, replicas: usize, dtype: DType) -> Vec<Value<'g>> {
    let (x, gamma) = (vjp.inputs[0], vjp.inputs[1]);
    let (mean, inverse) = (vjp.saved[0], vjp.saved[1]);
    let dims = x.dims();
    let spread = |value: Value<'g>| value.broadcast_trailing(&dims);
    let over = reduced(x);
    let dy = vjp.cotangents[0].convert(dtype);
    let normal = (x.convert(dtype) - spread(mean)) * spread(inverse);
    let sum_dy = dy.sum(&over);
    let sum_dy_normal = (dy * normal).sum(&over);
    let (mut total_dy, mut total_dy_normal) = (sum_dy, sum_dy_normal);
    if replicas > 1 {
        total_dy = sum_dy.all_reduce_sum();
        total_dy_normal = sum_dy_normal.all_reduce_sum();
    }
    let count = 1.0 / (rows(x) * replicas as i64) as f64;
    let inner = dy - spread(total_dy * count) - normal * spread(total_dy_normal * count);
    let dx = (inner * spread(gamma * inverse)).convert(x.dtype());
    let mut found = vec![dx, sum_dy_normal];
    if vjp.inputs.len() > 2 {
        found.push(sum_dy);
    }
    found
}
