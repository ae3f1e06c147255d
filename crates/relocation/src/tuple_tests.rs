//! Streams as they are, in pieces, and spoilt.

use super::{CopyReader, Malformed, TupleWriter};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

type Row = Vec<Option<Vec<u8>>>;

fn written(rows: &[Row]) -> Vec<u8> {
    let mut writer = TupleWriter::new();
    for row in rows {
        writer.append(row.iter().map(|field| field.as_deref()));
    }
    writer.trailer();
    writer.take()
}

fn read<'a>(
    fields: u16,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Row>, Malformed> {
    let mut reader = CopyReader::new(fields);
    let mut rows = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(tuple) = reader.next()? {
            assert_eq!(tuple.fields().len(), usize::from(fields));
            rows.push(tuple.fields().map(|f| f.map(<[u8]>::to_vec)).collect());
        }
    }
    assert_eq!(reader.finish()?, rows.len() as u64);
    Ok(rows)
}

fn header() -> Vec<u8> {
    TupleWriter::new().take()
}

/// A header and what follows it.
fn after_header(bytes: &[u8]) -> Vec<u8> {
    [header().as_slice(), bytes].concat()
}

fn refused(fields: u16, bytes: &[u8]) -> Malformed {
    read(fields, [bytes]).expect_err("a stream like this is refused")
}

#[test]
fn a_stream_is_what_postgres_documents() {
    let rows = [vec![Some(b"ab".to_vec()), None, Some(Vec::new())]];
    let expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\
        \0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0\xff\xff";
    assert_eq!(written(&rows), expected);
}

#[test]
fn a_header_may_go_on() {
    let mut stream = b"PGCOPY\n\xff\r\n\0\0\0\xff\xff\0\0\0\x03xyz".to_vec();
    stream.extend_from_slice(b"\0\x01\0\0\0\x01a\xff\xff");
    let rows = read(1, stream.chunks(1)).unwrap();
    assert_eq!(rows, [vec![Some(b"a".to_vec())]]);
}

#[test]
fn spoilt_headers_are_refused() {
    assert_eq!(refused(1, b"PGCOPY\n\xff\n\0"), Malformed::Signature);
    assert_eq!(refused(1, b"id,name"), Malformed::Signature);
    let mut with_oids = header();
    with_oids[12] = 1;
    assert_eq!(refused(1, &with_oids), Malformed::Flags(0x0001_0000));
    let mut endless = header();
    endless[15..].copy_from_slice(&(-5_i32).to_be_bytes());
    assert_eq!(refused(1, &endless), Malformed::Extension(-5));
}

#[test]
fn spoilt_tuples_are_refused() {
    let fields = |found| Malformed::Fields {
        tuple: 0,
        expected: 2,
        found,
    };
    assert_eq!(refused(2, &after_header(&[0, 1])), fields(1));
    assert_eq!(refused(2, &after_header(&[0xff, 0xfe])), fields(-2));
    let negative = after_header(&[0, 1, 0xff, 0xff, 0xff, 0xfe]);
    let length = Malformed::Length {
        tuple: 0,
        field: 0,
        length: -2,
    };
    assert_eq!(refused(1, &negative), length);
    let huge = after_header(&[0, 1, 0x7f, 0xff, 0xff, 0xff]);
    assert_eq!(refused(1, &huge), Malformed::TooLong { tuple: 0 });
}

#[test]
fn bytes_after_the_trailer_are_refused_whenever_they_come() {
    let mut stream = written(&[]);
    stream.push(0);
    assert_eq!(refused(1, &stream), Malformed::AfterTrailer(1));
    assert_eq!(
        read(1, stream.chunks(1)).unwrap_err(),
        Malformed::AfterTrailer(1)
    );
}

#[test]
fn a_tuple_that_nobody_read_is_not_finished() {
    let mut reader = CopyReader::new(1);
    reader.push(&written(&[vec![None]]));
    assert_eq!(reader.finish(), Err(Malformed::Truncated { tuple: 1 }));
}

#[test]
fn an_error_stays() {
    let mut reader = CopyReader::new(1);
    reader.push(b"no");
    assert_eq!(reader.next().err(), Some(Malformed::Signature));
    reader.push(&written(&[]));
    assert_eq!(reader.next().err(), Some(Malformed::Signature));
    assert_eq!(reader.finish(), Err(Malformed::Signature));
}

#[test]
fn a_large_tuple_leaves_no_large_buffer() {
    let large = written(&[vec![Some(vec![1; 8 << 20])]]);
    let mut reader = CopyReader::new(1);
    for piece in large.chunks(1 << 16) {
        reader.push(piece);
        while reader.next().unwrap().is_some() {}
    }
    reader.push(&[]);
    assert!(reader.buffer.capacity() <= super::KEPT);
    assert_eq!(reader.finish(), Ok(1));
}

fn rows() -> impl Strategy<Value = (u16, Vec<Row>)> {
    (0_u16..6).prop_flat_map(|fields| {
        let field = option::of(vec(any::<u8>(), 0..40));
        let row = vec(field, usize::from(fields));
        (proptest::strategy::Just(fields), vec(row, 0..12))
    })
}

/// Cuts in a stream, as shares of its length.
fn pieces<'a>(stream: &'a [u8], cuts: &[proptest::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &stream[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_tuples(
        (fields, rows) in rows(),
        cuts in vec(any::<proptest::sample::Index>(), 0..30),
    ) {
        let stream = written(&rows);
        prop_assert_eq!(read(fields, pieces(&stream, &cuts)).unwrap(), rows.clone());
        prop_assert_eq!(read(fields, stream.chunks(1)).unwrap(), rows);
    }

    #[test]
    fn no_beginning_of_a_stream_passes_for_all_of_it(
        (fields, rows) in rows(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let stream = written(&rows);
        let cut = &stream[..cut.index(stream.len())];
        let truncated = matches!(read(fields, [cut]), Err(Malformed::Truncated { .. }));
        prop_assert!(truncated);
    }

    #[test]
    fn any_bytes_are_refused_or_written_again_the_same(
        fields in 0_u16..4,
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let stream = after_header(&bytes);
        if let Ok(rows) = read(fields, [stream.as_slice()]) {
            prop_assert_eq!(written(&rows), stream);
        }
    }

    #[test]
    fn a_flipped_bit_never_panics_the_reader(
        (fields, rows) in rows(),
        at in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut stream = written(&rows);
        let at = at.index(stream.len());
        stream[at] ^= 1 << bit;
        if let Ok(found) = read(fields, stream.chunks(7)) {
            // Flags and extension say nothing about rows; elsewhere a bit is in a value or changes it.
            prop_assert!(at < super::HEADER || found != rows);
        }
    }
}
