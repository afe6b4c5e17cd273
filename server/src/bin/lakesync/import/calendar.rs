//! Dates and times as MySQL writes them.

use lakesync::calendar::{self, DAY_MICROS};

/// Microseconds since 1970 of `2000-01-01 00:00:00.000000`; the fraction may be shorter or missing.
pub(super) fn timestamp(text: &str) -> Result<i64, String> {
    let no = || format!("{text} is no timestamp");
    let (day, clock) = text.split_once([' ', 'T']).ok_or_else(no)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let micros = format!("{fraction:0<6}");
    let parts: Vec<i64> = clock.split(':').map(number).collect::<Option<_>>().ok_or_else(no)?;
    let [hour @ 0..24, minute @ 0..60, second @ 0..60] = parts[..] else { return Err(no()) };
    let micros = number(&micros).filter(|_| micros.len() == 6).ok_or_else(no)?;
    let seconds = hour * 3_600 + minute * 60 + second;
    Ok(days(day).ok_or_else(no)? * DAY_MICROS + seconds * 1_000_000 + micros)
}

/// Days since 1970 of `2000-01-01`.
pub(super) fn date(text: &str) -> Result<i32, String> {
    let days = days(text).and_then(|days| i32::try_from(days).ok());
    days.ok_or_else(|| format!("{text} is no date"))
}

fn days(text: &str) -> Option<i64> {
    let parts: Vec<i64> = text.split('-').map(number).collect::<Option<_>>()?;
    let [year @ 0..=9_999, month, day] = parts[..] else { return None };
    calendar::days(year, month, day)
}

fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_is_gregorian() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("1969-12-31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("1000-01-01", Some(-354_285)),
            ("9999-12-31", Some(2_932_896)),
            ("0001-01-01", Some(-719_162)),
            ("1900-02-29", None),
            ("2024-00-10", None),
            ("0000-00-00", None),
            ("2024-01-32", None),
            ("x", None),
        ] {
            assert_eq!(date(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("1970-01-01 00:00:00", Some(0)),
            ("1970-01-01 00:00:01.5", Some(1_500_000)),
            ("1969-12-31 23:59:59.999999", Some(-1)),
            ("9999-12-31 23:59:59.999999", Some(253_402_300_799_999_999)),
            ("0000-00-00 00:00:00", None),
            ("1970-01-01 24:00:00", None),
            ("1970-01-01 00:00:00.1234567", None),
            ("1970-01-01", None),
        ] {
            assert_eq!(timestamp(text).ok(), expected, "{text}");
        }
    }
}
