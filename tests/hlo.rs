//! The graph and what it becomes: sentences for what does not fit, the text print, the message that plugins compile, and the one
//! operation that the program itself has no use for.

mod common;

use simclr::hlo::{
    Conv, DType, DotDims, Graph, Literal, Module, Monoid, PadDim, RngAlgorithm, ScatterDims, Shape,
    Value, WindowDim,
};
use simclr::proto::hlo::HloInstructionProto;

use DType::{F32, F64, S32, U32, U64};

fn array<'g>(graph: &'g Graph, dtype: DType, dims: &[i64]) -> Value<'g> {
    graph.parameter("x", Shape::new(dtype, dims))
}

/// The first error comes out, with the path of the layer that asked for it; what is built on it says nothing.
#[test]
fn the_first_error_is_kept_with_its_layers_path() {
    let graph = Graph::new();
    let (x, y) = (array(&graph, F32, &[4, 8]), array(&graph, F32, &[3, 8]));
    let wrong = {
        let _outer = graph.scope("a");
        let _inner = graph.scope("b");
        x + y
    };
    let _later = graph.scope("c");
    let second = x.reshape(&[5]);
    let error = graph
        .finish("module", &[wrong.tanh(), second])
        .expect_err("a wrong shape");
    assert_eq!((error.scope.as_str(), error.op), ("a/b", "add"));
    let said = "add in `a/b`: operands f32[4,8] and f32[3,8] differ";
    assert_eq!(error.to_string(), said);
}

/// A scope beside another one stands in its place for as long as it is open.
#[test]
fn a_scope_beside_another_takes_its_place() {
    let graph = Graph::new();
    let x = array(&graph, F32, &[4]);
    let first = {
        let _beside = graph.scope_beside("alone");
        x + x
    };
    let _outer = graph.scope("a/b");
    let second = {
        let _beside = graph.scope_beside("c");
        first + x
    };
    let third = second + x;
    let module = graph.finish("module", &[third]).unwrap();
    let added = module
        .entry
        .nodes
        .iter()
        .filter(|node| node.operands.len() == 2);
    let scopes: Vec<String> = added.map(|node| node.scope.to_string()).collect();
    assert_eq!(scopes, ["alone", "a/c", "a/b"]);
}

/// Inside the body of a loop the path goes on from where the loop stands.
#[test]
fn an_error_in_a_body_has_the_whole_path() {
    let graph = Graph::new();
    let count = array(&graph, S32, &[]);
    let _layer = graph.scope("training");
    let state = graph.while_loop(
        &[count],
        |_, state| state[0].lt(3.0),
        |graph, state| {
            let _step = graph.scope("step");
            vec![state[0].tanh()]
        },
    );
    let error = graph.finish("module", &state).expect_err("a wrong type");
    let said = "tanh in `training/step`: is not defined for s32";
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_value_of_another_graph_is_refused() {
    let (graph, other) = (Graph::new(), Graph::new());
    let (x, y) = (array(&graph, F32, &[2]), array(&other, F32, &[2]));
    let error = graph.finish("module", &[x + y]).expect_err("two graphs");
    let said = error.to_string();
    assert!(said.contains("belongs to another graph"), "{said}");
}

/// What does not fit, the operation that says so, and its sentence.
type Wrong = (
    for<'g> fn(&'g Graph) -> Value<'g>,
    &'static str,
    &'static str,
);

