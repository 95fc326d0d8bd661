//! Batch normalisation over the global batch (reference §3.4), with a hand-written adjoint. Collectives are not joined
//! by hand: the compilers of devices that gain by it do so, and the CPU would compile the joining.

use super::{Builder, Init, Kind, max_pool_same, relu};
use crate::hlo::{DType, Value, Vjp};

/// Added to the variance.
pub(super) const EPSILON: f64 = 1e-5;

/// How the statistics of a batch are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Statistics {
    /// In two passes over the activations: means, then squares of what differs from them.
    #[default]
    TwoPass,
    /// In one pass, with one exchange per layer (for pods).
    OnePass,
    /// As `OnePass`; those of a convolution 1×1 to many more channels come from products of its inputs, and its outputs are not kept.
    Products,
}

impl<'g> Builder<'g> {
    /// Batch normalisation of the last dimension, numbered like the original's.
    pub fn batch_norm(&mut self, x: Value<'g>, gamma_init: f64, centre: bool) -> Value<'g> {
        self.pooled_batch_norm(x, gamma_init, centre, None)
    }

    /// The largest of each `size`×`size` window of a batch normalisation and ReLU. In training, only what the pool leaves is normalised,
    /// with the statistics of everything.
    pub fn batch_norm_relu_pool(&mut self, x: Value<'g>, size: i64, stride: i64) -> Value<'g> {
        if !self.settings().training {
            return max_pool_same(self.batch_norm_relu(x), size, stride);
        }
        relu(self.pooled_batch_norm(x, 1.0, true, Some((size, stride))))
    }

    fn pooled_batch_norm(
        &mut self,
        x: Value<'g>,
        gamma_init: f64,
        centre: bool,
        pool: Option<(i64, i64)>,
    ) -> Value<'g> {
        let channels = x.dim(x.rank().saturating_sub(1)) / self.beside;
        let own = self.norm_variables(channels, gamma_init, centre);
        let (gamma, beta) = (own.gamma, own.beta);
        let graph = self.graph();
        let _scope = graph.scope(own.name.as_str());
        let settings = self.settings().clone();
        if !settings.training {
            let scale = gamma * (own.moving_variance.1 + EPSILON).rsqrt();
            let wide = x.convert(settings.dtype);
            let mut y = (wide - own.moving_mean.1.broadcast_trailing(&x.dims()))
                * scale.broadcast_trailing(&x.dims());
            if let Some(beta) = beta {
                y = y + beta.broadcast_trailing(&x.dims());
            }
            return y.convert(x.dtype());
        }
        let shift = (settings.statistics != Statistics::TwoPass).then_some(own.moving_mean.1);
        let known = self.known.pop();
        let batch = self.batch();
        let (y, mean, variance) = match pool {
            None => normalise(batch, x, None, gamma, beta, shift, known),
            Some((size, stride)) => {
                // The largest stays the largest where the scale is positive, and becomes the smallest where it is not: there the
                // channel's sign is changed before the pool.
                let one = graph.full(&gamma.shape(), 1.0);
                let sign = gamma.lt(0.0).select(-one, one).stop_gradient();
                let x = x * batch.spread(sign, x).convert(x.dtype());
                let pooled = max_pool_same(x, size, stride);
                let shift = shift.map(|shift| shift * sign);
                let known = known.map(|(mean, variance)| (mean * sign, variance));
                let (y, mean, variance) =
                    normalise(batch, x, Some(pooled), gamma * sign, beta, shift, known);
                (y, mean * sign, variance)
            }
        };
        self.follow(&own, mean, variance, batch.rows(x), x.rank());
        y
    }

    /// The variables of the next normalisation.
    pub(super) fn norm_variables(
        &mut self,
        channels: i64,
        gamma_init: f64,
        centre: bool,
    ) -> NormVariables<'g> {
        let name = Self::numbered(&mut self.normalisations, "batch_normalization");
        let mut variable = |part: &str, kind, init| {
            let name = format!("{name}/{part}");
            self.variable(&name, &[channels], kind, Init::Constant(init))
        };
        let gamma = variable("gamma", Kind::Gamma, gamma_init).1;
        let beta = centre.then(|| variable("beta", Kind::Beta, 0.0).1);
        let moving_mean = variable("moving_mean", Kind::MovingMean, 0.0);
        let moving_variance = variable("moving_variance", Kind::MovingVariance, 1.0);
        NormVariables {
            name,
            gamma,
            beta,
            moving_mean,
            moving_variance,
        }
    }

    /// What the next layer's batch statistics are taken over.
    pub(super) fn batch(&self) -> Batch {
        let settings = &self.settings;
        Batch {
            replicas: if settings.global_bn {
                settings.replicas
            } else {
                1
            },
            beside: self.beside,
            dtype: settings.dtype,
        }
    }

