//! Where a step's time goes, by families of operations and by layers.
//!
//! Where the plugin has a profiler, [`traced`] sorts what that has seen. The CPU plugin has none: there [`profile`] takes the step
//! apart as its compiler sees it, after the passes: every different convolution and matrix product, and what lies between them in each
//! layer, becomes a small program of its own that is timed in a loop on all replicas at once. Their sum leaves out what ties them together in the step, such as cold caches and replicas that
//! wait for each other; the table shows it as the difference to the measured step.

use super::Error;
use super::measure::Traced;
use crate::engine::Engine;
use crate::hlo::passes::{
    CONVOLUTION_LOOP, KERNEL_GRADIENT_LOOP, WINOGRAD_GRADIENT_LOOP, WINOGRAD_LOOP,
};
use crate::hlo::{Computation, Literal, Module, Node, NodeId, Op, Shape, Type, repeated};
use crate::pjrt::{Argument, Buffer};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// A part is repeated at least as long as this.
const MEASURED: Duration = Duration::from_millis(100);
/// Or so many times.
const MOST_REPETITIONS: usize = 1 << 12;

/// Time and work of some operations of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// A family of operations, or the path of a layer.
    pub name: String,
    /// Operations.
    pub count: usize,
    /// Seconds per step, all replicas working at once.
    pub seconds: f64,
    /// Floating-point operations per step over all replicas, of convolutions and matrix products as they are written down: minimal filtering
    /// makes fewer.
    pub flops: f64,
}

/// The two tables.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// By kind of operation, the longest first.
    pub families: Vec<Row>,
    /// By place in the network, in the order of a step.
    pub layers: Vec<Row>,
}

impl Profile {
    /// Seconds of all parts.
    pub fn seconds(&self) -> f64 {
        self.families.iter().map(|row| row.seconds).sum()
    }
}

/// The kernels that ran on the devices, by name and by layer, from a plugin's recording; none if it saw no device.
pub fn traced(traced: &Traced) -> Option<Profile> {
    let mut layer_of: HashMap<&str, String> = HashMap::new();
    if let Some(module) = &traced.optimized {
        for instruction in module.computations.iter().flat_map(|c| &c.instructions) {
            let path = instruction.metadata.as_ref().map(|m| m.op_name.as_str());
            let path = path.and_then(|path| path.rsplit_once('/'));
            layer_of.insert(
                &instruction.name,
                layer(path.map_or("", |(scope, _)| scope)),
            );
        }
    }
    let (mut kernels, mut layers): (BTreeMap<&str, Row>, Vec<Row>) = Default::default();
    for span in traced.trace.devices() {
        let row = Row {
            count: 1,
            seconds: span.seconds / traced.steps as f64,
            ..Row::default()
        };
        add(kernels.entry(&span.name).or_default(), &span.name, &row);
        let instruction = span.instruction.as_deref().unwrap_or_default();
        let layer = layer_of.get(instruction);
        let layer = layer.map_or("(no instruction)", String::as_str);
        match layers.iter_mut().find(|row| row.name == layer) {
            Some(sum) => add(sum, layer, &row),
            None => layers.push(Row {
                name: layer.into(),
                ..row
            }),
        }
    }
    let per_step = |mut row: Row| {
        row.count = row.count.div_ceil(traced.steps);
        row
    };
    let mut families: Vec<Row> = kernels.into_values().map(per_step).collect();
    families.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let layers: Vec<Row> = layers.into_iter().map(per_step).collect();
    (!families.is_empty()).then_some(Profile { families, layers })
}

