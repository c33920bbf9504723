//! DEFLATE (RFC 1951) and gzip (RFC 1952), read piece by piece: a kernel's configuration is wrapped in them once or twice.

use std::io::{self, BufRead};

/// Window of DEFLATE.
const WINDOW: usize = 32 * 1024;
/// Most bytes put out: a small file can stand for a large one.
const MAX_OUTPUT: u64 = 256 << 20;

const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];
const LENGTH_BITS: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_BITS: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A Huffman code: how many codes there are of each length, and the symbols in the order of their codes.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> io::Result<Self> {
        let mut counts = [0_u16; 16];
        for length in lengths {
            counts[usize::from(*length)] += 1;
        }
        let mut left = 1_i32;
        for count in &counts[1..] {
            left = (left << 1) - i32::from(*count);
            if left < 0 {
                return Err(damaged());
            }
        }
        let mut offsets = [0_usize; 16];
        for length in 1..15 {
            offsets[length + 1] = offsets[length] + usize::from(counts[length]);
        }
        let mut symbols = vec![0; lengths.len()];
        for (symbol, length) in (0..).zip(lengths) {
            if *length != 0 {
                let offset = &mut offsets[usize::from(*length)];
                symbols[*offset] = symbol;
                *offset += 1;
            }
        }
        counts[0] = 0;
        Ok(Self { counts, symbols })
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the compressed data is damaged")
}

struct Inflate<'a, R> {
    input: R,
    bits: u32,
    count: u32,
    window: Vec<u8>,
    /// Bytes put out so far; the window holds the last of them.
    written: u64,
    sink: &'a mut dyn FnMut(&[u8]) -> bool,
    stopped: bool,
}

/// Decompresses what follows a gzip header at the reader's position. `sink` takes the pieces until it returns false.
///
/// # Errors
/// The data is damaged, ends too early or becomes too long.
pub(crate) fn gunzip(mut input: impl BufRead, sink: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut head = [0; 10];
    input.read_exact(&mut head)?;
    if head[..3] != [0x1f, 0x8b, 8] {
        return Err(damaged());
    }
    let flags = head[3];
    if flags & 4 != 0 {
        let mut length = [0; 2];
        input.read_exact(&mut length)?;
        let mut extra = vec![0; usize::from(u16::from_le_bytes(length))];
        input.read_exact(&mut extra)?;
    }
    for text in [8, 16] {
        // Name and comment end in NUL.
        let mut byte = [1];
        while flags & text != 0 && byte[0] != 0 {
            input.read_exact(&mut byte)?;
        }
    }
    if flags & 2 != 0 {
        input.read_exact(&mut [0; 2])?;
    }
    let mut inflate =
        Inflate { input, bits: 0, count: 0, window: vec![0; WINDOW], written: 0, sink, stopped: false };
    while !inflate.block()? && !inflate.stopped {}
    inflate.flush();
    Ok(())
}

