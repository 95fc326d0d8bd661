//! A linear probe: multinomial logistic regression on standardised frozen features, by L-BFGS on the full batch, so that the
//! figure depends on the features alone and not on a schedule.

use super::Features;
use crate::engine::{Engine, Error, Program};
use crate::grad::gradients;
use crate::hlo::{DType, Graph, Literal, Module, Shape, Value};
use crate::pjrt::{Argument, Buffer};
use argmin::core::{CostFunction, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use std::cell::RefCell;

/// How the probe is fitted.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Weight of ½‖W‖² beside the mean cross-entropy.
    pub l2: f64,
    /// At most this many L-BFGS iterations.
    pub iterations: u64,
}

impl Default for Probe {
    fn default() -> Self {
        Probe {
            l2: 1e-4,
            iterations: 200,
        }
    }
}

/// Accuracy (a fraction) on `test` of a probe fitted to `train`.
///
/// # Errors
/// If the objective cannot be compiled or run.
pub fn linear_probe(
    engine: &Engine,
    train: &Features,
    test: &Features,
    settings: Probe,
) -> Result<f64, Error> {
    Ok(fit_probe(engine, train, test, settings)?.accuracy)
}

/// A fitted probe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Share of the test examples that it classifies correctly.
    pub accuracy: f64,
    /// The least value found of mean cross-entropy + ½·l2·‖W‖² on the standardised training features.
    pub objective: f64,
}

/// Fits a probe to `train` and tries it on `test`.
///
/// # Errors
/// If the objective cannot be compiled or run.
pub fn fit_probe(
    engine: &Engine,
    train: &Features,
    test: &Features,
    settings: Probe,
) -> Result<Fitted, Error> {
    let classes = 1 + train
        .labels
        .iter()
        .chain(&test.labels)
        .max()
        .copied()
        .unwrap_or(0) as usize;
    let scale = Standardise::of(train);
    let (train, test) = (scale.apply(train), scale.apply(test));
    let objective = Objective::new(engine, &train, classes, settings.l2)?;
    let start = vec![0.0f64; (train.width + 1) * classes];
    let (best, objective) = minimise(objective, start, settings.iterations)?;
    Ok(Fitted {
        accuracy: accuracy(engine, &test, &best, classes)?,
        objective,
    })
}

/// Runs L-BFGS; where the line search can do no better in single precision, the best point so far stands.
fn minimise(
    objective: Objective,
    start: Vec<f64>,
    iterations: u64,
) -> Result<(Vec<f64>, f64), Error> {
    let shared = std::rc::Rc::new(objective);
    let solver = LBFGS::new(MoreThuenteLineSearch::new(), 10);
    let run = Executor::new(SharedObjective(shared.clone()), solver)
        .configure(|state| state.param(start.clone()).max_iters(iterations))
        .run();
    if let Some(error) = shared.failure.borrow_mut().take() {
        return Err(error);
    }
    let found = run
        .ok()
        .and_then(|result| result.state().get_best_param().cloned());
    let best_seen = shared
        .best
        .borrow()
        .as_ref()
        .map(|(_, point)| point.clone());
    let best = found.or(best_seen).unwrap_or(start);
    let least = shared.evaluate(&best)?.cost;
    Ok((best, least))
}

struct Standardise {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Standardise {
    fn of(features: &Features) -> Self {
        let mean = features.mean();
        let mut squares = vec![0.0f64; features.width];
        for row in features.values.chunks_exact(features.width) {
            for ((sum, &x), &m) in squares.iter_mut().zip(row).zip(&mean) {
                *sum += f64::from(x - m).powi(2);
            }
        }
        let scale = squares
            .iter()
            .map(|sum| {
                let deviation = (sum / features.len() as f64).sqrt();
                // A feature that never changes carries nothing; dividing by its rounding noise would invent something.
                if deviation > 1e-6 {
                    (1.0 / deviation) as f32
                } else {
                    0.0
                }
            })
            .collect();
        Standardise { mean, scale }
    }

    fn apply(&self, features: &Features) -> Features {
        let mut out = features.clone();
        for row in out.values.chunks_exact_mut(features.width) {
            for ((x, m), s) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (*x - m) * s;
            }
        }
        out
    }
}

/// The objective on the device: `(x [N, D], labels s32 [N], w [D, C], b [C])` → `(loss, dw, db)`.
struct Objective {
    engine: Engine,
    program: Program,
    x: Buffer,
    labels: Buffer,
    width: usize,
    classes: usize,
    last: RefCell<Option<Evaluation>>,
    best: RefCell<Option<(f64, Vec<f64>)>>,
    failure: RefCell<Option<Error>>,
}

#[derive(Clone)]
struct Evaluation {
    point: Vec<f64>,
    cost: f64,
    gradient: Vec<f64>,
}

