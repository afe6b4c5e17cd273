//! JSON documents in the form of RFC 8785: no spaces, keys by their UTF-16 units, numbers as
//! ECMAScript writes them.
//!
//! One thing is not RFC 8785's: a number that a double can't hold keeps its own digits, for a copy
//! must not change a value.

use serde_json::value::RawValue;

/// How deep documents may go.
const DEPTH_MAX: usize = 1_000;

/// The document in canonical form, or why it has none.
pub(super) fn canonical(text: &str) -> Result<String, String> {
    let checked: Result<&RawValue, _> = serde_json::from_str(text);
    let mut rest = checked.map_err(|error| format!("it is no JSON: {error}"))?.get();
    let mut out = String::with_capacity(rest.len());
    write(&mut rest, &mut out, 0)?;
    Ok(out)
}

/// Writes the value that `rest` begins with, which is known to be well formed, and moves past it.
fn write(rest: &mut &str, out: &mut String, depth: usize) -> Result<(), String> {
    if DEPTH_MAX < depth {
        return Err(format!("it is nested more than {DEPTH_MAX} levels deep"));
    }
    skip_spaces(rest);
    match rest.as_bytes().first() {
        Some(b'{') => write_object(rest, out, depth),
        Some(b'[') => write_array(rest, out, depth),
        Some(b'"') => {
            out.push_str(&quoted(&take_string(rest)?));
            Ok(())
        }
        _ => {
            let end = rest.find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            *rest = after;
            match token {
                "true" | "false" | "null" => out.push_str(token),
                number => out.push_str(&canonical_number(number)),
            }
            Ok(())
        }
    }
}

fn write_array(rest: &mut &str, out: &mut String, depth: usize) -> Result<(), String> {
    *rest = &rest[1..];
    out.push('[');
    let mut is_first = true;
    while !ends(rest, ']') {
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        write(rest, out, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn write_object(rest: &mut &str, out: &mut String, depth: usize) -> Result<(), String> {
    *rest = &rest[1..];
    let mut members = Vec::new();
    while !ends(rest, '}') {
        let key = take_string(rest)?;
        skip_spaces(rest);
        // The colon.
        *rest = &rest[1..];
        let mut value = String::new();
        write(rest, &mut value, depth + 1)?;
        members.push((key, value));
    }
    // Of members of one name the last counts, as it does in both databases.
    members.reverse();
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    members.dedup_by(|next, first| next.0 == first.0);
    out.push('{');
    for (at, (key, value)) in members.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        out.extend([comma, &quoted(key), ":", value]);
    }
    out.push('}');
    Ok(())
}

/// Moves past a comma, or past the end of what `close` ends. Whether it was the end.
fn ends(rest: &mut &str, close: char) -> bool {
    skip_spaces(rest);
    if let Some(after) = rest.strip_prefix(close) {
        *rest = after;
        return true;
    }
    if let Some(after) = rest.strip_prefix(',') {
        *rest = after;
        skip_spaces(rest);
    }
    false
}

fn skip_spaces(rest: &mut &str) {
    *rest = rest.trim_start_matches([' ', '\n', '\r', '\t']);
}

fn take_string(rest: &mut &str) -> Result<String, String> {
    let mut is_escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    });
    let (token, after) = rest.split_at(end.map_or(rest.len(), |end| end + 2));
    *rest = after;
    serde_json::from_str(token).map_err(|error| format!("a text in it is no Unicode: {error}"))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// As ECMAScript writes it, or as it is where a double is another number.
fn canonical_number(token: &str) -> String {
    let written = token.parse().ok().filter(|number: &f64| number.is_finite()).map(ecmascript);
    let same = |written: &String| decimal(written).is_some() && decimal(written) == decimal(token);
    written.filter(same).unwrap_or_else(|| token.to_owned())
}

/// The shortest digits that read back as `number`, as `Number.prototype.toString` places them.
fn ecmascript(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let sign = if number < 0.0 { "-" } else { "" };
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let (count, exponent) = (digits.len(), exponent.parse::<i32>().unwrap_or(0));
    // Where the point stands, counted in digits from the left.
    let point = exponent + 1;
    let magnitude = point.unsigned_abs() as usize;
    match point {
        1..=21 if count <= magnitude => format!("{sign}{digits}{}", "0".repeat(magnitude - count)),
        1..=21 => format!("{sign}{}.{}", &digits[..magnitude], &digits[magnitude..]),
        -5..=0 => format!("{sign}0.{}{digits}", "0".repeat(magnitude)),
        _ => {
            let power = if exponent < 0 { '-' } else { '+' };
            let fraction = if count == 1 { String::new() } else { format!(".{}", &digits[1..]) };
            format!("{sign}{}{fraction}e{power}{}", &digits[..1], exponent.unsigned_abs())
        }
    }
}

/// A number's sign, its digits without zeros at the ends, and the power of ten of the last.
fn decimal(token: &str) -> Option<(bool, String, i64)> {
    let (sign, unsigned) = token.strip_prefix('-').map_or((false, token), |rest| (true, rest));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i64 = exponent.trim_start_matches('+').parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some((false, String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
    let behind = i64::try_from(fraction.len()).ok()?;
    Some((sign, kept.to_owned(), exponent.checked_sub(behind)?.checked_add(zeros)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_form() {
        for (text, expected) in [
            (
                " { \"b\" : [ 1 , 2.50, { } , [ ] ] ,\n \"a\":null } ",
                r#"{"a":null,"b":[1,2.5,{},[]]}"#,
            ),
            (r#"{"a":1,"b":2,"a":3}"#, r#"{"a":3,"b":2}"#),
            (
                r#"{"\u20ac":1,"\r":2,"1":3,"\ud83d\ude00":4,"\ufb33":5}"#,
                "{\"\\r\":2,\"1\":3,\"€\":1,\"😀\":4,\"\u{fb33}\":5}",
            ),
            (r#""\u0041\/\u001F\"\\""#, r#""A/\u001f\"\\""#),
            ("[true,false,null,-0,0.0]", "[true,false,null,0,0]"),
            (
                "[1e21,1E20,1e-7,0.000001,123e-20]",
                "[1e+21,100000000000000000000,1e-7,0.000001,1.23e-18]",
            ),
            ("[4.50,2e-3,333333333.33333329]", "[4.5,0.002,333333333.33333329]"),
            (
                "[12345678901234567890,0.1,1e400,9007199254740993]",
                "[12345678901234567890,0.1,1e400,9007199254740993]",
            ),
            ("5e-324", "5e-324"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(canonical(expected).as_deref(), Ok(expected), "again: {text}");
        }
        for text in ["", "{", "\"\\ud800\"", "[1,]"] {
            assert!(canonical(text).is_err(), "{text}");
        }
        let deep = "[".repeat(DEPTH_MAX + 2) + &"]".repeat(DEPTH_MAX + 2);
        assert!(canonical(&deep).is_err_and(|why| why.contains("deep")));
    }
}
