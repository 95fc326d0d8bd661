//! A convolution 1×1 to many more channels and its batch normalisation, for devices that wait for memory more than they compute.
//!
//! With y = x·W for each pixel, sums over pixels of y, of y², and in the backward pass of dy·y follow from sums of x, of x·xᵀ and of
//! x·dyᵀ, which are as small as W, and x has a quarter of y's channels. So y is computed where it is normalised, and
//! neither stored nor read again. Everything else is as in `batch_norm.rs`.

use super::batch_norm::{Batch, EPSILON, NormVariables, Statistics};
use super::pairs::block_diagonal;
use super::{Builder, Init, Kind};
use crate::hlo::{Conv, DType, DotDims, Precision, Value, Vjp, WindowDim};
use std::rc::Rc;

/// How many times as many channels make it worth the while.
const WIDENING: i64 = 4;

impl<'g> Builder<'g> {
    /// Convolution 1×1 and batch normalisation: `[B, H, W, C]` → `[B, H, W, filters]`.
    pub fn conv_batch_norm(&mut self, x: Value<'g>, filters: i64, gamma_init: f64) -> Value<'g> {
        let inputs = x.dim(3) / self.beside;
        let settings = self.settings();
        let products = settings.training && settings.statistics == Statistics::Products;
        if !products || filters < WIDENING * inputs {
            let y = self.conv(x, filters, 1, 1);
            return self.batch_norm(y, gamma_init, true);
        }
        let activations = settings.activations;
        let graph = self.graph();
        let name = Self::numbered(&mut self.convolutions, "conv2d");
        let (_, kernel) = self.variable(
            &format!("{name}/kernel"),
            &[1, 1, inputs, filters],
            Kind::ConvKernel,
            Init::TruncatedNormal { fan_in: inputs },
        );
        let own = self.norm_variables(filters, gamma_init, true);
        let _scope = graph.scope(own.name.as_str());
        let layer = Layer {
            batch: self.batch(),
            activations,
            inputs,
            filters,
            convolution: name.into(),
        };
        let known = self.known.pop();
        let x = x.convert(activations);
        let (y, mean, variance) = layer.forward(x, kernel, &own, known);
        self.follow(&own, mean, variance, layer.batch.rows(x), x.rank());
        y
    }
}

/// Both layers, built in the scope of the normalisation.
#[derive(Clone)]
struct Layer {
    batch: Batch,
    activations: DType,
    inputs: i64,
    filters: i64,
    /// The name of the convolution, under which stands what is its part.
    convolution: Rc<str>,
}

impl Layer {
    /// The kernel `[in, out]` with which x is convolved, in the type of statistics.
    fn weights<'g>(&self, kernel: Value<'g>) -> Value<'g> {
        let _scope = kernel.graph().scope_beside(&self.convolution);
        kernel
            .convert(self.activations)
            .convert(self.batch.dtype)
            .reshape(&[self.inputs, self.filters])
    }

    /// Each pixel of x times `matrix` `[in, out]`.
    fn times<'g>(&self, x: Value<'g>, matrix: Value<'g>) -> Value<'g> {
        let _scope = x.graph().scope_beside(&self.convolution);
        let kernel = matrix.reshape(&[1, 1, matrix.dim(0), matrix.dim(1)]);
        let kernel = block_diagonal(kernel.convert(self.activations), self.batch.beside);
        x.convolve(kernel, Conv::nhwc(vec![WindowDim::new(1, 1, 0, 0); 2]))
            .convert(self.batch.dtype)
    }

    /// Sums over all pixels of x·yᵀ: `[channels of x, channels of y]`.
    fn products<'g>(&self, x: Value<'g>, y: Value<'g>) -> Value<'g> {
        let dims = DotDims {
            lhs_contracting: vec![0, 1, 2],
            rhs_contracting: vec![0, 1, 2],
            // Products of numbers that were short before lose nothing.
            precision: match self.activations {
                DType::Bf16 => Precision::Default,
                _ => Precision::Highest,
            },
            ..DotDims::default()
        };
        let dtype = self.batch.dtype;
        let all = x.convert(dtype).dot_general(y.convert(dtype), dims);
        let beside = self.batch.beside;
        let (rows, columns) = (all.dim(0) / beside, all.dim(1) / beside);
        (0..beside)
            .map(|i| {
                all.slice_dim(0, i * rows, (i + 1) * rows).slice_dim(
                    1,
                    i * columns,
                    (i + 1) * columns,
                )
            })
            .reduce(|sum, block| sum + block)
            .unwrap_or(all)
    }

    /// `(y, mean, biased variance)`, the statistics being known or not.
    fn forward<'g>(
        &self,
        x: Value<'g>,
        kernel: Value<'g>,
        own: &NormVariables<'g>,
        known: Option<(Value<'g>, Value<'g>)>,
    ) -> (Value<'g>, Value<'g>, Value<'g>) {
        let batch = self.batch;
        let rows = batch.rows(x);
        let w = self.weights(kernel);
        // On this replica: mean of x, its covariance times W, mean and variance of y.
        let x_mean = batch.mean(x.convert(batch.dtype));
        let square = [self.inputs; 2];
        let covariance = self.products(x, x) * (1.0 / rows as f64)
            - x_mean.broadcast_leading(&square) * x_mean.broadcast_trailing(&square);
        let covariance = covariance.precise_matmul(w);
        let y_mean = x_mean.reshape(&[1, self.inputs]).precise_matmul(w);
        let y_mean = y_mean.reshape(&[self.filters]);
        let (mean, variance) = known.unwrap_or_else(|| {
            let shift = own.moving_mean.1.stop_gradient();
            let apart = y_mean - shift;
            let squares = (w * covariance).sum(&[0]) + apart * apart;
            batch.of_all(apart, squares, 1, shift)
        });
        let inverse = (variance + EPSILON).rsqrt();
        let y = self.times(x, w);
        let mut y = batch.normal(y, mean, inverse) * batch.spread(own.gamma, y);
        let mut inputs = vec![x, kernel, own.gamma];
        if let Some(beta) = own.beta {
            y = y + batch.spread(beta, y);
            inputs.push(beta);
        }
        let saved = [mean, inverse, x_mean, covariance, y_mean];
        let y = y.convert(self.activations);
        let layer = self.clone();
        let outputs = x
            .graph()
            .custom_vjp(&inputs, &[y], &saved, move |vjp: &Vjp| layer.adjoint(vjp));
        (outputs[0], mean, variance)
    }

    /// As that of batch normalisation followed by that of a convolution: with ŷ = (y − mean)·r, the cotangent of y is
    /// γ·r·(dy − avg dy − ŷ·avg(dy·ŷ)), and that of x is its product with Wᵀ, that of W the sum of x times it.
    fn adjoint<'g>(&self, vjp: &Vjp<'g>) -> Vec<Value<'g>> {
        let batch = self.batch;
        let (x, gamma, dy) = (vjp.inputs[0], vjp.inputs[2], vjp.cotangents[0]);
        let w = self.weights(vjp.inputs[1]);
        let [mean, inverse, x_mean, covariance, y_mean] = [0, 1, 2, 3, 4].map(|i| vjp.saved[i]);
        let rows = batch.rows(x) as f64;
        let shape = [self.inputs, self.filters];
        let of_input = |value: Value<'g>| value.broadcast_leading(&shape);
        let of_output = |value: Value<'g>| value.broadcast_trailing(&shape);

        let sum_dy = batch.sum(dy.convert(batch.dtype));
        let x_dy = {
            let _scope = vjp.graph.scope_beside(&self.convolution);
            self.products(x, dy)
        };
        // Σ dy·(y − mean), y's own mean apart.
        let centred = x_dy - of_input(x_mean) * of_output(sum_dy);
        let sum_dy_y = (w * centred).sum(&[0]) + (y_mean - mean) * sum_dy;
        let sum_dy_normal = sum_dy_y * inverse;
        let (mut total_dy, mut total_dy_normal) = (sum_dy, sum_dy_normal);
        if batch.replicas > 1 {
            total_dy = sum_dy.all_reduce_sum();
            total_dy_normal = sum_dy_normal.all_reduce_sum();
        }
        let count = 1.0 / (rows * batch.replicas as f64);
        let mean_dy = total_dy * count;
        let scale = gamma * inverse;
        // What ŷ·avg(dy·ŷ) gives for each unit of y − mean.
        let slope = total_dy_normal * count * inverse;

        // Averages over this replica of x, and of x times y − mean.
        let x_y = covariance + of_input(x_mean) * of_output(y_mean - mean);
        let taken = of_input(x_mean) * of_output(mean_dy) + x_y * of_output(slope);
        let dw = (x_dy - taken * rows) * of_output(scale);

        let back = w.transpose(&[1, 0]);
        let of_x = (w * of_output(scale * slope)).precise_matmul(back);
        let constant = (scale * (mean_dy - slope * mean)).reshape(&[1, self.filters]);
        let constant = constant.precise_matmul(back).reshape(&[self.inputs]);
        let scaled_back = (w * of_output(scale)).transpose(&[1, 0]);
        let dx = self.times(dy, scaled_back) - self.times(x, of_x) - batch.spread(constant, x);
        let dw = dw.reshape(&[1, 1, self.inputs, self.filters]);
        let mut found = vec![dx.convert(x.dtype()), dw, sum_dy_normal];
        if vjp.inputs.len() > 3 {
            found.push(sum_dy);
        }
        found
    }
}
