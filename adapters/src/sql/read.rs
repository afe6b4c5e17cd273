//! Reading: states, watermarks and what was prepared. A backend that holds nothing yet says so.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use lakesync::adapter::{AdapterError, Change, Place};
use lakesync::name::{LogId, Position, RowId, TableName};
use lakesync::row::Row;
use lakesync::schema::{Schema, TableSchema};

use super::backend::Backend;
use super::catalogue::{Catalogue, ColumnRecord, TableRecord};
use super::engine::Engine;
use super::error::{Failure, corrupt};
use super::pool::Session;
use super::script::Script;
use super::shown::Shown;
use crate::fit;

/// The form that our tables have. Another form has another number.
pub(crate) const FORMAT: i32 = 2;

/// What a database reads from our own tables.
#[async_trait]
pub(crate) trait Reads: Engine {
    /// The form that our tables have, where they are, on a server that will do.
    async fn format(&self, connection: &mut Self::Connection) -> Result<Option<i32>, Failure>;

    /// Begins a transaction that sees all as of one moment, and for which nobody is waited.
    const SNAPSHOT: &'static str;

    /// The tables that were prepared.
    async fn tables(&self, connection: &mut Self::Connection) -> Result<Vec<TableRecord>, Failure>;

    /// Their columns.
    async fn columns(
        &self,
        connection: &mut Self::Connection,
    ) -> Result<Vec<ColumnRecord>, Failure>;

    /// The table's number.
    async fn table_id(
        &self,
        connection: &mut Self::Connection,
        table: &TableName,
    ) -> Result<Option<i32>, Failure>;

    /// The logs that have a watermark.
    async fn logs(&self, connection: &mut Self::Connection) -> Result<Vec<LogId>, Failure>;

    /// How far a log has come.
    async fn watermark(
        &self,
        connection: &mut Self::Connection,
        log: LogId,
    ) -> Result<Option<Position>, Failure>;

