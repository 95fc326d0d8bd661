//! The sorted table that the index of a bundle is: LevelDB's format.
//!
//! ```text
//! data blocks, an empty block of names (unused), an index block, a footer of 48 bytes
//! block:  entries, offsets of the uncompressed keys (u32 each), their number (u32) | type (0 plain, 1 snappy), masked CRC
//! entry:  bytes shared with the key before, further bytes of the key, bytes of the value (varints) | key | value
//! ```

use crate::data::record::masked_crc;

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Two handles, filled up to 40 bytes, and the magic number.
const FOOTER: usize = 48;
/// Type and CRC of a block.
const TRAILER: usize = 5;
/// Entries between two whole keys.
const RESTART: usize = 16;
/// A data block is closed when it is this long; TensorFlow's number.
const BLOCK: usize = 256 << 10;
/// Longer keys are a sign of damage: prefix compression could make a small file fill any memory.
const LONGEST_KEY: usize = 4096;
/// All keys together, and what snappy makes of all blocks beyond the file's own length, are at most this long: two hundred times the
/// index of the largest network.
const BUDGET: usize = 64 << 20;

/// Why bytes are no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Something else altogether.
    Foreign,
    /// A table that was altered or cut; what was found and expected.
    Damaged(String),
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Bytes that may still be made out of a file.
struct Budget {
    keys: usize,
    blocks: usize,
}

/// The keys and values of a table, in order.
pub(super) fn read(bytes: &[u8]) -> Result<Pairs, Problem> {
    read_within(bytes, BUDGET)
}

fn read_within(bytes: &[u8], budget: usize) -> Result<Pairs, Problem> {
    let mut budget = Budget {
        keys: budget,
        blocks: budget.saturating_add(bytes.len()),
    };
    let Some(at) = bytes.len().checked_sub(FOOTER) else {
        return Err(Problem::Foreign);
    };
    let footer = &bytes[at..];
    if footer[FOOTER - 8..] != MAGIC.to_le_bytes() {
        return Err(Problem::Foreign);
    }
    let mut handles = Reader::new(&footer[..FOOTER - 8]);
    let _names = handle(&mut handles).ok_or_else(|| damaged("the footer", "has no handles"))?;
    let index = handle(&mut handles).ok_or_else(|| damaged("the footer", "has one handle"))?;
    let body = &bytes[..at];
    let mut pairs: Pairs = Vec::new();
    let handles = entries(&block(body, index, &mut budget)?, index.0, &mut budget)?;
    for (_, value) in handles {
        let at = handle(&mut Reader::new(&value)).ok_or_else(|| {
            damaged(
                &format!("the index block at byte {}", index.0),
                "has a bad handle",
            )
        })?;
        let found = entries(&block(body, at, &mut budget)?, at.0, &mut budget)?;
        if let (Some((last, _)), Some((first, _))) = (pairs.last(), found.first())
            && last >= first
        {
            return Err(damaged(
                &format!("the block at byte {}", at.0),
                "begins with a key that does not follow the one before",
            ));
        }
        pairs.extend(found);
    }
    Ok(pairs)
}

/// A table of these pairs, whose keys ascend.
pub(super) fn write(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    write_in_blocks(pairs, BLOCK)
}

fn write_in_blocks(pairs: &[(Vec<u8>, Vec<u8>)], block_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut index = Block::default();
    let mut data = Block::default();
    for (i, (key, value)) in pairs.iter().enumerate() {
        data.add(key, value);
        if data.bytes.len() >= block_bytes || i + 1 == pairs.len() {
            let handle = std::mem::take(&mut data).seal(&mut out);
            // Any key from the block's last to the next one's first will do; whole keys, as in all index blocks.
            index.restart = true;
            index.add(key, &handle);
        }
    }
    let names = Block::default().seal(&mut out);
    let index = index.seal(&mut out);
    let mut footer = [names, index].concat();
    footer.resize(FOOTER - 8, 0);
    out.extend_from_slice(&footer);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out
}

fn damaged(where_: &str, what: &str) -> Problem {
    Problem::Damaged(format!("{where_} {what}"))
}

/// Offset and length of a block.
fn handle(reader: &mut Reader) -> Option<(u64, u64)> {
    Some((reader.varint()?, reader.varint()?))
}

