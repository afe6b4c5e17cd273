//! Who this replica is. A copy of its file is another replica, and must be another client: two that
//! share an id would not be sent each other's changes, and could give two values one stamp.

use sqlx::SqliteConnection;

use super::layout::{self, OWN_CLIENT};
use super::sql::{Statement, integer};
use super::{convert, ranges};

/// A new client id.
pub(super) fn random_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("BUG: the system has no randomness");
    convert::hex(&bytes)
}

/// Gives the file a new identity if it lies elsewhere than it did, at whatever `place` names.
pub(super) async fn settle(
    connection: &mut SqliteConnection,
    place: &str,
) -> Result<(), sqlx::Error> {
    let before = layout::get(connection, "place").await?;
    layout::put(connection, "place", place).await?;
    if before.is_none_or(|before| before == place) {
        return Ok(());
    }
    // Stamps under the old id are the original's; unsent changes are this replica's own.
    let client_id = random_id();
    let sql = "UPDATE _lakesync_clients SET client = ? WHERE id = ? RETURNING id";
    let own = Statement::new(sql).bind(client_id.as_str()).bind(OWN_CLIENT);
    own.run(connection).await?;
    let old = layout::get(connection, "client_id").await?.unwrap_or_default();
    let sql = "INSERT INTO _lakesync_clients (client) VALUES (?) RETURNING id";
    let row = Statement::new(sql).bind(old).row(connection).await?;
    let number = row.map_or(Ok(OWN_CLIENT), |row| integer(&row, 0))?;
    for (table, column) in [
        ("rows", "client"),
        ("rows", "written_client"),
        ("rows", "deleted_client"),
        ("cells", "client"),
        ("unknown", "client"),
    ] {
        let sql = format!("UPDATE _lakesync_{table} SET {column} = ? WHERE {column} = ?");
        Statement::new(sql).bind(number).bind(OWN_CLIENT).run(connection).await?;
    }
    layout::put(connection, "client_id", &client_id).await?;
    layout::put(connection, "slot", &ranges::random_slot().to_string()).await
}
