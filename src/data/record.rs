//! TFRecord framing: `u64 length, u32 masked CRC of the length, data, u32 masked CRC of the data`,
//! little endian, end to end.
//!
//! Both CRCs are checked, always: a flipped bit in a training set is otherwise never found.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use super::store::{self, Input};
use super::unpack::{self, Packing};

/// Bytes before the data: the length and its CRC.
const HEADER: usize = 12;
/// Bytes after the data: their CRC.
const FOOTER: usize = 4;

/// One record of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which record of its file this is, from 0.
    pub index: usize,
    /// Where in the file the record (its length field) begins, in bytes.
    pub offset: usize,
    /// The payload.
    pub data: &'a [u8],
}

/// The records of one file held in memory, in order. After an error the iteration ends: what
/// follows a bad length cannot be trusted.
#[derive(Debug)]
pub struct Records<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    index: usize,
    offset: usize,
}

impl<'a> Records<'a> {
    /// The records in `bytes`, the whole content of `file` (the name appears in errors).
    pub fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Records {
            file,
            bytes,
            index: 0,
            offset: 0,
        }
    }

    fn read(&self) -> Result<Record<'a>, Error> {
        let rest = &self.bytes[self.offset..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER>() else {
            return Err(self.truncated("header", rest.len(), HEADER as u64));
        };
        let (length, stored) = header.split_at(8);
        self.check("length", length, stored)?;
        // Both splits are of fixed size, so that the conversion cannot fail; the length is right up
        // to a CRC collision.
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        let needed = length.saturating_add(FOOTER as u64);
        if (body.len() as u64) < needed {
            return Err(self.truncated("data", body.len(), needed));
        }
        let (data, rest) = body.split_at(length as usize);
        self.check("data", data, &rest[..FOOTER])?;
        Ok(Record {
            index: self.index,
            offset: self.offset,
            data,
        })
    }

    fn check(&self, part: &'static str, bytes: &[u8], stored: &[u8]) -> Result<(), Error> {
        check(self.file, [self.index, self.offset], part, bytes, stored)
    }

    fn truncated(&self, part: &'static str, found: usize, expected: u64) -> Error {
        Error::TruncatedRecord {
            file: self.file.into(),
            record: self.index,
            offset: self.offset,
            part,
            found: found as u64,
            expected,
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.bytes.len() {
            return None;
        }
        let record = self.read();
        match &record {
            Ok(record) => {
                self.offset += HEADER + record.data.len() + FOOTER;
                self.index += 1;
            }
            Err(_) => self.offset = self.bytes.len(),
        }
        Some(record)
    }
}

/// Compares the CRC of a part of the record `[index, offset]` with the one stored after it.
fn check(
    file: &Path,
    [record, offset]: [usize; 2],
    part: &'static str,
    bytes: &[u8],
    stored: &[u8],
) -> Result<(), Error> {
    let computed = masked_crc(bytes);
    if stored == computed.to_le_bytes() {
        return Ok(());
    }
    let stored = stored
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u32::from(byte));
    Err(Error::CorruptRecord {
        file: file.into(),
        record,
        offset,
        part,
        stored,
        computed,
    })
}

/// What tells how a file is packed, and a little more: so much is fetched of one that is then stepped through.
const HEAD: u64 = 4096;

/// The records of one file as they come in, one at a time in memory.
pub(super) struct RecordReader {
    file: PathBuf,
    input: Box<dyn Input>,
    /// How the file is packed; none before its first bytes were seen.
    packing: Option<Packing>,
    index: usize,
    offset: u64,
}

impl RecordReader {
    /// Opens a file at its first record, without waiting for its first byte; `size`, where it is known already, must be its size.
    pub(super) fn open(file: &Path, size: Option<u64>) -> Result<Self, Error> {
        Self::on(file, store::open(file, size, None)?)
    }

    /// The same for a reader that steps to each of its records.
    pub(super) fn open_to_step(file: &Path, size: u64) -> Result<Self, Error> {
        Self::on(file, store::open(file, Some(size), Some(HEAD))?)
    }

    fn on(file: &Path, input: Box<dyn Input>) -> Result<Self, Error> {
        Ok(RecordReader {
            file: file.into(),
            input,
            packing: None,
            index: 0,
            offset: 0,
        })
    }

