//! The binding on the real CPU plugin: types, devices, donation, refusals before a launch, memory over many launches.

mod common;

use simclr::hlo::{DType, Graph, Literal, Monoid, Shape};
use simclr::pjrt::{
    Argument, BufferSpec, Client, CompileOptions, ElementType, Executable, OptionValue,
};

/// A program on a client: compiles the graph's module without the engine in between.
fn compile(client: &Client, module: &simclr::hlo::Module, specs: &[BufferSpec]) -> Executable {
    let options = CompileOptions {
        num_replicas: module.replicas,
        parameters: specs.to_vec(),
        donated: module
            .aliases
            .iter()
            .map(|&(_, parameter)| parameter)
            .collect(),
        ..CompileOptions::default()
    };
    client
        .compile(&module.to_proto_bytes(), &options)
        .expect("the module compiles")
}

fn spec(element_type: ElementType, dims: &[i64]) -> BufferSpec {
    BufferSpec {
        element_type,
        dims: dims.to_vec(),
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn every_type_of_the_project_goes_there_and_back() {
    for dtype in [
        DType::Pred,
        DType::S32,
        DType::S64,
        DType::U8,
        DType::U32,
        DType::U64,
        DType::Bf16,
        DType::F32,
        DType::F64,
    ] {
        let graph = Graph::new();
        let shape = Shape::new(dtype, [3]);
        let (x, y) = (
            graph.parameter("x", shape.clone()),
            graph.parameter("y", shape),
        );
        let sum = if dtype == DType::Pred { x.or(y) } else { x + y };
        let module = graph.finish("sum", &[sum]).unwrap();
        let a = Literal::from_f64s(dtype, &[3], &[0.0, 1.0, 0.0]);
        let b = Literal::from_f64s(dtype, &[3], &[1.0, 0.0, 0.0]);
        let found = common::run(&module, &[a, b]);
        assert_eq!(found[0].to_f64s(), [1.0, 1.0, 0.0], "{dtype}");
    }
}

#[test]
fn devices_of_one_process_work_together() {
    for devices in [2, 4, 8] {
        let graph = Graph::new();
        let x = graph.parameter("x", Shape::new(DType::F32, [2]));
        let own = graph.replica_id().convert(DType::F32);
        let results = [
            x.all_reduce_sum(),
            own.broadcast_scalar(&[1]).all_gather(0, devices, &[]),
        ];
        let module = graph
            .finish("all", &results)
            .unwrap()
            .with_replicas(devices as usize)
            .unwrap();
        let arguments: Vec<Vec<Literal>> = (0..devices)
            .map(|r| vec![Literal::new(&[2], &[r as f32, 1.0])])
            .collect();
        let sum = (0..devices).sum::<i64>() as f32;
        for results in common::run_replicas(&module, &arguments) {
            assert_eq!(results[0].to_vec::<f32>(), [sum, devices as f32]);
            let ranks: Vec<f32> = (0..devices).map(|r| r as f32).collect();
            assert_eq!(results[1].to_vec::<f32>(), ranks);
        }
    }
}

#[test]
fn replicas_run_where_they_are_told() {
    let client = Client::cpu(common::plugin(), 3).unwrap();
    let graph = Graph::new();
    let module = graph
        .finish("rank", &[graph.replica_id()])
        .and_then(|module| module.with_replicas(2))
        .unwrap();
    let options = CompileOptions {
        num_replicas: 2,
        device_ids: vec![2, 0],
        ..Default::default()
    };
    let program = client.compile(&module.to_proto_bytes(), &options).unwrap();
    let results = program.execute(vec![vec![], vec![]]).unwrap();
    let places: Vec<i64> = results.iter().map(|list| list[0].device_id()).collect();
    assert_eq!(places, [2, 0]);
    assert_eq!(results[1][0].to_host().unwrap(), 1u32.to_le_bytes());
}

#[test]
fn collectives_of_two_clients_at_once_do_not_meet() {
    // The plugin keeps them apart by the launch's name, not by its client: without one they end the process or give wrong sums.
    std::thread::scope(|scope| {
        for ours in [1.0f32, 100.0] {
            scope.spawn(move || {
                let client = Client::cpu(common::plugin(), 2).unwrap();
                let graph = Graph::new();
                let x = graph.parameter("x", Shape::new(DType::F32, [1]));
                let module = graph
                    .finish("sum", &[x.all_reduce_sum()])
                    .and_then(|module| module.with_replicas(2))
                    .unwrap();
                let program = compile(&client, &module, &[spec(ElementType::F32, &[1])]);
                let arguments: Vec<_> = (client.devices().iter())
                    .map(|device| {
                        client
                            .buffer(&floats(&[ours]), ElementType::F32, &[1], device)
                            .unwrap()
                    })
                    .collect();
                for _ in 0..200 {
                    let kept = arguments.iter().map(|x| vec![Argument::Keep(x)]).collect();
                    for result in program.execute(kept).unwrap() {
                        assert_eq!(result[0].to_host().unwrap(), floats(&[2.0 * ours]));
                    }
                }
            });
        }
    });
}

#[test]
fn donated_memory_is_taken_over_and_kept_memory_is_not() {
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [1024]));
    let module = graph
        .finish("next", &[x + 1.0])
        .and_then(|module| module.with_aliases(&[(0, 0)]))
        .unwrap();
    let program = compile(&client, &module, &[spec(ElementType::F32, &[1024])]);
    let device = &client.devices()[0];
    let put = || {
        client
            .buffer(&floats(&[1.0; 1024]), ElementType::F32, &[1024], device)
            .unwrap()
    };
    let given = put();
    let address = given.device_address().unwrap();
    let result = program
        .execute(vec![vec![Argument::Donate(given)]])
        .unwrap();
    assert_eq!(result[0][0].device_address().unwrap(), address);
    assert_eq!(result[0][0].to_host().unwrap(), floats(&[2.0; 1024]));
    let kept = put();
    let result = program.execute(vec![vec![Argument::Keep(&kept)]]).unwrap();
    assert_ne!(
        result[0][0].device_address().unwrap(),
        kept.device_address().unwrap()
    );
    assert!(!kept.is_deleted().unwrap());
    assert_eq!(kept.to_host().unwrap(), floats(&[1.0; 1024]));
    assert!(program.compiled().memory_use().unwrap().alias >= 4096);
}