/// Takes the step apart and times its parts.
///
/// # Errors
/// If the plugin refuses a part.
pub fn profile(engine: &Engine, step: &Module) -> Result<Profile, Error> {
    let module = engine.rewritten(step)?;
    let body = loop_body(&module.entry);
    let forward = forward(body);
    let mut bench = Bench {
        engine: engine.plain(),
        replicas: module.replicas,
        known: HashMap::new(),
    };
    let mut families: BTreeMap<&str, Row> = BTreeMap::new();
    let mut layers: Vec<Row> = Vec::new();
    let mut between: Vec<Vec<NodeId>> = Vec::new();
    for (index, node) in body.nodes.iter().enumerate() {
        if matches!(node.op, Op::Parameter { .. }) {
            continue;
        }
        let layer = layer(&node.scope);
        let place = layers
            .iter()
            .position(|row| row.name == layer)
            .unwrap_or_else(|| {
                layers.push(Row {
                    name: layer.clone(),
                    ..Row::default()
                });
                between.push(Vec::new());
                layers.len() - 1
            });
        let id = NodeId::from_index(index);
        let Some(flops) = flops(body, node) else {
            between[place].push(id);
            continue;
        };
        let row = Row {
            count: 1,
            seconds: bench.time(body, &[id])?,
            flops: flops * module.replicas as f64,
            ..Row::default()
        };
        let name = family(body, node, forward.contains(&index));
        add(families.entry(name).or_default(), name, &row);
        add(&mut layers[place], &layer, &row);
    }
    for (row, nodes) in layers.iter_mut().zip(&between) {
        let rest = Row {
            count: nodes.len(),
            seconds: bench.time(body, nodes)?,
            ..Row::default()
        };
        let name = match row.name.split('/').next().unwrap_or_default() {
            "augment" => "augmentation",
            "nt_xent" | "supervised" | "weight_decay" => "losses",
            "optimizer" | "learning_rate" => "optimizer",
            "average_gradients" => "averages over replicas",
            "encoder" | "projection_head" | "supervised_head" => "normalisation, activations, sums",
            _ => "other",
        };
        add(families.entry(name).or_default(), name, &rest);
        let layer = row.name.clone();
        add(row, &layer, &rest);
    }
    let mut families: Vec<Row> = families.into_values().collect();
    families.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(Profile { families, layers })
}

fn add(sum: &mut Row, name: &str, row: &Row) {
    sum.name = name.into();
    sum.count += row.count;
    sum.seconds += row.seconds;
    sum.flops += row.flops;
}

/// The body of the largest loop, which is the step's, or the entry of a module without one.
fn loop_body(entry: &Computation) -> &Computation {
    let bodies = entry.nodes.iter().filter_map(|node| match &node.op {
        Op::While { body, .. } => Some(body.as_ref()),
        _ => None,
    });
    bodies.max_by_key(|body| body.nodes.len()).unwrap_or(entry)
}

/// What the metrics need, the second element of the loop's state: everything but the backward pass and the update.
fn forward(body: &Computation) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut open = vec![body.nodes[body.root.index()].operands[1]];
    while let Some(id) = open.pop() {
        if found.insert(id.index()) {
            open.extend(&body.nodes[id.index()].operands);
        }
    }
    found
}

/// The part of a path that names a layer: a unit of the encoder, or the first name.
fn layer(scope: &str) -> String {
    // A gradient belongs to the layer it came from.
    let scope = scope.strip_prefix("gradient/").unwrap_or(scope);
    let names: Vec<&str> = scope.split('/').collect();
    let depth = match names[..] {
        ["encoder", "stem", ..] => 2,
        ["encoder", _, unit, ..] if unit.starts_with("unit") => 3,
        _ => 1,
    };
    if names[0].is_empty() {
        return "(bookkeeping)".into();
    }
    names[..depth].join("/")
}

fn dims(body: &Computation, id: NodeId) -> &[i64] {
    match &body.nodes[id.index()].ty {
        Type::Array(shape) => &shape.dims,
        _ => &[],
    }
}

/// Multiplications and additions of a convolution or matrix product as it is written down, those with padding included; none for anything else.
fn flops(body: &Computation, node: &Node) -> Option<f64> {
    let Type::Array(result) = &node.ty else {
        return None;
    };
    let elements = result.elements() as f64;
    let products = match &node.op {
        Op::Convolution(conv) => {
            let kernel = dims(body, node.operands[1]);
            let window: i64 = conv.window.iter().map(|w| w.size).product();
            // Of a spread input only every so many cells are there.
            let spread: i64 = conv.window.iter().map(|w| w.base_dilation).product();
            (window * kernel[conv.dims.kernel_input as usize]) as f64 / spread as f64
        }
        Op::Dot(dot) => {
            let lhs = dims(body, node.operands[0]);
            let lengths = dot.lhs_contracting.iter().map(|&d| lhs[d as usize]);
            lengths.product::<i64>() as f64
        }
        Op::CustomCall { target, config, .. } if target == CONVOLUTION_LOOP => {
            let (image, kernel) = (dims(body, node.operands[0]), dims(body, node.operands[1]));
            // Of a dilated input only the cells that are there.
            let pixels = |dims: &[i64]| dims[..3].iter().product::<i64>() as f64;
            let window = kernel[..3].iter().product::<i64>() as f64;
            match config.contains("dilation = 1 ") {
                true => window,
                false => window * pixels(image) / pixels(&result.dims),
            }
        }
        Op::CustomCall { target, .. } if target == WINOGRAD_LOOP => {
            let (image, kernel) = (dims(body, node.operands[0]), dims(body, node.operands[1]));
            (kernel[0] * kernel[1] * image[3]) as f64
        }
        Op::CustomCall { target, .. }
            if target == KERNEL_GRADIENT_LOOP || target == WINOGRAD_GRADIENT_LOOP =>
        {
            let pixels = &dims(body, node.operands[1])[..3];
            pixels.iter().product::<i64>() as f64
        }
        _ => return None,
    };
    Some(2.0 * elements * products)
}

