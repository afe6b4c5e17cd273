//! A raw client: the generated stubs over one connection, with a token in every call.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lakesync::delta::Delta;
use lakesync::proto::admin::v1 as admin;
use lakesync::proto::admin::v1::admin_service_client::AdminServiceClient;
use lakesync::proto::v1::pull_response::Event;
use lakesync::proto::v1::sync_service_client::SyncServiceClient;
use lakesync::proto::v1::{
    CaughtUp, CheckpointChunk, CheckpointEnd, CheckpointRequest, CheckpointResponse, Page,
    PullRequest, PullResponse, PushRequest, PushResponse, TableChanges, TableSchema,
    checkpoint_response,
};
use lakesync::wire;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::{MAIN, within};

/// A replica's connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) sync: SyncServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) admin: AdminServiceClient<InterceptedService<Channel, Bearer>>,
    pub(crate) channel: Channel,
    pub(crate) id: String,
    pub(crate) gateway: String,
}

/// Shows a token with every call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// What one pull brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulled {
    pub(crate) pages: Vec<Page>,
    pub(crate) caught_up: Option<CaughtUp>,
}

/// What one checkpoint brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpointed {
    pub(crate) chunks: Vec<CheckpointChunk>,
    pub(crate) end: Option<CheckpointEnd>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, id: &str, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        Self::connect_to(endpoint, id, token).await
    }

    /// A connection whose streams take no more than 64 KiB each before somebody reads them.
    pub(crate) async fn connect_narrow(address: SocketAddr, id: &str, token: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let narrow =
            endpoint.initial_stream_window_size(64 << 10).initial_connection_window_size(16 << 20);
        Self::connect_to(narrow, id, token).await
    }

    async fn connect_to(endpoint: Endpoint, id: &str, token: &str) -> Self {
        let channel = within(endpoint.connect()).await.expect("a server that listens");
        let bearer = Bearer(format!("Bearer {token}").parse().expect("ASCII"));
        Self {
            sync: SyncServiceClient::with_interceptor(channel.clone(), bearer.clone()),
            admin: AdminServiceClient::with_interceptor(channel.clone(), bearer),
            channel,
            id: id.to_owned(),
            gateway: MAIN.to_owned(),
        }
    }

    /// The same connection, for another gateway.
    pub(crate) fn at(mut self, gateway: &str) -> Self {
        gateway.clone_into(&mut self.gateway);
        self
    }

    pub(crate) async fn create_gateway(&mut self, name: &str) -> Result<(), Status> {
        let request = admin::CreateGatewayRequest { gateway: name.to_owned() };
        within(self.admin.create_gateway(request)).await.map(drop)
    }

    pub(crate) async fn put_schema(&mut self, tables: Vec<TableSchema>) -> Result<(), Status> {
        let gateway = self.gateway.clone();
        let request = admin::PutSchemaRequest { gateway, tables, dry_run: false };
        within(self.admin.put_schema(request)).await.map(drop)
    }

    pub(crate) async fn stats(&self) -> Result<admin::GetStatsResponse, Status> {
        let request = admin::GetStatsRequest { gateway: self.gateway.clone() };
        let answer = within(self.admin.clone().get_stats(request)).await?;
        Ok(answer.into_inner())
    }

    pub(crate) async fn flush(&self) -> Result<admin::FlushResponse, Status> {
        let request = admin::FlushRequest { gateway: self.gateway.clone() };
        let answer = within(self.admin.clone().flush(request)).await?;
        Ok(answer.into_inner())
    }

    /// How the only backend compares, by table.
    pub(crate) async fn verify(
        &self,
        repair: bool,
        remove_extra: bool,
    ) -> Result<BTreeMap<String, admin::VerifyBackendResponse>, Status> {
        let (gateway, backend) = (self.gateway.clone(), String::new());
        let request = admin::VerifyBackendRequest { gateway, backend, repair, remove_extra };
        let mut stream = within(self.admin.clone().verify_backend(request)).await?.into_inner();
        let mut tables = BTreeMap::new();
        while let Some(table) = within(stream.message()).await? {
            tables.insert(table.table.clone(), table);
        }
        Ok(tables)
    }

    /// Pushes changes of this client as one commit.
    pub(crate) async fn push(
        &self,
        deltas: impl IntoIterator<Item = Delta>,
    ) -> Result<PushResponse, Status> {
        self.send(self.push_request(deltas)).await
    }

    /// Pushes changes of this client, all or nothing.
    pub(crate) async fn push_atomic(
        &self,
        deltas: impl IntoIterator<Item = Delta>,
    ) -> Result<PushResponse, Status> {
        self.send(PushRequest { atomic: true, ..self.push_request(deltas) }).await
    }

    pub(crate) fn push_request(&self, deltas: impl IntoIterator<Item = Delta>) -> PushRequest {
        self.request(wire::encode_push(deltas))
    }

    pub(crate) fn request(&self, tables: Vec<TableChanges>) -> PushRequest {
        let (gateway, client_id) = (self.gateway.clone(), self.id.clone());
        PushRequest { gateway, client_id, tables, atomic: false }
    }

    pub(crate) async fn send(&self, request: PushRequest) -> Result<PushResponse, Status> {
        let answer = within(self.sync.clone().push(request)).await?;
        Ok(answer.into_inner())
    }

    /// Everything after `cursor`, up to the head.
    pub(crate) async fn pull(&self, cursor: &str) -> Result<Pulled, Status> {
        let cursor = cursor.to_owned();
        self.pull_with(PullRequest { cursor, ..PullRequest::default() }).await
    }

    /// What a pull brings until it ends. The gateway is filled in.
    pub(crate) async fn pull_with(&self, request: PullRequest) -> Result<Pulled, Status> {
        let mut stream = self.open_pull(request).await?;
        let mut pulled = Pulled::default();
        while let Some(answer) = within(stream.message()).await? {
            match answer.event.expect("an event") {
                Event::Page(page) => pulled.pages.push(page),
                Event::CaughtUp(caught_up) => pulled.caught_up = Some(caught_up),
                Event::Heartbeat(_) => {}
            }
        }
        Ok(pulled)
    }

    /// A pull that stays.
    pub(crate) async fn follow(&self, cursor: &str) -> Result<Streaming<PullResponse>, Status> {
        let (cursor, follow) = (cursor.to_owned(), true);
        self.open_pull(PullRequest { cursor, follow, ..PullRequest::default() }).await
    }

    pub(crate) async fn open_pull(
        &self,
        mut request: PullRequest,
    ) -> Result<Streaming<PullResponse>, Status> {
        request.gateway.clone_from(&self.gateway);
        let answer = within(self.sync.clone().pull(request)).await?;
        Ok(answer.into_inner())
    }

    /// All rows there are.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpointed, Status> {
        self.checkpoint_from("").await
    }

    /// The rows that follow in a checkpoint that was broken off.
    pub(crate) async fn checkpoint_from(&self, resume: &str) -> Result<Checkpointed, Status> {
        let mut stream = self.open_checkpoint(resume).await?;
        let mut checkpointed = Checkpointed::default();
        while let Some(answer) = within(stream.message()).await? {
            checkpointed.take(answer);
        }
        Ok(checkpointed)
    }

    pub(crate) async fn open_checkpoint(
        &self,
        resume: &str,
    ) -> Result<Streaming<CheckpointResponse>, Status> {
        let (gateway, resume) = (self.gateway.clone(), resume.to_owned());
        let request = CheckpointRequest { gateway, resume, ..CheckpointRequest::default() };
        let answer = within(self.sync.clone().checkpoint(request)).await?;
        Ok(answer.into_inner())
    }
}

impl Pulled {
    /// Where the next pull begins, given where this one began.
    pub(crate) fn cursor<'a>(&'a self, began: &'a str) -> &'a str {
        let last = self.pages.last().map(|page| page.cursor.as_str());
        let head = self.caught_up.as_ref().map(|caught_up| caught_up.cursor.as_str());
        head.or(last).unwrap_or(began)
    }

    /// Every change, in order.
    pub(crate) fn tables(&self) -> Vec<TableChanges> {
        self.pages.iter().flat_map(|page| page.tables.clone()).collect()
    }
}

impl Checkpointed {
    pub(crate) fn take(&mut self, answer: CheckpointResponse) {
        match answer.event.expect("an event") {
            checkpoint_response::Event::Chunk(chunk) => self.chunks.push(chunk),
            checkpoint_response::Event::End(end) => self.end = Some(end),
        }
    }

    /// Every row.
    pub(crate) fn tables(&self) -> Vec<TableChanges> {
        self.chunks.iter().filter_map(|chunk| chunk.rows.clone()).collect()
    }
}
