//! The history that people query, and what becomes of it when it is switched off.

use super::servers::Database;
use crate::harness::Setup;
use crate::harness::changes::{at, delete, upsert};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_a_row_that_people_can_read() {
    for database in Database::all().await {
        let schemas = [database.fresh(), database.fresh()];
        let with = database.settings("with", &schemas[0], database.address());
        let without = database.settings("without", &schemas[1], database.address());
        let setup = Setup::new().flush_to_settings(&format!("{with}{without}history = false\n"));
        let server = setup.start_with_tables().await;
        let ann = server.client("ann").await;
        let milk = upsert("ann", at(1), "todos/1", &[("title", "milk")]);
        ann.push([milk.clone()]).await.expect("pushed");
        ann.push([delete("ann", at(2), "todos/1")]).await.expect("pushed");
        ann.flush().await.expect("flushed");
        let of = |schema: &str| {
            format!("{}.{}", database.quoted(schema), database.quoted("_lakesync_history"))
        };
        let position = database.quoted("position");
        let id = match database {
            Database::Postgres(_) => "encode(delta_id, 'hex')",
            Database::MariaDb(_) => "lower(hex(delta_id))",
        };
        let columns = format!("{position}, table_name, row_id, client, op, {id}");
        let read =
            |schema: &str| format!("SELECT {columns} FROM {} ORDER BY {position}", of(schema));
        let found = database.ask(&read(&schemas[0])).await;
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], format!("1|todos|1|ann|upsert|{}", milk.id()));
        assert!(found[1].starts_with("2|todos|1|ann|delete|"), "{found:?}");
        assert_eq!(database.ask(&read(&schemas[1])).await, [""; 0]);
        server.stop().await.expect("stopped");
    }
}
