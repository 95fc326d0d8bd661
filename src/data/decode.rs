//! Pictures in files to pixels: JPEG and PNG, told apart by their first bytes and not by their names.
//!
//! As the original's decoder: three channels always (grey is spread, transparency dropped, CMYK converted), and what EXIF says of the
//! orientation is ignored, unless it is asked for. Of four inks a progressive picture is refused if a later one has more samples than the first, which no
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
/// Rows or columns at most: as a JPEG can have. Memory for cutting grows with a row, however few there are.
const LONGEST_SIDE: usize = 65_535;

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
    let mut rgb = Vec::new();
    let [height, width] = decode_into(bytes, false, &mut rgb)?;
    Ok(Pixels { height, width, rgb })
}

/// Decodes a picture into a buffer, whose memory serves one picture after the other, and gives its rows and columns. Where `upright`, it is
/// turned as its EXIF data say.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn decode_into(bytes: &[u8], upright: bool, rgb: &mut Vec<u8>) -> Result<[usize; 2], String> {
    rgb.clear();
    let found = guarded(|| {
        let found = by_format(bytes, rgb)?;
        Ok(match found.exif.filter(|_| upright).map(orientation) {
            Some(orientation @ 2..=8) => turn(rgb, found.size, orientation),
            _ => found.size,
        })
    });
    found.map_err(|reason| in_a_line(&reason))
}

/// What a library says, without the ends of lines that would cut a sentence of ours.
pub(super) fn in_a_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a decoder says of a picture beside its pixels.
struct Frame {
    /// Rows and columns.
    size: [usize; 2],
    /// TIFF data.
    exif: Option<Vec<u8>>,
}

/// The orientation in EXIF data; 1, upright, where there is none.
fn orientation(exif: Vec<u8>) -> u32 {
    // What comes after it may be damaged, such as what an editor has left of a thumbnail.
    let read = exif::Reader::new()
        .continue_on_error(true)
        .read_raw(exif)
        .or_else(|error| error.distill_partial_result(|_| ()))
        .ok();
    let field = |read: &exif::Exif| {
        let field = read.get_field(exif::Tag::Orientation, exif::In::PRIMARY)?;
        field.value.get_uint(0)
    };
    read.as_ref().and_then(field).unwrap_or(1)
}

/// Turns a picture upright, whose orientation is one of EXIF's from 2 to 8; the result is its new rows and columns.
fn turn(rgb: &mut Vec<u8>, [height, width]: [usize; 2], orientation: u32) -> [usize; 2] {
    let [rows, columns] = match orientation {
        5..=8 => [width, height],
        _ => [height, width],
    };
    let mut upright = Vec::with_capacity(rgb.len());
    for y in 0..rows {
        for x in 0..columns {
            let (row, column) = match orientation {
                2 => (y, width - 1 - x),
                3 => (height - 1 - y, width - 1 - x),
                4 => (height - 1 - y, x),
                5 => (x, y),
                6 => (height - 1 - x, y),
                7 => (height - 1 - x, width - 1 - y),
                _ => (x, width - 1 - y),
            };
            upright.extend_from_slice(&rgb[(row * width + column) * 3..][..3]);
        }
    }
    *rgb = upright;
    [rows, columns]
}

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Some damaged pictures make a decoder panic: that is an error like others, and nothing is printed about it.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
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

