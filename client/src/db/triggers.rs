//! The triggers that record every change of a table, whoever makes it and in whatever language.
//!
//! They guarantee: what a transaction changed is in the outbox when it commits, and is not there if
//! it does not; a statement that changes nothing records nothing; and no statement that reads or
//! writes rows ever fails because of them.
//!
//! One that alters the table may: SQLite refuses `ALTER TABLE … DROP COLUMN` while a trigger names the
//! column, and values can't be recorded by triggers that do not name them. The way out is the one
//! that SQLite's manual has for all it can't alter: make the table anew and copy its rows. The next
//! round finds it without triggers, and takes it up again.
//!
//! - Values are read from the table, not from NEW: a trigger of the application may have changed
//!   the row again before ours runs, and has been recorded then already.
//! - The conflict clause of the outer statement overrides those inside triggers, so nothing here
//!   relies on OR IGNORE.
//! - INSERT OR REPLACE fires no delete trigger. Of the row with the same key, BEFORE triggers save
//!   the gateway's values. Rows that clash through other unique indexes are noted as candidates,
//!   and recorded as deleted if they are gone afterwards.

use super::key::Key;
use super::layout::{NOW_MS, OP_DELETE, OP_UPSERT, stamp_above};
use super::sql::{RANDOM_UUID, quoted};
use super::table::{LocalColumn, Table};

mod clash;
mod note;

/// SELECTs in one compound; SQLite allows 500.
const TERMS_MAX: usize = 250;

/// A trigger: its name and the statement that creates it.
pub(super) type Trigger = (String, String);

/// All triggers of `table`. `noting` if the application has triggers of its own, which write while
/// remote rows are applied.
pub(super) fn triggers(table: &Table, noting: bool) -> Vec<Trigger> {
    let writer = Writer { table, name: table.sql(), id: table.id };
    let mut all = vec![
        writer.before_insert(),
        writer.after_insert(),
        writer.after_update(),
        writer.after_delete(),
    ];
    if !matches!(table.key, Key::Mapped { .. }) {
        all.extend([writer.before_key_update(), writer.after_key_update()]);
    }
    let clashes = clash::clashes(table);
    for (at, columns) in clashes.iter().enumerate() {
        all.extend(writer.before_clash(at, columns));
    }
    if noting {
        all.extend(writer.notes());
    }
    // A table of nothing but its key has no values to save.
    all.retain(|(_, sql)| !sql.ends_with("BEGIN  END"));
    if !clashes.is_empty() {
        all.extend(["INSERT", "UPDATE"].map(|event| writer.after_clash(event)));
    }
    all
}

/// How the names of a table's triggers begin.
pub(super) fn prefix(id: i64) -> String {
    format!("_lakesync_{id}_")
}

const ACTIVE: &str = "(SELECT applying FROM _lakesync_clock WHERE id = 1) = 0";

struct Writer<'a> {
    table: &'a Table,
    name: String,
    id: i64,
}