impl<R: BufRead> Inflate<'_, R> {
    fn take(&mut self, wanted: u32) -> io::Result<u32> {
        while self.count < wanted {
            let byte = *self.input.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.input.consume(1);
            self.bits |= u32::from(byte) << self.count;
            self.count += 8;
        }
        let taken = self.bits & ((1 << wanted) - 1);
        self.bits >>= wanted;
        self.count -= wanted;
        Ok(taken)
    }

    fn symbol(&mut self, code: &Code) -> io::Result<usize> {
        let (mut value, mut first, mut index) = (0_i32, 0_i32, 0_i32);
        for count in &code.counts[1..] {
            value |= i32::try_from(self.take(1)?).unwrap_or_default();
            let count = i32::from(*count);
            if value - count < first {
                let at = usize::try_from(index + value - first).map_err(|_| damaged())?;
                return code.symbols.get(at).map(|symbol| usize::from(*symbol)).ok_or_else(damaged);
            }
            index += count;
            first = (first + count) << 1;
            value <<= 1;
        }
        Err(damaged())
    }

    fn put(&mut self, byte: u8) -> io::Result<()> {
        // The window's length divides every count, so the position fits.
        let at = (self.written % WINDOW as u64) as usize;
        self.window[at] = byte;
        self.written += 1;
        if at + 1 == WINDOW && !self.stopped {
            self.stopped = !(self.sink)(&self.window);
        }
        if self.written > MAX_OUTPUT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the compressed data stands for too much",
            ));
        }
        Ok(())
    }

    fn flush(&mut self) {
        let rest = (self.written % WINDOW as u64) as usize;
        if !self.stopped && rest > 0 {
            (self.sink)(&self.window[..rest]);
        }
    }

    /// One block; says whether it was the last.
    fn block(&mut self) -> io::Result<bool> {
        let last = self.take(1)? == 1;
        match self.take(2)? {
            0 => {
                (self.bits, self.count) = (0, 0);
                let (length, complement) = (self.take(16)?, self.take(16)?);
                if length != !complement & 0xffff {
                    return Err(damaged());
                }
                for _ in 0..length {
                    let byte = self.take(8)?;
                    self.put(byte.to_le_bytes()[0])?;
                }
            }
            1 => {
                let mut lengths = [8_u8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                self.codes(&Code::new(&lengths)?, &Code::new(&[5; 30])?)?;
            }
            2 => {
                let (literals, distances) = self.dynamic()?;
                self.codes(&literals, &distances)?;
            }
            _ => return Err(damaged()),
        }
        Ok(last)
    }

    fn dynamic(&mut self) -> io::Result<(Code, Code)> {
        let literals = self.take(5)? as usize + 257;
        let distances = self.take(5)? as usize + 1;
        let lengths_count = self.take(4)? as usize + 4;
        if literals > 286 || distances > 30 {
            return Err(damaged());
        }
        let mut lengths = [0_u8; 19];
        for place in &ORDER[..lengths_count] {
            lengths[*place] = self.take(3)?.to_le_bytes()[0];
        }
        let code = Code::new(&lengths)?;
        let mut lengths = Vec::with_capacity(320);
        while lengths.len() < literals + distances {
            let (value, times) = match self.symbol(&code)? {
                16 => (*lengths.last().ok_or_else(damaged)?, 3 + self.take(2)? as usize),
                17 => (0, 3 + self.take(3)? as usize),
                18 => (0, 11 + self.take(7)? as usize),
                length => (u8::try_from(length).map_err(|_| damaged())?, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times));
        }
        if lengths.len() != literals + distances {
            return Err(damaged());
        }
        Ok((Code::new(&lengths[..literals])?, Code::new(&lengths[literals..])?))
    }

    fn codes(&mut self, literals: &Code, distances: &Code) -> io::Result<()> {
        while !self.stopped {
            let symbol = self.symbol(literals)?;
            match symbol {
                0..=255 => self.put(symbol.to_le_bytes()[0])?,
                256 => return Ok(()),
                _ => {
                    let at = symbol - 257;
                    let base = *LENGTH_BASE.get(at).ok_or_else(damaged)?;
                    let length = u32::from(base) + self.take(u32::from(LENGTH_BITS[at]))?;
                    let at = self.symbol(distances)?;
                    let base = *DISTANCE_BASE.get(at).ok_or_else(damaged)?;
                    let distance = u64::from(base) + u64::from(self.take(u32::from(DISTANCE_BITS[at]))?);
                    if distance > self.written {
                        return Err(damaged());
                    }
                    for _ in 0..length {
                        let from = ((self.written - distance) % WINDOW as u64) as usize;
                        let byte = self.window[from];
                        self.put(byte)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn gzip(bytes: &[u8], level: &str) -> Vec<u8> {
        let mut child = Command::new("gzip")
            .args(["-c", level])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_owned());
        let writer = std::thread::spawn(move || stdin.write_all(&bytes));
        let output = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        output
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        gunzip(bytes, &mut |piece| {
            out.extend_from_slice(piece);
            true
        })?;
        Ok(out)
    }

    #[test]
    fn undoes_gzip() {
        let mut random = 1_u32;
        let mut noise = Vec::new();
        for _ in 0..100_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.push(random.to_be_bytes()[0]);
        }
        let text = "CONFIG_SOMETHING_OR_OTHER=y\n# CONFIG_X is not set\n".repeat(5000);
        for sample in [&b""[..], b"a", text.as_bytes(), &noise, &vec![0; 70_000]] {
            for level in ["-1", "-9"] {
                assert!(unpack(&gzip(sample, level)).unwrap() == sample, "{} bytes at {level}", sample.len());
            }
        }
    }

    #[test]
    fn damage_is_an_error_and_reading_can_stop() {
        let packed = gzip("hello ".repeat(20_000).as_bytes(), "-6");
        assert!(unpack(&packed[..packed.len() / 2]).is_err());
        assert!(unpack(b"\x1f\x8b\x08").is_err());
        let mut pieces = 0;
        gunzip(&packed[..], &mut |_| {
            pieces += 1;
            false
        })
        .unwrap();
        assert_eq!(pieces, 1);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let mut packed = b"\x1f\x8b\x08\0\0\0\0\0\0\0".to_vec();
            packed.extend(&bytes);
            let _ = unpack(&packed);
        }
    }
}
