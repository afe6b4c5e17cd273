//! Whether a change's row id is the one that its key cells make, and the key cells that a new row
//! takes from its id. Deletes are not judged: they make no row, and may remove one that has an id
//! from elsewhere.

use lakesync::delta::{Cell, Delta, Op};
use lakesync::error::Reason;
use lakesync::name::ColumnName;
use lakesync::row_id;
use lakesync::schema::{ColumnType, TableSchema};
use lakesync::value::Value;
use lakesync::wire::Refusal;

/// What a cell takes in a message beside its value, and a name in front of it.
const CELL_BYTES: usize = 16;
/// Columns that a refusal lists for people.
const SHOWN_MAX: usize = 8;

/// The columns that make up the row ids of a table. Empty where a row id is a value of its own.
#[derive(Debug)]
pub(super) struct Keyed {
    columns: Vec<ColumnName>,
    kinds: Vec<ColumnType>,
}

impl Keyed {
    pub(super) fn of(table: &TableSchema) -> Self {
        let columns = table.key_columns().map(|column| (column.name.clone(), column.kind));
        let (columns, kinds) = columns.unzip();
        Self { columns, kinds }
    }

    /// Refuses an upsert whose row id is not the one that its key makes. A row that is there needs no
    /// key cells. One that is not takes those that are missing from its id; says how many bytes that
    /// adds to the commit at most.
    pub(super) fn judge(&self, is_live: bool, delta: &mut Delta) -> Result<usize, Refusal> {
        let Op::Upsert(cells) = &mut delta.op else { return Ok(0) };
        let given: Vec<Option<&Value>> = self
            .columns
            .iter()
            .map(|column| cells.iter().find(|cell| cell.column == *column).map(|cell| &cell.value))
            .collect();
        if self.columns.is_empty() || (is_live && given.iter().all(Option::is_none)) {
            return Ok(0);
        }
        let told = row_id::values(&self.kinds, &delta.row_id);
        let of_id = |at: usize| told.as_ref().map(|values| &values[at]);
        let key = given.iter().enumerate().map(|(at, value)| value.or_else(|| of_id(at)));
        let Some(key) = key.collect::<Option<Vec<_>>>() else {
            return Err(self.refusal(&given, "row_id is the id of no row with the key"));
        };
        let key: Vec<_> = self.kinds.iter().copied().zip(key).collect();
        match row_id::of(&key) {
            Err(why) => return Err(self.refusal(&given, &format!("the row has no id: {why}; key"))),
            Ok(right) if right != delta.row_id => {
                let what = format!("row_id must be {right}, which the cells make of the key");
                return Err(self.refusal(&given, &what));
            }
            Ok(_) => {}
        }
        if is_live {
            return Ok(0);
        }
        let missing: Vec<usize> = (0..given.len()).filter(|at| given[*at].is_none()).collect();
        let mut taken_bytes = 0;
        for (at, value) in told.into_iter().flatten().enumerate() {
            if missing.contains(&at) {
                let column = self.columns[at].clone();
                taken_bytes += CELL_BYTES + column.as_str().len() + value.size();
                cells.push(Cell { column, value });
            }
        }
        Ok(taken_bytes)
    }

    /// Names the columns of the change that are concerned: an answer has room for those alone.
    fn refusal(&self, given: &[Option<&Value>], what: &str) -> Refusal {
        let shown = self.columns.iter().zip(&self.kinds).take(SHOWN_MAX);
        let shown: Vec<_> = shown.map(|(column, kind)| format!("{column} {kind}")).collect();
        let message = format!("{what} ({})", shown.join(", "));
        let concerned = self.columns.iter().zip(given).filter(|(_, value)| value.is_some());
        let columns = concerned.map(|(column, _)| column.to_string()).collect();
        Refusal { columns, ..Refusal::new(Reason::InvalidRequest, message) }
    }
}
