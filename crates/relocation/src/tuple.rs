//! COPY BINARY: a stream of bytes in any pieces becomes tuples, tuples become bytes.
//!
//! Nothing is decoded: a field is its binary form, which is what a row digest is made of. The largest tuple is held once,
//! while it arrives (a `Vec` that grows may for a moment hold it twice); what comes after it waits with the sender.

use std::ops::Range;

use thiserror::Error;

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Signature, flags, length of the extension.
const HEADER: usize = SIGNATURE.len() + 4 + 4;

/// Bits 16 to 31 of the flags are critical: who does not know one must not read on.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// Postgres allocates no more for one message, so no tuple of its own making is longer.
const LONGEST: usize = 0x3fff_ffff;

/// What a buffer may keep after a tuple that was larger.
const KEPT: usize = 1 << 20;

/// Why bytes are not the COPY BINARY stream they should be. Holds no value of any row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("the stream does not begin as COPY BINARY does")]
    Signature,
    #[error("the stream has the unknown critical flags {0:#010x}")]
    Flags(u32),
    #[error("the stream's header says that it goes on for {0} bytes")]
    Extension(i32),
    #[error("tuple {tuple} has {found} fields instead of {expected}")]
    Fields {
        tuple: u64,
        expected: u16,
        found: i16,
    },
    #[error("field {field} of tuple {tuple} says that it has {length} bytes")]
    Length { tuple: u64, field: u16, length: i32 },
    #[error("tuple {tuple} is longer than {LONGEST} bytes")]
    TooLong { tuple: u64 },
    #[error("the stream ends within tuple {tuple}, or before its trailer")]
    Truncated { tuple: u64 },
    #[error("{0} bytes follow the trailer")]
    AfterTrailer(usize),
}

/// Takes a stream apart.
///
/// `push` what arrived, call `next` until it gives `None`, push again; at the end of the stream `finish`. After an error
/// every call gives the same error.
pub struct CopyReader {
    buffer: Vec<u8>,
    /// Where the next tuple begins in `buffer`.
    start: usize,
    fields: u16,
    /// Complete ones.
    tuples: u64,
    at: At,
}

#[derive(Clone, Copy)]
enum At {
    Header,
    Tuples,
    End,
    Broken(Malformed),
}