impl Writer<'_> {
    fn trigger(&self, what: &str, event: &str, when: &str, body: &[String]) -> Trigger {
        let name = format!("{}{what}", prefix(self.id));
        let sql = format!(
            "CREATE TRIGGER {name} {event} ON {} WHEN {ACTIVE}{when} BEGIN {} END",
            self.name,
            body.join(" ")
        );
        (name, sql)
    }

    fn before_insert(&self) -> Trigger {
        let when = format!(" AND EXISTS (SELECT 1 FROM {} _t WHERE {})", self.name, self.at("NEW"));
        self.trigger("before_insert", "BEFORE INSERT", &when, &self.save_standing("NEW"))
    }

    fn after_insert(&self) -> Trigger {
        let mut body = self.map_row();
        body.extend(self.record_upsert(&[], "1"));
        self.trigger("after_insert", "AFTER INSERT", "", &body)
    }

    fn after_update(&self) -> Trigger {
        let columns = &self.table.columns;
        let changed: Vec<String> = columns.iter().map(changed).collect();
        let any = any_of(&changed);
        let mut body = self.map_row();
        let when = if let Key::Mapped { ids, rowid } = &self.table.key {
            let moved = format!("OLD.{rowid} <> NEW.{rowid}");
            body = self.move_row(ids, rowid, &moved);
            body.extend(self.map_row());
            format!(" AND ({moved} OR {any})")
        } else {
            format!(" AND {} AND {any}", self.same_key("IS"))
        };
        body.extend(self.save("OLD", &changed));
        body.extend(self.record_upsert(&changed, &any));
        self.trigger("after_update", "AFTER UPDATE", &when, &body)
    }

    fn before_key_update(&self) -> Trigger {
        let when = format!(" AND {}", self.same_key("IS NOT"));
        self.trigger("before_key", "BEFORE UPDATE", &when, &self.save_standing("NEW"))
    }

    fn after_key_update(&self) -> Trigger {
        let when = format!(" AND {}", self.same_key("IS NOT"));
        let mut body = self.save("OLD", &[]);
        body.extend(self.record_delete());
        body.extend(self.record_upsert(&[], "1"));
        self.trigger("after_key", "AFTER UPDATE", &when, &body)
    }

    fn after_delete(&self) -> Trigger {
        let mut body = self.save("OLD", &[]);
        body.extend(self.record_delete());
        let row_id = self.table.key.row_id_sql("OLD");
        body.push(format!(
            "DELETE FROM _lakesync_candidates WHERE tbl = {} AND row_id = {row_id};",
            self.id
        ));
        if let Key::Mapped { ids, rowid } = &self.table.key {
            body.push(format!("DELETE FROM {} WHERE rowid = OLD.{rowid};", quoted(ids)));
        }
        self.trigger("after_delete", "AFTER DELETE", "", &body)
    }

    /// Gives a row without a key of its own a random id.
    fn map_row(&self) -> Vec<String> {
        let Key::Mapped { ids, rowid } = &self.table.key else { return Vec::new() };
        let ids = quoted(ids);
        vec![format!(
            "INSERT INTO {ids} (rowid, row_id) SELECT NEW.{rowid}, {RANDOM_UUID} \
             WHERE NOT EXISTS (SELECT 1 FROM {ids} WHERE rowid = NEW.{rowid});"
        )]
    }

    /// Keeps a row's id when its rowid changes. A row that stood at the new rowid is gone.
    fn move_row(&self, ids: &str, rowid: &str, moved: &str) -> Vec<String> {
        let ids = quoted(ids);
        vec![
            tick(),
            format!(
                "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
                 SELECT _c.seq, {}, _i.row_id, {}, {OP_DELETE} FROM _lakesync_clock _c, {ids} _i \
                 WHERE _c.id = 1 AND _i.rowid = NEW.{rowid} AND {moved};",
                self.id,
                stamp_above(self.id, "_i.row_id", "_c.hlc")
            ),
            format!("DELETE FROM {ids} WHERE rowid = NEW.{rowid} AND {moved};"),
            format!("UPDATE {ids} SET rowid = NEW.{rowid} WHERE rowid = OLD.{rowid} AND {moved};"),
        ]
    }

    /// Records the row at NEW's key as it stands now: all columns, or those that changed.
    fn record_upsert(&self, changed: &[String], condition: &str) -> Vec<String> {
        let from = format!("FROM _lakesync_clock _c, {} _t WHERE _c.id = 1 AND", self.name);
        let at = self.at("NEW");
        let mut body = vec![
            tick(),
            format!(
                "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
                 SELECT _c.seq, {}, {}, {}, {OP_UPSERT} {from} {at} AND {condition};",
                self.id,
                self.row_id("_t"),
                stamp_above(self.id, &self.row_id("_t"), "_c.hlc")
            ),
        ];
        let term = |(at_column, column): (usize, &LocalColumn)| {
            let only = changed.get(at_column).map_or("1", String::as_str);
            format!("SELECT _c.seq, {}, _t.{} {from} {at} AND {only}", column.field_id, column.sql)
        };
        let terms: Vec<String> = self.table.columns.iter().enumerate().map(term).collect();
        body.extend(compound("INSERT INTO _lakesync_outbox_cells (seq, col, value)", &terms));
        body
    }

    /// Records that the row at OLD's key is gone, unless it is there again.
    fn record_delete(&self) -> Vec<String> {
        let row_id = self.row_id("OLD");
        vec![
            tick(),
            format!(
                "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
                 SELECT _c.seq, {}, {row_id}, {}, {OP_DELETE} FROM _lakesync_clock _c \
                 WHERE _c.id = 1 AND {row_id} IS NOT NULL AND {row_id} <> '' \
                 AND NOT EXISTS (SELECT 1 FROM {} _t WHERE {});",
                self.id,
                stamp_above(self.id, &row_id, "_c.hlc"),
                self.name,
                self.at("OLD")
            ),
        ]
    }

    /// Saves values of the row that OLD names, where the gateway is known to have them.
    fn save(&self, prefix: &str, changed: &[String]) -> Vec<String> {
        let row_id = self.row_id(prefix);
        let term = |(at, column): (usize, &LocalColumn)| {
            let only = changed.get(at).map_or("1", String::as_str);
            format!(
                "SELECT _r.tbl, _r.row_id, {0}, {prefix}.{1} FROM _lakesync_rows _r \
                 WHERE _r.tbl = {2} AND _r.row_id = {row_id} AND {only} AND {3}",
                column.field_id,
                column.sql,
                self.id,
                unsaved(column)
            )
        };
        let terms: Vec<String> = self.table.columns.iter().enumerate().map(term).collect();
        compound("INSERT INTO _lakesync_base (tbl, row_id, col, value)", &terms)
    }

    /// Saves the values of the row that stands at the key `prefix` names.
    fn save_standing(&self, prefix: &str) -> Vec<String> {
        self.save_from_table(&self.at(prefix))
    }

    /// Saves the values of the rows of the table that meet `condition`.
    fn save_from_table(&self, condition: &str) -> Vec<String> {
        let row_id = self.row_id("_t");
        let term = |column: &LocalColumn| {
            format!(
                "SELECT _r.tbl, _r.row_id, {0}, _t.{1} FROM {2} _t, _lakesync_rows _r \
                 WHERE {condition} AND _r.tbl = {3} AND _r.row_id = {row_id} AND {4}",
                column.field_id,
                column.sql,
                self.name,
                self.id,
                unsaved(column)
            )
        };
        let terms: Vec<String> = self.table.columns.iter().map(term).collect();
        compound("INSERT INTO _lakesync_base (tbl, row_id, col, value)", &terms)
    }

    fn row_id(&self, prefix: &str) -> String {
        self.table.key.row_id_sql(prefix)
    }

    /// Whether a row of the table stands at the key that `prefix` names.
    fn at(&self, prefix: &str) -> String {
        // The comparison that a column's own collation makes may find more than the one row.
        let equal = |column: String| {
            format!(
                "_t.{column} = {prefix}.{column} AND _t.{column} = {prefix}.{column} COLLATE BINARY"
            )
        };
        self.table.key.columns().into_iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    fn same_key(&self, operator: &str) -> String {
        format!("{} {operator} {}", self.row_id("OLD"), self.row_id("NEW"))
    }
}

