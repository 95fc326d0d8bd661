//! Pictures in files to pixels: JPEG and PNG, told apart by their first bytes and not by their names.
//!
//! As the original's decoder: three channels always (grey is spread, transparency dropped, CMYK converted), and what EXIF says of the
//! orientation is ignored. Of four inks a progressive picture is refused if a later one has more samples than the first, which no
//! program that we know of writes.

use std::cell::Cell;
use std::io::Cursor;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Pixels at most; a larger picture is refused before memory is taken for it.
pub const MOST_PIXELS: usize = 100_000_000;

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// u8 `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

/// The format of a picture, by its first bytes.
pub fn format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        Some("JPEG")
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("PNG")
    } else {
        None
    }
}

/// Decodes a picture.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    guarded(|| by_format(bytes))
}

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Some damaged pictures make a decoder panic: that is an error like others, and nothing is printed about it.
fn guarded(decode: impl FnOnce() -> Result<Pixels, String>) -> Result<Pixels, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !DECODING.get() {
                usual(info);
            }
        }));
    });
    DECODING.set(true);
    // What it was working on is its own and thrown away.
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(false);
    result.unwrap_or_else(|_| Err("the decoder broke down at it".into()))
}

fn by_format(bytes: &[u8]) -> Result<Pixels, String> {
    match format(bytes) {
        Some("JPEG") => jpeg(bytes),
        Some(_) => png(bytes),
        None => Err(format!(
            "it begins with the bytes {:02x?}, which is neither JPEG nor PNG",
            &bytes[..bytes.len().min(4)]
        )),
    }
}

fn sized(height: usize, width: usize) -> Result<(), String> {
    match height.checked_mul(width) {
        Some(1..=MOST_PIXELS) => Ok(()),
        _ => Err(format!(
            "it has {height} rows of {width} pixels, at most {MOST_PIXELS} pixels are read"
        )),
    }
}

fn jpeg(bytes: &[u8]) -> Result<Pixels, String> {
    match jpeg_with(bytes, true) {
        // Stray bytes between segments, which every decoder in use steps over.
        Err(reason) if reason.contains("Extra bytes between headers") => jpeg_with(bytes, false),
        result => result,
    }
}

fn jpeg_with(bytes: &[u8], strict: bool) -> Result<Pixels, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(MOST_PIXELS)
        .set_max_height(MOST_PIXELS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    sized(height, width)?;
    let rgb = decoder.decode().map_err(|e| e.to_string())?;
    if rgb.len() != height * width * 3 {
        return Err("its components do not make colours".into());
    }
    Ok(Pixels { height, width, rgb })
}

fn png(bytes: &[u8]) -> Result<Pixels, String> {
    let mut decoder = png::Decoder::new_with_limits(
        Cursor::new(bytes),
        png::Limits {
            bytes: 8 * MOST_PIXELS,
        },
    );
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    sized(height, width)?;
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(|e| e.to_string())?;
    reader.finish().map_err(|e| e.to_string())?;
    let samples = frame.color_type.samples();
    let rgb = buffer[..frame.buffer_size()]
        .chunks_exact(samples)
        .flat_map(|pixel| match samples {
            1 | 2 => [pixel[0]; 3],
            _ => [pixel[0], pixel[1], pixel[2]],
        })
        .collect();
    Ok(Pixels { height, width, rgb })
}
