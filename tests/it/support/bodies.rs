//! Bodies of any size that are neither kept nor compared whole: made and hashed as they flow.

use std::io::Write;

use sha2::Digest;
use sha2::Sha256;

use super::wire::End;
use super::wire::Framing;
use super::wire::Head;
use super::wire::Wire;

/// The octets of a body: a sequence without a short period, so that a lost, doubled or displaced
/// piece changes the hash.
pub struct Pattern(u64);

impl Pattern {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Fills the buffer with the next octets (xorshift64*, eight at a time).
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for eight in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let octets = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            eight.copy_from_slice(&octets[..eight.len()]);
        }
    }
}

/// Octets at a time; a multiple of eight, so that the pattern does not depend on it.
pub const PIECE: usize = 65536;

/// The body of this size, whole.
pub fn body(size: usize) -> Vec<u8> {
    let mut octets = vec![0; size];
    let mut pattern = Pattern::new(size as u64);
    octets
        .chunks_mut(PIECE)
        .for_each(|piece| pattern.fill(piece));
    octets
}

pub fn hash(octets: &[u8]) -> String {
    hex(Sha256::digest(octets))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest
        .as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}

/// The hash of the body of this size.
pub fn hash_of_size(size: u64) -> String {
    let mut hasher = Sha256::new();
    each_piece(size, |piece| {
        hasher.update(piece);
        Ok(())
    })
    .unwrap();
    hex(hasher.finalize())
}

/// Gives the body of this size piece by piece.
pub fn each_piece(
    size: u64,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut pattern = Pattern::new(size);
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left.min(PIECE as u64)).unwrap();
        pattern.fill(&mut piece[..now]);
        take(&piece[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Writes the body of this size as it is.
pub fn send(to: &mut impl Write, size: u64) -> std::io::Result<()> {
    each_piece(size, |piece| to.write_all(piece))
}

/// Writes the body of this size in chunks.
pub fn send_chunked(to: &mut impl Write, size: u64) -> std::io::Result<()> {
    each_piece(size, |piece| {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        to.write_all(&chunk)
    })?;
    to.write_all(b"0\r\n\r\n")
}

/// Reads a body with this many octets and hashes it.
pub fn hash_length(wire: &mut Wire, size: u64) -> Result<String, End> {
    let mut hasher = Sha256::new();
    let mut left = size;
    while left > 0 {
        let some = wire.some_of(left)?;
        left -= some.len() as u64;
        hasher.update(&some);
    }
    Ok(hex(hasher.finalize()))
}

/// Reads a chunked body without trailers and hashes it: its size, its hash.
pub fn hash_chunked(wire: &mut Wire) -> Result<(u64, String), End> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let line = String::from_utf8(wire.line()?).unwrap();
        let mut left = u64::from_str_radix(&line, 16).unwrap();
        size += left;
        if left == 0 {
            assert_eq!(wire.line()?, b"");
            return Ok((size, hex(hasher.finalize())));
        }
        while left > 0 {
            let some = wire.some_of(left)?;
            left -= some.len() as u64;
            hasher.update(&some);
        }
        assert_eq!(wire.line()?, b"");
    }
}

/// Reads the content of an upload with this head and hashes it; of one that is cut, nothing.
pub fn hash_upload(wire: &mut Wire, head: &Head) -> String {
    match head.request_framing() {
        Framing::Length(size) => hash_length(wire, size).unwrap_or_default(),
        Framing::Chunked => hash_chunked(wire).unwrap_or_default().1,
        framing => panic!("an upload framed as {framing:?}"),
    }
}

/// Reads to the end of the connection and hashes it: the size, the hash, the end.
pub fn hash_to_end(wire: &mut Wire) -> (u64, String, End) {
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        match wire.some() {
            Ok(some) => {
                size += some.len() as u64;
                hasher.update(&some);
            }
            Err(end) => return (size, hex(hasher.finalize()), end),
        }
    }
}
