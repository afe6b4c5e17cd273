//! What makes one SQL database another than the next: its connections, its names and its errors.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use lakesync::adapter::Capacity;
use lakesync::name::TableName;
use sqlx::error::DatabaseError;

use super::error::{Failure, Said};
use super::names::Names;
use super::pool::Session;
use super::script::Script;
use super::server::Server;

/// One gateway's place in a database of some kind.
///
/// `Display` names it to operators, without credentials.
#[async_trait]
pub(crate) trait Engine: fmt::Debug + fmt::Display + Send + Sized + Sync + 'static {
    type Connection: Script;

    /// What its types hold.
    const CAPACITY: Capacity;

    fn server(&self) -> &Server<Self::Connection>;

    fn names(&self) -> &Names;

    /// A connection in a transaction. The database ends it by itself if we are silent for as long as
    /// a call may take: a server that hangs must not keep its successor from writing.
    async fn begin(&self, limit: Duration) -> Result<Session<Self::Connection>, Failure>;

    /// Refuses a server or database that will not do, whatever is written to it.
    async fn check(&self, connection: &mut Self::Connection) -> Result<(), Failure>;

    /// Whether what was asked for is not there.
    fn is_absence(error: &dyn DatabaseError) -> bool;

    /// What an error of the database's says, without any value.
    fn said(error: &dyn DatabaseError) -> Said;

    /// Whether a value or a row does not fit where it is shown.
    fn is_misfit(error: &dyn DatabaseError) -> bool;

    /// Whether somebody else's lock was waited for in vain.
    fn is_locked_out(error: &dyn DatabaseError) -> bool;

    /// Whether the statement was ended because it took too long.
    fn is_too_slow(error: &dyn DatabaseError) -> bool;

    /// Who else has open transactions that may hold `table`, as far as our user may know, for people.
    async fn holders(
        &self,
        connection: &mut Self::Connection,
        table: &TableName,
    ) -> Result<Vec<String>, Failure>;

    /// A connection, outside of any transaction.
    async fn session(&self) -> Result<Session<Self::Connection>, Failure> {
        Ok(self.server().pool.session().await?)
    }

    /// What was `asked` for, unless it is not there: as for a backend that holds nothing yet.
    fn present<T>(asked: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match asked {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.database().is_some_and(Self::is_absence) => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
