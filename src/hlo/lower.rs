//! Lowering to `HloModuleProto`. What each opcode needs was found by experiment; the traps that a comment names are real.

use super::graph::{Computation, Node};
use super::literal::{Element, Literal};
use super::module::{Module, called};
use super::op::{
    Comparison, Conv, Monoid, Op, PadDim, Precision, Reducer, RngAlgorithm, WindowDim,
};
use super::shape::{DType, Shape, Type};
use crate::proto::hlo as proto;
use prost::Message;
use std::collections::HashMap;
use std::rc::Rc;

impl Module {
    /// The serialised `HloModuleProto`.
    pub fn to_proto_bytes(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }

    /// The module as XLA's message.
    pub fn to_proto(&self) -> proto::HloModuleProto {
        let mut lowering = Lowering {
            replicas: self.replicas as i64,
            ..Lowering::default()
        };
        let entry = lowering.computation(&self.entry, "main");
        let parameters = self.parameters();
        let entries = self
            .aliases
            .iter()
            .map(
                |&(result, parameter)| proto::hlo_input_output_alias_proto::AliasEntryProto {
                    output_shape_index: vec![result as i64],
                    parameter_number: parameter as i64,
                    parameter_shape_index: Vec::new(),
                    kind: 1, // may alias; plugins treat "must" alike
                },
            )
            .collect();
        proto::HloModuleProto {
            name: self.name.clone(),
            entry_computation_name: "main".into(),
            computations: lowering.done,
            host_program_shape: Some(proto::ProgramShapeProto {
                parameters: parameters.iter().map(|(_, shape)| array(shape)).collect(),
                result: Some(type_proto(self.entry.result())),
                parameter_names: parameters.into_iter().map(|(name, _)| name).collect(),
            }),
            id: 0,
            entry_computation_id: entry,
            input_output_alias: Some(proto::HloInputOutputAliasProto { entries }),
        }
    }
}

#[derive(Default)]
struct Lowering {
    /// Callees before callers, as plugins require.
    done: Vec<proto::HloComputationProto>,
    shared: HashMap<*const Computation, i64>,
    monoids: HashMap<(Monoid, DType), i64>,
    next_id: i64,
    replicas: i64,
    /// Channels given so far.
    channels: i64,
}

