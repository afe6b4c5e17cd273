//! The Gregorian calendar, as if it had always been: days and microseconds since 1970 as dates and
//! times of the day, and back. By Howard Hinnant, "chrono-compatible low-level date algorithms".

/// The microseconds of a day.
pub const DAY_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// The days of 400 years, after which the calendar begins anew.
const ERA_DAYS: i64 = 146_097;
/// From the first of March of the year 0 to 1970. Counted from there, leap days come last in their
/// year and in their era.
const EPOCH_DAYS: i64 = 719_468;

/// Year, month and day of the day that is so many `days` after 1970-01-01. The year before the first
/// is 0.
pub fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// How many days after 1970-01-01 a date is, if there is such a date.
pub fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(era * ERA_DAYS + of_era - EPOCH_DAYS)
}

/// Hour, minute, second and microsecond of the day at so many `micros` after 1970.
pub fn time(micros: i64) -> (i64, i64, i64, i64) {
    let of_day = micros.rem_euclid(DAY_MICROS);
    let seconds = of_day / 1_000_000;
    (seconds / 3_600, seconds / 60 % 60, seconds % 60, of_day % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_the_dates_that_people_give_them() {
        for (count, year, month, day) in [
            (0, 1970, 1, 1),
            (-1, 1969, 12, 31),
            (11_016, 2000, 2, 29),
            (47_540, 2100, 2, 28),
            (47_541, 2100, 3, 1),
            (2_932_896, 9999, 12, 31),
            (-719_162, 1, 1, 1),
            (-719_163, 0, 12, 31),
            (-2_440_588, -4713, 11, 24),
        ] {
            assert_eq!(date(count), (year, month, day), "{count}");
            assert_eq!(days(year, month, day), Some(count), "{year}-{month}-{day}");
        }
        for (year, month, day) in [(1900, 2, 29), (2024, 0, 10), (2024, 13, 1), (2024, 1, 32)] {
            assert_eq!(days(year, month, day), None, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn days_follow_each_other() {
        let (first, last) = (-3 * ERA_DAYS, ERA_DAYS);
        let mut before = date(first - 1);
        for count in first..last {
            let (year, month, day) = date(count);
            assert_eq!(days(year, month, day), Some(count));
            let is_next = match before {
                (y, m, d) if y == year && m == month => d + 1 == day,
                (y, m, _) if y == year => m + 1 == month && day == 1,
                (y, m, d) => (y + 1, m, d) == (year, 12, 31) && (month, day) == (1, 1),
            };
            assert!(is_next, "{before:?}, {count}");
            before = (year, month, day);
        }
    }

    #[test]
    fn times_are_of_their_day() {
        assert_eq!(time(0), (0, 0, 0, 0));
        assert_eq!(time(-1), (23, 59, 59, 999_999));
        assert_eq!(time(DAY_MICROS + 3_723_000_004), (1, 2, 3, 4));
    }
}
