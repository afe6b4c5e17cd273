//! What the servers' errors say, by their numbers: states say less.

use crate::sql::error::Said;

/// Errors whose sentences hold names alone: of tables, columns, indexes, constraints, users and hosts.
const NAMES_ONLY: [u16; 48] = [
    1036, 1040, 1044, 1045, 1046, 1048, 1049, 1053, 1054, 1071, 1114, 1115, 1118, 1129, 1130, 1142,
    1143, 1146, 1153, 1166, 1170, 1175, 1203, 1205, 1213, 1226, 1227, 1251, 1273, 1290, 1317, 1364,
    1370, 1451, 1452, 1665, 1698, 1792, 1820, 1836, 1862, 1927, 1969, 3024, 3118, 3819, 4025, 4151,
];

/// Errors that mean that a value or a row does not fit where it is shown: numbers, times, texts and
/// JSON of MySQL, then rows that are too long for their page.
const MISFITS: [u16; 23] = [
    1264, 1265, 1292, 1366, 1367, 1406, 1411, 1441, 1690, 3140, 3141, 3143, 3144, 3146, 3147, 3149,
    3150, 3151, 3152, 3153, 3155, 3156, 1118,
];

/// Whether a value or a row does not fit where it is shown.
pub(super) fn is_misfit(number: u16) -> bool {
    MISFITS.contains(&number)
}

/// What an error says, without any value.
pub(super) fn said(number: u16, state: &str, message: &str) -> Said {
    let code = match number {
        0 => state.to_owned(),
        number => format!("{state}, error {number}"),
    };
    // What a trigger says of itself, by whichever number.
    let is_of_trigger = state == "45000" || number == 1644;
    let names_only = NAMES_ONLY.contains(&number) && !is_of_trigger;
    let mut said = Said {
        code,
        state: meant(number, state).to_owned(),
        column: if is_of_trigger { None } else { column(message) },
        words: names_only.then(|| message.to_owned()),
        ..Said::default()
    };
    match number {
        1153 => said.advice = Some("set max_allowed_packet to 8 MiB"),
        1071 | 1170 => said.advice = Some("drop the index, prepare again, and create it anew"),
        // The value before it is nobody's business but the rows'.
        1062 => {
            let index = message.rsplit_once(" for key ").map_or("of its table", |(_, index)| index);
            let words = format!("another row has the same value in the unique index {index}");
            said.words = Some(words);
        }
        // So ends a row that a unique index finds under another key.
        1048 => {
            let words = format!("{message}, or another row has the same value in a unique index");
            said.words = Some(words);
        }
        _ => {}
    }
    said
}

/// The state that tells best what a number means.
fn meant(number: u16, state: &str) -> &str {
    match number {
        // May not use the database, the table, the column, or some right of the whole server.
        1044 | 1142 | 1143 | 1227 | 1370 => "42501",
        1071 | 1153 | 1170 => "42000",
        // Too many connections, or statements an hour, of this user.
        1203 | 1226 => "53300",
        // The server, or the transaction, only reads.
        1290 | 1792 | 1836 => "25006",
        // A lock that was waited for in vain, and a statement that took too long.
        1205 => "55P03",
        1969 | 3024 => "57014",
        // A CHECK, and what a trigger raises.
        3819 | 4025 => "44000",
        1644 => "P0001",
        // A column without a default, which somebody made after preparing.
        1048 | 1062 | 1364 => "23000",
        // A row too long for its page, by columns that somebody added.
        1118 => "54000",
        // A character set or collation that the server has not.
        1115 | 1273 => "0A000",
        number if is_misfit(number) => "22000",
        _ => state,
    }
}

/// The column that the error of a value names, whose sentence ends in `for column …`.
fn column(message: &str) -> Option<String> {
    let (_, rest) = message.rsplit_once(" for column ")?;
    let name = rest.split_once(" at row ").map_or(rest, |(name, _)| name);
    let name = name.rsplit('.').next()?.trim_matches(['\'', '`']);
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use lakesync::adapter::AdapterError;

    use super::*;

    #[test]
    fn what_passes_is_told_from_what_somebody_must_change() {
        for (number, state, passes) in [
            (1205, "HY000", true), // lock wait timeout
            (1213, "40001", true), // deadlock
            (1040, "08004", true), // too many connections
            (1290, "HY000", true), // read only
            (1114, "HY000", true), // full
            (1045, "28000", true), // a password that is being changed
            (1226, "42000", true), // too many connections of this user
            (1044, "42000", false),
            (1062, "23000", false),
            (1118, "42000", false),
            (1146, "42S02", false),
            (1170, "42000", false),
            (1153, "08S01", false),
            (1364, "HY000", false),
            (1366, "22007", false),
            (1644, "45000", false),
        ] {
            let error = said(number, state, "the server's words").adapter_error();
            assert_eq!(matches!(error, AdapterError::Unavailable(_)), passes, "{number}: {error}");
        }
    }

    #[test]
    fn names_are_told_and_no_value_is() {
        for (number, state, message, told) in [
            (
                1062,
                "23000",
                "Duplicate entry 'canary for key ' for key 'by_name'",
                "the unique index 'by_name'",
            ),
            (
                1366,
                "22007",
                "Incorrect string value: 'canary for column x' for column `main`.`t`.`name` at row 1",
                "column name",
            ),
            (1406, "22001", "Data too long for column 'name' at row 1", "column name"),
            (1292, "22007", "Truncated incorrect DOUBLE value: 'canary'", "does not fit"),
            (1644, "45000", "canary", "a trigger refuses a row"),
            (1146, "45000", "canary", "45000"),
            (9_999, "HY000", "canary", "its own log tells more"),
            (4025, "23000", "CONSTRAINT `small` failed for `main`.`t`", "small"),
        ] {
            let error = said(number, state, message).adapter_error().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