impl Lowering {
    fn fresh(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    fn shared(&mut self, computation: &Rc<Computation>, name: &str) -> i64 {
        let key = Rc::as_ptr(computation);
        if let Some(&id) = self.shared.get(&key) {
            return id;
        }
        let id = self.computation(computation, name);
        self.shared.insert(key, id);
        id
    }

    /// The two-parameter computation of a monoid.
    fn monoid(&mut self, monoid: Monoid, dtype: DType) -> i64 {
        if let Some(&id) = self.monoids.get(&(monoid, dtype)) {
            return id;
        }
        let graph = super::Graph::new();
        let a = graph.parameter("a", Shape::scalar(dtype));
        let b = graph.parameter("b", Shape::scalar(dtype));
        let root = a.binary(monoid.binary(), b);
        let name = format!("{}_{dtype}", root.node().op.opcode());
        // The graph is a single well-typed operation unless a caller reduced, say, f32 with `and`, which inference of the
        // elementwise form refuses; `Graph::finish` cannot have let that through with an initial value of that type.
        let id = match graph.computation(root) {
            Ok(computation) => self.computation(&computation, &name),
            Err(_) => 0,
        };
        self.monoids.insert((monoid, dtype), id);
        id
    }

    fn computation(&mut self, computation: &Computation, name: &str) -> i64 {
        let mut ids = Vec::with_capacity(computation.nodes.len());
        let mut instructions = Vec::with_capacity(computation.nodes.len());
        for node in &computation.nodes {
            let instruction = self.instruction(node, computation, &ids);
            ids.push(instruction.id);
            instructions.push(instruction);
        }
        let id = self.fresh();
        let parameters = computation.parameter_types();
        self.done.push(proto::HloComputationProto {
            name: if name == "main" {
                name.into()
            } else {
                format!("{name}.{id}")
            },
            instructions,
            program_shape: Some(proto::ProgramShapeProto {
                parameters: parameters.iter().map(|ty| type_proto(ty)).collect(),
                result: Some(type_proto(computation.result())),
                parameter_names: (0..parameters.len()).map(|i| format!("p{i}")).collect(),
            }),
            id,
            root_id: ids[computation.root.index()],
        });
        id
    }

    /// Gives a collective its groups, or else one of all replicas, and a channel of its own, a name that is the same in every process.
    /// Groups are of devices by their global numbers, which are those of the replicas, since there is one partition: with a channel
    /// alone they would be of replicas over all partitions, over which libtpu ends itself where a slice is more than a row of chips.
    /// (A collective-permute with a channel would be among partitions.)
    fn connect(&mut self, collective: &mut proto::HloInstructionProto, groups: &[Vec<i64>]) {
        self.channels += 1;
        collective.channel_id = self.channels;
        collective.use_global_device_ids = true;
        collective.replica_groups = if groups.is_empty() {
            replica_groups(&[(0..self.replicas).collect()])
        } else {
            replica_groups(groups)
        };
    }

    fn instruction(
        &mut self,
        node: &Node,
        computation: &Computation,
        ids: &[i64],
    ) -> proto::HloInstructionProto {
        let callees: Vec<i64> = match &node.op {
            Op::Reduce {
                reducer: Reducer::Monoid(monoid),
                ..
            }
            | Op::ReduceWindow { monoid, .. }
            | Op::Scatter { monoid, .. }
            | Op::AllReduce { monoid, .. } => vec![self.monoid(*monoid, element_type(node))],
            Op::ReduceScatter { .. } => vec![self.monoid(Monoid::Add, element_type(node))],
            Op::Fence => vec![self.identity(&node.ty)],
            Op::SelectAndScatter { .. } => {
                let dtype = element_type(node);
                vec![
                    self.greater_or_equal(dtype),
                    self.monoid(Monoid::Add, dtype),
                ]
            }
            op => called(op)
                .into_iter()
                .map(|callee| self.shared(callee, op.opcode()))
                .collect(),
        };
        let id = self.fresh();
        let opcode = match node.op {
            // Of the identity, and not to be inlined.
            Op::Fence => "call",
            ref op => op.opcode(),
        };
        let mut out = proto::HloInstructionProto {
            name: format!("{opcode}.{id}"),
            opcode: opcode.into(),
            shape: Some(type_proto(&node.ty)),
            metadata: (!node.scope.is_empty()).then(|| proto::OpMetadata {
                op_type: opcode.into(),
                op_name: format!("{}/{opcode}", node.scope),
                ..Default::default()
            }),
            id,
            operand_ids: node
                .operands
                .iter()
                .map(|operand| ids[operand.index()])
                .collect(),
            called_computation_ids: callees,
            ..Default::default()
        };
        let operand = |i: usize| -> &Type { &computation.nodes[node.operands[i].index()].ty };
        match &node.op {
            Op::Parameter { index, .. } => out.parameter_number = *index as i64,
            Op::Constant(value) => out.literal = Some(literal(value)),
            Op::Iota { dim, .. } => out.dimensions = vec![*dim],
            Op::Compare(direction) => out.comparison_direction = direction_name(*direction).into(),
            Op::Broadcast { mapping, .. } => out.dimensions = mapping.clone(),
            Op::Transpose { permutation } => out.dimensions = permutation.clone(),
            Op::Slice {
                start,
                limit,
                stride,
            } => {
                out.slice_dimensions = (0..start.len())
                    .map(|i| proto::SliceDimensions {
                        start: start[i],
                        limit: limit[i],
                        stride: stride[i],
                    })
                    .collect();
            }
            Op::DynamicSlice { sizes } => out.dynamic_slice_sizes = sizes.clone(),
            Op::Gather(dims) => {
                out.gather_dimension_numbers = Some(proto::GatherDimensionNumbers {
                    offset_dims: dims.offset_dims.clone(),
                    collapsed_slice_dims: dims.collapsed_slice_dims.clone(),
                    start_index_map: dims.start_index_map.clone(),
                    index_vector_dim: dims.index_vector_dim,
                });
                out.gather_slice_sizes = dims.slice_sizes.clone();
            }
            Op::Scatter { dims, .. } => {
                out.scatter_dimension_numbers = Some(proto::ScatterDimensionNumbers {
                    update_window_dims: dims.update_window_dims.clone(),
                    inserted_window_dims: dims.inserted_window_dims.clone(),
                    scatter_dims_to_operand_dims: dims.scatter_dims_to_operand_dims.clone(),
                    index_vector_dim: dims.index_vector_dim,
                });
            }
            Op::Concatenate { dim } => out.dimensions = vec![*dim],
            Op::Pad(padding) => {
                out.padding_config = Some(proto::PaddingConfig {
                    dimensions: padding.iter().map(pad_dimension).collect(),
                });
            }
            Op::Reverse { dims } | Op::Reduce { dims, .. } => out.dimensions = dims.clone(),
            Op::ReduceWindow { window, .. } | Op::SelectAndScatter { window } => {
                out.window = Some(window_proto(window));
            }
            Op::Convolution(conv) => convolution(conv, &mut out),
            Op::Dot(dims) => {
                out.dot_dimension_numbers = Some(proto::DotDimensionNumbers {
                    lhs_contracting_dimensions: dims.lhs_contracting.clone(),
                    rhs_contracting_dimensions: dims.rhs_contracting.clone(),
                    lhs_batch_dimensions: dims.lhs_batch.clone(),
                    rhs_batch_dimensions: dims.rhs_batch.clone(),
                });
                out.precision_config = precision(dims.precision);
            }
            Op::RngBitGenerator { algorithm, .. } => {
                out.rng_algorithm = match algorithm {
                    RngAlgorithm::ThreeFry => 1,
                    RngAlgorithm::Philox => 2,
                };
            }
            Op::Sort { dim, .. } => {
                out.dimensions = vec![*dim];
                out.is_stable = true;
            }
            Op::GetTupleElement { index } => out.tuple_index = *index as i64,
            Op::AllReduce { groups, .. } => self.connect(&mut out, groups),
            Op::AllGather { dim, groups, .. } | Op::ReduceScatter { dim, groups, .. } => {
                out.dimensions = vec![*dim];
                self.connect(&mut out, groups);
            }
            Op::CollectivePermute { pairs } => {
                out.source_target_pairs = pairs
                    .iter()
                    .map(|&(source, target)| proto::SourceTarget { source, target })
                    .collect();
            }
            Op::CustomCall {
                target,
                config,
                results,
                aliases,
            } => {
                out.custom_call_target = target.clone();
                out.backend_config = config.clone().into_bytes();
                let index = |result: usize| match results.len() {
                    1 => Vec::new(),
                    _ => vec![result as i64],
                };
                let aliases = aliases.iter();
                out.output_operand_aliasing = aliases
                    .map(|&(result, operand)| proto::OutputOperandAliasing {
                        output_shape_index: index(result),
                        operand_index: operand as i64,
                        operand_shape_index: Vec::new(),
                    })
                    .collect();
                out.custom_call_api_version = 4; // typed
            }
            Op::Fence => {
                out.frontend_attributes = Some(proto::FrontendAttributes {
                    map: HashMap::from([("inlineable".into(), "false".into())]),
                });
            }
            Op::While { .. } => debug_assert_eq!(operand(0), &node.ty),
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Clamp
            | Op::Convert(_)
            | Op::BitcastConvert(_)
            | Op::Reshape { .. }
            | Op::DynamicUpdateSlice
            | Op::Conditional { .. }
            | Op::Call(_)
            | Op::Tuple
            | Op::ReplicaId
            | Op::OptimizationBarrier => {}
            // `Graph::computation` resolved these to what they forward.
            Op::StopGradient | Op::CustomVjp { .. } => {}
        }
        out
    }

    /// The function that gives its argument.
    fn identity(&mut self, ty: &Type) -> i64 {
        let graph = super::Graph::new();
        match graph.computation(graph.typed_parameter("x", ty.clone())) {
            Ok(computation) => self.computation(&computation, "fence"),
            Err(_) => 0, // a parameter cannot fail
        }
    }

    /// The selection of a max-pool gradient: `>=` keeps the first of equals.
    fn greater_or_equal(&mut self, dtype: DType) -> i64 {
        let graph = super::Graph::new();
        let a = graph.parameter("a", Shape::scalar(dtype));
        let b = graph.parameter("b", Shape::scalar(dtype));
        match graph.computation(a.ge(b)) {
            Ok(computation) => self.computation(&computation, "greater_or_equal"),
            Err(_) => 0, // comparing two scalars of one type cannot fail
        }
    }
}

fn element_type(node: &Node) -> DType {
    match &node.ty {
        Type::Array(shape) => shape.dtype,
        // Only variadic reductions and the like give tuples, and those carry their own computation.
        Type::Tuple(_) | Type::Invalid => DType::F32,
    }
}

fn layout(rank: usize) -> Option<proto::LayoutProto> {
    Some(proto::LayoutProto {
        minor_to_major: (0..rank as i64).rev().collect(),
    })
}

fn array(shape: &Shape) -> proto::ShapeProto {
    proto::ShapeProto {
        element_type: shape.dtype.hlo_code(),
        dimensions: shape.dims.clone(),
        layout: layout(shape.rank()),
        is_dynamic_dimension: vec![false; shape.rank()],
        ..Default::default()
    }
}

fn type_proto(ty: &Type) -> proto::ShapeProto {
    match ty {
        Type::Array(shape) => array(shape),
        Type::Tuple(shapes) => proto::ShapeProto {
            element_type: 13, // TUPLE
            tuple_shapes: shapes.iter().map(array).collect(),
            ..Default::default()
        },
        Type::Invalid => proto::ShapeProto::default(), // never part of a finished module
    }
}

fn literal(value: &Literal) -> proto::LiteralProto {
    let mut out = proto::LiteralProto {
        shape: Some(array(value.shape())),
        ..Default::default()
    };
    fn read<T: Element>(value: &Literal) -> Vec<T> {
        value.to_vec()
    }
    match value.shape().dtype {
        DType::Pred => out.preds = read(value),
        DType::S32 => out.s32s = read(value),
        DType::S64 => out.s64s = read(value),
        DType::U8 => out.u8s = value.bytes().to_vec(),
        DType::U32 => out.u32s = read(value),
        DType::U64 => out.u64s = read(value),
        DType::Bf16 => out.bf16s = value.bytes().to_vec(),
        DType::F32 => out.f32s = read(value),
        DType::F64 => out.f64s = read(value),
    }
    out
}

fn direction_name(direction: Comparison) -> &'static str {
    match direction {
        Comparison::Eq => "EQ",
        Comparison::Ne => "NE",
        Comparison::Lt => "LT",
        Comparison::Le => "LE",
        Comparison::Gt => "GT",
        Comparison::Ge => "GE",
    }
}

