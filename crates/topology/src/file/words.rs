//! Strings with a meaning.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A string with a meaning: what is accepted, and the pattern with which an editor checks it.
macro_rules! text {
    ($name:ident, $accepted:literal, $($keyword:literal: $value:tt),+) => {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
        pub(crate) struct $name(pub(crate) String);

        impl $name {
            pub(crate) const ACCEPTED: &str = $accepted;
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "title": Self::ACCEPTED, $($keyword: $value),+ })
            }
        }
    };
}

text!(
    Name,
    "a name of 2 to 31 characters `a-z`, `0-9` and `-` that begins with a letter",
    "pattern": "^[a-z][a-z0-9-]{1,30}$"
);
text!(
    Location,
    "a location in lower case, for example `ash`, `fsn1`, `hel1`, `hil`, `nbg1` or `sin`",
    "pattern": "^[a-z][a-z0-9-]{1,30}$"
);
text!(
    Word,
    "a name as Hetzner writes it, for example `cpx42` or `debian-12`",
    "pattern": "^[a-z][a-z0-9.-]{1,62}$"
);
text!(
    Range,
    "a range of addresses, for example `198.51.100.7/32` or `2001:db8::/48`",
    "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"
);
text!(
    Account,
    "the name of a Unix account",
    "pattern": "^[a-z_][a-z0-9_-]{0,31}$"
);
text!(
    FilePath,
    "the path of a file",
    "pattern": "^[^\\x00-\\x1f\\x7f]+$"
);
text!(
    Address,
    "the IPv4 or IPv6 address of one server",
    "pattern": "^[0-9a-fA-F.:]+$"
);
text!(
    Origin,
    "`http://HOST` or `https://HOST`, with a port if needed and nothing after it",
    "pattern": "^[hH][tT][tT][pP][sS]?://[^/?#@\\s]+/?$"
);
text!(
    Endpoint,
    "`https://HOST`, with a port if needed and nothing after it",
    "pattern": "^https://[^/?#@\\s]+/?$"
);
text!(
    Bucket,
    "the name of a bucket: 3 to 63 of `a-z`, `0-9`, `.` and `-`",
    "pattern": "^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
);
text!(
    UrlPath,
    "the path of a URL, for example `/health/basic`",
    "pattern": "^/[^?#\\s\\x00-\\x1f\\x7f]*$"
);
text!(
    SecretReference,
    "`env:NAME` or `file:PATH`",
    "pattern": "^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\\x00-\\x1f\\x7f]+)$",
    "writeOnly": true
);
text!(
    DurationText,
    "a duration, for example \"500ms\", \"60s\" or \"2m\"",
    "pattern": "^([0-9]+(ms|s|m|h))+$"
);
text!(
    EnvironmentPrefix,
    "up to 100 letters, digits, `.`, `_`, `-` and `/`",
    "pattern": "^[A-Za-z0-9._/-]{0,100}$"
);
text!(
    Country,
    "an ISO 3166 country code of two capitals, for example `DE`",
    "pattern": "^[A-Z]{2}$"
);

text!(
    TableText,
    "`TABLE`, or `SCHEMA.TABLE` outside of `public`, as Postgres stores the name",
    "pattern": "^[^.\"\\x00-\\x1f\\x7f]{1,63}(\\.[^.\"\\x00-\\x1f\\x7f]{1,63})?$"
);
text!(
    Identifier,
    "a name as Postgres stores it",
    "pattern": "^[^\"\\x00-\\x1f\\x7f]{1,63}$"
);
text!(
    Condition,
    "an SQL condition on one line, without `;`, for example `billing_country IN ('DE', 'FR')`",
    "pattern": "^[^;\\x00-\\x1f\\x7f]*[^;\\s\\x00-\\x1f\\x7f][^;\\x00-\\x1f\\x7f]*$"
);

impl DurationText {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}
