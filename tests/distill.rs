//! Distillation: a narrow student that imitates comes closer to its teacher than one that learns from labels alone; and what may
//! not be a teacher is refused in one sentence.

mod binary;
mod common;
mod pictures;

use binary::{refused, simclr};
use simclr::data::Examples;
use simclr::hlo::{DType, Graph, Literal, Shape};
use simclr::interop::tensor_bundle::{Tensor, write};
use simclr::model::Network;
use simclr::nn::{Builder, Kind, Settings};
use simclr::train::checkpoint::Dtype;
use simclr::train::trained;
use std::path::Path;
use std::process::Output;

/// Trains a small classifier of shapes32.
fn train(command: &str, model_dir: &Path, more: &[&str]) -> Output {
    simclr()
        .arg(command)
        .args([
            "dataset=shapes32",
            "image_size=32",
            "resnet_depth=10",
            "stem_stride=2",
            "num_proj_layers=1",
            "proj_out_dim=8",
            "optimizer=adam",
            "learning_rate=0.01",
            "weight_decay=0",
            "warmup_epochs=0",
            "train_batch_size=128",
            "runtime.platform=cpu",
            "runtime.devices=1",
            "runtime.eval=false",
        ])
        .arg(format!("model_dir={}", model_dir.display()))
        .args(more)
        .output()
        .expect("the program starts")
}

fn trained(command: &str, model_dir: &Path, more: &[&str]) {
    let output = train(command, model_dir, more);
    assert!(output.status.success(), "{}", binary::stderr(&output));
}

/// Softmax of a network's logits for the first images of the test split, a row per image.
fn says(run: &Path, count: usize) -> Vec<Vec<f64>> {
    let run = trained::open(run).expect("a run");
    let examples = Examples::open("shapes32", "test", None).expect("shapes32");
    let set = examples.memory().expect("in memory");
    let pixels = set.images[..count * set.image_bytes()].to_vec();
    let graph = Graph::new();
    let values = run
        .values
        .iter()
        .map(|value| graph.constant(value.clone()))
        .collect();
    let settings = Settings {
        training: false,
        ..Settings::default()
    };
    let mut builder = Builder::with_values(&graph, settings, values);
    let images = graph.parameter("images", Shape::new(DType::U8, [count as i64, 32, 32, 3]));
    let outputs = run
        .network
        .forward(&mut builder, images.convert(DType::F32) * (1.0 / 255.0));
    let logits = outputs.logits.expect("a classifier");
    let module = graph.finish("says", &[logits]).expect("a module");
    let pixels = Literal::new(&[count as i64, 32, 32, 3], &pixels);
    let logits = common::run(&module, &[pixels])[0].to_f64s();
    let classes = logits.len() / count;
    logits
        .chunks(classes)
        .map(|row| {
            let top = row.iter().cloned().fold(f64::MIN, f64::max);
            let sum: f64 = row.iter().map(|x| (x - top).exp()).sum();
            row.iter().map(|x| (x - top).exp() / sum).collect()
        })
        .collect()
}

/// Mean Kullback-Leibler divergence from the teacher, and the share of images for which both name the same class.
fn distance(teacher: &[Vec<f64>], student: &[Vec<f64>]) -> (f64, f64) {
    let first = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let (mut divergence, mut same) = (0.0, 0.0);
    for (p, q) in teacher.iter().zip(student) {
        divergence += p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
        same += f64::from(u8::from(first(p) == first(q)));
    }
    (
        divergence / teacher.len() as f64,
        same / teacher.len() as f64,
    )
}

