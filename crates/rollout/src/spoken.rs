//! Durations as people read them: `500 ms`, `2 s`, `61.3 s`.

use std::time::Duration;

/// Whole seconds where it is so, milliseconds below ten seconds, tenths of a second above.
pub fn spoken(time: Duration) -> String {
    match time.as_millis() {
        0 => "0 ms".to_owned(),
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis @ 0..10_000 => format!("{millis} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::spoken;

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        for (millis, text) in [
            (0, "0 ms"),
            (500, "500 ms"),
            (2000, "2 s"),
            (9999, "9999 ms"),
            (61_340, "61.3 s"),
        ] {
            assert_eq!(spoken(Duration::from_millis(millis)), text);
        }
    }
}
