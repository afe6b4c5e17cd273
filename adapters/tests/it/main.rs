//! Every adapter against the suite they share, and each one's own behaviour.

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::adapter::conformance::Backend;
use lakesync_adapters::memory::Memory;

mod fan_out;
mod fan_out_moves;
mod fan_out_returns;
mod fixtures;
mod flaky;
mod migrate;
mod moving;
mod mysql;
mod postgres;
mod route;
mod servers;
mod suite;
mod texts;
mod tier;

mod memory {
    lakesync::adapter_conformance!(super::empty_memory);
}

struct InMemory(Memory);

#[async_trait]
impl Backend for InMemory {
    async fn open(&self) -> Box<dyn Adapter> {
        Box::new(self.0.clone())
    }
}

async fn empty_memory() -> InMemory {
    InMemory(Memory::default())
}
