//! A database's error in words, whichever database it is.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;

use crate::mysql::MySqlEngine;
use crate::postgres::PostgresEngine;
use crate::sql::engine::Engine;

/// What a database's error says: its code, table, column and constraint, and its own sentence where
/// that can't hold a value of a row.
pub fn told(error: &dyn DatabaseError) -> String {
    match error.try_downcast_ref::<MySqlDatabaseError>() {
        Some(_) => MySqlEngine::said(error).to_string(),
        None => PostgresEngine::said(error).to_string(),
    }
}
