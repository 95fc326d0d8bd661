//! `shapes32`: ten classes of 32×32 colour images, drawn by the program.
//!
//! An image shows a few copies of one shape, whose class is the label, on a cluttered ground. All
//! else is nuisance and says nothing of the class: number, places, sizes, rotations and stretch of
//! the copies, the colour and texture of each of them and of the ground, small pieces behind and
//! before them, noise. Light on dark is as frequent as dark on light. So pixels hardly correlate
//! with the class and nearest neighbours on them are poor, while the outlines are plain to see. Two
//! crops of an image mostly show different copies: what they have in common is the class.
//! No class turns into another by a flip or a rotation.
//!
//! Colours are muted: saturated ones tell images apart so well that contrastive learning needs
//! nothing else, and the shapes are learnt far more slowly.
//!
//! Image `i` of a split depends on (split, `i`) alone, through integers and IEEE additions,
//! multiplications, divisions and square roots: the bytes are the same on every platform. A test
//! pins their hash: a change of them is a new data set and needs a new name.

use rayon::prelude::*;

use super::ImageSet;
use super::rng::Stream;

/// Examples in `train`.
pub(super) const TRAIN: usize = 10_000;
/// Examples in `test`.
pub(super) const TEST: usize = 2_000;
/// The classes.
pub(super) const CLASS_NAMES: [&str; 10] = [
    "disc", "ring", "square", "triangle", "cross", "star", "crescent", "bars", "checker", "arrow",
];

const SIZE: usize = 32;

/// Sets the streams of this module apart from others ("SHAPES32").
const PURPOSE: u64 = 0x5348_4150_4553_3332;

/// Draws a split: `train` or `test`.
pub(super) fn generate(split: &str) -> ImageSet {
    let (number, examples) = if split == "train" {
        (0, TRAIN)
    } else {
        (1, TEST)
    };
    let classes = CLASS_NAMES.len();
    let mut images = vec![0; examples * SIZE * SIZE * 3];
    images
        .par_chunks_exact_mut(SIZE * SIZE * 3)
        .enumerate()
        .for_each(|(index, image)| {
            let stream = &mut Stream::new([PURPOSE, number, index as u64]);
            image.copy_from_slice(&draw(index % classes, stream));
        });
    let labels = (0..examples)
        .map(|index| (index % classes) as u32)
        .collect();
    ImageSet::new(
        "shapes32",
        split,
        SIZE,
        CLASS_NAMES.map(String::from).into(),
        images,
        labels,
    )
}

fn draw(class: usize, stream: &mut Stream) -> [u8; SIZE * SIZE * 3] {
    let ground = Colour::random(stream);
    let texture = Texture::random(ground, stream);
    let mut canvas = Canvas::new(|at| texture.colour(at));

    for _ in 0..1 + stream.below(3) {
        canvas.piece(stream);
    }
    for (centre, radius) in places(stream) {
        canvas.shape(class, centre, radius, ground, stream);
    }
    for _ in 0..stream.below(2) {
        canvas.piece(stream);
    }
    canvas.finish(stream.between(0.01, 0.04), stream)
}

/// Centres and radii for three or four shapes that hardly overlap; fewer where the first ones leave
/// no room.
fn places(stream: &mut Stream) -> Vec<(Point, f32)> {
    let wanted = 3 + stream.below(2) as usize;
    let mut places: Vec<(Point, f32)> = Vec::with_capacity(wanted);
    for _ in 0..60 {
        let radius = stream.between(5.5, 9.0);
        // A shape may reach over the edge by three tenths of its radius.
        let room = 16.0 - 0.7 * radius;
        let mut coordinate = || 16.0 + room * stream.between(-1.0, 1.0);
        let centre = Point {
            x: coordinate(),
            y: coordinate(),
        };
        let apart = |&(other, reach): &(Point, f32)| {
            Point {
                x: other.x - centre.x,
                y: other.y - centre.y,
            }
            .length()
                > 0.95 * (reach + radius)
        };
        if places.iter().all(apart) {
            places.push((centre, radius));
        }
        if places.len() == wanted {
            break;
        }
    }
    places
}