#[test]
fn a_student_comes_closer_to_its_teacher_than_labels_bring_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (teacher, labels, student) = (at("teacher"), at("labels"), at("student"));
    trained(
        "finetune",
        &teacher,
        &["width_multiplier=0.25", "train_steps=160"],
    );
    let narrow = ["width_multiplier=0.125", "train_steps=160"];
    trained("finetune", &labels, &narrow);
    let from = format!("teacher={}", teacher.display());
    trained("distill", &student, &[&narrow[..], &[&from]].concat());
    let count = 1000;
    let wanted = says(&teacher, count);
    let (labelled, labelled_same) = distance(&wanted, &says(&labels, count));
    let (imitated, imitated_same) = distance(&wanted, &says(&student, count));
    eprintln!(
        "divergence {imitated:.4} against {labelled:.4}, same class {imitated_same:.3} against {labelled_same:.3}"
    );
    assert!(
        imitated < 0.8 * labelled,
        "divergence {imitated} against {labelled}"
    );
    assert!(
        imitated_same > labelled_same,
        "same class {imitated_same} against {labelled_same}"
    );

    // Its checkpoint goes on like any other, and says what it learned.
    let metrics = std::fs::read_to_string(student.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("train/distill_loss"), "{metrics}");
    let again = train("distill", &student, &[&narrow[..], &[&from]].concat());
    assert!(
        binary::stderr(&again).contains("resuming at step 160"),
        "{}",
        binary::stderr(&again)
    );
}

/// Its stem is one for small images, whose size only the teacher knows.
#[test]
fn a_student_takes_data_and_size_from_its_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let (teacher, student) = (folder.path().join("teacher"), folder.path().join("student"));
    let made = binary::run(&binary::tiny(&teacher, &["train_steps=1"]));
    assert!(made.status.success(), "{}", binary::stderr(&made));
    let output = simclr()
        .args(["distill", "resnet_depth=10", "width_multiplier=0.125"])
        .args(["stem_stride=2", "warmup_epochs=0", "train_batch_size=64"])
        .arg(format!("teacher={}", teacher.display()))
        .arg(format!("model_dir={}", student.display()))
        .args([
            "train_steps=1",
            "runtime.platform=cpu",
            "runtime.eval=false",
        ])
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", binary::stderr(&output));
    let size = |run: &Path| trained::open(run).expect("a run").network.image_size;
    assert_eq!(size(&student), size(&teacher));
    assert!(size(&student) <= 32, "below the default");
}

/// A checkpoint of the original's teaches: one that says "ring" to everything has a student that says so too.
#[test]
fn an_imported_checkpoint_teaches() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let network = Network {
        resnet_depth: 10,
        width_multiplier: 0.125,
        image_size: 32,
        num_proj_layers: 1,
        proj_out_dim: 8,
        num_classes: Some(10),
        ..Network::default()
    };
    let variables = network.variables().unwrap();
    let values: Vec<Vec<u8>> = variables
        .iter()
        .map(|variable| {
            let value = |i| match (variable.kind, i) {
                (Kind::Gamma | Kind::MovingVariance, _) => 1f32,
                (Kind::Bias, 1) => 8.0,
                _ => 0.0,
            };
            (0..variable.elements())
                .flat_map(|i| value(i).to_le_bytes())
                .collect()
        })
        .collect();
    let tensors: Vec<Tensor> = variables
        .iter()
        .zip(&values)
        .map(|(variable, bytes)| {
            let dims: Vec<usize> = variable.dims.iter().map(|&dim| dim as usize).collect();
            Tensor::numbers(&variable.name, Dtype::F32, &dims, bytes)
        })
        .collect();
    write(&at("model.ckpt-0"), &tensors).expect("a bundle");
    let imported = simclr()
        .arg("import")
        .args([at("model.ckpt-0"), at("teacher")])
        .output()
        .expect("the program starts");
    assert!(imported.status.success(), "{}", binary::stderr(&imported));
    let from = format!("teacher={}", at("teacher").display());
    let more = ["width_multiplier=0.125", "train_steps=30", &from];
    trained("distill", &at("student"), &more);
    let probabilities = says(&at("student"), 200);
    let ring = probabilities.iter().map(|row| row[1]).sum::<f64>() / 200.0;
    assert!(ring > 0.8, "{ring}");
}

