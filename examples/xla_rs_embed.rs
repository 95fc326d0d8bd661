//! Features of a picture by an exported encoder, through the crate `xla` (xla-rs).
//!
//!     simclr export RUN OUT --format hlo --endpoints final_avg_pool
//!     XLA_EXTENSION_DIR=… cargo run --release --features xla-rs --example xla_rs_embed -- OUT PICTURE.png
//!
//! OUT holds `encoder.hlo.pb` and `encoder.json` with the weights inside. The picture is cut to its middle square and resized by
//! taking the nearest pixels; `simclr embed` resizes as the original does.

use simclr::engine::xla_rs::XlaRs;
use simclr::hlo::Literal;
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(picture)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: xla_rs_embed OUT PICTURE.png");
    };
    let folder = Path::new(&folder);
    let about = std::fs::read_to_string(folder.join("encoder.json"))?;
    let about: serde_json::Value = serde_json::from_str(&about)?;
    let inputs = about["inputs"].as_array().map_or(0, Vec::len);
    anyhow::ensure!(
        inputs == 1,
        "the program has {inputs} inputs, expected the images alone: export it with the weights inside"
    );
    let dims: Vec<i64> = about["inputs"][0]["shape"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_i64)
        .collect();
    let [batch, side, _, 3] = dims[..] else {
        anyhow::bail!("the images have shape {dims:?}, expected [batch, side, side, 3]");
    };
    let image = square(&picture, side as usize)?;
    let images = Literal::new(&dims, &image.repeat(batch as usize));

    let engine = XlaRs::cpu()?;
    let program = engine.compile(&std::fs::read(folder.join("encoder.hlo.pb"))?)?;
    let results = program.run(&[images])?;
    for (output, result) in about["outputs"]
        .as_array()
        .into_iter()
        .flatten()
        .zip(&results)
    {
        let values = result.to_f64s();
        let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
        println!(
            "{} {}: norm {norm:.6}, first {:?}",
            output["name"],
            result.shape(),
            &values[..values.len().min(4)]
        );
    }
    Ok(())
}

/// The middle square of a PNG, `side` × `side`, in [0, 1].
fn square(path: &str, side: usize) -> anyhow::Result<Vec<f32>> {
    let file = std::io::BufReader::new(std::fs::File::open(path)?);
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().unwrap_or(0);
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels)?;
    let channels = info.color_type.samples();
    let (width, height) = (info.width as usize, info.height as usize);
    let cut = width.min(height);
    let place = |at: usize, whole: usize| (whole - cut) / 2 + at * cut / side;
    let mut out = Vec::with_capacity(side * side * 3);
    for y in 0..side {
        for x in 0..side {
            let at = (place(y, height) * width + place(x, width)) * channels;
            for channel in 0..3 {
                let channel = if channels >= 3 { channel } else { 0 };
                out.push(f32::from(pixels[at + channel]) / 255.0);
            }
        }
    }
    Ok(out)
}
