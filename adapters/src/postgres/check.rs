//! Whether a database will do.

use lakesync::adapter::AdapterError;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::statement::Statement;
use crate::sql::error::Failure;

/// Refuses a database that can't hold all text. What a device writes is known only when it is
/// pushed, and then it is too late to choose another.
pub(super) async fn encoding(connection: &mut PgConnection) -> Result<(), Failure> {
    let sql = "SELECT pg_catalog.current_setting('server_encoding')";
    let row = Statement::new(sql).row(connection).await?.ok_or(sqlx::Error::RowNotFound)?;
    let found: &str = row.try_get(0)?;
    if found == "UTF8" {
        return Ok(());
    }
    Err(AdapterError::Mismatch(format!(
        "the database's encoding is {found}, which can't hold all text; make another, as CREATE \
         DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name it in the url"
    ))
    .into())
}