impl Objective {
    fn new(engine: &Engine, train: &Features, classes: usize, l2: f64) -> Result<Self, Error> {
        let program = engine.compile(&objective(train, classes, l2)?)?;
        let device = &program.devices()[0];
        let labels: Vec<i32> = train.labels.iter().map(|&label| label as i32).collect();
        Ok(Objective {
            x: engine.put(&train.literal(), device)?,
            labels: engine.put(&Literal::new(&[train.len() as i64], &labels), device)?,
            engine: engine.clone(),
            program,
            width: train.width,
            classes,
            last: RefCell::new(None),
            best: RefCell::new(None),
            failure: RefCell::new(None),
        })
    }

    fn evaluate(&self, point: &[f64]) -> Result<Evaluation, Error> {
        if let Some(last) = &*self.last.borrow()
            && last.point == point
        {
            return Ok(last.clone());
        }
        let device = &self.program.devices()[0];
        let (w, b) = parameters(point, self.width, self.classes);
        let (w, b) = (self.engine.put(&w, device)?, self.engine.put(&b, device)?);
        let arguments = vec![
            Argument::Keep(&self.x),
            Argument::Keep(&self.labels),
            Argument::Keep(&w),
            Argument::Keep(&b),
        ];
        let results = self.program.launch(vec![arguments])?;
        let results = self.program.read(0, &results[0])?;
        let mut gradient = results[1].to_f64s();
        gradient.extend(results[2].to_f64s());
        let evaluation = Evaluation {
            point: point.to_vec(),
            cost: results[0].to_f64s()[0],
            gradient,
        };
        let mut best = self.best.borrow_mut();
        if best
            .as_ref()
            .is_none_or(|(cost, _)| evaluation.cost < *cost)
        {
            *best = Some((evaluation.cost, point.to_vec()));
        }
        *self.last.borrow_mut() = Some(evaluation.clone());
        Ok(evaluation)
    }
}

struct SharedObjective(std::rc::Rc<Objective>);

impl SharedObjective {
    fn evaluate(&self, point: &[f64]) -> Result<Evaluation, argmin::core::Error> {
        self.0.evaluate(point).map_err(|error| {
            let text = error.to_string();
            *self.0.failure.borrow_mut() = Some(error);
            argmin::core::Error::msg(text)
        })
    }
}

impl CostFunction for SharedObjective {
    type Param = Vec<f64>;
    type Output = f64;
    fn cost(&self, point: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.evaluate(point)?.cost)
    }
}

impl Gradient for SharedObjective {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;
    fn gradient(&self, point: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.evaluate(point)?.gradient)
    }
}

fn parameters(point: &[f64], width: usize, classes: usize) -> (Literal, Literal) {
    let (w, b) = point.split_at(width * classes);
    (
        Literal::from_f64s(DType::F32, &[width as i64, classes as i64], w),
        Literal::from_f64s(DType::F32, &[classes as i64], b),
    )
}

fn logits<'g>(x: Value<'g>, w: Value<'g>, b: Value<'g>) -> Value<'g> {
    let products = x.precise_matmul(w);
    products + b.broadcast_trailing(&products.dims())
}

fn objective(train: &Features, classes: usize, l2: f64) -> Result<Module, Error> {
    let (n, d, c) = (train.len() as i64, train.width as i64, classes as i64);
    let graph = Graph::new();
    let x = graph.parameter("x", train.shape());
    let labels = graph.parameter("labels", Shape::new(DType::S32, [n]));
    let w = graph.parameter("w", Shape::new(DType::F32, [d, c]));
    let b = graph.parameter("b", Shape::new(DType::F32, [c]));
    let logits = logits(x, w, b);
    let shifted = logits
        - logits
            .reduce_max(&[1])
            .stop_gradient()
            .broadcast_leading(&[n, c]);
    let one_hot = graph
        .iota(DType::S32, &[n, c], 1)
        .eq(labels.broadcast_leading(&[n, c]))
        .convert(DType::F32);
    let cross_entropy = shifted.exp().sum(&[1]).log() - (shifted * one_hot).sum(&[1]);
    let loss = cross_entropy.mean(&[0]) + (w * w).sum_all() * (0.5 * l2);
    let found = gradients(loss, &[w, b]);
    let mut outputs = vec![loss];
    for (gradient, variable) in found.into_iter().zip([w, b]) {
        outputs.push(gradient.unwrap_or_else(|| graph.zeros(&variable.shape())));
    }
    Ok(graph.finish("linear_probe", &outputs)?)
}

fn accuracy(engine: &Engine, test: &Features, point: &[f64], classes: usize) -> Result<f64, Error> {
    let (d, c) = (test.width as i64, classes as i64);
    let graph = Graph::new();
    let x = graph.parameter("x", test.shape());
    let w = graph.parameter("w", Shape::new(DType::F32, [d, c]));
    let b = graph.parameter("b", Shape::new(DType::F32, [c]));
    let module = graph.finish("linear_probe_test", &[logits(x, w, b).argmax(1)])?;
    let program = engine.compile(&module)?;
    let (w, b) = parameters(point, test.width, classes);
    let predicted = program.run(engine, &[vec![test.literal(), w, b]])?[0][0].to_vec::<i32>();
    let hits = predicted
        .iter()
        .zip(&test.labels)
        .filter(|&(&p, &l)| p as u32 == l)
        .count();
    Ok(hits as f64 / test.len() as f64)
}
