//! A transaction of the application, whose changes are pushed as one commit: where it begins and
//! where it ends is noted, so that no batch is cut inside it.

use std::path::Path;

use sqlx::SqliteConnection;

use super::error::DbError;
use super::open;
use super::sql::script;

/// Notes that a transaction ended with the last change recorded.
const MARK: &str =
    "INSERT OR IGNORE INTO _lakesync_marks (seq) SELECT seq FROM _lakesync_clock WHERE seq > 0";

/// A transaction of the application, pushed as one commit.
#[derive(Debug)]
pub struct Transaction {
    connection: SqliteConnection,
}

impl Transaction {
    /// Begins on a connection of its own to the file at `path`.
    pub(super) async fn begin(path: &Path) -> Result<Self, DbError> {
        let mut connection = open::connect_application(path).await?;
        script(&mut connection, "BEGIN IMMEDIATE").await?;
        script(&mut connection, MARK).await?;
        Ok(Self { connection })
    }

    /// The connection to run statements on, by `sqlx::query(…).execute(…)`.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Makes everything durable.
    pub async fn commit(mut self) -> Result<(), DbError> {
        script(&mut self.connection, MARK).await?;
        Ok(script(&mut self.connection, "COMMIT").await?)
    }
}
