//! Changes of the tables: judged in their turn among the pushes, and shown once they are durable.

use std::sync::Arc;

use lakesync::schema::{Proposal, Schema};
use tokio::sync::oneshot;

use super::publisher::{InFlight, SchemaAnswer};
use super::recover::encode_schema;
use super::ruling::Ruling;
use super::writer::Writer;
use super::{SchemaChangeError, keys};
use crate::store::{Group, StoreError};

impl Writer {
    /// Installs or evolves tables; with `dry_run`, only says what would come of it.
    pub(super) async fn put_schema(
        &mut self,
        proposals: &[Proposal],
        dry_run: bool,
        reply: oneshot::Sender<SchemaAnswer>,
    ) -> Result<(), StoreError> {
        let (evolved, ruling) = match self.evolve(proposals) {
            Ok((evolved, ruling)) => (Arc::new(evolved), ruling),
            Err(error) => {
                // A caller that hung up learns nothing, and nothing happened.
                let _ = reply.send(Err(error));
                return Ok(());
            }
        };
        if dry_run {
            let _ = reply.send(Ok(evolved));
            return Ok(());
        }
        if evolved == self.schema {
            // Answered in its turn: the same schema may still be on its way to the disk.
            let schema = Some((Arc::clone(&self.schema), reply));
            return self.publish(InFlight { schema, ..InFlight::default() }).await;
        }
        let meta = vec![(keys::SCHEMA.into(), Some(encode_schema(&evolved)))];
        match self.store.commit(self.id, Group { meta, ..Group::default() }).await {
            Ok(receipt) => {
                self.schema = Arc::clone(&evolved);
                self.ruling = ruling;
                let in_force = self.ruling.in_force.clone();
                let in_force = in_force.index.is_some().then_some(in_force);
                let (receipt, schema) = (Some(receipt), Some((evolved, reply)));
                self.publish(InFlight { receipt, schema, in_force, ..InFlight::default() }).await
            }
            Err(error @ StoreError::Full(_)) => {
                let _ = reply.send(Err(error.into()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The tables after `proposals`, and what the rules mean then.
    fn evolve(&self, proposals: &[Proposal]) -> Result<(Schema, Ruling), SchemaChangeError> {
        let evolved = self.schema.evolve(proposals)?;
        for table in evolved.tables().filter(|table| self.schema.table(&table.table) != Some(table))
        {
            let before = self.schema.table(&table.table).map(Arc::as_ref);
            let fits = self.settings.capacity.check_table(table, before);
            let table = &table.table;
            fits.map_err(|shortage| SchemaChangeError::Backend { table: table.clone(), shortage })?;
        }
        self.ruling.allows(&self.schema, &evolved)?;
        let ruling = self.ruling.under(&evolved)?;
        Ok((evolved, ruling))
    }
}
