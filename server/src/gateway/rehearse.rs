//! For operators: why a token may see a row, and what new sync rules would change for it.

use std::sync::Arc;

use lakesync::limits::ROW_BYTES_MAX;
use lakesync::name::{RowId, TableName};
use lakesync::row::Row;
use lakesync::rules::{self, Claims, Draft, Explanation, RulesError, Scope};

use super::{Gateway, ReadError, RulesChangeError, keys, stored};
use crate::store::StoreError;

/// How many bytes of rows are judged at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What rules would change for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Rows it sees now and would see no longer.
    pub lost: u64,
    /// Rows it would see and does not now.
    pub gained: u64,
    /// Rows it would see in all.
    pub seen: u64,
}

impl Gateway {
    /// What `claims` open under the rules in force and, where a row is named, why it is or is not
    /// in there.
    pub async fn explain(
        &self,
        claims: &Claims,
        row: Option<(TableName, RowId)>,
    ) -> Result<Explanation, ReadError> {
        let index = self.0.in_force.borrow().index.clone();
        let found = match &row {
            None => None,
            Some((table, row_id)) => {
                let key = keys::row(table, row_id);
                let keys = std::slice::from_ref(&key);
                let found = self.0.store.rows(self.0.record.id, keys, ROW_BYTES_MAX).await?;
                let bytes = found.into_iter().next().flatten();
                let row = bytes.map(|bytes| stored::decode(&key, &bytes)).transpose()?;
                Some((table, row_id, row.map(|(_, row)| row).unwrap_or_default()))
            }
        };
        if let Some(index) = index {
            let row = found.as_ref().map(|(table, row_id, row)| (*table, *row_id, row));
            return Ok(rules::explain(&index.rules, claims, row)?);
        }
        let live = found.is_some_and(|(_, _, row)| row.is_live());
        let trace = vec!["there are no sync rules: a token sees and writes every row".to_owned()];
        Ok(Explanation { buckets: Vec::new(), readable: live, writable: live, trace })
    }

    /// What `draft` would change for tokens with these claims, over all rows as they are.
    pub async fn rehearse(
        &self,
        draft: &Draft,
        claims: &[Claims],
    ) -> Result<Vec<Effect>, RulesChangeError> {
        let new = draft.parse(&self.schema())?;
        let now = self.0.in_force.borrow().index.as_ref().map(Arc::clone);
        let too_many = |nth: usize| {
            move |error: rules::TooManyInstances| RulesError {
                place: format!("claims_json[{nth}]"),
                what: error.to_string(),
            }
        };
        let mut scopes = Vec::with_capacity(claims.len());
        for (nth, claims) in claims.iter().enumerate() {
            // A token that opens too much today sees nothing today.
            let before = now.as_ref().map(|now| Scope::of(&now.rules, claims).unwrap_or_default());
            scopes.push((before, Scope::of(&new, claims).map_err(too_many(nth))?));
        }
        let mut effects = vec![Effect::default(); claims.len()];
        let mut judge = |table: &TableName, row_id: &RowId, row: &Row| {
            let after = new.instances(table, row_id, row);
            let before = now.as_ref().map(|now| now.rules.instances(table, row_id, row));
            for (effect, (old, new)) in effects.iter_mut().zip(&scopes) {
                let saw = match (old, &before) {
                    (Some(old), Some(before)) => old.reads(before),
                    _ => row.is_live(),
                };
                let sees = new.reads(&after);
                effect.seen += u64::from(sees);
                effect.gained += u64::from(sees && !saw);
                effect.lost += u64::from(saw && !sees);
            }
        };
        let mut after = keys::ROWS.to_vec();
        while !claims.is_empty() {
            let some = self.0.store.scan(self.0.record.id, b"", Some(&after), PIECE_BYTES).await?;
            let Some((last, _)) = some.last() else { break };
            after = last.to_vec();
            for (key, bytes) in &some {
                let (_, row) = stored::decode(key, bytes)?;
                let illegal = || StoreError::Corrupt(format!("row {key:?}: illegal key"));
                let (table, row_id) = keys::parse_row(key).ok_or_else(illegal)?;
                judge(&table, &row_id, &row);
            }
        }
        Ok(effects)
    }
}