    /// The number of the next record.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// The byte at which the next record begins, in the unpacked file.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Steps to a later record, which begins at byte `offset`; what is read from there on ends at `end`.
    pub(super) fn step_to(&mut self, index: usize, offset: u64, end: u64) -> Result<(), Error> {
        if self.packing.is_none() {
            self.unpack()?;
        }
        let bytes = offset.saturating_sub(self.offset);
        let skipped = self.input.skip(bytes, Some(end.saturating_sub(offset)));
        skipped.map_err(|cause| self.unreadable(cause))?;
        (self.index, self.offset) = (index, offset);
        Ok(())
    }

    /// The next record's data; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(length) = self.header()? else {
            return Ok(None);
        };
        let mut data = self.take(length.saturating_add(FOOTER as u64), "data")?;
        let length = data.len() - FOOTER;
        let (bytes, stored) = data.split_at(length);
        let place = [self.index, self.offset as usize];
        // Its length was right: whatever the data are, the next record can be read.
        let right = check(&self.file, place, "data", bytes, stored);
        self.passed(length as u64);
        right?;
        data.truncate(length);
        Ok(Some(data))
    }

    /// Steps over a record without reading its data; false at the end of the file.
    pub(super) fn skip(&mut self) -> Result<bool, Error> {
        let Some(length) = self.header()? else {
            return Ok(false);
        };
        let skipped = self.input.skip(length.saturating_add(FOOTER as u64), None);
        skipped.map_err(|cause| self.unreadable(cause))?;
        self.passed(length);
        Ok(true)
    }

    /// The length of the next record's data, which lies within the file where that has a size.
    fn header(&mut self) -> Result<Option<u64>, Error> {
        if self.packing.is_none() {
            self.unpack()?;
        }
        let size = self.input.size().map_err(|cause| self.unreadable(cause))?;
        let rest = size.map(|size| size.saturating_sub(self.offset));
        if rest == Some(0) {
            return Ok(None);
        }
        let header = self.bytes(HEADER as u64)?;
        if header.is_empty() {
            return Ok(None);
        }
        let Some((header, _)) = header.split_first_chunk::<HEADER>() else {
            return Err(self.truncated("header", header.len() as u64, HEADER as u64));
        };
        let (length, stored) = header.split_at(8);
        let place = [self.index, self.offset as usize];
        check(&self.file, place, "length", length, stored)?;
        let length = length
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte));
        let needed = length.saturating_add(FOOTER as u64);
        match rest.map(|rest| rest - HEADER as u64) {
            Some(rest) if rest < needed => Err(self.truncated("data", rest, needed)),
            _ => Ok(Some(length)),
        }
    }

    /// Looks at the first bytes, and unpacks from there on if they are no record's.
    fn unpack(&mut self) -> Result<(), Error> {
        let first = self.bytes(HEADER as u64)?;
        let packing = match first.split_at_checked(8) {
            Some((length, stored)) if stored == masked_crc(length).to_le_bytes() => Packing::None,
            _ => Packing::of(&first),
        };
        let rest = std::mem::replace(&mut self.input, Box::new(unpack::Nothing));
        self.input = unpack::unpack(packing, first, rest);
        self.packing = Some(packing);
        Ok(())
    }

    /// Exactly so many bytes, which a part of a record has.
    fn take(&mut self, count: u64, part: &'static str) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes(count)?;
        match bytes.len() as u64 {
            found if found < count => Err(self.truncated(part, found, count)),
            _ => Ok(bytes),
        }
    }

    /// So many bytes, or fewer at the end. A length is believed as far as bytes come: the memory grows with them.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Error> {
        const BELIEVED: u64 = 1 << 20;
        let mut bytes = Vec::with_capacity(count.min(BELIEVED) as usize);
        let read = (&mut self.input).take(count).read_to_end(&mut bytes);
        read.map_err(|cause| self.unreadable(cause))?;
        Ok(bytes)
    }

    fn passed(&mut self, length: u64) {
        self.offset += HEADER as u64 + length + FOOTER as u64;
        self.index += 1;
    }

    fn unreadable(&self, cause: std::io::Error) -> Error {
        match self.packing.and_then(Packing::name) {
            Some(format) if unpack::is_of_packing(&cause) => Error::Packing {
                file: self.file.clone(),
                format,
                record: self.index,
                reason: cause.to_string(),
            },
            _ => Error::reading(&self.file, cause),
        }
    }

    fn truncated(&self, part: &'static str, found: u64, expected: u64) -> Error {
        Error::TruncatedRecord {
            file: self.file.clone(),
            record: self.index,
            offset: self.offset as usize,
            part,
            found,
            expected,
        }
    }
}