const WRONG: &[Wrong] = &[
    (
        |g| array(g, F32, &[2]) + array(g, F32, &[3]),
        "add",
        "operands f32[2] and f32[3] differ",
    ),
    (
        |g| array(g, F32, &[2]).and(array(g, F32, &[2])),
        "and",
        "is not defined for f32",
    ),
    (
        |g| array(g, F32, &[2]).lt(array(g, F64, &[2])),
        "compare",
        "operands f32[2] and f64[2] differ",
    ),
    (
        |g| array(g, F32, &[2]).select(array(g, F32, &[2]), 0.0),
        "select",
        "condition f32[2], values f32[2] and f32[2] do not fit",
    ),
    (
        |g| array(g, F32, &[2]).bitcast_convert(F64),
        "bitcast-convert",
        "f32 and f64 differ in size",
    ),
    (
        |g| g.iota(F32, &[2, 3], 2),
        "iota",
        "dimension 2 of f32[2,3]",
    ),
    (
        |g| array(g, F32, &[2]).broadcast_in_dim(&[3, 4], &[0]),
        "broadcast",
        "f32[2] into f32[3,4] by [0]",
    ),
    (
        |g| array(g, F32, &[2, 3]).reshape(&[7]),
        "reshape",
        "f32[2,3] has 6 elements, f32[7] has 7",
    ),
    (
        |g| array(g, F32, &[2, 2]).transpose(&[0, 0]),
        "transpose",
        "dimension 0 is named twice in [0, 0]",
    ),
    (
        |g| array(g, F32, &[4]).slice(&[1], &[5], &[1]),
        "slice",
        "1..5 step 1 in dimension 0 of f32[4]",
    ),
    (
        |g| array(g, F32, &[4]).dynamic_slice(&[array(g, F32, &[])], &[2]),
        "dynamic-slice",
        "start index f32[] is no integer scalar",
    ),
    (
        |g| array(g, F32, &[4]).dynamic_slice(&[array(g, S32, &[])], &[5]),
        "dynamic-slice",
        "a slice of [5] does not fit f32[4]",
    ),
    (
        |g| array(g, F32, &[4]).dynamic_update_slice(array(g, S32, &[1]), &[array(g, S32, &[])]),
        "dynamic-update-slice",
        "update s32[1] into f32[4]",
    ),
    (
        |g| array(g, F32, &[4, 2]).take_rows(array(g, F32, &[3])),
        "gather",
        "f32[4,2] at f32[3] by",
    ),
    (
        |g| {
            let rows = ScatterDims {
                update_window_dims: vec![1],
                inserted_window_dims: vec![0],
                scatter_dims_to_operand_dims: vec![0],
                index_vector_dim: 1,
            };
            let (x, updates) = (array(g, F32, &[4, 2]), array(g, F32, &[9, 2]));
            x.scatter(array(g, S32, &[3]), updates, rows, Monoid::Add)
        },
        "scatter",
        "updates f32[9,2] into f32[4,2] at s32[3] by",
    ),
    (
        |g| g.concatenate(&[array(g, F32, &[2, 3]), array(g, F32, &[2, 4])], 0),
        "concatenate",
        "f32[2,3] and f32[2,4] along dimension 0",
    ),
    (
        |g| array(g, F32, &[2, 2]).pad(0.0, &[PadDim::default()]),
        "pad",
        "1 paddings with value f32[] of f32[2,2]",
    ),
    (
        |g| {
            let less = PadDim {
                low: -2,
                high: -1,
                interior: 0,
            };
            array(g, F32, &[2]).pad(0.0, &[less])
        },
        "pad",
        "of f32[2] leaves less than nothing",
    ),
    (
        |g| array(g, F32, &[2]).reverse(&[]),
        "reverse",
        "needs at least one dimension",
    ),
    (
        |g| array(g, F32, &[2]).sum(&[1]),
        "reduce",
        "dimension 1 of f32[2]",
    ),
    (
        |g| array(g, F32, &[2]).reduce(Monoid::And, &[0]),
        "reduce",
        "And is not defined for f32",
    ),
    (
        |g| array(g, F32, &[4, 4]).reduce_window(Monoid::Add, &[WindowDim::identity()]),
        "reduce-window",
        "a window of 1 dimensions over [4, 4]",
    ),
    (
        |g| array(g, F32, &[4]).reduce_window(Monoid::Add, &[WindowDim::new(2, 0, 0, 0)]),
        "reduce-window",
        "has a size, stride or dilation below 1",
    ),
    (
        |g| {
            let window = [WindowDim::new(2, 2, 0, 0)];
            array(g, F32, &[4]).select_and_scatter(array(g, F32, &[3]), &window)
        },
        "select-and-scatter",
        "source f32[3], expected f32[2]",
    ),
    (
        |g| {
            let conv = Conv::nhwc(vec![WindowDim::new(3, 1, 1, 1); 2]);
            array(g, F32, &[1, 5, 5, 3]).convolve(array(g, F32, &[3, 3, 4, 8]), conv)
        },
        "convolution",
        "input f32[1,5,5,3] with 3 features, kernel f32[3,3,4,8] with 4 inputs",
    ),
    (
        |g| {
            let conv = Conv::nhwc(vec![WindowDim::new(2, 1, 1, 1); 2]);
            array(g, F32, &[1, 5, 5, 3]).convolve(array(g, F32, &[3, 3, 3, 8]), conv)
        },
        "convolution",
        "window size 2 for kernel f32[3,3,3,8]",
    ),
    (
        |g| array(g, F32, &[2, 3]).matmul(array(g, F32, &[4, 5])),
        "dot",
        "f32[2,3] and f32[4,5] by",
    ),
    (
        |g| {
            let twice = DotDims {
                lhs_batch: vec![0],
                lhs_contracting: vec![0],
                ..DotDims::default()
            };
            array(g, F32, &[2]).dot_general(array(g, F32, &[2]), twice)
        },
        "dot",
        "dimension 0 is named twice in [0, 0]",
    ),
    (
        |g| array(g, F32, &[2]).all_reduce(Monoid::Add, &[vec![0, 1], vec![1]]),
        "all-reduce",
        "replica 1 in groups [[0, 1], [1]]",
    ),
    (
        |g| array(g, F32, &[2]).all_gather(0, 2, &[vec![0, 1, 2]]),
        "all-gather",
        "group [0, 1, 2] does not hold 2 replicas",
    ),
    (
        |g| array(g, F32, &[3]).reduce_scatter(0, 2, &[]),
        "reduce-scatter",
        "2 replicas do not divide 3 in dimension 0",
    ),
    (
        |g| {
            let shape = Shape::new(U32, [4]);
            g.rng_bits(RngAlgorithm::Philox, array(g, U32, &[2]), shape)
                .1
        },
        "rng-bit-generator",
        "the state is u32[2], not u64[2] or u64[3]",
    ),
    (
        |g| {
            let shape = Shape::new(F32, [4]);
            g.rng_bits(RngAlgorithm::Philox, array(g, U64, &[2]), shape)
                .1
        },
        "rng-bit-generator",
        "bits come as u8, u32 or u64, not f32",
    ),
    (
        |g| g.while_loop(&[array(g, F32, &[])], |_, s| s[0], |_, s| s.to_vec())[0],
        "while",
        "condition: gives f32[], expected pred[]",
    ),
    (
        |g| {
            let body = g.while_loop(
                &[array(g, F32, &[])],
                |_, s| s[0].lt(1.0),
                |_, s| vec![s[0].convert(F64)],
            );
            body[0]
        },
        "while",
        "body: gives (f64[]), expected (f32[])",
    ),
    (
        |g| {
            let only = vec![array(g, F32, &[])];
            g.conditional(array(g, U32, &[]), &[(only, &|_, p| p.to_vec())])[0]
        },
        "conditional",
        "the branch index is u32[], not a scalar s32",
    ),
    (
        |g| {
            let values = [array(g, F32, &[2]), array(g, S32, &[3])];
            g.sort(&values, 0, |_, a, b| a[0].lt(b[0]))[0]
        },
        "sort",
        "operands f32[2] and s32[3] differ in dimensions",
    ),
    (
        |g| g.sort(&[array(g, F32, &[2])], 0, |_, a, b| a[0] - b[0])[0],
        "sort",
        "comparison: gives f32[], expected pred[]",
    ),
    (
        |g| g.tuple(&[array(g, F32, &[2])]).element(1),
        "get-tuple-element",
        "element 1 of a tuple of 1",
    ),
    (
        |g| g.tuple(&[array(g, F32, &[2])]).tanh(),
        "tanh",
        "operand 0 is (f32[2]), not an array",
    ),
];

