//! Natural types: what each of our types is in Postgres, what that holds, and how columns widen.

use lakesync::adapter::{Capacity, JsonCapacity, Reserved};
use lakesync::schema::ColumnType;

use crate::sql::render::{self, Dialect};

/// What Postgres' types hold.
///
/// A row must fit one page of 8 KiB. Its long values are moved out of it, but only those of more
/// than 24 bytes: so columns of 24 bytes each are the widest row, and 300 of them leave some room
/// for columns that people add.
pub(super) const CAPACITY: Capacity = Capacity {
    nul: false,
    nan: true,
    // From 4714-11-24 BC, where Postgres' calendar begins, to the end of 64 bits and of 5874897 AD.
    timestamps: (-210_866_803_200_000_000, i64::MAX),
    dates: (-2_440_588, 2_145_042_905),
    json: Some(JsonCapacity { nul: false, depth_max: 100 }),
    columns_max: 300,
    reserved: Reserved::POSTGRES,
};

/// How Postgres writes values.
pub(super) const DIALECT: Dialect =
    Dialect { capacity: CAPACITY, truths: ["f", "t"], timestamp: render::timestamp };

/// The type's name, as Postgres itself tells it.
pub(super) fn name(kind: ColumnType) -> String {
    match kind {
        ColumnType::Bool => "boolean",
        ColumnType::Int64 => "bigint",
        ColumnType::Double => "double precision",
        ColumnType::String | ColumnType::Any => "text",
        ColumnType::Bytes => "bytea",
        ColumnType::Json => "jsonb",
        ColumnType::Decimal { precision, scale } => return format!("numeric({precision},{scale})"),
        ColumnType::Timestamp => "timestamp with time zone",
        ColumnType::Date => "date",
        ColumnType::Uuid => "uuid",
    }
    .to_owned()
}

/// The SQL of what a quoted `column` holds, in the form that a value of type `from` has as `to`.
pub(super) fn widened(column: &str, from: ColumnType, to: ColumnType) -> String {
    let kind = name(to);
    match (from, to) {
        (_, ColumnType::String | ColumnType::Any) => plain(column, from),
        (ColumnType::Bool | ColumnType::Int64 | ColumnType::Double, ColumnType::Json)
        | (ColumnType::Decimal { .. }, ColumnType::Json) => {
            format!("pg_catalog.to_jsonb({column})")
        }
        (_, ColumnType::Json) => format!("pg_catalog.to_jsonb({})", plain(column, from)),
        // The year 294276 ends before dates do.
        (ColumnType::Date, ColumnType::Timestamp) => format!(
            "CASE WHEN {column} < DATE '294246-01-01' \
             THEN {column}::timestamp AT TIME ZONE 'UTC' END"
        ),
        _ => format!("{column}::{kind}"),
    }
}

/// Whether [`widened`] may give another form than what the exact rows have in the wider type.
pub(super) fn reshapes(from: ColumnType, to: ColumnType) -> bool {
    let texts = [ColumnType::String, ColumnType::Any];
    let wide = to == ColumnType::Json || texts.contains(&to);
    wide && from != to && !(texts.contains(&from) && texts.contains(&to))
}

fn plain(column: &str, from: ColumnType) -> String {
    match from {
        ColumnType::Bytes => format!("pg_catalog.encode({column}, 'hex')"),
        ColumnType::Timestamp => format!(
            "pg_catalog.to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
             || CASE WHEN {column} < TIMESTAMPTZ '0001-01-01 00:00:00+00' THEN ' BC' ELSE '' END"
        ),
        _ => format!("{column}::text"),
    }
}
