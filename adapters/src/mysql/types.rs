//! Natural types: what each of our types is in MySQL and in MariaDB, and what that holds.

use lakesync::adapter::{Capacity, JsonCapacity, Reserved};
use lakesync::schema::ColumnType;

use crate::sql::render::{self, Dialect};

/// What both servers' types hold.
///
/// A row must fit half a page of 16 KiB. Its long values are moved out of it, but only those of more
/// than 40 bytes: so columns of 40 bytes each are the widest row, and 180 of them leave some room
/// for columns that people add.
pub(super) const CAPACITY: Capacity = Capacity {
    nul: true,
    nan: false,
    // The years 1 to 9999.
    timestamps: (-62_135_596_800_000_000, 253_402_300_799_999_999),
    dates: (-719_162, 2_932_896),
    // MariaDB's functions stop at 32 levels, MySQL's at 100.
    json: Some(JsonCapacity { nul: true, depth_max: 31 }),
    columns_max: 180,
    reserved: Reserved::MYSQL,
};

/// How both servers write values.
pub(super) const DIALECT: Dialect = Dialect { capacity: CAPACITY, truths: ["0", "1"], timestamp };

/// The longest scale of the servers' decimals. What has more digits behind its point is text.
pub(super) const SCALE_MAX: u32 = 30;

/// Which of the two servers it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    MariaDb,
    MySql,
}

impl Flavour {
    /// The collation of texts that are equal only if their bytes are, trailing spaces included.
    pub(super) fn collation(self) -> &'static str {
        match self {
            Self::MariaDb => "utf8mb4_nopad_bin",
            Self::MySql => "utf8mb4_0900_bin",
        }
    }

    /// The type of the key column.
    pub(super) fn key(self) -> String {
        format!("varchar(256) collate {}", self.collation())
    }

    /// The type as SQL.
    pub(super) fn sql(self, kind: ColumnType) -> String {
        match kind {
            ColumnType::Json => "json".to_owned(),
            kind => self.name(kind),
        }
    }

    /// The type as the catalogue tells it, with its collation: the form of [`tidied`].
    pub(super) fn name(self, kind: ColumnType) -> String {
        match kind {
            ColumnType::Bool => "tinyint(1)",
            ColumnType::Int64 => "bigint",
            ColumnType::Double => "double",
            ColumnType::String | ColumnType::Any => {
                return format!("longtext collate {}", self.collation());
            }
            ColumnType::Bytes => "longblob",
            // MariaDB keeps the text, and checks it.
            ColumnType::Json => match self {
                Self::MariaDb => "longtext collate utf8mb4_bin",
                Self::MySql => "json",
            },
            ColumnType::Decimal { precision, scale } if scale <= SCALE_MAX => {
                return format!("decimal({precision},{scale})");
            }
            // Of 256 bytes, which is what makes it one that may be moved out of a row.
            ColumnType::Decimal { .. } => {
                return format!("varchar(64) collate {}", self.collation());
            }
            ColumnType::Timestamp => "datetime(6)",
            ColumnType::Date => "date",
            ColumnType::Uuid => "char(36) collate ascii_bin",
        }
        .to_owned()
    }
}

/// The catalogue's name of a type in one form: older servers tell how wide integers are shown.
pub(super) fn tidied(column_type: &str, collation: Option<&str>) -> String {
    let shown = column_type.strip_prefix("bigint(").and_then(|rest| rest.split_once(')'));
    let plain = match shown {
        Some((_, rest)) => format!("bigint{rest}"),
        None => column_type.to_owned(),
    };
    match collation {
        Some(collation) => format!("{plain} collate {collation}"),
        None => plain,
    }
}

/// A timestamp as `datetime` reads it.
fn timestamp(micros: i64) -> String {
    let text = render::timestamp(micros);
    text.replace('T', " ").replace('Z', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_s_names_are_ours() {
        for (column_type, collation, name) in [
            ("bigint(20)", None, "bigint"),
            ("bigint", None, "bigint"),
            ("bigint(20) unsigned", None, "bigint unsigned"),
            ("tinyint(1)", None, "tinyint(1)"),
            ("char(36)", Some("ascii_bin"), "char(36) collate ascii_bin"),
        ] {
            assert_eq!(tidied(column_type, collation), name);
        }
        let decimal = |scale| ColumnType::Decimal { precision: 38, scale };
        assert_eq!(Flavour::MySql.name(decimal(30)), "decimal(38,30)");
        assert_eq!(Flavour::MySql.name(decimal(31)), "varchar(64) collate utf8mb4_0900_bin");
        let end = CAPACITY.timestamps.1;
        assert_eq!((DIALECT.timestamp)(end), "9999-12-31 23:59:59.999999");
    }
}
