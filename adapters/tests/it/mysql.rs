//! MariaDB, for MySQL as well: the shared suite, what people see and add, and what breaks.

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::adapter::conformance::Backend;
use lakesync_adapters::memory::Memory;
use lakesync_adapters::mysql::{MySql, Options, Server};
use lakesync_adapters::testing::{MariaDb, PASSWORD, USER};

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

/// A database that is not there yet. Where there is no MariaDB, memory stands in for it, and the
/// skip was told.
struct InMariaDb {
    server: Option<&'static MariaDb>,
    database: String,
    keeps_history: bool,
    stand_in: Memory,
}

async fn empty_with_history() -> InMariaDb {
    empty(true).await
}

async fn empty_without_history() -> InMariaDb {
    empty(false).await
}

async fn empty(keeps_history: bool) -> InMariaDb {
    let server = MariaDb::shared().await;
    let database = server.map(MariaDb::fresh).unwrap_or_default();
    InMariaDb { server, database, keeps_history, stand_in: Memory::default() }
}

#[async_trait]
impl Backend for InMariaDb {
    async fn open(&self) -> Box<dyn Adapter> {
        match self.server {
            Some(server) => Box::new(adapter(server, &self.database, self.keeps_history)),
            None => Box::new(self.stand_in.clone()),
        }
    }

    fn keeps_history(&self) -> bool {
        self.keeps_history || self.server.is_none()
    }
}

fn adapter(server: &MariaDb, database: &str, keeps_history: bool) -> MySql {
    let server = Server::new(options(server.address().port())).expect("legal options");
    server.adapter(database, keeps_history).expect("a legal name")
}

fn options(port: u16) -> Options {
    Options::new(format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{port}"))
}
