//! Record files that are packed as a whole, by gzip or zlib, as TensorFlow's `TFRecordOptions` can write them.

use std::io::{self, BufRead, BufReader, Chain, Cursor, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::store::Input;

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zlib,
}

impl Packing {
    /// By the first bytes of a file that does not begin with a record.
    pub(super) fn of(first: &[u8]) -> Self {
        match first {
            [0x1f, 0x8b, 8, ..] => Packing::Gzip,
            // Deflate, with a window that there is, and a multiple of 31.
            [a, b, ..]
                if a & 15 == 8
                    && a >> 4 <= 7
                    && (256 * u32::from(*a) + u32::from(*b)).is_multiple_of(31) =>
            {
                Packing::Zlib
            }
            _ => Packing::None,
        }
    }

    /// Its name, if it is one.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Packing::None => None,
            Packing::Gzip => Some("gzip"),
            Packing::Zlib => Some("zlib"),
        }
    }
}

/// Whether an error is about what is packed, and not about reading it.
pub(super) fn is_of_packing(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

/// A file whose first bytes were read already.
type Whole = Chain<Cursor<Vec<u8>>, Box<dyn Input>>;

/// Gives a file whose first bytes were read already from its beginning on, unpacked.
pub(super) fn unpack(packing: Packing, first: Vec<u8>, rest: Box<dyn Input>) -> Box<dyn Input> {
    let whole = Cursor::new(first).chain(rest);
    match packing {
        Packing::None => Box::new(Plain(whole)),
        Packing::Gzip => Box::new(Unpacked(MultiGzDecoder::new(BufReader::new(whole)))),
        Packing::Zlib => Box::new(Unpacked(Zlib::new(BufReader::new(whole)))),
    }
}

/// What is read while a file has none to read from.
pub(super) struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Input for Nothing {
    fn skip(&mut self, _: u64, _: Option<u64>) -> io::Result<()> {
        Ok(())
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        Ok(Some(0))
    }
}

struct Plain(Whole);

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Input for Plain {
    fn skip(&mut self, bytes: u64, then: Option<u64>) -> io::Result<()> {
        let (first, rest) = self.0.get_mut();
        let held = (first.get_ref().len() as u64).saturating_sub(first.position());
        let passed = held.min(bytes);
        first.set_position(first.position() + passed);
        // What is held of those that are read then need not be fetched.
        let still = held - passed;
        rest.skip(bytes - passed, then.map(|then| then.saturating_sub(still)))
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        self.0.get_mut().1.size()
    }
}

/// A stream of zlib. The library's own reader takes a cut stream for one that ends.
struct Zlib<R> {
    input: R,
    state: Decompress,
    ended: bool,
}

impl<R: BufRead> Zlib<R> {
    fn new(input: R) -> Self {
        Zlib {
            input,
            state: Decompress::new(true),
            ended: false,
        }
    }
}

impl<R: BufRead> Read for Zlib<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let packed = self.input.fill_buf()?;
            let last = packed.is_empty();
            if self.ended && !last {
                let reason = "there are bytes after its end";
                return Err(io::Error::new(ErrorKind::InvalidData, reason));
            }
            if self.ended || into.is_empty() {
                return Ok(0);
            }
            let before = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(packed, into, FlushDecompress::None)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let used = (self.state.total_in() - before.0) as usize;
            let made = (self.state.total_out() - before.1) as usize;
            self.input.consume(used);
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(made);
            }
            if last && !self.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: Read + Send> Input for Unpacked<R> {
    fn skip(&mut self, bytes: u64, _: Option<u64>) -> io::Result<()> {
        match io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())? {
            passed if passed < bytes => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn size(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}