/// All records of a file, whose size must be `size`.
pub(super) fn read_all(file: &Path, size: u64) -> Result<Vec<Vec<u8>>, Error> {
    let mut reader = RecordReader::open(file, Some(size))?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    Ok(records)
}

/// CRC-32C, rotated and shifted by a constant so that a CRC of data that hold CRCs stays a good
/// one.
pub(crate) fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Class;

    pub(in crate::data) fn frame(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for data in payloads {
            let length = (data.len() as u64).to_le_bytes();
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&masked_crc(&length).to_le_bytes());
            bytes.extend_from_slice(data);
            bytes.extend_from_slice(&masked_crc(data).to_le_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        Records::new(Path::new("some.tfrecord"), bytes)
            .map(|record| record.map(|r| r.data.to_vec()))
            .collect()
    }

    #[test]
    fn the_crc_is_the_published_one() {
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        // Worked out bit by bit in another language.
        let framed = [
            &[9, 0, 0, 0, 0, 0, 0, 0, 0x37, 0xf9, 0x71, 0x39][..],
            b"123456789",
            &[0xe5, 0xb0, 0x8a, 0xc7],
        ]
        .concat();
        assert_eq!(frame(&[b"123456789"]), framed);
        assert_eq!(read(&framed).unwrap(), [b"123456789"]);
    }

    #[test]
    fn records_come_back_with_index_and_offset() {
        let bytes = frame(&[b"one", b"", b"three"]);
        assert_eq!(
            read(&bytes).unwrap(),
            [b"one".to_vec(), vec![], b"three".to_vec()]
        );
        let places: Vec<_> = Records::new(Path::new("x"), &bytes)
            .map(|r| r.unwrap())
            .map(|r| (r.index, r.offset))
            .collect();
        assert_eq!(places, [(0, 0), (1, 19), (2, 35)]);
        assert_eq!(read(&[]).unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn every_flipped_bit_is_found_in_its_record() {
        let good = frame(&[b"first", b"second"]);
        let second = 12 + 5 + 4;
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let error = read(&bad).expect_err("a flipped bit");
                let Error::CorruptRecord {
                    record,
                    offset,
                    part,
                    stored,
                    computed,
                    ..
                } = &error
                else {
                    panic!("byte {at}: {error}");
                };
                assert_eq!(
                    (*record, *offset),
                    if at < second { (0, 0) } else { (1, second) },
                    "byte {at}"
                );
                let within = if at < second { at } else { at - second };
                assert_eq!(
                    *part,
                    if within < 12 { "length" } else { "data" },
                    "byte {at}"
                );
                assert_ne!(stored, computed);
                assert_eq!(error.class(), Class::Check);
            }
        }
    }

    #[test]
    fn every_cut_is_found_as_truncation() {
        let good = frame(&[b"first", b"second"]);
        let second = 12 + 5 + 4;
        for end in 1..good.len() {
            if end == second {
                assert_eq!(read(&good[..end]).unwrap().len(), 1);
                continue;
            }
            let error = read(&good[..end]).expect_err("a cut");
            let Error::TruncatedRecord {
                record,
                offset,
                part,
                ..
            } = &error
            else {
                panic!("cut at {end}: {error}")
            };
            assert_eq!(
                (*record, *offset),
                if end < second { (0, 0) } else { (1, second) },
                "cut at {end}"
            );
            assert_eq!(
                *part,
                if end - offset < 12 { "header" } else { "data" },
                "cut at {end}"
            );
            let message = error.to_string();
            assert!(
                message.contains("some.tfrecord") && message.contains(&format!("byte {offset}")),
                "{message}"
            );
        }
    }

    #[test]
    fn a_length_beyond_any_memory_is_a_truncation() {
        let length = u64::MAX.to_le_bytes();
        let mut bytes = length.to_vec();
        bytes.extend_from_slice(&masked_crc(&length).to_le_bytes());
        assert!(matches!(
            read(&bytes),
            Err(Error::TruncatedRecord { part: "data", .. })
        ));
    }

    #[test]
    fn nothing_is_read_after_an_error() {
        let mut bytes = frame(&[b"first", b"second"]);
        bytes[12] ^= 1;
        assert_eq!(Records::new(Path::new("x"), &bytes).count(), 1);
    }
}