#[test]
fn wrong_arguments_are_refused_before_the_launch_and_the_client_goes_on() {
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let other = Client::cpu(common::plugin(), 2).unwrap();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [2]));
    let module = graph
        .finish("sum", &[x.all_reduce(Monoid::Add, &[])])
        .unwrap()
        .with_replicas(2)
        .unwrap();
    let program = compile(&client, &module, &[spec(ElementType::F32, &[2])]);
    let put = |client: &Client, element_type, dims: &[i64], device: usize| {
        client
            .buffer(&[0; 8], element_type, dims, &client.devices()[device])
            .unwrap()
    };
    let good = |device| put(&client, ElementType::F32, &[2], device);
    // Each of these wedges the plugin for ever, or is silently misread, if it gets through.
    let cases = [
        (
            put(&client, ElementType::S32, &[2], 1),
            "S32[2], expected F32[2]",
        ),
        (
            put(&client, ElementType::F32, &[2, 1], 1),
            "F32[2, 1], expected F32[2]",
        ),
        (
            put(&client, ElementType::F32, &[2], 0),
            "on device 0, expected device 1",
        ),
        (put(&other, ElementType::F32, &[2], 1), "another client"),
    ];
    for (bad, words) in cases {
        let error = program
            .execute(vec![
                vec![Argument::Donate(good(0))],
                vec![Argument::Donate(bad)],
            ])
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains(words) && error.contains("replica 1"),
            "{error}"
        );
    }
    let error = program
        .execute(vec![vec![Argument::Donate(good(0))]])
        .err()
        .unwrap();
    assert!(error.to_string().contains("program has 2"), "{error}");
    let error = program.execute(vec![vec![], vec![]]).err().unwrap();
    assert!(error.to_string().contains("takes 1"), "{error}");
    // The client still works.
    let arguments = vec![
        vec![Argument::Donate(good(0))],
        vec![Argument::Donate(good(1))],
    ];
    assert_eq!(
        program.execute(arguments).unwrap()[1][0].to_host().unwrap(),
        [0; 8]
    );
}