    /// Notes the statistics of a batch, of `own_rows` rows on this replica, and has the moving ones follow them. `rank` is that of
    /// what was normalised.
    pub(super) fn follow(
        &mut self,
        own: &NormVariables<'g>,
        mean: Value<'g>,
        variance: Value<'g>,
        own_rows: i64,
        rank: usize,
    ) {
        self.statistics.push((mean, variance));
        let settings = &self.settings;
        let rows = own_rows * self.batch().replicas as i64;
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
        let correction = if settings.unbiased_moving_variance && rank == 4 && rows > 1 {
            rows as f64 / (rows - 1) as f64
        } else {
            1.0
        };
        let follow = |moving: Value<'g>, batch: Value<'g>| {
            (moving - (moving - average(batch)) * factor).stop_gradient()
        };
        let new_mean = follow(own.moving_mean.1, mean);
        let new_variance = follow(
            own.moving_variance.1,
            if correction == 1.0 {
                variance
            } else {
                variance * correction
            },
        );
        self.moving.push((own.moving_mean.0, new_mean));
        self.moving.push((own.moving_variance.0, new_variance));
    }
}

/// The variables of a normalisation; of the moving statistics also their numbers.
pub(super) struct NormVariables<'g> {
    pub(super) name: String,
    pub(super) gamma: Value<'g>,
    pub(super) beta: Option<Value<'g>>,
    pub(super) moving_mean: (usize, Value<'g>),
    pub(super) moving_variance: (usize, Value<'g>),
}

/// What batch statistics are taken over, and in which type.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) replicas: usize,
    /// Images side by side in the channels.
    pub(super) beside: i64,
    pub(super) dtype: DType,
}

impl Batch {
    /// How many elements of each channel are averaged on this replica.
    pub(super) fn rows(self, x: Value) -> i64 {
        let dims = x.dims();
        dims[..dims.len().saturating_sub(1)].iter().product::<i64>() * self.beside
    }

    /// Sums over them: `[…, beside·C]` → `[C]`.
    pub(super) fn sum<'g>(self, x: Value<'g>) -> Value<'g> {
        let over: Vec<i64> = (0..x.rank() as i64 - 1).collect();
        let sums = x.sum(&over);
        match self.beside {
            1 => sums,
            beside => sums.reshape(&[beside, sums.dim(0) / beside]).sum(&[0]),
        }
    }

    pub(super) fn mean<'g>(self, x: Value<'g>) -> Value<'g> {
        self.sum(x) * (1.0 / self.rows(x) as f64)
    }

    /// `(mean, biased variance)` over all replicas, from this one's sums of x − s and of its square over so many rows; one exchange.
    pub(super) fn of_all<'g>(
        self,
        sum: Value<'g>,
        squares: Value<'g>,
        rows: i64,
        shift: Value<'g>,
    ) -> (Value<'g>, Value<'g>) {
        let channels = shift.dim(0);
        let mut sums = shift.graph().concatenate(&[sum, squares], 0);
        if self.replicas > 1 {
            sums = sums.all_reduce_sum();
        }
        let averages = sums * (1.0 / (rows * self.replicas as i64) as f64);
        let distance = averages.slice_dim(0, 0, channels);
        let squares = averages.slice_dim(0, channels, 2 * channels);
        let variance = (squares - distance * distance).max(0.0);
        (distance + shift, variance)
    }

    /// `(x − mean)·inverse`, in the type of statistics.
    pub(super) fn normal<'g>(self, x: Value<'g>, mean: Value<'g>, inverse: Value<'g>) -> Value<'g> {
        (x.convert(self.dtype) - self.spread(mean, x)) * self.spread(inverse, x)
    }

    /// A value of each channel wherever `like` has that channel: `[C]` → `[…, beside·C]`.
    pub(super) fn spread<'g>(self, value: Value<'g>, like: Value<'g>) -> Value<'g> {
        let repeated = vec![value; self.beside as usize];
        let value = value.graph().concatenate(&repeated, 0);
        value.broadcast_trailing(&like.dims())
    }
}