    /// A page of a table's states, in the order of row ids.
    async fn page(
        &self,
        connection: &mut Self::Connection,
        table_id: i32,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure>;

    /// The states of those that there are of the first of `row_ids`: of so many as fit into memory
    /// well, one at least, which is told. In a transaction only.
    async fn some_states(
        &self,
        connection: &mut Self::Connection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<(HashMap<RowId, Row>, usize), Failure>;

    /// A page of the ids that people see in a table, in the order of bytes.
    async fn shown(
        &self,
        connection: &mut Self::Connection,
        table: &Shown<'_>,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, Failure>;

    /// The ids of those of the live rows `rows` that people see as they are.
    async fn well_shown(
        &self,
        connection: &mut Self::Connection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
    ) -> Result<HashSet<RowId>, Failure>;

    /// A page of the history, in the order of places.
    async fn changes(
        &self,
        connection: &mut Self::Connection,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure>;
}

impl<E: Reads> Backend<E> {
    /// Whether our own tables are there. Those of another form are refused.
    pub(super) async fn is_installed(&self) -> Result<bool, Failure> {
        if self.installed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut session = self.engine.session().await?;
        let format = E::present(self.engine.format(&mut session).await)?.flatten();
        let Some(format) = format else { return Ok(false) };
        check_format(format)?;
        session.end();
        self.installed.store(true, Ordering::Relaxed);
        Ok(true)
    }

    /// Somebody dropped our own tables. Who prepares or writes next makes them anew.
    pub(super) fn note_drop(&self) {
        self.installed.store(false, Ordering::Relaxed);
    }

    pub(crate) async fn read_schema(&self) -> Result<Schema, Failure> {
        if !self.is_installed().await? {
            return Ok(Schema::default());
        }
        let mut session = self.engine.session().await?;
        // Tables and columns as of one moment: somebody may prepare in between.
        session.script(E::SNAPSHOT).await?;
        let Some(catalogue) = E::present(self.read_catalogue(&mut session).await)? else {
            return Ok(Schema::default());
        };
        session.roll_back().await?;
        Ok(catalogue.schema)
    }

    pub(super) async fn read_watermark(&self, log: LogId) -> Result<Position, Failure> {
        if !self.is_installed().await? {
            return Ok(Position::START);
        }
        let mut session = self.engine.session().await?;
        let Some(position) = E::present(self.engine.watermark(&mut session, log).await)? else {
            self.note_drop();
            return Ok(Position::START);
        };
        session.end();
        Ok(position.unwrap_or(Position::START))
    }

    pub(super) async fn read_logs(&self) -> Result<Vec<LogId>, Failure> {
        if !self.is_installed().await? {
            return Ok(Vec::new());
        }
        let mut session = self.engine.session().await?;
        let Some(logs) = E::present(self.engine.logs(&mut session).await)? else {
            self.note_drop();
            return Ok(Vec::new());
        };
        session.end();
        Ok(logs)
    }

    pub(super) async fn read_rows(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        if !self.is_installed().await? {
            return Err(AdapterError::UnknownTable(table.clone()).into());
        }
        let mut session = self.engine.session().await?;
        let id = self.table_id(&mut session, table).await?;
        let page = self.engine.page(&mut session, id, after, limit).await?;
        session.end();
        Ok(page)
    }

    pub(super) async fn find_rows(
        &self,
        table: &TableName,
        row_ids: &[RowId],
    ) -> Result<Vec<(RowId, Row)>, Failure> {
        if !self.is_installed().await? {
            return Err(AdapterError::UnknownTable(table.clone()).into());
        }
        let mut session = self.begin().await?;
        let id = self.table_id(&mut session, table).await?;
        let row_ids: Vec<_> = row_ids.iter().collect();
        let found = self.states(&mut session, id, &row_ids).await?;
        session.roll_back().await?;
        Ok(found.into_iter().collect())
    }

    pub(super) async fn read_shown(
        &self,
        table: &TableName,
        after: Option<&RowId>,
        limit: usize,
    ) -> Result<Vec<RowId>, Failure> {
        let (mut session, schema) = self.begin_to_look(table).await?;
        let table = Shown::of(&schema, &E::CAPACITY);
        let shown = self.engine.shown(&mut session, &table, after, limit).await?;
        session.roll_back().await?;
        Ok(shown)
    }

    pub(super) async fn check_shown(
        &self,
        table: &TableName,
        rows: &[(RowId, Row)],
    ) -> Result<Vec<RowId>, Failure> {
        let live = rows.iter().filter(|(_, row)| row.is_live());
        let live: Vec<_> = live.map(|(row_id, row)| (row_id, row)).collect();
        if live.is_empty() {
            return Ok(Vec::new());
        }
        let (mut session, schema) = self.begin_to_look(table).await?;
        let table = Shown::of(&schema, &E::CAPACITY);
        let well = self.engine.well_shown(&mut session, &table, &live).await?;
        session.roll_back().await?;
        let wrong = live.into_iter().filter(|(row_id, _)| !well.contains(*row_id));
        Ok(wrong.map(|(row_id, _)| row_id.clone()).collect())
    }

    /// A transaction, and what a table was prepared for.
    async fn begin_to_look(
        &self,
        table: &TableName,
    ) -> Result<(Session<E::Connection>, TableSchema), Failure> {
        let unknown = || AdapterError::UnknownTable(table.clone());
        if !self.is_installed().await? {
            return Err(unknown().into());
        }
        let mut session = self.begin().await?;
        let catalogue = E::present(self.read_catalogue(&mut session).await)?;
        let catalogue = catalogue.ok_or_else(unknown)?;
        Ok((session, fit::table(&catalogue.schema, table)?.clone()))
    }

    pub(super) async fn read_history(
        &self,
        after: Option<&Place>,
        limit: usize,
    ) -> Result<Vec<Change>, Failure> {
        if !self.keeps_history || !self.is_installed().await? {
            return Ok(Vec::new());
        }
        let mut session = self.engine.session().await?;
        let Some(changes) = E::present(self.engine.changes(&mut session, after, limit).await)?
        else {
            return Ok(Vec::new());
        };
        session.end();
        Ok(changes)
    }

    /// What our own tables say was prepared.
    pub(super) async fn read_catalogue(
        &self,
        connection: &mut E::Connection,
    ) -> Result<Catalogue, Failure> {
        let tables = self.engine.tables(connection).await?;
        let columns = self.engine.columns(connection).await?;
        Ok(Catalogue::read(&tables, &columns)?)
    }

    /// The states of those of `row_ids` that there are. In a transaction only.
    pub(super) async fn states(
        &self,
        connection: &mut E::Connection,
        table_id: i32,
        row_ids: &[&RowId],
    ) -> Result<HashMap<RowId, Row>, Failure> {
        let (mut all, mut rest) = (HashMap::new(), row_ids);
        while !rest.is_empty() {
            let (found, done) = self.engine.some_states(connection, table_id, rest).await?;
            all.extend(found);
            rest = &rest[done..];
        }
        Ok(all)
    }

    async fn table_id(
        &self,
        connection: &mut E::Connection,
        table: &TableName,
    ) -> Result<i32, Failure> {
        let found = E::present(self.engine.table_id(connection, table).await)?.flatten();
        found.ok_or_else(|| AdapterError::UnknownTable(table.clone()).into())
    }
}

/// Refuses tables of another form than ours.
pub(super) fn check_format(found: i32) -> Result<(), AdapterError> {
    match found == FORMAT {
        true => Ok(()),
        false => Err(AdapterError::Mismatch(format!(
            "its tables are of another LakeSync (format {found}, and this one knows {FORMAT}): use \
             that one, or a schema or database that is empty"
        ))),
    }
}

/// The log that these bytes are.
pub(crate) fn log_id(bytes: &[u8]) -> Result<LogId, Failure> {
    Ok(LogId(bytes.try_into().map_err(|_| corrupt("a log id has 16 bytes"))?))
}

/// The row that these bytes are.
pub(crate) fn state(row_id: &str, state: &[u8]) -> Result<(RowId, Row), Failure> {
    let state = Row::decode(state).map_err(|error| corrupt(format!("a row's state: {error}")))?;
    Ok((row_id.parse().map_err(|_| corrupt("a row id is none"))?, state))
}