impl CopyReader {
    /// For tuples of exactly `fields` fields.
    pub fn new(fields: u16) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            fields,
            tuples: 0,
            at: At::Header,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
            if self.buffer.len() + bytes.len() < KEPT {
                self.buffer.shrink_to(KEPT);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next tuple, or `None` until more bytes are there.
    ///
    /// # Errors
    /// The stream is not what it should be.
    #[expect(
        clippy::should_implement_trait,
        reason = "a tuple borrows the buffer, which no iterator can say"
    )]
    pub fn next(&mut self) -> Result<Option<Tuple<'_>>, Malformed> {
        match self.advance() {
            Ok(Some(body)) => Ok(Some(Tuple {
                count: self.fields,
                body: &self.buffer[body],
            })),
            Ok(None) => Ok(None),
            Err(malformed) => {
                self.at = At::Broken(malformed);
                Err(malformed)
            }
        }
    }

    /// How many tuples came.
    ///
    /// # Errors
    /// The trailer has not come, or not everything was read.
    pub fn finish(mut self) -> Result<u64, Malformed> {
        let unread = self.next()?.is_some();
        if unread || !matches!(self.at, At::End) {
            return Err(Malformed::Truncated { tuple: self.tuples });
        }
        Ok(self.tuples)
    }

    /// Where the body of the next tuple lies, once all of it is there.
    fn advance(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        loop {
            match self.at {
                At::Broken(malformed) => return Err(malformed),
                At::Header => {
                    let Some(length) = header(self.rest())? else {
                        return Ok(None);
                    };
                    self.start += length;
                    self.at = At::Tuples;
                }
                At::Tuples => {
                    let Some((count, _)) = self.rest().split_first_chunk() else {
                        return Ok(None);
                    };
                    let found = i16::from_be_bytes(*count);
                    if found == -1 {
                        self.start += 2;
                        self.at = At::End;
                        continue;
                    }
                    if u16::try_from(found) != Ok(self.fields) {
                        return Err(Malformed::Fields {
                            tuple: self.tuples,
                            expected: self.fields,
                            found,
                        });
                    }
                    let Some(length) = body(&self.rest()[2..], self.fields, self.tuples)? else {
                        return Ok(None);
                    };
                    let from = self.start + 2;
                    self.start = from + length;
                    self.tuples += 1;
                    return Ok(Some(from..self.start));
                }
                At::End if self.rest().is_empty() => return Ok(None),
                At::End => return Err(Malformed::AfterTrailer(self.rest().len())),
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// Length of the header, once all of it is there.
fn header(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(Malformed::Signature);
    }
    let Some((flags, rest)) = bytes[seen..].split_first_chunk() else {
        return Ok(None);
    };
    let flags = u32::from_be_bytes(*flags);
    if flags & CRITICAL_FLAGS != 0 {
        return Err(Malformed::Flags(flags));
    }
    let Some((extension, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let extension = i32::from_be_bytes(*extension);
    let length = usize::try_from(extension)
        .ok()
        .filter(|length| *length <= LONGEST)
        .ok_or(Malformed::Extension(extension))?;
    Ok((rest.len() >= length).then_some(HEADER + length))
}

/// Length of a tuple after its count of fields, once all of it is there.
fn body(bytes: &[u8], fields: u16, tuple: u64) -> Result<Option<usize>, Malformed> {
    let mut length = 0;
    for field in 0..fields {
        let Some((size, _)) = bytes.get(length..).and_then(<[u8]>::split_first_chunk) else {
            return Ok(None);
        };
        length += 4;
        match i32::from_be_bytes(*size) {
            -1 => {}
            size => {
                length += usize::try_from(size).map_err(|_| Malformed::Length {
                    tuple,
                    field,
                    length: size,
                })?;
            }
        }
        if length > LONGEST {
            return Err(Malformed::TooLong { tuple });
        }
    }
    Ok((bytes.len() >= length).then_some(length))
}

/// One tuple, complete.
#[derive(Clone, Copy)]
pub struct Tuple<'a> {
    count: u16,
    body: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Its fields in order; `None` is NULL.
    pub fn fields(&self) -> Fields<'a> {
        Fields {
            left: self.count,
            rest: self.body,
        }
    }
}

/// The fields of a [`Tuple`].
#[derive(Clone)]
pub struct Fields<'a> {
    left: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        // The reader has walked over these lengths: they fit.
        self.left = self.left.checked_sub(1)?;
        let (size, rest) = self.rest.split_first_chunk()?;
        let Ok(size) = usize::try_from(i32::from_be_bytes(*size)) else {
            self.rest = rest;
            return Some(None);
        };
        let (field, rest) = rest.split_at_checked(size)?;
        self.rest = rest;
        Some(Some(field))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.into(), Some(self.left.into()))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// Puts a stream together, piece by piece.
pub struct TupleWriter {
    buffer: Vec<u8>,
}

impl TupleWriter {
    /// Begins with the header.
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(1 << 16);
        buffer.extend_from_slice(SIGNATURE);
        buffer.extend_from_slice(&[0; 8]);
        Self { buffer }
    }

    /// Adds a tuple. A field has at most 1 GB and a tuple at most 1664 fields, as everything that came from a server.
    pub fn append<'a, F>(&mut self, fields: F)
    where
        F: IntoIterator<Item = Option<&'a [u8]>>,
        F::IntoIter: ExactSizeIterator,
    {
        let fields = fields.into_iter();
        self.buffer.extend_from_slice(&count(fields.len()));
        for field in fields {
            self.buffer.extend_from_slice(&size(field));
            self.buffer.extend_from_slice(field.unwrap_or_default());
        }
    }

    /// Adds the end of the stream.
    pub fn trailer(&mut self) {
        self.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    }

    /// How much waits to be taken.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What was written since the last call. The writer goes on with a new buffer of the same size.
    pub fn take(&mut self) -> Vec<u8> {
        let next = Vec::with_capacity(self.buffer.len().min(KEPT));
        std::mem::replace(&mut self.buffer, next)
    }
}

impl Default for TupleWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// A number of fields on the wire.
pub(crate) fn count(fields: usize) -> [u8; 2] {
    // More than a server can have would wrap into a negative count, which every reader refuses.
    u16::try_from(fields).unwrap_or(u16::MAX - 1).to_be_bytes()
}

/// A field's length on the wire; -1 is NULL.
pub(crate) fn size(field: Option<&[u8]>) -> [u8; 4] {
    match field {
        // A longer field than a server can have gets the length -2, which every reader refuses.
        Some(bytes) => i32::try_from(bytes.len()).unwrap_or(-2).to_be_bytes(),
        None => (-1_i32).to_be_bytes(),
    }
}

#[cfg(test)]
#[path = "tuple_tests.rs"]
mod tests;