/// The signed distance from `at` to the outline of the shape of `class`, negative inside. The shape
/// lies about the origin and reaches roughly to radius 1; where the distance is not exact it is so
/// at the outline, which is where it is used.
fn distance(class: usize, at: Point) -> f32 {
    let Point { x, y } = at;
    let disc = |radius: f32| at.length() - radius;
    let rectangle =
        |cx: f32, cy: f32, hx: f32, hy: f32| ((x - cx).abs() - hx).max((y - cy).abs() - hy);
    match class {
        0 => disc(0.9),
        1 => disc(0.95).max(-disc(0.52)),
        2 => rectangle(0.0, 0.0, 0.78, 0.78),
        3 => polygon(&TRIANGLE, at),
        4 => rectangle(0.0, 0.0, 0.98, 0.3).min(rectangle(0.0, 0.0, 0.3, 0.98)),
        5 => polygon(&STAR, at),
        6 => disc(1.0).max(0.78 - Point { x: x - 0.5, y }.length()),
        7 => [-0.68, 0.0, 0.68]
            .map(|cy| rectangle(0.0, cy, 0.92, 0.19))
            .into_iter()
            .fold(f32::MAX, f32::min),
        8 => [
            (0.0, 0.0),
            (-0.56, -0.56),
            (-0.56, 0.56),
            (0.56, -0.56),
            (0.56, 0.56),
        ]
        .map(|(cx, cy)| rectangle(cx, cy, 0.28, 0.28))
        .into_iter()
        .fold(f32::MAX, f32::min),
        _ => polygon(&ARROW, at),
    }
}

const TRIANGLE: [(f32, f32); 3] = [(0.0, -1.05), (0.91, 0.62), (-0.91, 0.62)];

/// Five points at radius 1.1, five dents at radius 0.46.
const STAR: [(f32, f32); 10] = [
    (0.0, -1.1),
    (0.270, -0.372),
    (1.046, -0.340),
    (0.437, 0.142),
    (0.647, 0.890),
    (0.0, 0.46),
    (-0.647, 0.890),
    (-0.437, 0.142),
    (-1.046, -0.340),
    (-0.270, -0.372),
];

const ARROW: [(f32, f32); 7] = [
    (0.0, -1.05),
    (0.85, -0.05),
    (0.28, -0.05),
    (0.28, 1.0),
    (-0.28, 1.0),
    (-0.28, -0.05),
    (-0.85, -0.05),
];

/// The signed distance to a closed polygon.
fn polygon(corners: &[(f32, f32)], at: Point) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let (ex, ey) = (to.0 - from.0, to.1 - from.1);
        let (px, py) = (at.x - from.0, at.y - from.1);
        let along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (px - along * ex, py - along * ey);
        nearest = nearest.min(dx * dx + dy * dy);
        // A ray to the right crosses this side: even-odd rule.
        if (from.1 > at.y) != (to.1 > at.y)
            && px * (to.1 - from.1).abs() < ex * py * (to.1 - from.1).signum()
        {
            inside = !inside;
        }
        from = to;
    }
    if inside {
        -nearest.sqrt()
    } else {
        nearest.sqrt()
    }
}

/// A place on the image, in pixels from its top left corner.
#[derive(Clone, Copy)]
struct Point {
    x: f32,
    y: f32,
}

impl Point {
    fn length(self) -> f32 {
        (self.x * self.x + self.y * self.y).sqrt()
    }

    fn random(stream: &mut Stream) -> Self {
        Point {
            x: stream.between(0.0, SIZE as f32),
            y: stream.between(0.0, SIZE as f32),
        }
    }
}

/// A rotated coordinate system.
struct Frame {
    origin: Point,
    /// Unit vector of the local x axis.
    axis: Point,
}

