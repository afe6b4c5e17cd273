//! Every adapter against the suite they share.

use async_trait::async_trait;
use lakesync::adapter::Adapter;
use lakesync::adapter::conformance::Backend;
use lakesync_adapters::memory::Memory;

mod fixtures;
mod mysql;
mod postgres;
mod servers;

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