fn by_format(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<Frame, String> {
    match format(bytes) {
        Some("JPEG") => jpeg(bytes, rgb),
        Some(_) => png(bytes, rgb),
        None => Err(format!(
            "it begins with the bytes {:02x?}, which is neither JPEG nor PNG",
            &bytes[..bytes.len().min(4)]
        )),
    }
}

fn sized(height: usize, width: usize) -> Result<(), String> {
    let sides = height.max(width) <= LONGEST_SIDE;
    match height.checked_mul(width) {
        Some(1..=MOST_PIXELS) if sides => Ok(()),
        _ => Err(format!(
            "it has {height} rows of {width} pixels, at most {MOST_PIXELS} pixels are read, and {LONGEST_SIDE} of a side"
        )),
    }
}

fn jpeg(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<Frame, String> {
    match jpeg_with(bytes, true, rgb) {
        // Stray bytes between segments, which every decoder in use steps over.
        Err(reason) if reason.contains("Extra bytes between headers") => {
            jpeg_with(bytes, false, rgb)
        }
        result => result,
    }
}

fn jpeg_with(bytes: &[u8], strict: bool, rgb: &mut Vec<u8>) -> Result<Frame, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(MOST_PIXELS)
        .set_max_height(MOST_PIXELS)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    sized(height, width)?;
    if decoder.output_buffer_size() != Some(height * width * 3) {
        return Err("its components do not make colours".into());
    }
    // Whatever the decoder leaves out is black, and not of another picture.
    rgb.clear();
    rgb.resize(height * width * 3, 0);
    decoder.decode_into(rgb).map_err(|e| e.to_string())?;
    Ok(Frame {
        size: [height, width],
        exif: decoder.exif().cloned(),
    })
}

fn png(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<Frame, String> {
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
    let pixels = buffer[..frame.buffer_size()].chunks_exact(samples);
    rgb.extend(pixels.flat_map(|pixel| match samples {
        1 | 2 => [pixel[0]; 3],
        _ => [pixel[0], pixel[1], pixel[2]],
    }));
    Ok(Frame {
        size: [height, width],
        exif: reader.info().exif_metadata.as_deref().map(<[u8]>::to_vec),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TIFF data that say an orientation, and nothing else.
    fn tiff(orientation: u8) -> Vec<u8> {
        let head = b"MM\0\x2a\0\0\0\x08\0\x01";
        let entry = [1, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
        [&head[..], &entry, &[0; 4]].concat()
    }

    fn encoded_png(rgb: &[u8], [height, width]: [usize; 2], exif: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        let kind = png::chunk::ChunkType(*b"eXIf");
        writer.write_chunk(kind, exif).unwrap();
        writer.write_image_data(rgb).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn encoded_jpeg(rgb: &[u8], [height, width]: [usize; 2], exif: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 100);
        encoder.add_exif_metadata(exif).unwrap();
        let [columns, rows] = [width as u16, height as u16];
        let colour = jpeg_encoder::ColorType::Rgb;
        encoder.encode(rgb, columns, rows, colour).unwrap();
        bytes
    }

    /// Where the first row and the first column of a picture are when one looks at it, as EXIF 2.32 says (4.6.4, Orientation).
    const SIDES: [[&str; 2]; 8] = [
        ["top", "left"],
        ["top", "right"],
        ["bottom", "right"],
        ["bottom", "left"],
        ["left", "top"],
        ["right", "top"],
        ["right", "bottom"],
        ["left", "bottom"],
    ];

    #[test]
    fn pictures_are_turned_as_exif_says_where_that_is_asked_for() {
        let [height, width] = [19, 26];
        let rgb: Vec<u8> = (0..height * width * 3).map(|i| (i % 251) as u8).collect();
        for (number, sides) in SIDES.iter().enumerate() {
            let lying = sides[0] == "left" || sides[0] == "right";
            let size = if lying {
                [width, height]
            } else {
                [height, width]
            };
            let mut expected = vec![0; rgb.len()];
            for row in 0..height {
                for column in 0..width {
                    let (mut y, mut x) = (0, 0);
                    for (side, away) in sides.iter().zip([row, column]) {
                        match *side {
                            "top" => y = away,
                            "bottom" => y = size[0] - 1 - away,
                            "left" => x = away,
                            _ => x = size[1] - 1 - away,
                        }
                    }
                    let (to, from) = (3 * (y * size[1] + x), 3 * (row * width + column));
                    expected[to..to + 3].copy_from_slice(&rgb[from..from + 3]);
                }
            }
            let exif = tiff(number as u8 + 1);
            let png = encoded_png(&rgb, [height, width], &exif);
            let mut found = Vec::new();
            assert_eq!(decode_into(&png, true, &mut found), Ok(size));
            assert!(found == expected, "orientation {}", number + 1);
            assert_eq!(
                decode_into(&png, false, &mut found),
                Ok([height, width]),
                "ignored"
            );
            assert!(found == rgb);
            let jpeg = encoded_jpeg(&rgb, [height, width], &exif);
            let lying = decode(&jpeg).unwrap();
            let mut turned = lying.rgb.clone();
            if number > 0 {
                turn(&mut turned, [height, width], number as u32 + 1);
            }
            assert_eq!([lying.height, lying.width], [height, width]);
            assert_eq!(decode_into(&jpeg, true, &mut found), Ok(size));
            assert!(found == turned, "orientation {} of a JPEG", number + 1);
        }
    }

    #[test]
    fn what_is_damaged_behind_an_orientation_does_not_hide_it() {
        // The offset of the thumbnail's part leads nowhere, as some editors leave it.
        let mut exif = tiff(6);
        let next = exif.len() - 4..;
        exif[next].fill(0x11);
        let png = encoded_png(&[7; 36], [3, 4], &exif);
        assert_eq!(decode_into(&png, true, &mut Vec::new()), Ok([4, 3]));
    }

    /// One byte of a side too many, and few pixels: memory for cutting would be many times the picture's.
    #[test]
    fn a_side_that_no_jpeg_has_is_refused() {
        assert!(sized(1, LONGEST_SIDE).is_ok());
        for (height, width) in [(1, LONGEST_SIDE + 1), (LONGEST_SIDE + 1, 1)] {
            let reason = sized(height, width).unwrap_err();
            assert!(reason.contains("65535 of a side"), "{reason}");
        }
    }

    #[test]
    fn what_is_no_orientation_turns_nothing() {
        let rgb: Vec<u8> = (0..36).collect();
        for exif in [&tiff(0), &tiff(9), &b"MM".to_vec(), &tiff(6)[..20].to_vec()] {
            let mut found = Vec::new();
            let png = encoded_png(&rgb, [3, 4], exif);
            assert_eq!(decode_into(&png, true, &mut found), Ok([3, 4]));
            assert_eq!(found, rgb);
        }
    }
}
