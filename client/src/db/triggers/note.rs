//! Noting what is written while remote rows are applied: by LakeSync itself, and by triggers of the
//! application that its writes have woken. A row is noted once, as it was before.

use super::{Trigger, Writer, compound, prefix};
use crate::db::key::Key;
use crate::db::layout::NOTING;
use crate::db::table::LocalColumn;

impl Writer<'_> {
    /// The triggers that note.
    pub(super) fn notes(&self) -> [Trigger; 3] {
        let mut inserted = self.map_row();
        inserted.push(self.note("NEW", true, "1"));
        let mut updated = self.note_image();
        if !matches!(self.table.key, Key::Mapped { .. }) {
            updated.push(self.note("NEW", true, &self.same_key("IS NOT")));
        }
        [
            self.noting("note_insert", "AFTER INSERT", &inserted),
            self.noting("note_update", "AFTER UPDATE", &updated),
            self.noting("note_delete", "AFTER DELETE", &self.note_image()),
        ]
    }

    fn noting(&self, what: &str, event: &str, body: &[String]) -> Trigger {
        let name = format!("{}{what}", prefix(self.id));
        let sql = format!(
            "CREATE TRIGGER {name} {event} ON {} \
             WHEN (SELECT applying FROM _lakesync_clock WHERE id = 1) = {NOTING} BEGIN {} END",
            self.name,
            body.join(" ")
        );
        (name, sql)
    }

    /// Notes the row that `row` names, as one that was not there before or as one that was.
    fn note(&self, row: &str, born: bool, condition: &str) -> String {
        format!(
            "INSERT INTO _lakesync_touched (tbl, row_id, born) SELECT {}, {}, {} WHERE {} AND \
             {condition};",
            self.id,
            self.row_id(row),
            i64::from(born),
            self.is_unnoted(row)
        )
    }

    /// Notes the row OLD with its values.
    fn note_image(&self) -> Vec<String> {
        let term = |column: &LocalColumn| {
            format!(
                "SELECT {}, {}, {}, OLD.{} WHERE {}",
                self.id,
                self.row_id("OLD"),
                column.field_id,
                column.sql,
                self.is_unnoted("OLD")
            )
        };
        let terms: Vec<String> = self.table.columns.iter().map(term).collect();
        let head = "INSERT INTO _lakesync_touched_cells (tbl, row_id, col, value)";
        let mut body = compound(head, &terms);
        body.push(self.note("OLD", false, "1"));
        body
    }

    fn is_unnoted(&self, row: &str) -> String {
        let row_id = self.row_id(row);
        format!(
            "{row_id} IS NOT NULL AND {row_id} <> '' AND NOT EXISTS (SELECT 1 FROM \
             _lakesync_touched _n WHERE _n.tbl = {} AND _n.row_id = {row_id})",
            self.id
        )
    }
}