/// `(mean, biased variance)` over the batches of all replicas.
fn statistics<'g>(batch: Batch, wide: Value<'g>) -> (Value<'g>, Value<'g>) {
    let mean = batch.mean(wide);
    let centred = wide - batch.spread(mean, wide);
    let variance = batch.mean(centred * centred);
    if batch.replicas <= 1 {
        return (mean, variance);
    }
    // Every replica sees all means and variances; the variance within replicas and that between them add up. Averages of μ, σ²
    // and μ² alone would do with less traffic, but μ² − μ² cancels where means exceed deviations: gradients on four replicas
    // were five times as far from those on one.
    let channels = mean.dim(0);
    let everywhere = |value: Value<'g>| {
        value
            .reshape(&[1, channels])
            .all_gather(0, batch.replicas as i64, &[])
    };
    let (means, variances) = (everywhere(mean), everywhere(variance));
    let mean = means.mean(&[0]);
    let apart = means - mean.broadcast_trailing(&means.dims());
    (mean, (variances + apart * apart).mean(&[0]))
}

/// As [`statistics`], in one pass over `wide` and one all-reduce: sums of x − s and of its square. What cancels in the difference
/// is (μ − s)², and s, the moving mean, is near μ.
fn one_pass_statistics<'g>(
    batch: Batch,
    wide: Value<'g>,
    shift: Value<'g>,
) -> (Value<'g>, Value<'g>) {
    let shift = shift.stop_gradient();
    let from = wide - batch.spread(shift, wide);
    batch.of_all(
        batch.sum(from),
        batch.sum(from * from),
        batch.rows(wide),
        shift,
    )
}

/// `(y, mean, biased variance)`: x, or what a pool left of it, normalised by the statistics of x over the batches of all replicas, in
/// one pass if a shift is given, unless they are known.
fn normalise<'g>(
    batch: Batch,
    x: Value<'g>,
    pooled: Option<Value<'g>>,
    gamma: Value<'g>,
    beta: Option<Value<'g>>,
    shift: Option<Value<'g>>,
    known: Option<(Value<'g>, Value<'g>)>,
) -> (Value<'g>, Value<'g>, Value<'g>) {
    let wide = x.convert(batch.dtype);
    let (mean, variance) = match (known, shift) {
        (Some(known), _) => known,
        (None, None) => statistics(batch, wide),
        (None, Some(shift)) => one_pass_statistics(batch, wide, shift),
    };
    let inverse = (variance + EPSILON).rsqrt();
    let seen = pooled.unwrap_or(x);
    let mut y = batch.normal(seen, mean, inverse) * batch.spread(gamma, seen);
    if let Some(beta) = beta {
        y = y + batch.spread(beta, seen);
    }
    let y = y.convert(x.dtype());
    let mut inputs = vec![x, gamma];
    inputs.extend(pooled);
    inputs.extend(beta);
    let (pools, centres) = (pooled.is_some(), beta.is_some());
    let outputs = x
        .graph()
        .custom_vjp(&inputs, &[y], &[mean, inverse], move |vjp: &Vjp| {
            adjoint(batch, pools, centres, vjp)
        });
    (outputs[0], mean, variance)
}

/// dx = γ·r·(dy − avg dy − x̂·avg(dy·x̂)), averages over the global batch; x̂ is computed again rather than kept. After a pool, γ·r·dy
/// is the cotangent of what the pool left, and the rest that of x.
fn adjoint<'g>(batch: Batch, pools: bool, centres: bool, vjp: &Vjp<'g>) -> Vec<Value<'g>> {
    let (x, gamma) = (vjp.inputs[0], vjp.inputs[1]);
    let seen = if pools { vjp.inputs[2] } else { x };
    let (mean, inverse) = (vjp.saved[0], vjp.saved[1]);
    let dy = vjp.cotangents[0].convert(batch.dtype);
    let normal = batch.normal(seen, mean, inverse);
    let sum_dy = batch.sum(dy);
    let sum_dy_normal = batch.sum(dy * normal);
    let (mut total_dy, mut total_dy_normal) = (sum_dy, sum_dy_normal);
    if batch.replicas > 1 {
        total_dy = sum_dy.all_reduce_sum();
        total_dy_normal = sum_dy_normal.all_reduce_sum();
    }
    let count = 1.0 / (batch.rows(x) * batch.replicas as i64) as f64;
    let (mean_dy, mean_dy_normal) = (total_dy * count, total_dy_normal * count);
    let scaled = |inner: Value<'g>| {
        let dx = inner * batch.spread(gamma * inverse, inner);
        dx.convert(x.dtype())
    };
    let mut found = if pools {
        let normal = batch.normal(x, mean, inverse);
        let inner = batch.spread(mean_dy, x) + normal * batch.spread(mean_dy_normal, x);
        vec![scaled(-inner), sum_dy_normal, scaled(dy)]
    } else {
        let inner = dy - batch.spread(mean_dy, x) - normal * batch.spread(mean_dy_normal, x);
        vec![scaled(inner), sum_dy_normal]
    };
    if centres {
        found.push(sum_dy);
    }
    found
}