impl Frame {
    /// Rotated by any angle, all equally likely: a point of the unit disc, drawn by rejection, and
    /// normalised.
    fn random(origin: Point, stream: &mut Stream) -> Self {
        loop {
            let axis = Point {
                x: stream.between(-1.0, 1.0),
                y: stream.between(-1.0, 1.0),
            };
            let length = axis.length();
            if (0.1..1.0).contains(&length) {
                return Frame {
                    origin,
                    axis: Point {
                        x: axis.x / length,
                        y: axis.y / length,
                    },
                };
            }
        }
    }

    fn local(&self, at: Point) -> Point {
        let (x, y) = (at.x - self.origin.x, at.y - self.origin.y);
        Point {
            x: x * self.axis.x + y * self.axis.y,
            y: y * self.axis.x - x * self.axis.y,
        }
    }
}

/// Red, green, blue in [0, 1].
#[derive(Clone, Copy)]
struct Colour([f32; 3]);

impl Colour {
    /// Any grey, tinted towards any colour.
    fn random(stream: &mut Stream) -> Self {
        let grey = stream.unit();
        Colour([grey; 3]).towards(Colour([(); 3].map(|()| stream.unit())), 0.3)
    }

    /// A random colour that differs from `other` in brightness, so that it shows in grey too.
    fn contrasting(other: Colour, stream: &mut Stream) -> Self {
        loop {
            let colour = Colour::random(stream);
            if (colour.luma() - other.luma()).abs() > 0.35 {
                return colour;
            }
        }
    }

    fn luma(self) -> f32 {
        let Colour([red, green, blue]) = self;
        0.299 * red + 0.587 * green + 0.114 * blue
    }

    fn towards(self, other: Colour, share: f32) -> Self {
        Colour([0, 1, 2].map(|c| self.0[c] + (other.0[c] - self.0[c]) * share))
    }
}

/// A colour that varies over the image between two neighbouring ones.
struct Texture {
    low: Colour,
    high: Colour,
    pattern: Pattern,
}

enum Pattern {
    /// From one side to the other.
    Gradient(Frame),
    /// Soft stripes with this many pixels from one to the next.
    Stripes(Frame, f32),
    /// Clouds: smooth interpolation between random values on a lattice with this many pixels from
    /// point to point.
    Clouds(Box<[[f32; 12]; 12]>, f32),
}

impl Texture {
    fn random(colour: Colour, stream: &mut Stream) -> Self {
        let shift = [(); 3].map(|()| stream.between(-0.12, 0.12));
        let varied =
            |sign: f32| Colour([0, 1, 2].map(|c| (colour.0[c] + sign * shift[c]).clamp(0.0, 1.0)));
        let pattern = match stream.below(3) {
            0 => Pattern::Gradient(Frame::random(Point { x: 16.0, y: 16.0 }, stream)),
            1 => Pattern::Stripes(
                Frame::random(Point::random(stream), stream),
                stream.between(3.0, 9.0),
            ),
            _ => Pattern::Clouds(
                Box::new([[(); 12]; 12].map(|row| row.map(|()| stream.unit()))),
                stream.between(3.0, 10.0),
            ),
        };
        Texture {
            low: varied(-1.0),
            high: varied(1.0),
            pattern,
        }
    }

    fn colour(&self, at: Point) -> Colour {
        let share = match &self.pattern {
            Pattern::Gradient(frame) => (0.5 + frame.local(at).x / SIZE as f32).clamp(0.0, 1.0),
            Pattern::Stripes(frame, period) => {
                let phase = frame.local(at).x / period;
                smooth((2.0 * (phase - phase.floor()) - 1.0).abs())
            }
            Pattern::Clouds(lattice, spacing) => {
                let (x, y) = (at.x / spacing, at.y / spacing);
                // At most 32 / 3, so that the next point is on the lattice too.
                let (column, row) = (x as usize, y as usize);
                let (sx, sy) = (smooth(x - x.floor()), smooth(y - y.floor()));
                let along = |row: &[f32; 12]| row[column] + (row[column + 1] - row[column]) * sx;
                let (above, below) = (along(&lattice[row]), along(&lattice[row + 1]));
                above + (below - above) * sy
            }
        };
        self.low.towards(self.high, share)
    }
}