fn pad_dimension(pad: &PadDim) -> proto::padding_config::Dimension {
    proto::padding_config::Dimension {
        edge_padding_low: pad.low,
        edge_padding_high: pad.high,
        interior_padding: pad.interior,
    }
}

fn window_proto(window: &[WindowDim]) -> proto::Window {
    let dimensions = window
        .iter()
        .map(|w| proto::WindowDimension {
            size: w.size,
            stride: w.stride,
            padding_low: w.low,
            padding_high: w.high,
            window_dilation: w.window_dilation,
            base_dilation: w.base_dilation,
            // Never: on the CPU a reversed window falls off the fast path, 20 to 70 times slower. We reverse the kernel.
            window_reversal: false,
        })
        .collect();
    proto::Window { dimensions }
}

fn convolution(conv: &Conv, out: &mut proto::HloInstructionProto) {
    let n = &conv.dims;
    out.window = Some(window_proto(&conv.window));
    out.convolution_dimension_numbers = Some(proto::ConvolutionDimensionNumbers {
        input_batch_dimension: n.input_batch,
        input_feature_dimension: n.input_feature,
        input_spatial_dimensions: n.input_spatial.clone(),
        kernel_input_feature_dimension: n.kernel_input,
        kernel_output_feature_dimension: n.kernel_output,
        kernel_spatial_dimensions: n.kernel_spatial.clone(),
        output_batch_dimension: n.output_batch,
        output_feature_dimension: n.output_feature,
        output_spatial_dimensions: n.output_spatial.clone(),
    });
    out.feature_group_count = conv.feature_groups;
    out.batch_group_count = conv.batch_groups;
    out.precision_config = precision(Precision::Default);
}