/// The content of a block, checked and decompressed.
fn block(
    body: &[u8],
    (offset, length): (u64, u64),
    budget: &mut Budget,
) -> Result<Vec<u8>, Problem> {
    let name = || format!("the block at byte {offset}");
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(length).ok())
        .and_then(|(from, length)| Some((from, length, length.checked_add(TRAILER)?)))
        .and_then(|(from, length, whole)| {
            Some((body.get(from..from.checked_add(whole)?)?, length))
        });
    let Some((bytes, length)) = range else {
        return Err(Problem::Damaged(format!(
            "{} should have {length} bytes, which is beyond the end of the file",
            name()
        )));
    };
    let (sealed, stored) = bytes.split_at(length + 1);
    let found = masked_crc(sealed);
    if stored != found.to_le_bytes() {
        let stored = stored
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u32::from(byte));
        return Err(Problem::Damaged(format!(
            "{} has CRC {found:08x}, expected {stored:08x}",
            name()
        )));
    }
    let content = &sealed[..length];
    let mut spend = |bytes: usize| {
        let left = budget.blocks.checked_sub(bytes);
        budget.blocks = left.ok_or_else(|| damaged(&name(), "holds more than an index can"))?;
        Ok(())
    };
    match sealed[length] {
        0 => spend(length).map(|()| content.to_vec()),
        1 => {
            // Snappy makes at most 64 bytes out of 3; a larger claim would only fill the memory.
            let claimed = snap::raw::decompress_len(content).unwrap_or(usize::MAX);
            if claimed > 64 + content.len().saturating_mul(32) {
                return Err(damaged(&name(), "is no snappy data"));
            }
            spend(claimed)?;
            snap::raw::Decoder::new()
                .decompress_vec(content)
                .map_err(|error| damaged(&name(), &format!("is no snappy data ({error})")))
        }
        other => Err(damaged(
            &name(),
            &format!("has compression {other}, expected 0 (none) or 1 (snappy)"),
        )),
    }
}

/// The pairs of a block, whose keys must ascend.
fn entries(block: &[u8], offset: u64, budget: &mut Budget) -> Result<Pairs, Problem> {
    let bad = |what: &str| damaged(&format!("the block at byte {offset}"), what);
    let count = block
        .split_last_chunk::<4>()
        .map(|(_, last)| u32::from_le_bytes(*last) as usize)
        .ok_or_else(|| bad("is empty"))?;
    let end = count
        .checked_mul(4)
        .and_then(|restarts| (block.len() - 4).checked_sub(restarts))
        .ok_or_else(|| bad("has more restarts than bytes"))?;
    let mut reader = Reader::new(&block[..end]);
    let mut pairs: Pairs = Vec::new();
    let mut key: Vec<u8> = Vec::new();
    while !reader.is_empty() {
        let entry = reader.entry().ok_or_else(|| bad("has a cut entry"))?;
        if entry.shared > key.len() || entry.shared + entry.key.len() > LONGEST_KEY {
            return Err(bad("has an impossible key"));
        }
        let previous = pairs.last().map(|(key, _): &(Vec<u8>, _)| key.as_slice());
        key.truncate(entry.shared);
        key.extend_from_slice(entry.key);
        if previous.is_some_and(|previous| previous >= key.as_slice()) {
            return Err(bad("has keys that do not ascend"));
        }
        let left = budget.keys.checked_sub(key.len());
        budget.keys = left.ok_or_else(|| bad("has longer names than an index can"))?;
        pairs.push((key.clone(), entry.value.to_vec()));
    }
    Ok(pairs)
}

struct Entry<'a> {
    shared: usize,
    key: &'a [u8],
    value: &'a [u8],
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn entry(&mut self) -> Option<Entry<'a>> {
        let mut size = || usize::try_from(self.varint()?).ok();
        let (shared, key, value) = (size()?, size()?, size()?);
        Some(Entry {
            shared,
            key: self.take(key)?,
            value: self.take(value)?,
        })
    }
}

/// A block in the making.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    since: usize,
    /// Whether the next key is written whole.
    restart: bool,
    last: Vec<u8>,
}

