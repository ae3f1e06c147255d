//! What proves a row, and a user's rows, equal in two databases.
//!
//! A row is hashed in the form in which COPY BINARY sends it, so the mover hashes what flies by and Postgres hashes what
//! it stores (`sql` writes that formula). The salt keeps a digest of few possible rows from being guessed: it is erased
//! with the run.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::tuple::{count, size};

/// A run's secret part of every digest. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(pub [u8; 32]);

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// SHA-256, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Hashes the rows of one table.
#[derive(Clone)]
pub struct RowHasher {
    /// With the salt and the table's number in it.
    begun: Sha256,
}

impl RowHasher {
    /// `table` is the number in `Closure::tables`.
    pub fn new(salt: &Salt, table: u16) -> Self {
        let begun = Sha256::new()
            .chain_update(salt.0)
            .chain_update(table.to_be_bytes());
        Self { begun }
    }

    /// Of all columns in the order of their names, generated ones too, as [`Tuple::fields`] gives them.
    ///
    /// [`Tuple::fields`]: crate::tuple::Tuple::fields
    pub fn digest<'a, F>(&self, fields: F) -> Digest
    where
        F: IntoIterator<Item = Option<&'a [u8]>>,
        F::IntoIter: ExactSizeIterator,
    {
        let fields = fields.into_iter();
        let mut hash = self.begun.clone();
        hash.update(count(fields.len()));
        for field in fields {
            hash.update(size(field));
            hash.update(field.unwrap_or_default());
        }
        Digest(hash.finalize().into())
    }
}

/// Of all rows of one user, in any order: they are sorted by their bytes, so no collation has a say. Not a sum or an
/// XOR, in which two changes can cancel.
pub fn user_digest(rows: &mut [Digest]) -> Digest {
    rows.sort_unstable();
    let mut hasher = UserHasher::default();
    for row in rows {
        hasher.push(*row);
    }
    hasher.finish()
}

/// The same, row by row, for whoever has the rows of a user in ascending order already.
#[derive(Clone, Default)]
pub struct UserHasher {
    hash: Sha256,
    rows: u64,
}

impl UserHasher {
    pub fn push(&mut self, row: Digest) {
        self.hash.update(row.0);
        self.rows += 1;
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn finish(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, RowHasher, Salt, user_digest};
    use proptest::prelude::{Strategy as _, any, prop_assert_eq, prop_assert_ne, proptest};

    const SALT: Salt = Salt([7; 32]);

    #[test]
    fn known_answers() {
        // Made with Python's hashlib from the formula, not with this code.
        let row = |table, fields: &[Option<&[u8]>]| {
            RowHasher::new(&SALT, table)
                .digest(fields.iter().copied())
                .to_string()
        };
        assert_eq!(
            row(0, &[]),
            "d9e38b473502700d571476b369f9bfe8d287c24cf1a09a55781172b1fcd0613a"
        );
        assert_eq!(
            row(3, &[Some(b"abc"), None, Some(b"")]),
            "a7996863c754f781b93dcab88625672781ec9f58fbe4366f358f05b062d14035"
        );
        assert_eq!(
            row(258, &[Some(&[0xff; 4])]),
            "64a243822d9ddd3d37c303332d4900f00bcb63eb24889995f1286f15a4bbf437"
        );
        assert_eq!(
            user_digest(&mut []).to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let mut rows = [Digest([2; 32]), Digest([1; 32])];
        assert_eq!(
            user_digest(&mut rows).to_string(),
            "f818afd37a6dc3bc92fb44731011277006db4efa6e9023cd7468c02335d22a4d"
        );
    }

    #[test]
    fn what_only_looks_alike_has_another_digest() {
        let rows: [&[Option<&[u8]>]; 7] = [
            &[None],
            &[Some(b"")],
            &[Some(&[0xff; 4])],
            &[Some(b"ab"), Some(b"c")],
            &[Some(b"a"), Some(b"bc")],
            &[None, None],
            &[],
        ];
        let mut digests: Vec<Digest> = (0..2)
            .flat_map(|table| {
                let hasher = RowHasher::new(&SALT, table);
                rows.map(|row| hasher.digest(row.iter().copied()))
            })
            .collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 2 * rows.len());
    }

    #[test]
    fn a_salt_does_not_show_itself() {
        assert_eq!(format!("{SALT:?}"), "Salt(..)");
    }

    proptest! {
        #[test]
        fn rows_count_in_any_order_but_each_of_them(
            mut rows in proptest::collection::vec(any::<[u8; 32]>().prop_map(Digest), 1..20),
            turn in any::<proptest::sample::Index>(),
        ) {
            let all = user_digest(&mut rows.clone());
            let mut turned = rows.clone();
            turned.rotate_left(turn.index(rows.len()));
            prop_assert_eq!(all, user_digest(&mut turned));
            let doubled = [rows.clone(), rows.clone()].concat();
            prop_assert_ne!(all, user_digest(&mut doubled.clone()));
            rows.pop();
            prop_assert_ne!(all, user_digest(&mut rows));
        }
    }
}