fn family(body: &Computation, node: &Node, forward: bool) -> &'static str {
    match &node.op {
        Op::Dot(_) => return "matrix products",
        Op::CustomCall { target, .. } if target == WINOGRAD_GRADIENT_LOOP => {
            return "convolutions, gradient of the kernel";
        }
        Op::CustomCall { target, .. } if target == WINOGRAD_LOOP && !forward => {
            return "convolutions, gradient of the input";
        }
        // A matrix is one row of pixels, or an image for each pixel.
        Op::CustomCall { target, .. }
            if target == CONVOLUTION_LOOP || target == KERNEL_GRADIENT_LOOP =>
        {
            let image = dims(body, node.operands[0]);
            if image[1..3] == [1, 1] || image[..2] == [1, 1] {
                return "matrix products";
            }
            if target == KERNEL_GRADIENT_LOOP {
                return "convolutions, gradient of the kernel";
            }
        }
        _ => {}
    }
    if forward {
        return "convolutions, forward";
    }
    // The gradient of an input reads the layer's kernel from its end, that of a kernel has a cotangent in the kernel's place.
    let mut source = &body.nodes[node.operands[1].index()];
    while matches!(source.op, Op::Transpose { .. } | Op::Convert(_)) {
        source = &body.nodes[source.operands[0].index()];
    }
    match source.op {
        Op::Reverse { .. } => "convolutions, gradient of the input",
        _ => "convolutions, gradient of the kernel",
    }
}

struct Bench {
    engine: Engine,
    replicas: usize,
    /// Seconds of the parts timed so far, by their text.
    known: HashMap<String, f64>,
}

impl Bench {
    /// Seconds of one computation of the nodes.
    fn time(&mut self, body: &Computation, nodes: &[NodeId]) -> Result<f64, Error> {
        let part = repeated(body, nodes, self.replicas).map_err(crate::engine::Error::Hlo)?;
        if part.results().is_empty() {
            return Ok(0.0);
        }
        let text = part.to_string();
        if let Some(&seconds) = self.known.get(&text) {
            return Ok(seconds);
        }
        let seconds = self.measure(&part)?;
        self.known.insert(text, seconds);
        Ok(seconds)
    }

    fn measure(&self, part: &Module) -> Result<f64, Error> {
        let program = self.engine.compile(part)?;
        let mut inputs: Vec<Vec<Buffer>> = Vec::new();
        for device in program.devices() {
            let mut list = Vec::new();
            for (_, shape) in &program.parameters()[1..] {
                list.push(self.engine.put(&values(shape), device)?);
            }
            inputs.push(list);
        }
        let run = |count: usize| -> Result<f64, Error> {
            let mut arguments = Vec::new();
            for (device, list) in program.devices().iter().zip(&inputs) {
                let count = self.engine.put(&Literal::scalar(count as i32), device)?;
                let mut own = vec![Argument::Donate(count)];
                own.extend(list.iter().map(Argument::Keep));
                arguments.push(own);
            }
            let begin = Instant::now();
            let results = program.launch(arguments)?;
            for result in results.iter().flatten() {
                result.wait().map_err(crate::engine::Error::Pjrt)?;
            }
            Ok(begin.elapsed().as_secs_f64())
        };
        // The least of three: what disturbs a launch only makes it longer.
        let least = |count: usize| -> Result<f64, Error> {
            Ok(run(count)?.min(run(count)?).min(run(count)?))
        };
        run(1)?;
        // What a launch costs by itself is in both times.
        let one = least(1)?;
        let mut count = 1;
        loop {
            let seconds = least(1 + count)? - one;
            if seconds >= MEASURED.as_secs_f64() || count >= MOST_REPETITIONS {
                return Ok(seconds.max(0.0) / count as f64);
            }
            count *= 4;
        }
    }
}

/// Numbers between −1 and 1, zeros for other types than floats.
fn values(shape: &Shape) -> Literal {
    if !shape.dtype.is_float() {
        return Literal::zeros(shape.clone());
    }
    let mut state = 1u32;
    let values: Vec<f64> = (0..shape.elements())
        .map(|_| {
            // Numerical Recipes' generator: any numbers do, but equal or denormal ones might run at another speed.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1u32 << 23) - 1.0
        })
        .collect();
    Literal::from_f64s(shape.dtype, &shape.dims, &values)
}
