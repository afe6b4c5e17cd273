//! What a cell should look like to a database's own client, worked out here once more: the code
//! under test has no say in it.

use lakesync::proto::v1::ColumnType;
use lakesync::value::Value;
use lakesync_adapters::testing::NULL;

use super::servers::Database;

/// The SQL that prints a column so that nothing of its value is lost.
pub(super) fn exactly(database: Database, kind: ColumnType, column: &str) -> String {
    let column = database.quoted(column);
    match (database, kind) {
        (Database::Postgres(_), ColumnType::Double) => {
            format!("'x' || encode(float8send({column}), 'hex')")
        }
        (Database::Postgres(_), ColumnType::Bytes) => format!("encode({column}, 'hex')"),
        (Database::Postgres(_), ColumnType::String | ColumnType::Any) => {
            format!("encode(convert_to({column}, 'UTF8'), 'hex')")
        }
        (Database::Postgres(_), ColumnType::Json) => {
            format!("encode(convert_to({column}::text, 'UTF8'), 'hex')")
        }
        (Database::Postgres(_), ColumnType::Timestamp) => {
            format!("(extract(epoch from {column}) * 1000000)::numeric(30, 0)")
        }
        (Database::Postgres(_), ColumnType::Date) => format!("({column} - date '1970-01-01')"),
        (Database::Postgres(_), ColumnType::Bool) => format!("{column}::int"),
        (
            Database::MariaDb(_),
            ColumnType::Bytes | ColumnType::String | ColumnType::Any | ColumnType::Json,
        ) => {
            format!("lower(hex({column}))")
        }
        (Database::MariaDb(_), ColumnType::Timestamp) => {
            format!("timestampdiff(microsecond, '1970-01-01 00:00:00', {column})")
        }
        (Database::MariaDb(_), ColumnType::Date) => {
            format!("datediff({column}, '1970-01-01')")
        }
        _ => column,
    }
}

/// What that prints for a value.
pub(super) fn printed(database: Database, kind: ColumnType, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NULL.to_owned(),
        Some(value) => canonical(kind, &shown(database, value)),
    }
}

/// What the database printed, brought into one form: documents and numbers may be written in many.
pub(super) fn canonical(kind: ColumnType, printed: &str) -> String {
    if printed == NULL {
        return printed.to_owned();
    }
    match kind {
        ColumnType::Json => {
            let bytes = unhex(printed);
            let document: serde_json::Value = serde_json::from_slice(&bytes).expect("a document");
            document.to_string()
        }
        // Bits behind an x are in that form already.
        ColumnType::Double if !printed.starts_with('x') => {
            let number: f64 =
                printed.parse().unwrap_or_else(|_| panic!("{printed:?} is no number"));
            bits(number)
        }
        ColumnType::Decimal => decimal(printed),
        ColumnType::Uuid => printed.to_lowercase(),
        _ => printed.to_owned(),
    }
}

fn shown(database: Database, value: &Value) -> String {
    let text = |text: &str| hex(text.as_bytes());
    match value {
        Value::Null => NULL.to_owned(),
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::Int64(value) => value.to_string(),
        // MariaDB knows one zero.
        Value::Double(value) if *value == 0.0 && matches!(database, Database::MariaDb(_)) => {
            bits(0.0)
        }
        Value::Double(value) => bits(*value),
        Value::String(value) | Value::Json(value) => text(value),
        Value::Bytes(bytes) => hex(bytes),
        Value::Decimal(value) => value.clone(),
        Value::Timestamp(micros) => micros.to_string(),
        Value::Date(days) => days.to_string(),
        Value::Uuid(uuid) => {
            let digits = hex(uuid);
            [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]]
                .join("-")
        }
    }
}

fn bits(number: f64) -> String {
    format!("x{:016x}", number.to_bits())
}

/// A decimal without zeros that mean nothing.
fn decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}
