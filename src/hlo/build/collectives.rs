//! What replicas tell each other.

use super::super::graph::Value;
use super::super::op::{Monoid, Op};

impl<'g> Value<'g> {
    /// Sum over all replicas.
    pub fn all_reduce_sum(self) -> Value<'g> {
        self.all_reduce(Monoid::Add, &[])
    }

    /// Combination over the replicas of each group (no groups: all replicas).
    pub fn all_reduce(self, monoid: Monoid, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::AllReduce {
                monoid,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// The values of `size` replicas joined along a dimension, in replica order.
    pub fn all_gather(self, dim: i64, size: i64, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::AllGather {
                dim,
                size,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// The sum over `size` replicas, of which each keeps its slice of a dimension.
    pub fn reduce_scatter(self, dim: i64, size: i64, groups: &[Vec<i64>]) -> Value<'g> {
        self.graph.push(
            Op::ReduceScatter {
                dim,
                size,
                groups: groups.to_vec(),
            },
            &[self],
        )
    }

    /// Values moved from replica to replica along `(from, to)` pairs; replicas that are no target get zeros.
    pub fn collective_permute(self, pairs: &[(i64, i64)]) -> Value<'g> {
        self.graph.push(
            Op::CollectivePermute {
                pairs: pairs.to_vec(),
            },
            &[self],
        )
    }
}
