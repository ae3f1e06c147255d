//! The query of a request: filters, pages, and the grammar of label selectors.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::refusal::{Refusal, invalid};

/// Labels of a resource.
pub type Labels = BTreeMap<String, String>;

const PER_PAGE: usize = 25;
const MOST_PER_PAGE: usize = 50;

/// Decoded names and values; a name may come more than once.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(text: &str) -> Self {
        let decoded = |text: &str| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(
            pairs
                .map(|(name, value)| (decoded(name), decoded(value)))
                .collect(),
        )
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let found = self.0.iter().filter(move |(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a list is asked for this value, or for none.
    pub(super) fn wants(&self, name: &str, value: &str) -> bool {
        let mut asked = self.all(name).peekable();
        asked.peek().is_none() || asked.any(|one| one == value)
    }

    pub(super) fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(self.get("label_selector").unwrap_or_default())
            .ok_or_else(|| invalid("label_selector", "is no label selector"))
    }

    /// One page of a list below its name, with `meta.pagination`.
    pub(super) fn page(&self, name: &str, mut all: Vec<Value>) -> Result<Value, Refusal> {
        let number = |name: &str, default: usize| match self.get(name) {
            None => Ok(default),
            Some(text) => match text.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(invalid(name, "must be a number of at least 1")),
            },
        };
        let (page, size) = (
            number("page", 1)?,
            number("per_page", PER_PAGE)?.min(MOST_PER_PAGE),
        );
        self.sort(&mut all);
        let (total, last) = (all.len(), all.len().div_ceil(size).max(1));
        let shown: Vec<Value> = all.into_iter().skip((page - 1) * size).take(size).collect();
        Ok(json!({
            name: shown,
            "meta": { "pagination": {
                "page": page,
                "per_page": size,
                "previous_page": (page > 1).then(|| page - 1),
                "next_page": (page < last).then(|| page + 1),
                "last_page": last,
                "total_entries": total,
            }},
        }))
    }

    /// By the first field asked for; otherwise as they were made.
    fn sort(&self, all: &mut [Value]) {
        let Some(sort) = self.get("sort") else {
            return;
        };
        let (field, direction) = sort.split_once(':').unwrap_or((sort, "asc"));
        all.sort_by(|one, other| match (&one[field], &other[field]) {
            (Value::Number(one), Value::Number(other)) => one.as_u64().cmp(&other.as_u64()),
            (one, other) => one.as_str().cmp(&other.as_str()),
        });
        if direction == "desc" {
            all.reverse();
        }
    }
}

/// `k=v k==v k!=v k !k k in (a,b) k notin (a,b)`, all of them where commas part them.
#[derive(Debug, PartialEq)]
pub(super) struct Selector(Vec<Term>);

#[derive(Debug, PartialEq)]
enum Term {
    Has(String),
    Lacks(String),
    OneOf(String, Vec<String>),
    /// Also where the key is missing.
    NoneOf(String, Vec<String>),
}

impl Selector {
    /// `None` when it is none; an empty text selects everything.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self(Vec::new()));
        }
        terms(text)
            .into_iter()
            .map(term)
            .collect::<Option<_>>()
            .map(Self)
    }

    pub(super) fn fits(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::Has(key) => labels.contains_key(key),
            Term::Lacks(key) => !labels.contains_key(key),
            Term::OneOf(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Term::NoneOf(key, values) => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
        })
    }
}

/// At commas, but not at those within parentheses.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[from..]);
    terms
}

fn term(text: &str) -> Option<Term> {
    let text = text.trim();
    let key = |text: &str| Some(text.trim().to_owned()).filter(|key| is_key(key));
    let value = |text: &str| Some(text.trim().to_owned()).filter(|value| is_value(value));
    if let Some(rest) = text.strip_suffix(')') {
        let (head, values) = rest.split_once('(')?;
        let values = values.split(',').map(value).collect::<Option<Vec<_>>>()?;
        let (name, word) = head.trim().rsplit_once(' ')?;
        return match word {
            "in" => Some(Term::OneOf(key(name)?, values)),
            "notin" => Some(Term::NoneOf(key(name)?, values)),
            _ => None,
        };
    }
    if let Some((name, wanted)) = text.split_once("!=") {
        return Some(Term::NoneOf(key(name)?, vec![value(wanted)?]));
    }
    if let Some((name, wanted)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Term::OneOf(key(name)?, vec![value(wanted)?]));
    }
    match text.strip_prefix('!') {
        Some(name) => key(name).map(Term::Lacks),
        None => key(text).map(Term::Has),
    }
}

/// An optional prefix of a DNS name and a slash, then at most 63 letters.
pub(super) fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_segment(key),
        Some((prefix, name)) => {
            prefix.len() <= 253 && prefix.split('.').all(is_segment) && is_segment(name)
        }
    }
}

/// May be empty.
pub(super) fn is_value(value: &str) -> bool {
    value.is_empty() || is_segment(value)
}

fn is_segment(text: &str) -> bool {
    let edge = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::{Labels, Selector, is_key, is_value};

    fn fits(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Selector::parse(selector).unwrap().fits(&labels)
    }

    #[test]
    fn selectors_mean_what_hetzner_says() {
        let labels = [("role", "api"), ("env", "prod")];
        for (selector, wanted) in [
            ("", true),
            ("role=api", true),
            ("role==db", false),
            ("role!=db", true),
            ("other!=db", true),
            ("role", true),
            ("!role", false),
            ("!other", true),
            ("role in (db, api)", true),
            ("role notin (db,api)", false),
            ("other notin (db,api)", true),
            ("role in (db,api),env=prod", true),
            ("role=api,env=test", false),
        ] {
            assert_eq!(fits(selector, &labels), wanted, "{selector}");
        }
    }

    #[test]
    fn what_is_no_selector_or_label_is_refused() {
        for selector in ["=a", "a=b c", "a in b", "a within (b)", "a,,b", "a=b,"] {
            assert_eq!(Selector::parse(selector), None, "{selector}");
        }
        assert!(is_key("hetzner.cloud/x") && is_key("a_b-c.d") && is_value(""));
        assert!(!is_key("") && !is_key("a b") && !is_key("-a") && !is_value(&"a".repeat(64)));
    }
}
