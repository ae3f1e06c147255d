//! The TOML document with the place of every key.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Key, Position, Problems, Step};

/// The text and where everything in it stands.
pub(crate) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    pub(crate) fn parse(file: &'t str, text: &'t str) -> Result<Self, Problems> {
        let (root, errors) = DeTable::parse_recoverable(text);
        // In the order of the file: the parser goes on after an error, and what follows may be its consequence.
        match errors
            .into_iter()
            .min_by_key(|error| error.span().map(|span| span.start))
        {
            None => Ok(Self { file, text, root }),
            // Only the message: the rendered error quotes the line, and with it perhaps a secret.
            Some(error) => Err(Problems::whole_file(
                file,
                position(text, error.span()),
                format!("not TOML: {}", error.message()),
                "TOML 1.1",
            )),
        }
    }

    pub(crate) fn file(&self) -> &str {
        self.file
    }

    pub(crate) fn root(&self) -> &DeTable<'t> {
        self.root.get_ref()
    }

    /// Where `key` stands, or the last part of its path that does.
    pub(crate) fn position(&self, key: &Key) -> Position {
        let mut span = 0..0;
        let mut table = Some(self.root());
        let mut array = None;
        for step in key.steps() {
            let value = match step {
                Step::Name(name) => {
                    let Some((key, value)) =
                        table.and_then(|table| table.get_key_value(name.as_str()))
                    else {
                        break;
                    };
                    span = key.span();
                    value.get_ref()
                }
                Step::Index(index) => {
                    let Some(value) =
                        array.and_then(|array: &toml::de::DeArray<'t>| array.get(*index))
                    else {
                        break;
                    };
                    span = value.span();
                    value.get_ref()
                }
            };
            table = value.as_table();
            array = value.as_array();
        }
        position(self.text, Some(span))
    }

    /// The problem of a document that has the shape of the schema and yet does not deserialize.
    pub(crate) fn unread(&self, error: &toml::de::Error) -> Problems {
        Problems::whole_file(
            self.file,
            position(self.text, error.span()),
            "not as the schema describes it".to_owned(),
            "a value of the schema",
        )
    }
}

/// The problem of a file that is not UTF-8 from byte `valid_up_to` on.
pub(crate) fn not_utf8(file: &str, bytes: &[u8], valid_up_to: usize) -> Problems {
    let text = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let byte = bytes.get(valid_up_to).copied().unwrap_or_default();
    let found = format!("not UTF-8: byte 0x{byte:02x} at offset {valid_up_to}");
    Problems::whole_file(
        file,
        position(&text, Some(valid_up_to..valid_up_to)),
        found,
        "UTF-8 text",
    )
}

/// What kind of value it is, without the value.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Invisible in an editor, which therefore does not count it.
const BYTE_ORDER_MARK: char = '\u{feff}';

fn position(text: &str, span: Option<Range<usize>>) -> Position {
    let start = span.map_or(0, |span| text.floor_char_boundary(span.start));
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[line_start..]
        .trim_start_matches(BYTE_ORDER_MARK)
        .chars()
        .count()
        + 1;
    Position {
        line: before.matches('\n').count() + 1,
        column,
    }
}
