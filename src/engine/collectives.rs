//! What a compiled program exchanges between replicas.

use crate::proto::hlo::{HloModuleProto, ShapeProto};
use prost::Message;
use std::collections::BTreeMap;

/// All collectives of one kind in a program.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Collective {
    /// `all-reduce`, `all-gather`, ….
    pub kind: String,
    /// How many; one in a loop counts once.
    pub count: usize,
    /// Bytes of their results on one replica, together.
    pub bytes: u64,
}

const KINDS: [&str; 5] = [
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
];

/// `HloModuleProtoWithConfig`, of which only the module is read.
#[derive(Clone, PartialEq, Message)]
struct WithConfig {
    #[prost(message, optional, tag = "1")]
    module: Option<HloModuleProto>,
}

/// The module in what a plugin gives as its optimised program.
pub fn optimized_module(program: &[u8]) -> Option<HloModuleProto> {
    WithConfig::decode(program).ok()?.module
}

/// The collectives of an optimised module by kind; an asynchronous pair is one.
pub fn collectives(module: &HloModuleProto) -> Vec<Collective> {
    let mut found: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for instruction in module.computations.iter().flat_map(|c| &c.instructions) {
        let opcode = instruction.opcode.as_str();
        let (name, started) = match opcode.strip_suffix("-start") {
            Some(name) => (name, true),
            None => (opcode, false),
        };
        let Some(kind) = KINDS.into_iter().find(|kind| *kind == name) else {
            continue;
        };
        let Some(shape) = &instruction.shape else {
            continue;
        };
        let bytes = match (started, kind, shape.tuple_shapes.as_slice()) {
            // These start with a tuple of operands, results and bookkeeping.
            (true, "all-gather" | "collective-permute", [_, result, ..]) => bytes(result),
            _ => bytes(shape),
        };
        let entry = found.entry(kind).or_default();
        entry.0 += 1;
        entry.1 += bytes;
    }
    found
        .into_iter()
        .map(|(kind, (count, bytes))| Collective {
            kind: kind.into(),
            count,
            bytes,
        })
        .collect()
}

/// Bytes of a dense array, or of all arrays of a tuple.
fn bytes(shape: &ShapeProto) -> u64 {
    if !shape.tuple_shapes.is_empty() {
        return shape.tuple_shapes.iter().map(bytes).sum();
    }
    let elements: i64 = shape.dimensions.iter().product();
    let size = match shape.element_type {
        1 | 2 | 6 => 1,       // pred, s8, u8
        3 | 7 | 10 | 16 => 2, // s16, u16, f16, bf16
        5 | 9 | 12 => 8,      // s64, u64, f64
        4 | 8 | 11 => 4,      // s32, u32, f32
        _ => 0,               // tokens and what this program never exchanges
    };
    elements.max(0) as u64 * size
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::hlo::{HloComputationProto, HloInstructionProto};

    fn array(element_type: i32, dimensions: &[i64]) -> ShapeProto {
        ShapeProto {
            element_type,
            dimensions: dimensions.to_vec(),
            ..ShapeProto::default()
        }
    }

    fn tuple(shapes: &[ShapeProto]) -> ShapeProto {
        ShapeProto {
            element_type: 13,
            tuple_shapes: shapes.to_vec(),
            ..ShapeProto::default()
        }
    }

    #[test]
    fn kinds_are_counted_with_their_bytes() {
        let instruction = |opcode: &str, shape: ShapeProto| HloInstructionProto {
            opcode: opcode.into(),
            shape: Some(shape),
            ..HloInstructionProto::default()
        };
        let (small, large) = (array(11, &[2, 3]), array(16, &[8, 3]));
        let module = HloModuleProto {
            computations: vec![HloComputationProto {
                instructions: vec![
                    instruction("all-reduce", tuple(&[small.clone(), large.clone()])),
                    instruction("all-reduce-start", small.clone()),
                    instruction("all-reduce-done", small.clone()),
                    instruction("all-gather-start", tuple(&[small.clone(), large.clone()])),
                    instruction("all-gather-done", large),
                    instruction("add", small),
                ],
                ..HloComputationProto::default()
            }],
            ..HloModuleProto::default()
        };
        let program = WithConfig {
            module: Some(module),
        }
        .encode_to_vec();
        let found = collectives(&optimized_module(&program).unwrap());
        let expected = [("all-gather", 1, 48), ("all-reduce", 2, 24 + 48 + 24)];
        let expected = expected.map(|(kind, count, bytes)| Collective {
            kind: kind.into(),
            count,
            bytes,
        });
        assert_eq!(found, expected);
    }
}