/// From 0 to 1 with level ends.
fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}

struct Canvas([Colour; SIZE * SIZE]);

impl Canvas {
    fn new(colour: impl Fn(Point) -> Colour) -> Self {
        Canvas(std::array::from_fn(|p| {
            colour(pixel_centre(p % SIZE, p / SIZE))
        }))
    }

    /// Covers the inside of an outline, given by its signed distance in pixels, that reaches at
    /// most `radius` from `centre`. The outline is anti-aliased: a pixel half a pixel inside is
    /// covered wholly, one half a pixel outside not at all.
    fn paint(
        &mut self,
        centre: Point,
        radius: f32,
        distance: impl Fn(Point) -> f32,
        colour: impl Fn(Point) -> Colour,
    ) {
        // `as` saturates: a box that sticks out of the image is cut.
        let range =
            |middle: f32| (middle - radius) as usize..SIZE.min((middle + radius) as usize + 1);
        for row in range(centre.y) {
            for column in range(centre.x) {
                let at = pixel_centre(column, row);
                let cover = (0.5 - distance(at)).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let pixel = &mut self.0[row * SIZE + column];
                    *pixel = pixel.towards(colour(at), cover);
                }
            }
        }
    }

    /// A shape of `class` of any rotation, slightly stretched, its texture in contrast to `ground`.
    fn shape(
        &mut self,
        class: usize,
        centre: Point,
        radius: f32,
        ground: Colour,
        stream: &mut Stream,
    ) {
        let texture = Texture::random(Colour::contrasting(ground, stream), stream);
        let frame = Frame::random(centre, stream);
        let (long, short) = (radius, radius * stream.between(0.85, 1.0));
        // Exact for the short axis: along the long one the soft edge is a little wider.
        let distance = |at| {
            let at = frame.local(at);
            short
                * distance(
                    class,
                    Point {
                        x: at.x / long,
                        y: at.y / short,
                    },
                )
        };
        // No shape reaches further than 1.3 radii from its centre.
        self.paint(centre, radius * 1.3 + 1.0, distance, |at| {
            texture.colour(at)
        });
    }

    /// A small disc, block or stroke of any colour, anywhere.
    fn piece(&mut self, stream: &mut Stream) {
        let (centre, colour) = (Point::random(stream), Colour::random(stream));
        let frame = Frame::random(centre, stream);
        let kind = stream.below(3);
        let (length, width) = match kind {
            0 => (stream.between(1.0, 3.0), 0.0),
            1 => (stream.between(1.0, 3.0), stream.between(1.0, 3.0)),
            _ => (stream.between(3.0, 9.0), stream.between(0.4, 0.9)),
        };
        let distance = |at| {
            let at = frame.local(at);
            if kind == 0 {
                at.length() - length
            } else {
                (at.x.abs() - length).max(at.y.abs() - width)
            }
        };
        self.paint(centre, length + width + 1.0, distance, |_| colour);
    }

    /// Adds noise of about the given standard deviation and rounds to bytes.
    fn finish(&self, noise: f32, stream: &mut Stream) -> [u8; SIZE * SIZE * 3] {
        let mut bytes = [0; SIZE * SIZE * 3];
        for (pixel, bytes) in self.0.iter().zip(bytes.chunks_exact_mut(3)) {
            for (value, byte) in pixel.0.iter().zip(bytes) {
                // The sum of four uniform numbers is close to a normal one; its deviation is 2¹⁶ /
                // √3.
                let bits = stream.next();
                let sum =
                    (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
                let normal = (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0);
                *byte = ((value + noise * normal) * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        bytes
    }
}

fn pixel_centre(column: usize, row: usize) -> Point {
    Point {
        x: column as f32 + 0.5,
        y: row as f32 + 0.5,
    }
}
