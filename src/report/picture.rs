//! Contact sheets: augmented views side by side, as one RGB picture.

use super::Error;

/// The paper the views lie on.
const BACKGROUND: u8 = 255;

/// An RGB picture, eight bits per channel, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// A smaller one of a whole fraction of the size, each pixel the mean of those it stands for, so that no side is above `most`; itself
    /// if none is.
    #[must_use]
    pub fn shrunk(self, most: usize) -> Picture {
        let by = self.width.max(self.height).div_ceil(most.max(1)).max(1);
        if by == 1 {
            return self;
        }
        let (width, height) = ((self.width / by).max(1), (self.height / by).max(1));
        let mut rgb = Vec::with_capacity(width * height * 3);
        for place in 0..width * height * 3 {
            let (y, x, channel) = (place / 3 / width, place / 3 % width, place % 3);
            let rows = y * by..((y + 1) * by).min(self.height);
            let columns = x * by..((x + 1) * by).min(self.width);
            let count = rows.len() * columns.len();
            let of = |row: usize| {
                columns
                    .clone()
                    .map(move |column| (row * self.width + column) * 3 + channel)
            };
            let sum: usize = rows.flat_map(of).map(|at| usize::from(self.rgb[at])).sum();
            rgb.push(((sum + count / 2) / count) as u8);
        }
        Picture { width, height, rgb }
    }
}

/// How a contact sheet is laid out; lengths are in pixels of the finished picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Groups beside each other.
    pub columns: usize,
    /// Every pixel of a view becomes `scale × scale` pixels.
    pub scale: usize,
    /// Between the images of a group.
    pub gap: usize,
    /// Around and between groups.
    pub margin: usize,
}

impl Layout {
    /// A sheet that is comfortable to look at for square views of this side, in pixels: small ones are enlarged.
    pub fn for_side(side: usize) -> Layout {
        Layout {
            columns: 4,
            scale: (96 / side.max(1)).clamp(1, 8),
            gap: 2,
            margin: 10,
        }
    }
}

/// Draws group `i`, images side by side, from image `i` of every batch: `f32`, NHWC, values in [0, 1], dimensions `[n, h, w, c]`,
/// one channel (grey) or three. Values outside the range are clamped, not-a-number is black.
///
/// Errors: [`Error::Picture`] when a slice does not have `n · h · w · c` values or there is nothing to draw.
pub fn contact_sheet(
    batches: &[&[f32]],
    dims: [usize; 4],
    layout: Layout,
) -> Result<Picture, Error> {
    let [n, height, width, channels] = dims;
    check(
        "channels",
        channels == 1 || channels == 3,
        channels,
        "1 or 3",
    )?;
    let pixels = height * width * channels;
    check(
        "number of images and pixels",
        n * pixels * batches.len() > 0,
        n * pixels * batches.len(),
        "at least 1",
    )?;
    for batch in batches {
        check(
            "values of a batch",
            batch.len() == n * pixels,
            batch.len(),
            n * pixels,
        )?;
    }

    let Layout {
        columns,
        scale,
        gap,
        margin,
    } = layout;
    let (columns, scale) = (columns.clamp(1, n), scale.max(1));
    let step = width * scale + gap;
    let (cell_width, cell_height) = (batches.len() * step - gap, height * scale);
    let mut sheet = Picture::blank(
        margin + columns * (cell_width + margin),
        margin + n.div_ceil(columns) * (cell_height + margin),
    );
    for i in 0..n {
        let left = margin + (i % columns) * (cell_width + margin);
        let top = margin + (i / columns) * (cell_height + margin);
        let view = |batch: &'_ [f32], x: usize, y: usize| {
            let at = i * pixels + (y * width + x) * channels;
            // One channel serves as all three.
            [0, 1, 2].map(|c| byte(batch[at + c.min(channels - 1)]))
        };
        for (number, batch) in batches.iter().enumerate() {
            for y in 0..height * scale {
                for x in 0..width * scale {
                    let pixel = view(batch, x / scale, y / scale);
                    sheet.put(left + number * step + x, top + y, pixel);
                }
            }
        }
    }
    Ok(sheet)
}

impl Picture {
    /// The picture as the bytes of a PNG file.
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Both can fail only on a size of zero, a wrong length or the sink: none is possible here.
        let mut writer = encoder.write_header().expect("a `Vec` takes a header");
        writer
            .write_image_data(&self.rgb)
            .expect("`rgb` has `height · width · 3` bytes");
        drop(writer);
        bytes
    }

    fn blank(width: usize, height: usize) -> Picture {
        Picture {
            width,
            height,
            rgb: vec![BACKGROUND; width * height * 3],
        }
    }

    fn put(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].copy_from_slice(&rgb);
    }
}

fn byte(value: f32) -> u8 {
    // `as` saturates and sends not-a-number to zero.
    (value * 255.0).round() as u8
}

fn check(
    what: &'static str,
    holds: bool,
    found: usize,
    expected: impl std::fmt::Display,
) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Picture {
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_picture_has_the_means() {
        // 5 by 4; a third of it is 1 by 1: the mean of the first 3 by 3, each channel by itself.
        let (width, height) = (5, 4);
        let at = |x: usize, y: usize| [(10 * x + y) as u8, (100 - x) as u8, (7 * y) as u8];
        let rgb = (0..width * height)
            .flat_map(|i| at(i % width, i / width))
            .collect();
        let picture = Picture { width, height, rgb };
        let small = picture.clone().shrunk(2);
        assert_eq!((small.width, small.height), (1, 1));
        assert_eq!(small.rgb, [11, 99, 7]);
        let half = picture.clone().shrunk(3);
        assert_eq!((half.width, half.height), (2, 2));
        // Means of 2 by 2, halves upwards: x of 0 and 1 gives 5, of 2 and 3 gives 25, y adds 0.5 or 2.5.
        assert_eq!([half.rgb[0], half.rgb[3], half.rgb[6]], [6, 26, 8]);
        assert_eq!(picture.clone().shrunk(5), picture);
    }
}
