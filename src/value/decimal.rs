//! The plain notation of decimals: an optional minus, digits, and perhaps a point with digits
//! behind it. No more digits than every backend can hold.

use crate::limits::DECIMAL_PRECISION_MAX;

/// The digits of a decimal's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    /// Digits before the point, leading zeros left out.
    whole: usize,
    /// Digits behind the point.
    fraction: usize,
}

impl Decimal {
    /// Reads `text`, or says what is wrong with it. Leading zeros are no digits of the number, but
    /// no text may hold more of them than it could hold digits.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "a decimal is written as an optional minus, digits, and perhaps a point \
                            with digits behind it";
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return Err(FORM),
            Some(parts) => parts,
            None => (unsigned, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(FORM);
        }
        let digits_max = DECIMAL_PRECISION_MAX as usize;
        let significant = whole.trim_start_matches('0').len();
        if digits_max < whole.len() || digits_max < significant + fraction.len() {
            return Err("a decimal has 38 digits at most");
        }
        Ok(Self { whole: significant, fraction: fraction.len() })
    }

    /// The smallest precision, and the scale, of a decimal type that holds it.
    pub(crate) fn digits(self) -> (u32, u32) {
        let fits = |count: usize| u32::try_from(count).expect("BUG: a decimal's digits are few");
        (fits((self.whole + self.fraction).max(1)), fits(self.fraction))
    }

    /// Whether a decimal of this precision and scale holds it exactly.
    pub(crate) fn fits(self, precision: u32, scale: u32) -> bool {
        debug_assert!(precision <= DECIMAL_PRECISION_MAX);
        self.fraction <= scale as usize && self.whole <= (precision - scale) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_notation_of_38_digits_at_most() {
        let nines = |count| "9".repeat(count);
        for (text, digits) in [
            ("0", Some((0, 0))),
            ("-12.3400", Some((2, 4))),
            ("0012.3", Some((2, 1))),
            ("", None),
            ("-", None),
            ("1.", None),
            (".1", None),
            ("+1", None),
            ("1e1", None),
            ("1.2.3", None),
            ("NaN", None),
            ("\u{661}", None),
            (&nines(38), Some((38, 0))),
            (&nines(39), None),
            (&format!("0.{}", nines(38)), Some((0, 38))),
            (&format!("1.{}", nines(38)), None),
            (&format!("{}1", "0".repeat(37)), Some((1, 0))),
            (&format!("{}1", "0".repeat(38)), None),
        ] {
            let got = Decimal::parse(text).ok().map(|decimal| (decimal.whole, decimal.fraction));
            assert_eq!(got, digits, "{text:?}");
        }
    }
}
