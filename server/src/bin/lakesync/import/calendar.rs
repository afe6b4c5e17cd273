//! Dates and times as MySQL writes them, in the Gregorian calendar.

/// Microseconds since 1970 of `2000-01-01 00:00:00.000000`; the fraction may be shorter or missing.
pub(super) fn timestamp(text: &str) -> Result<i64, String> {
    const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;
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
    let [year @ 0..=9_999, month @ 1..=12, day] = parts[..] else { return None };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Counted in eras of 400 years that begin on the first of March, so that leap days come last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
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
