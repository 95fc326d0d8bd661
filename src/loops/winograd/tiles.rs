//! Where the tiles of a convolution lie.

use super::transforms::{SIDE, STEP};
use std::ops::Range;

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

    /// Where the tile's cells begin, if all of them lie in the image.
    fn inside(&self, tile: usize) -> Option<usize> {
        let first = (tile * STEP).checked_sub(self.low)?;
        (first + SIDE <= self.size).then_some(first)
    }

    /// The outputs of a tile that there are.
    fn outputs(&self, tile: usize) -> [Option<usize>; STEP] {
        std::array::from_fn(|i| Some(tile * STEP + i).filter(|&output| output < self.outputs))
    }
}

/// A tile: its image, and its place along rows and columns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tile {
    image: usize,
    down: usize,
    across: usize,
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

    /// Some tiles, in order.
    pub fn range(&self, tiles: Range<usize>) -> impl Iterator<Item = Tile> {
        let [down, across] = [self.rows.tiles(), self.columns.tiles()];
        let mut next = Tile {
            image: tiles.start / across / down,
            down: tiles.start / across % down,
            across: tiles.start % across,
        };
        tiles.map(move |_| {
            let tile = next;
            next.across += 1;
            if next.across == across {
                (next.down, next.across) = (next.down + 1, 0);
            }
            if next.down == down {
                (next.image, next.down) = (next.image + 1, 0);
            }
            tile
        })
    }

    /// The first pixel that a tile sees, if it sees pixels alone.
    pub fn inside(&self, tile: Tile) -> Option<usize> {
        let (row, column) = (
            self.rows.inside(tile.down)?,
            self.columns.inside(tile.across)?,
        );
        Some((tile.image * self.rows.size + row) * self.columns.size + column)
    }

    /// The pixels that a tile sees, where there are such.
    pub fn cells(&self, tile: Tile) -> [[Option<usize>; SIDE]; SIDE] {
        let (rows, columns) = (self.rows.cells(tile.down), self.columns.cells(tile.across));
        let mut cells = [[None; SIDE]; SIDE];
        for (cells, row) in cells.iter_mut().zip(rows) {
            for (cell, column) in cells.iter_mut().zip(columns) {
                if let (Some(row), Some(column)) = (row, column) {
                    *cell = Some((tile.image * self.rows.size + row) * self.columns.size + column);
                }
            }
        }
        cells
    }

    /// The first output of a tile, if it has all.
    pub fn whole(&self, tile: Tile) -> Option<usize> {
        let (row, column) = (tile.down * STEP, tile.across * STEP);
        let whole = row + STEP <= self.rows.outputs && column + STEP <= self.columns.outputs;
        whole.then_some((tile.image * self.rows.outputs + row) * self.columns.outputs + column)
    }

    /// The outputs of a tile, where there are such.
    pub fn outputs(&self, tile: Tile) -> [[Option<usize>; STEP]; STEP] {
        let (rows, columns) = (
            self.rows.outputs(tile.down),
            self.columns.outputs(tile.across),
        );
        rows.map(|row| {
            columns.map(|column| {
                Some((tile.image * self.rows.outputs + row?) * self.columns.outputs + column?)
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
        let tile = tiles.range(3..4).next().unwrap();
        let [a, b] = [12 + 4, 12 + 8];
        assert_eq!(
            tiles.cells(tile),
            [
                [None, None, Some(a), Some(a + 1)],
                [None, None, Some(b), Some(b + 1)],
                [None; 4],
                [None; 4],
            ]
        );
        // Of its two rows of outputs one.
        assert_eq!(tiles.outputs(tile), [[Some(10), Some(11)], [None; 2]]);
        assert_eq!((tiles.inside(tile), tiles.whole(tile)), (None, None));
    }

    #[test]
    fn tiles_are_inside_or_whole_where_nothing_is_left_out() {
        for (size, low, outputs) in [(7, 1, 7), (8, 0, 6), (4, 1, 4), (5, 2, 7), (9, 3, 9)] {
            let side = |size, low, outputs| Side { size, low, outputs };
            let tiles = Tiles {
                images: 2,
                rows: side(size, low, outputs),
                columns: side(6, 1, 6),
            };
            let all: Vec<Tile> = tiles.range(0..tiles.count()).collect();
            for (i, &tile) in all.iter().enumerate() {
                // Wherever a range begins.
                let same = tiles.range(i..tiles.count()).next().unwrap();
                assert_eq!(tile, same);
                let cells = tiles.cells(tile);
                let seen = cells.iter().flatten().all(Option::is_some);
                assert_eq!(tiles.inside(tile), cells[0][0].filter(|_| seen), "{tile:?}");
                let outputs = tiles.outputs(tile);
                let all = outputs.iter().flatten().all(Option::is_some);
                assert_eq!(tiles.whole(tile), outputs[0][0].filter(|_| all), "{tile:?}");
            }
            assert!(all.iter().any(|&tile| tiles.inside(tile).is_some()) || size == 4);
        }
    }
}
