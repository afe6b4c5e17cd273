//! Rows that INSERT OR REPLACE and UPDATE OR REPLACE remove through a unique index, without any
//! delete trigger being fired.

use lakesync::schema::ColumnType;

use super::{Trigger, Writer, tick};
use crate::db::key::Key;
use crate::db::layout::{OP_DELETE, stamp_above};
use crate::db::sql::quoted;
use crate::db::table::Table;

/// The columns and collations of each unique index through which REPLACE may remove another row.
pub(super) fn clashes(table: &Table) -> Vec<Vec<(String, String)>> {
    let keys = table.key.columns();
    let columns = table.shape.unique.iter().filter_map(|index| index.columns.as_ref());
    let others = columns.filter(|columns| {
        let names: Vec<String> = columns.iter().map(|(name, _)| quoted(name)).collect();
        let binary = columns.iter().all(|(_, collation)| collation.eq_ignore_ascii_case("binary"));
        names != keys || !binary
    });
    others.cloned().collect()
}

impl Writer<'_> {
    /// Notes the rows that clash with NEW in the unique index of these columns.
    pub(super) fn before_clash(&self, at: usize, columns: &[(String, String)]) -> [Trigger; 2] {
        let equal = |(name, collation): &(String, String)| {
            format!("_t.{0} = NEW.{0} COLLATE {1}", quoted(name), quoted(collation))
        };
        let equal = columns.iter().map(equal).collect::<Vec<_>>().join(" AND ");
        let other = format!("{equal} AND {} IS NOT {}", self.row_id("_t"), self.row_id("OLD"));
        let build = |what: &str, event: String, clash: &str| {
            let when = format!(" AND EXISTS (SELECT 1 FROM {} _t WHERE {clash})", self.name);
            let row_id = self.row_id("_t");
            let mut body = vec![format!(
                "INSERT INTO _lakesync_candidates (tbl, row_id) SELECT {0}, {row_id} FROM {1} _t \
                 WHERE {clash} AND {row_id} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM \
                 _lakesync_candidates _b WHERE _b.tbl = {0} AND _b.row_id = {row_id});",
                self.id, self.name
            )];
            body.extend(self.save_from_table(clash));
            self.trigger(&format!("{what}_{at}"), &event, &when, &body)
        };
        let of = columns.iter().map(|(name, _)| quoted(name)).collect::<Vec<_>>().join(", ");
        [
            build("clash_insert", "BEFORE INSERT".to_owned(), &equal),
            build("clash_update", format!("BEFORE UPDATE OF {of}"), &other),
        ]
    }

    /// Records the candidates that are gone as deleted.
    pub(super) fn after_clash(&self, event: &str) -> Trigger {
        let id = self.id;
        let when = format!(" AND EXISTS (SELECT 1 FROM _lakesync_candidates WHERE tbl = {id})");
        let gone = format!(
            "_a.tbl = {id} AND NOT EXISTS (SELECT 1 FROM {} _t WHERE {})",
            self.name,
            self.find("_a.row_id")
        );
        let place = format!(
            "(SELECT count(*) FROM _lakesync_candidates _b WHERE _b.tbl = {id} \
             AND _b.row_id <= _a.row_id)"
        );
        let total = format!("(SELECT count(*) FROM _lakesync_candidates WHERE tbl = {id})");
        let mut body = vec![
            tick(),
            format!(
                "INSERT INTO _lakesync_outbox (seq, tbl, row_id, hlc, op) \
                 SELECT _c.seq + {place}, {id}, _a.row_id, {}, {OP_DELETE} \
                 FROM _lakesync_clock _c, _lakesync_candidates _a WHERE _c.id = 1 AND {gone};",
                stamp_above(id, "_a.row_id", &format!("_c.hlc + {place}"))
            ),
            format!(
                "UPDATE _lakesync_clock SET seq = seq + {total}, hlc = hlc + {total} WHERE id = 1;"
            ),
        ];
        let gone_ids = format!("SELECT _a.row_id FROM _lakesync_candidates _a WHERE {gone}");
        if let Key::Mapped { ids, .. } = &self.table.key {
            // Reading the ids that are gone needs their mapping, so it goes last of all rows.
            body.push(format!(
                "DELETE FROM {} WHERE row_id IN ({gone_ids}) AND NOT EXISTS (SELECT 1 FROM {} _t \
                 WHERE _t.{} = {0}.rowid);",
                quoted(ids),
                self.name,
                self.table.key.columns()[0],
            ));
        }
        body.push(format!(
            "DELETE FROM _lakesync_candidates WHERE tbl = {id} AND row_id IN ({gone_ids});"
        ));
        self.trigger(
            &format!("clash_{}", event.to_lowercase()),
            &format!("AFTER {event}"),
            &when,
            &body,
        )
    }

    /// Whether a row of the table has the row id that an expression yields.
    fn find(&self, row_id: &str) -> String {
        match &self.table.key {
            Key::Text(column) => {
                format!("_t.{0} = {row_id} AND _t.{0} = {row_id} COLLATE BINARY", quoted(column))
            }
            Key::Integer(column) => format!("_t.{} = CAST({row_id} AS INTEGER)", quoted(column)),
            Key::Mapped { ids, rowid } => {
                format!("_t.{rowid} = (SELECT rowid FROM {} WHERE row_id = {row_id})", quoted(ids))
            }
            Key::Columns(columns) => {
                let mut terms = vec![format!("{} = {row_id}", self.row_id("_t"))];
                for (at, (column, kind)) in columns.iter().enumerate() {
                    // An index helps to find the row where the value is in the id as it is.
                    if 1 < columns.len() && matches!(kind, ColumnType::Int64 | ColumnType::String) {
                        let sql = quoted(column);
                        terms.push(format!("_t.{sql} = json_extract({row_id}, '$[{at}]')"));
                    }
                }
                terms.join(" AND ")
            }
        }
    }
}