/// The student has the teacher's classes, and no figure speaks of labels.
#[test]
fn images_without_labels_teach() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let train_images = at("flat").join("train");
    std::fs::create_dir_all(&train_images).unwrap();
    for number in 0..70 {
        let file = train_images.join(format!("{number:02}.png"));
        std::fs::write(file, pictures::png(number)).unwrap();
    }
    let packed = simclr()
        .args(["data", "pack"])
        .args([at("flat"), at("packed")])
        .output()
        .expect("the program starts");
    assert!(packed.status.success(), "{}", binary::stderr(&packed));
    let made = binary::run(&binary::tiny(&at("teacher"), &["train_steps=1"]));
    assert!(made.status.success(), "{}", binary::stderr(&made));
    let classes = |run: &str| trained::open(&at(run)).expect("a run").network.num_classes;
    let taught_classes = classes("teacher");
    assert!(taught_classes > Some(1), "{taught_classes:?}");

    let distill = |model_dir: &str, share: &str| {
        simclr()
            .args(["distill", "dataset=pictures", share])
            .arg(format!("data_dir={}", at("packed").display()))
            .arg(format!("teacher={}", at("teacher").display()))
            .arg(format!("model_dir={}", at(model_dir).display()))
            .args([
                "resnet_depth=10",
                "width_multiplier=0.125",
                "stem_stride=2",
                "train_batch_size=64",
                "warmup_epochs=0",
                "train_steps=2",
                "runtime.platform=cpu",
                "runtime.devices=1",
            ])
            .output()
            .expect("the program starts")
    };
    let output = distill("student", "distill_share=1");
    let said = binary::stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("no evaluation: pictures has no classes"),
        "{said}"
    );
    assert_eq!(classes("student"), taught_classes);
    let metrics = std::fs::read_to_string(at("student").join("metrics.jsonl")).unwrap();
    for (tag, there) in [
        ("train/distill_loss", true),
        ("train/teacher_acc", true),
        ("supervised", false),
        ("eval", false),
    ] {
        assert_eq!(metrics.contains(tag), there, "{tag}: {metrics}");
    }
    refused(
        &distill("refused", "distill_share=0.5"),
        2,
        &["`distill_share` is 0.5", "1, since pictures has no classes"],
    );
    assert!(!at("refused").exists(), "nothing was written");
}

#[test]
fn what_may_not_teach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (run, out) = (at("run"), at("out"));
    let made = binary::run(&binary::tiny(
        &run,
        &["train_steps=1", "lineareval_while_pretraining=false"],
    ));
    assert!(made.status.success(), "{}", binary::stderr(&made));
    let bare = format!("teacher={}", run.display());
    refused(
        &train("distill", &out, &[&bare]),
        2,
        &["`teacher`", "no classifier", "simclr finetune"],
    );
    refused(
        &train("distill", &out, &[]),
        2,
        &["`teacher` is null", "the run to imitate"],
    );
    refused(
        &train("finetune", &out, &[&bare]),
        2,
        &["`teacher`", "simclr distill"],
    );
    refused(
        &train("distill", &out, &["teacher=/no/run"]),
        2,
        &["/no/run", "no run and no checkpoint"],
    );
    refused(
        &train("pretrain", &out, &[&bare, "train_mode=distill"]),
        2,
        &["train_mode", "simclr distill"],
    );
    refused(
        &train("distill", &out, &[&bare, "distill_share=1.5"]),
        2,
        &["distill_share", "0 to 1"],
    );

    // Of other classes.
    let made = binary::run(&binary::tiny(&at("ten"), &["train_steps=1"]));
    assert!(made.status.success(), "{}", binary::stderr(&made));
    for (number, class) in ["ant", "bee", "ant", "bee"].iter().enumerate() {
        let class = at("two").join(class);
        std::fs::create_dir_all(&class).unwrap();
        std::fs::write(class.join(format!("{number}.png")), pictures::png(number)).unwrap();
    }
    let ten = format!("teacher={}", at("ten").display());
    let data = format!("data_dir={}", at("two").display());
    let other = [
        "dataset=folder",
        "train_batch_size=4",
        "train_steps=1",
        &data,
        &ten,
    ];
    refused(
        &train("distill", &out, &other),
        2,
        &[
            "`teacher`",
            "tells 10 classes apart",
            "the 2 of `dataset` folder",
        ],
    );
    assert!(!out.exists(), "nothing was written");
}