#[test]
fn what_does_not_fit_is_said_in_a_sentence() {
    let mut failures = Vec::new();
    for (build, op, words) in WRONG {
        let graph = Graph::new();
        build(&graph);
        match graph.error() {
            Some(error) if error.op == *op && error.message.contains(words) => {}
            found => failures.push(format!("{op}, `{words}`: {found:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A step of a few operations with a layer, a loop and a donated argument.
fn small() -> Module {
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(F32, [2, 3]));
    let count = graph.parameter("count", Shape::scalar(S32));
    let total = {
        let _layer = graph.scope("head/dense");
        (x * 2.0).tanh().sum(&[1])
    };
    let rounds = graph.while_loop(
        &[count],
        |_, state| state[0].lt(10.0),
        |_, state| vec![state[0] + 3.0],
    );
    let module = graph.finish("small", &[total, rounds[0]]);
    module
        .and_then(|module| module.with_aliases(&[(1, 1)]))
        .expect("the module")
}

const PRINTED: &str = r#"HloModule small, replicas=1, aliases={1: p1}

while_0 {
  %0 = (s32[]) parameter(), 0 "p0"
  %1 = s32[] get-tuple-element(%0), index=0
  %2 = s32[] constant(), [3.0]
  %3 = s32[] add(%1, %2)
  ROOT %4 = (s32[]) tuple(%3)
}

while_1 {
  %0 = (s32[]) parameter(), 0 "p0"
  %1 = s32[] get-tuple-element(%0), index=0
  %2 = s32[] constant(), [10.0]
  ROOT %3 = pred[] compare(%1, %2), Lt
}

ENTRY main {
  %0 = f32[2,3] parameter(), 0 "x"
  %1 = s32[] parameter(), 1 "count"
  %2 = f32[] constant(), [2.0]  // head/dense
  %3 = f32[2,3] broadcast(%2), dimensions=[]  // head/dense
  %4 = f32[2,3] multiply(%0, %3)  // head/dense
  %5 = f32[2,3] tanh(%4)  // head/dense
  %6 = f32[] constant(), [0.0]  // head/dense
  %7 = f32[2] reduce(%5, %6), Add dimensions=[1]  // head/dense
  %8 = (s32[]) tuple(%1)
  %9 = (s32[]) while(%8), calls=while_0, calls=while_1
  %10 = s32[] get-tuple-element(%9), index=0
  ROOT %11 = (f32[2], s32[]) tuple(%7, %10)
}
"#;

#[test]
fn the_text_print_is_stable() {
    assert_eq!(small().to_string(), PRINTED);
    assert_eq!(small().to_string(), small().to_string());
}

fn instructions(module: &Module) -> Vec<HloInstructionProto> {
    let computations = module.to_proto().computations;
    computations
        .into_iter()
        .flat_map(|computation| computation.instructions)
        .collect()
}

#[test]
fn instructions_carry_the_path_of_their_layer() {
    let named = |opcode: &str| -> Vec<String> {
        instructions(&small())
            .into_iter()
            .filter(|instruction| instruction.opcode == opcode)
            .map(|instruction| instruction.metadata.unwrap_or_default().op_name)
            .collect()
    };
    assert_eq!(named("tanh"), ["head/dense/tanh"]);
    assert_eq!(named("reduce"), ["head/dense/reduce"]);
    assert_eq!(named("while"), [""]);
}

#[test]
fn donated_arguments_become_aliases() {
    let alias = small().to_proto().input_output_alias.expect("aliases");
    let pairs: Vec<_> = alias
        .entries
        .iter()
        .map(|e| (&e.output_shape_index[..], e.parameter_number))
        .collect();
    assert_eq!(pairs, [(&[1i64][..], 1)]);
    // One result cannot take over two arguments, nor an argument of another shape.
    for wrong in [&[(1, 1), (1, 0)][..], &[(0, 0)], &[(2, 1)], &[(1, 2)]] {
        let error = small().with_aliases(wrong).expect_err("a wrong alias");
        assert!(error.message.contains("cannot take over"), "{error}");
    }
}

#[test]
fn collectives_carry_their_groups() {
    let graph = Graph::new();
    let x = array(&graph, F32, &[2]);
    let groups = [vec![0, 2], vec![1, 3]];
    let sums = x.all_reduce(Monoid::Add, &groups);
    let all = sums.all_gather(0, 2, &groups);
    let part = all.reduce_scatter(0, 2, &groups);
    let moved = part.collective_permute(&[(0, 3), (3, 0)]);
    let module = graph
        .finish("groups", &[moved, x.all_reduce_sum()])
        .and_then(|module| module.with_replicas(4))
        .expect("the module");
    let mut seen = Vec::new();
    for instruction in instructions(&module) {
        let found: Vec<Vec<i64>> = instruction
            .replica_groups
            .iter()
            .map(|group| group.replica_ids.clone())
            .collect();
        match instruction.opcode.as_str() {
            "all-gather" | "reduce-scatter" => assert_eq!(found, groups, "{}", instruction.name),
            // Without groups: one of all replicas.
            "all-reduce" if seen.contains(&"all-reduce".to_string()) => {
                assert_eq!(found, [[0, 1, 2, 3]]);
            }
            "all-reduce" => assert_eq!(found, groups, "{}", instruction.name),
            "collective-permute" => {
                let pairs: Vec<(i64, i64)> = instruction
                    .source_target_pairs
                    .iter()
                    .map(|pair| (pair.source, pair.target))
                    .collect();
                assert_eq!(pairs, [(0, 3), (3, 0)]);
            }
            _ => continue,
        }
        seen.push(instruction.opcode);
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
}

/// The program draws by a generator of its own; XLA's runs too: the same state gives the same bits, and the state it hands back others.
#[test]
fn the_plugins_generators_run() {
    for (algorithm, words) in [(RngAlgorithm::ThreeFry, 2), (RngAlgorithm::Philox, 3)] {
        let graph = Graph::new();
        let state = graph.parameter("state", Shape::new(U64, [words]));
        let shape = Shape::new(U32, [32, 128]);
        let (next, bits) = graph.rng_bits(algorithm, state, shape.clone());
        let module = graph.finish("bits", &[next, bits]).expect("the graph");
        let start: Vec<u64> = (1..=words as u64).collect();
        let draw = |state: &Literal| {
            let mut results = common::run(&module, std::slice::from_ref(state));
            let bits = results.pop().expect("bits");
            assert_eq!(*bits.shape(), shape);
            (results.remove(0), bits.to_vec::<u32>())
        };
        let start = Literal::new(&[words], &start);
        let (next, bits) = draw(&start);
        let (next_again, again) = draw(&start);
        assert_eq!(bits, again, "{algorithm:?}");
        assert_eq!(next.to_vec::<u64>(), next_again.to_vec::<u64>());
        assert_ne!(next.to_vec::<u64>(), start.to_vec::<u64>());
        let (_, more) = draw(&next);
        let equal = bits.iter().zip(&more).filter(|(a, b)| a == b).count();
        assert!(equal < 3, "{algorithm:?}: {equal} words again");
        // 131,072 bits, half of them ones: five deviations are 905.
        let ones: i64 = bits.iter().map(|word| i64::from(word.count_ones())).sum();
        assert!((ones - 65_536).abs() < 905, "{algorithm:?}: {ones} ones");
    }
}
