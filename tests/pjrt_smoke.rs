//! smoke
mod common;
use simclr::hlo::*;
#[test]
fn smoke() {
    let g = Graph::new();
    let x = g.parameter("x", Shape::new(DType::F32, [4]));
    let y = (x * 2.0 + 1.0).all_reduce_sum();
    let m = g.finish("m", &[y]).unwrap().with_replicas(2).unwrap();
    let a = Literal::new(&[4], &[1f32, 2., 3., 4.]);
    let r = common::run_replicas(&m, &[vec![a.clone()], vec![a]]);
    assert_eq!(r[1][0].to_vec::<f32>(), [6., 10., 14., 18.]);
}
