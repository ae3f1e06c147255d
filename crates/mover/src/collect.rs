//! Digests of rows that fly by, by user, in little memory however many there are.
//!
//! Above a bound they are sorted and written to a temporary file without a name, which is gone with the process, and
//! merged at the end. A digest is salted and tells nobody anything about its row.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _};

use regionwise_relocation::digest::{Digest, UserHasher};

use crate::ship::Proven;

/// Digests in memory at the same time, of all users of a batch: 9 MB.
const MOST: usize = 250_000;

/// A user by number, and the digest of one row.
type Entry = (u32, Digest);

/// Collects the digests of a batch.
pub(crate) struct Collector {
    numbers: HashMap<String, u32>,
    counts: Vec<u64>,
    entries: Vec<Entry>,
    most: usize,
    runs: Vec<Run>,
}

impl Collector {
    pub(crate) fn new() -> Self {
        Self::with_at_most(MOST)
    }

    fn with_at_most(most: usize) -> Self {
        Self {
            numbers: HashMap::new(),
            counts: Vec::new(),
            entries: Vec::new(),
            most,
            runs: Vec::new(),
        }
    }

    /// How many rows the user has by now.
    ///
    /// # Errors
    /// When the temporary file cannot be written.
    pub(crate) fn push(&mut self, user: &str, digest: Digest) -> io::Result<u64> {
        if self.entries.len() >= self.most {
            self.runs.push(Run::write(&mut self.entries)?);
            self.entries.clear();
        }
        let number = match self.numbers.get(user) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.counts.len()).map_err(io::Error::other)?;
                self.numbers.insert(user.to_owned(), number);
                self.counts.push(0);
                number
            }
        };
        self.entries.push((number, digest));
        let count = &mut self.counts[number as usize];
        *count += 1;
        Ok(*count)
    }

    /// Every user's rows. Users without rows are not listed.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub(crate) fn finish(mut self) -> io::Result<HashMap<String, Proven>> {
        let mut hashers: Vec<UserHasher> = vec![UserHasher::default(); self.counts.len()];
        self.entries.sort_unstable();
        let mut rest = self.entries.into_iter();
        // The next of each run; what is in memory is the last run.
        let last = self.runs.len();
        let mut next = BinaryHeap::new();
        for (number, run) in self.runs.iter_mut().enumerate() {
            next.extend(run.next()?.map(|entry| Reverse((entry, number))));
        }
        next.extend(rest.next().map(|entry| Reverse((entry, last))));
        while let Some(Reverse(((user, digest), number))) = next.pop() {
            hashers[user as usize].push(digest);
            let following = match self.runs.get_mut(number) {
                Some(run) => run.next()?,
                None => rest.next(),
            };
            next.extend(following.map(|entry| Reverse((entry, number))));
        }
        let users = self.numbers.into_iter();
        Ok(users
            .map(|(user, number)| {
                let hasher = std::mem::take(&mut hashers[number as usize]);
                let rows = hasher.rows();
                let digest = hasher.finish();
                (user, Proven { digest, rows })
            })
            .collect())
    }
}

/// Sorted entries in a file of their own.
struct Run {
    file: BufReader<std::fs::File>,
    left: usize,
}

impl Run {
    fn write(entries: &mut [Entry]) -> io::Result<Self> {
        entries.sort_unstable();
        let mut file = BufWriter::new(tempfile::tempfile()?);
        for (user, digest) in &*entries {
            file.write_all(&user.to_be_bytes())?;
            file.write_all(&digest.0)?;
        }
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Self {
            file: BufReader::new(file),
            left: entries.len(),
        })
    }

    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (mut user, mut digest) = ([0; 4], [0; 32]);
        self.file.read_exact(&mut user)?;
        self.file.read_exact(&mut digest)?;
        Ok(Some((u32::from_be_bytes(user), Digest(digest))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use regionwise_relocation::digest::{Digest, user_digest};

    use super::Collector;

    /// Few different digests, so that equal ones meet.
    fn rows() -> impl Strategy<Value = Vec<(u8, Digest)>> {
        let digest = (0_u8..4, any::<u8>()).prop_map(|(first, last)| {
            let mut digest = [first; 32];
            digest[31] = last;
            Digest(digest)
        });
        proptest::collection::vec((0_u8..5, digest), 0..200)
    }

    proptest! {
        #[test]
        fn what_was_spilled_is_what_would_have_been_in_memory(rows in rows(), most in 1_usize..60) {
            let mut collector = Collector::with_at_most(most);
            let mut plain: HashMap<String, Vec<Digest>> = HashMap::new();
            for (user, digest) in rows {
                let user = user.to_string();
                let count = collector.push(&user, digest).unwrap();
                let known = plain.entry(user).or_default();
                known.push(digest);
                prop_assert_eq!(count, known.len() as u64);
            }
            let collected = collector.finish().unwrap();
            prop_assert_eq!(collected.len(), plain.len());
            for (user, mut digests) in plain {
                let proven = collected[&user];
                prop_assert_eq!(proven.rows, digests.len() as u64);
                prop_assert_eq!(proven.digest, user_digest(&mut digests));
            }
        }
    }

    #[test]
    fn a_user_of_three_hundred_thousand_rows_is_never_in_memory_as_a_whole() {
        let mut collector = Collector::with_at_most(10_000);
        let mut plain = Vec::new();
        for row in 0..300_000_u64 {
            // Every byte pattern is as good as a hash; multiplied, they do not come sorted.
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&row.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            collector.push("1", Digest(digest)).unwrap();
            assert!(collector.entries.len() <= 10_000);
            plain.push(Digest(digest));
        }
        assert_eq!(collector.runs.len(), 29);
        let collected = collector.finish().unwrap();
        assert_eq!(collected["1"].digest, user_digest(&mut plain));
        assert_eq!(collected["1"].rows, 300_000);
    }
}
