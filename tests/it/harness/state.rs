//! Everything that can be seen of a gateway: what is refused must not change any of it.

use lakesync::proto::admin::v1::{Gateway, ListGatewaysRequest};
use lakesync::proto::v1::{GetSchemaRequest, Page, TableChanges, TableSchema};

use super::{Client, within};

/// What can be seen of a gateway, and of its server.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    gateways: Vec<Gateway>,
    tables: Vec<TableSchema>,
    head: u64,
    tail: u64,
    row_count: u64,
    log_bytes: u64,
    rows: Vec<TableChanges>,
    log: Vec<Page>,
}

impl State {
    /// Looks at all of it.
    pub(crate) async fn of(client: &Client) -> Self {
        let stats = client.stats().await.expect("figures");
        let checkpoint = client.checkpoint().await.expect("rows");
        let pulled = client.pull("").await.expect("a log");
        let schema = GetSchemaRequest { gateway: client.gateway.clone() };
        let schema = within(client.sync.clone().get_schema(schema)).await.expect("tables");
        let list = ListGatewaysRequest::default();
        let listed = within(client.admin.clone().list_gateways(list)).await.expect("gateways");
        Self {
            gateways: listed.into_inner().gateways,
            tables: schema.into_inner().tables,
            head: stats.head,
            tail: stats.tail,
            row_count: stats.rows,
            log_bytes: stats.log_bytes,
            rows: checkpoint.tables(),
            log: pulled.pages,
        }
    }
}
