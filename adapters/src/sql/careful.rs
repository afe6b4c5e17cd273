//! Writing rows of which the database may refuse some: none of them stops the others.

use lakesync::name::RowId;
use lakesync::row::Row;

use super::backend::Backend;
use super::error::Failure;
use super::hidden::Cell;
use super::script::Script;
use super::shown::Shown;
use super::write::Writes;

/// The name of a point that is gone back to.
const POINT: &str = "lakesync_part";

impl<E: Writes> Backend<E> {
    /// Puts live rows into their table. Of a row that the database refuses, each cell is tried by
    /// itself, and one that is refused is NULL there. What is not shown is told to `hidden`.
    pub(super) async fn put_carefully(
        &self,
        connection: &mut E::Connection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
        hidden: &mut Vec<Cell>,
    ) -> Result<(), Failure> {
        let mut parts = vec![rows];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let Some(refused) = self.try_rows(connection, table, part).await? else { continue };
            match part {
                [(row_id, row)] => {
                    self.put_cells(connection, table, row_id, row, refused, hidden).await?;
                }
                part => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Puts the cells of one row one by one.
    async fn put_cells(
        &self,
        connection: &mut E::Connection,
        table: &Shown<'_>,
        row_id: &RowId,
        row: &Row,
        refused: Cell,
        hidden: &mut Vec<Cell>,
    ) -> Result<(), Failure> {
        // A row without cells: all its columns become NULL.
        let empty = Row::default();
        if self.try_rows(connection, table, &[(row_id, &empty)]).await?.is_some() {
            // It has no place at all, such as one whose key is too long for an index of theirs.
            hidden.push(refused);
            return self.engine.delete_rows(connection, table, &[row_id]).await;
        }
        for (at, column) in table.columns.iter().enumerate() {
            if row.cell(column.column).is_none() {
                continue;
            }
            let only = table.only(at);
            if let Some(refused) = self.try_rows(connection, &only, &[(row_id, row)]).await? {
                hidden.push(Cell { column: column.column.to_string(), ..refused });
            }
        }
        Ok(())
    }

    /// Puts rows, or tells that the database refuses some, and leaves all as they were.
    async fn try_rows(
        &self,
        connection: &mut E::Connection,
        table: &Shown<'_>,
        rows: &[(&RowId, &Row)],
    ) -> Result<Option<Cell>, Failure> {
        connection.script(&format!("SAVEPOINT {POINT}")).await?;
        let failure = match self.engine.put_rows(connection, table, rows, false).await {
            Ok(()) => {
                connection.script(&format!("RELEASE SAVEPOINT {POINT}")).await?;
                return Ok(None);
            }
            Err(failure) => failure,
        };
        let Some(error) = failure.database().filter(|error| E::is_misfit(*error)) else {
            return Err(failure);
        };
        let cell = Cell::new(table.table, "", &E::said(error));
        connection.script(&format!("ROLLBACK TO SAVEPOINT {POINT}")).await?;
        Ok(Some(cell))
    }

    /// Counts what is not shown.
    pub(super) fn hide(&self, cells: Vec<Cell>) {
        if !cells.is_empty() {
            self.hidden.lock().expect("BUG: nothing panics under this lock").add(cells);
        }
    }

    /// What is not shown as it was declared and pushed, for people.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let prepared = self.prepared.lock().expect("BUG: nothing panics under this lock").clone();
        let tables = prepared.iter().flat_map(|(_, catalogue)| catalogue.schema.tables());
        let mut troubles: Vec<_> =
            tables.flat_map(|table| Shown::of(table, &E::CAPACITY).troubles()).collect();
        let hidden = self.hidden.lock().expect("BUG: nothing panics under this lock");
        troubles.extend(hidden.troubles());
        troubles
    }
}
