//! Where the tiles of a convolution lie.

use super::transforms::{SIDE, STEP};

/// Rows or columns: cells of the image, zeros before them, outputs.
pub(super) struct Side {
    pub size: usize,
    pub low: usize,
    pub outputs: usize,
}

impl Side {
    fn tiles(&self) -> usize {
        self.outputs.div_ceil(STEP)
    }

    /// The cells of a tile that lie in the image.
    fn cells(&self, tile: usize) -> [Option<usize>; SIDE] {
        std::array::from_fn(|i| {
            let cell = (tile * STEP + i).checked_sub(self.low)?;
            (cell < self.size).then_some(cell)
        })
    }

    /// The outputs of a tile that there are.
    fn outputs(&self, tile: usize) -> [Option<usize>; STEP] {
        std::array::from_fn(|i| Some(tile * STEP + i).filter(|&output| output < self.outputs))
    }
}

/// The tiles of some images.
pub(super) struct Tiles {
    pub images: usize,
    pub rows: Side,
    pub columns: Side,
}

impl Tiles {
    pub fn count(&self) -> usize {
        self.images * self.rows.tiles() * self.columns.tiles()
    }

    /// Image, and place along rows and columns, of a tile.
    fn place(&self, tile: usize) -> [usize; 3] {
        let (line, across) = (tile / self.columns.tiles(), tile % self.columns.tiles());
        [line / self.rows.tiles(), line % self.rows.tiles(), across]
    }

    /// The pixels of the images that a tile sees, where there are such.
    pub fn cells(&self, tile: usize) -> [[Option<usize>; SIDE]; SIDE] {
        let [image, down, across] = self.place(tile);
        let (rows, columns) = (self.rows.cells(down), self.columns.cells(across));
        rows.map(|row| {
            columns
                .map(|column| Some((image * self.rows.size + row?) * self.columns.size + column?))
        })
    }

    /// The outputs of a tile, where there are such.
    pub fn outputs(&self, tile: usize) -> [[Option<usize>; STEP]; STEP] {
        let [image, down, across] = self.place(tile);
        let (rows, columns) = (self.rows.outputs(down), self.columns.outputs(across));
        rows.map(|row| {
            columns.map(|column| {
                Some((image * self.rows.outputs + row?) * self.columns.outputs + column?)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_see_what_lies_inside() {
        let (rows, columns) = (
            Side {
                size: 3,
                low: 1,
                outputs: 3,
            },
            Side {
                size: 4,
                low: 2,
                outputs: 2,
            },
        );
        let tiles = Tiles {
            images: 2,
            rows,
            columns,
        };
        assert_eq!(tiles.count(), 4);
        // The second image's lower tile: rows 1 to 4, of which 1 and 2 there are; columns −2 to 1.
        let [a, b] = [12 + 4, 12 + 8];
        assert_eq!(
            tiles.cells(3),
            [
                [None, None, Some(a), Some(a + 1)],
                [None, None, Some(b), Some(b + 1)],
                [None; 4],
                [None; 4],
            ]
        );
        // Of its two rows of outputs one.
        assert_eq!(tiles.outputs(3), [[Some(10), Some(11)], [None; 2]]);
    }
}