#[test]
fn wrong_options_are_refused() {
    let bad = [OptionValue::Str("2".into()), OptionValue::Int(0)];
    for value in bad {
        let error = Client::new(common::plugin(), &[("cpu_device_count", value)])
            .err()
            .unwrap();
        assert!(error.to_string().contains("cpu_device_count"), "{error}");
    }
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let graph = Graph::new();
    let module = graph.finish("rank", &[graph.replica_id()]).unwrap();
    for device_ids in [vec![], vec![7], vec![0, 0]] {
        let replicas = device_ids.len();
        let options = CompileOptions {
            num_replicas: replicas,
            device_ids,
            ..CompileOptions::default()
        };
        let error = client
            .compile(&module.to_proto_bytes(), &options)
            .err()
            .unwrap();
        assert!(error.to_string().contains("replicas on devices"), "{error}");
    }
    let error = client.compile(
        b"garbage",
        &CompileOptions {
            num_replicas: 1,
            ..Default::default()
        },
    );
    let error = error.err().unwrap().to_string();
    assert!(
        error.contains("PJRT_Client_Compile") && error.contains(".so"),
        "{error}"
    );
    let device = &client.devices()[0];
    assert!(
        client
            .buffer(&[0; 7], ElementType::F32, &[2], device)
            .is_err()
    );
}

#[test]
fn the_plugin_says_what_a_program_costs() {
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [64, 64]));
    let module = graph.finish("square", &[x.matmul(x)]).unwrap();
    let program = compile(&client, &module, &[spec(ElementType::F32, &[64, 64])]);
    let costs = program.compiled().cost_analysis().unwrap();
    let flops = costs.iter().find(|(name, _)| name == "flops").unwrap().1;
    assert_eq!(flops, 2.0 * 64f64.powi(3));
    let memory = program.compiled().memory_use().unwrap();
    assert_eq!(
        (memory.argument, memory.output),
        (64 * 64 * 4, 64 * 64 * 4 + 8)
    );
    assert!(!program.compiled().optimized_program().unwrap().is_empty());
}

#[test]
fn threads_share_a_client() {
    let client = Client::cpu(common::plugin(), 1).unwrap();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [2]));
    let module = graph.finish("double", &[x * 2.0]).unwrap();
    let program = compile(&client, &module, &[spec(ElementType::F32, &[2])]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (client, program) = (&client, &program);
            scope.spawn(move || {
                for round in 0..100 {
                    let value = (thread * 100 + round) as f32;
                    let bytes = floats(&[value, 1.0]);
                    let device = &client.devices()[0];
                    let x = client
                        .buffer(&bytes, ElementType::F32, &[2], device)
                        .unwrap();
                    let result = program.execute(vec![vec![Argument::Donate(x)]]).unwrap();
                    assert_eq!(result[0][0].to_host().unwrap(), floats(&[2.0 * value, 2.0]));
                }
            });
        }
    });
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own: other tests allocate meanwhile.
#[test]
fn memory_stays_flat_over_ten_thousand_launches() {
    if std::env::var_os("SIMCLR_TEST_LEAK").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "memory_stays_flat_over_ten_thousand_launches",
                "--nocapture",
            ])
            .env("SIMCLR_TEST_LEAK", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let client = Client::cpu(common::plugin(), 2).unwrap();
    let graph = Graph::new();
    let x = graph.parameter("x", Shape::new(DType::F32, [256]));
    let y = graph.parameter("y", Shape::new(DType::F32, [256]));
    let module = graph
        .finish("step", &[x + y.all_reduce_sum(), y.sum_all()])
        .and_then(|module| module.with_aliases(&[(0, 0)]))
        .and_then(|module| module.with_replicas(2))
        .unwrap();
    let specs = [
        spec(ElementType::F32, &[256]),
        spec(ElementType::F32, &[256]),
    ];
    let program = compile(&client, &module, &specs);
    let put = |device: usize| {
        let device = &client.devices()[device];
        client
            .buffer(&floats(&[0.5; 256]), ElementType::F32, &[256], device)
            .unwrap()
    };
    let mut state = vec![put(0), put(1)];
    let mut before = 0;
    for launch in 0..12_000 {
        if launch == 2_000 {
            before = resident_kib();
        }
        let fresh = [put(0), put(1)];
        let arguments = state
            .drain(..)
            .zip(&fresh)
            .map(|(x, y)| vec![Argument::Donate(x), Argument::Keep(y)])
            .collect();
        let mut results = program.execute(arguments).unwrap();
        for list in &mut results {
            list.pop().unwrap().to_host().unwrap();
        }
        state = results.into_iter().map(|mut list| list.remove(0)).collect();
    }
    let grown = resident_kib().saturating_sub(before);
    eprintln!("resident memory grew by {grown} KiB over 10,000 launches");
    assert!(grown < 4096, "{grown} KiB");
}