impl Block {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let whole = self.restarts.is_empty() || self.since == RESTART || self.restart;
        let shared = if whole {
            self.restarts.push(self.bytes.len() as u32);
            self.since = 0;
            self.restart = false;
            0
        } else {
            let same = |(a, b): &(&u8, &u8)| a == b;
            self.last.iter().zip(key).take_while(same).count()
        };
        for length in [shared, key.len() - shared, value.len()] {
            prost::encoding::encode_varint(length as u64, &mut self.bytes);
        }
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(value);
        self.last = key.to_vec();
        self.since += 1;
    }

    /// Appends the block and gives its handle.
    fn seal(mut self, out: &mut Vec<u8>) -> Vec<u8> {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let count = self.restarts.len() as u32;
        self.bytes.extend_from_slice(&count.to_le_bytes());
        let mut handle = Vec::new();
        prost::encoding::encode_varint(out.len() as u64, &mut handle);
        prost::encoding::encode_varint(self.bytes.len() as u64, &mut handle);
        self.bytes.push(0); // not compressed, as TensorFlow writes indices
        let crc = masked_crc(&self.bytes);
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(&crc.to_le_bytes());
        handle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pairs in order, many of them sharing prefixes as names do.
    fn pairs() -> impl Strategy<Value = Pairs> {
        let key = "(base_model/|head/)?[a-c]{0,4}(/kernel|/gamma)?";
        proptest::collection::btree_map(key, proptest::collection::vec(any::<u8>(), 0..40), 0..60)
            .prop_map(|map| map.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect())
    }

    /// A table of one data block with this content, its CRC and handles right.
    fn sealed(content: &[u8], compression: u8) -> Vec<u8> {
        let mut out = content.to_vec();
        out.push(compression);
        let crc = masked_crc(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut handle = vec![0];
        prost::encoding::encode_varint(content.len() as u64, &mut handle);
        let mut index = Block::default();
        index.add(b"\xff", &handle);
        let names = Block::default().seal(&mut out);
        let mut footer = [names, index.seal(&mut out)].concat();
        footer.resize(FOOTER - 8, 0);
        out.extend_from_slice(&footer);
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out
    }

    /// The content of the only data block of a table.
    fn content(pairs: &Pairs) -> Vec<u8> {
        let mut out = Vec::new();
        let mut block = Block::default();
        for (key, value) in pairs {
            block.add(key, value);
        }
        block.seal(&mut out);
        out.truncate(out.len() - TRAILER);
        out
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(pairs in pairs(), block in 1usize..400) {
            prop_assert_eq!(read(&write_in_blocks(&pairs, block)), Ok(pairs));
        }

        #[test]
        fn snappy_blocks_are_read(pairs in pairs()) {
            let packed = snap::raw::Encoder::new().compress_vec(&content(&pairs)).unwrap();
            prop_assert_eq!(read(&sealed(&packed, 1)), Ok(pairs));
        }

        #[test]
        fn every_changed_byte_is_found(pairs in pairs(), at in any::<proptest::sample::Index>(), flip in 1u8..) {
            let mut bytes = write_in_blocks(&pairs, 100);
            // What fills up the footer may be anything.
            let at = at.index(bytes.len() - FOOTER);
            bytes[at] ^= flip;
            // The unused block of names is not looked at.
            if let Ok(found) = read(&bytes) {
                prop_assert_eq!(found, pairs);
            }
        }

        #[test]
        fn damage_under_right_crcs_never_panics(
            pairs in pairs(),
            edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            compression in 0u8..3,
        ) {
            let mut content = content(&pairs);
            for (at, byte) in edits {
                let at = at.index(content.len());
                content[at] = byte;
            }
            if let Ok(found) = read(&sealed(&content, compression)) {
                prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
            }
        }

        #[test]
        fn anything_else_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
            if magic {
                bytes.extend_from_slice(&MAGIC.to_le_bytes());
            }
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_small_file_fills_no_memory() {
        let words = |bytes: &[u8], budget| match read_within(bytes, budget) {
            Err(Problem::Damaged(what)) => what,
            other => panic!("{other:?}"),
        };
        // A long name, then 100 more that repeat it in five bytes each.
        let long = |last: u8| [vec![b'k'; 4000], vec![last]].concat();
        let pairs: Pairs = (0..100).map(|last| (long(last), Vec::new())).collect();
        let table = sealed(&content(&pairs), 0);
        assert_eq!(read(&table), Ok(pairs));
        assert!(words(&table, 100_000).contains("longer names"));
        // Values of zeros, packed.
        let zeros: Pairs = vec![(b"a".to_vec(), vec![0; 100_000])];
        let packed = snap::raw::Encoder::new()
            .compress_vec(&content(&zeros))
            .unwrap();
        let table = sealed(&packed, 1);
        assert_eq!(read(&table), Ok(zeros));
        assert!(words(&table, 50_000).contains("more than an index can"));
    }

    #[test]
    fn problems_are_told_apart() {
        let good = write(&[(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), vec![2; 50])]);
        assert_eq!(read(b"short"), Err(Problem::Foreign));
        assert_eq!(read(&[7; 100]), Err(Problem::Foreign));
        let words = |bytes: &[u8]| match read(bytes) {
            Err(Problem::Damaged(what)) => what,
            other => panic!("{other:?}"),
        };
        let mut bad = good.clone();
        bad[3] ^= 1;
        assert!(words(&bad).contains("the block at byte 0 has CRC"));
        // Cut in the middle: the footer points beyond the end.
        assert!(words(&good[30..]).contains("beyond the end"));
        assert!(words(&sealed(&[0, 1, 0, b'k', 0, 0, 0, 0], 2)).contains("compression 2"));
        let twice = [0, 1, 0, b'k', 0, 1, 0, b'k', 0, 0, 0, 0];
        assert!(words(&sealed(&twice, 0)).contains("do not ascend"));
        assert!(words(&sealed(&[9, 1, 0, b'k', 0, 0, 0, 0], 0)).contains("impossible key"));
        assert!(words(&sealed(&[0, 9, 0, b'k', 0, 0, 0, 0], 0)).contains("cut entry"));
        assert!(words(&sealed(&[0, 0, 1, 0], 0)).contains("more restarts"));
        // A claim of four gigabytes in a few bytes.
        assert!(words(&sealed(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0], 1)).contains("snappy"));
    }
}
