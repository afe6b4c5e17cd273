//! Postgres: the shared suite, what people see and add, and what breaks.

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::adapter::conformance::Backend;
use lakesync_adapters::memory::Memory;
use lakesync_adapters::postgres::{Options, Postgres, Server};
use lakesync_adapters::testing::{PASSWORD, Postgres as Testing, USER};

mod faults;
mod guests;
mod people;
mod shown;
mod speed;
mod unshown;

mod with_history {
    lakesync::adapter_conformance!(super::empty_with_history);
}

mod without_history {
    lakesync::adapter_conformance!(super::empty_without_history);
}

/// A Postgres schema that is not there yet. Where there is no Postgres, memory stands in for it, and
/// the skip was told.
struct InPostgres {
    server: Option<&'static Testing>,
    schema: String,
    keeps_history: bool,
    stand_in: Memory,
}

async fn empty_with_history() -> InPostgres {
    empty(true).await
}

async fn empty_without_history() -> InPostgres {
    empty(false).await
}

async fn empty(keeps_history: bool) -> InPostgres {
    let server = Testing::shared().await;
    let schema = server.map(Testing::fresh).unwrap_or_default();
    InPostgres { server, schema, keeps_history, stand_in: Memory::default() }
}

#[async_trait]
impl Backend for InPostgres {
    async fn open(&self) -> Box<dyn Adapter> {
        match self.server {
            Some(server) => Box::new(adapter(server, &self.schema, self.keeps_history)),
            None => Box::new(self.stand_in.clone()),
        }
    }

    fn keeps_history(&self) -> bool {
        self.keeps_history || self.server.is_none()
    }
}

fn adapter(server: &Testing, schema: &str, keeps_history: bool) -> Postgres {
    let server = Server::new(options(server.address().port())).expect("legal options");
    server.adapter(schema, keeps_history).expect("a legal schema")
}

fn options(port: u16) -> Options {
    Options::new(format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"))
}