/// Advances the clock by one change.
fn tick() -> String {
    format!(
        "UPDATE _lakesync_clock SET seq = seq + 1, \
         hlc = max(hlc + 1, ({NOW_MS} + offset_ms) << 16) WHERE id = 1;"
    )
}

/// Whether an update changed a column: also its class, and what a collation would overlook.
fn changed(column: &LocalColumn) -> String {
    let sql = &column.sql;
    format!(
        "(NEW.{sql} COLLATE BINARY IS NOT OLD.{sql} OR typeof(NEW.{sql}) IS NOT typeof(OLD.{sql}))"
    )
}

fn unsaved(column: &LocalColumn) -> String {
    format!(
        "NOT EXISTS (SELECT 1 FROM _lakesync_base _b WHERE _b.tbl = _r.tbl \
         AND _b.row_id = _r.row_id AND _b.col = {})",
        column.field_id
    )
}

/// `terms` joined by OR as a tree, because SQLite bounds how deep an expression may be.
fn any_of(terms: &[String]) -> String {
    match terms {
        [] => "0".to_owned(),
        [only] => only.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({} OR {})", any_of(left), any_of(right))
        }
    }
}

/// `head` with the union of `terms`, in as many statements as SQLite's bound requires.
fn compound(head: &str, terms: &[String]) -> Vec<String> {
    let statement = |terms: &[String]| format!("{head} {};", terms.join(" UNION ALL "));
    terms.chunks(TERMS_MAX).map(statement).collect()
}
