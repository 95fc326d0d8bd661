//! Whether a shared library is all there. The system maps what a copy that broke off no longer has, and a process that touches it dies of a
//! signal, without a word.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes of the header of a 64-bit file, and of an entry of the list of its segments.
const HEADER: usize = 64;
const SEGMENT: u64 = 56;

/// How many bytes a file has, and how many it must have at least by its own header; none for what is no little-endian 64-bit ELF file.
///
/// # Errors
/// If it cannot be read.
pub(super) fn extent(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    let mut header = [0; HEADER];
    if found < HEADER as u64 {
        return Ok(None);
    }
    file.read_exact(&mut header)?;
    if header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let word = |bytes: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let half = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (segments, sections) = (word(&header, 32), word(&header, 40));
    let end_of_segments = segments.saturating_add(half(56) * SEGMENT);
    let mut expected = end_of_segments.max(sections.saturating_add(half(58) * half(60)));
    if end_of_segments <= found {
        file.seek(SeekFrom::Start(segments))?;
        for _ in 0..half(56) {
            let mut segment = [0; SEGMENT as usize];
            file.read_exact(&mut segment)?;
            expected = expected.max(word(&segment, 8).saturating_add(word(&segment, 32)));
        }
    }
    Ok(Some((found, expected)))
}