fn precision(precision: Precision) -> Option<proto::PrecisionConfig> {
    let code = match precision {
        Precision::Default => 0,
        Precision::Highest => 2,
    };
    Some(proto::PrecisionConfig {
        operand_precision: vec![code; 2],
    })
}

fn replica_groups(groups: &[Vec<i64>]) -> Vec<proto::ReplicaGroup> {
    groups
        .iter()
        .map(|g| proto::ReplicaGroup {
            replica_ids: g.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::hlo::{DType, Graph, Shape};

    #[test]
    fn collectives_get_channels_of_their_own_but_permutes_none() {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [2]));
        let sums = x.all_reduce_sum() + x.all_reduce_sum();
        let all = sums.all_gather(0, 2, &[]).reduce_scatter(0, 2, &[]);
        let moved = all.collective_permute(&[(0, 1), (1, 0)]);
        let module = graph.finish("channels", &[moved]).unwrap();
        let proto = module.with_replicas(2).unwrap().to_proto();
        let instructions = proto.computations.iter().flat_map(|c| &c.instructions);
        let found: Vec<(&str, i64)> = instructions
            .filter(|i| i.channel_id != 0 || i.opcode.contains("permute"))
            .map(|i| (i.opcode.as_str(), i.channel_id))
            .collect();
        let mut connected = proto.computations.iter().flat_map(|c| &c.instructions);
        let all = |i: &crate::proto::hlo::HloInstructionProto| {
            i.use_global_device_ids && i.replica_groups[0].replica_ids == [0, 1]
        };
        assert!(connected.all(|i| i.channel_id == 0 || all(i)));
        assert_eq!(
            found,
            [
                ("all-reduce", 1),
                ("all-reduce", 2),
                ("all-gather", 3),
                ("reduce-scatter", 4),
                ("collective-permute", 0),
            ]
        );
    }
}
