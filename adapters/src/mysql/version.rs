//! Which server it is, and whether it will do.

use lakesync::adapter::AdapterError;
use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use super::statement::Statement;
use super::types::Flavour;
use crate::sql::error::Failure;

/// What a statement must be able to carry: a row of the largest size, and what it looks like.
const PACKET_BYTES_MIN: u64 = 8 << 20;

/// Which server it is, if it is one that we know.
pub(super) async fn flavour(connection: &mut MySqlConnection) -> Result<Flavour, Failure> {
    let sql = "SELECT VERSION(), CAST(@@max_allowed_packet AS UNSIGNED)";
    let row = Statement::new(sql).row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
    let bytes: u64 = row.try_get(1)?;
    if bytes < PACKET_BYTES_MIN {
        return Err(AdapterError::Mismatch(format!(
            "max_allowed_packet is {bytes} bytes, and {PACKET_BYTES_MIN} are needed; set it so"
        ))
        .into());
    }
    let flavour = flavour_of(row.try_get_unchecked(0)?)?;
    check_log(connection).await?;
    Ok(flavour)
}

/// Refuses a server that would write our transactions to its log as statements: it takes none of them.
async fn check_log(connection: &mut MySqlConnection) -> Result<(), Failure> {
    let sql = "SHOW VARIABLES WHERE Variable_name = 'log_bin' AND Value = 'ON' \
               OR Variable_name = 'binlog_format' AND Value = 'STATEMENT'";
    if Statement::new(sql).rows(connection).await?.len() < 2 {
        return Ok(());
    }
    let what = "binlog_format is STATEMENT, and the server logs no transaction of LakeSync's so; set \
                it to MIXED or ROW, as SET GLOBAL binlog_format = 'MIXED', and in its file of settings";
    Err(AdapterError::Mismatch(what.to_owned()).into())
}

fn flavour_of(version: &str) -> Result<Flavour, AdapterError> {
    let (flavour, name, oldest) = match version.to_ascii_lowercase().contains("mariadb") {
        true => (Flavour::MariaDb, "MariaDB", [10, 6, 0]),
        false => (Flavour::MySql, "MySQL", [8, 0, 17]),
    };
    // Old drivers were told that MariaDB was MySQL 5.5.5.
    let plain = version.strip_prefix("5.5.5-").unwrap_or(version);
    let plain = plain.split(['-', '+', ' ']).next().unwrap_or_default();
    let numbers: Vec<u32> = plain.split('.').map_while(|part| part.parse().ok()).collect();
    match oldest.as_slice() <= numbers.as_slice() {
        true => Ok(flavour),
        false => {
            let [major, minor, patch] = oldest;
            let least = format!("{name} {major}.{minor}.{patch} or newer");
            Err(AdapterError::Mismatch(format!("the server is {version}, and {least} is needed")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_told_apart_and_old_ones_refused() {
        for (version, flavour) in [
            ("10.11.19-MariaDB-0+deb12u1", Some(Flavour::MariaDb)),
            ("5.5.5-10.6.4-MariaDB", Some(Flavour::MariaDb)),
            ("11.4.2-MariaDB-log", Some(Flavour::MariaDb)),
            ("10.5.20-MariaDB", None),
            ("8.0.17", Some(Flavour::MySql)),
            ("8.4.0-azure", Some(Flavour::MySql)),
            ("8.0.16", None),
            ("5.7.44-log", None),
            ("", None),
        ] {
            assert_eq!(flavour_of(version).ok(), flavour, "{version:?}");
        }
    }
}
