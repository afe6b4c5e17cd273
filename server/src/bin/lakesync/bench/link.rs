//! A client's connection to a server, real or yardstick, and the calls it makes.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use lakesync::limits::MESSAGE_BYTES_MAX;
use lakesync::proto::admin::v1::admin_service_client::AdminServiceClient;
use lakesync::proto::admin::v1::{
    CreateGatewayRequest, FlushRequest, FlushResponse, GetStatsRequest, GetStatsResponse,
    PutSchemaRequest, PutSyncRulesRequest, SyncRules,
};
use lakesync::proto::v1::{PushResponse, TableSchema};
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::codec::{Codec, Frame, Kept};
use crate::exit::Exit;

/// The methods that are measured.
pub(super) const PUSH: &str = "/lakesync.v1.SyncService/Push";
pub(super) const PULL: &str = "/lakesync.v1.SyncService/Pull";
pub(super) const CHECKPOINT: &str = "/lakesync.v1.SyncService/Checkpoint";

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// As a client's: room for a whole page, so that reading is not a dance of window updates.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Where a server is, and what it wants to see. Those without a token are asked with any.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) authorization: MetadataValue<Ascii>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Link {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
}

impl Target {
    /// A server that takes `token`.
    pub(super) fn new(address: SocketAddr, token: &str) -> Result<Self, Exit> {
        let authorization = format!("Bearer {token}").parse().map_err(Exit::usage)?;
        Ok(Self { address, authorization })
    }

    /// A connection of its own.
    pub(super) async fn connect(&self) -> Result<Link, Exit> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))
            .map_err(Exit::unavailable)?
            .connect_timeout(CONNECT_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(Exit::unavailable)?;
        Ok(Link { channel, authorization: self.authorization.clone() })
    }

    /// Makes a gateway with one table.
    pub(super) async fn create(&self, gateway: &str, table: TableSchema) -> Result<(), Exit> {
        let link = self.connect().await?;
        let mut admin = AdminServiceClient::new(link.channel.clone());
        let gateway = gateway.to_owned();
        let create = link.request(CreateGatewayRequest { gateway: gateway.clone() });
        admin.create_gateway(create).await.map_err(failed)?;
        let schema = PutSchemaRequest { gateway, tables: vec![table], dry_run: false };
        admin.put_schema(link.request(schema)).await.map_err(failed)?;
        Ok(())
    }
}

impl Target {
    /// Puts sync rules into force.
    pub(super) async fn put_rules(&self, gateway: &str, rules: SyncRules) -> Result<(), Exit> {
        let link = self.connect().await?;
        let (gateway, rules) = (gateway.to_owned(), Some(rules));
        let request = PutSyncRulesRequest { gateway, rules, ..PutSyncRulesRequest::default() };
        let mut admin = AdminServiceClient::new(link.channel.clone());
        admin.put_sync_rules(link.request(request)).await.map_err(failed)?;
        Ok(())
    }
}

impl Link {
    /// The same connection, for another token.
    pub(super) fn with(&self, other: &Target) -> Self {
        Self { channel: self.channel.clone(), authorization: other.authorization.clone() }
    }

    /// Pushes, and waits for the answer.
    pub(super) async fn push(&self, frame: Frame) -> Result<PushResponse, Exit> {
        self.try_push(frame).await.map_err(failed)
    }

    /// The same, where a refusal is expected.
    pub(super) async fn try_push(&self, frame: Frame) -> Result<PushResponse, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let (path, codec) = (PathAndQuery::from_static(PUSH), Codec::<PushResponse>::default());
        Ok(grpc.unary(self.request(frame), path, codec).await?.into_inner().message)
    }

    /// Waits until the backends have all that is durable.
    pub(super) async fn flush(&self, gateway: &str) -> Result<FlushResponse, Exit> {
        let request = self.request(FlushRequest { gateway: gateway.to_owned() });
        let mut admin = AdminServiceClient::new(self.channel.clone());
        Ok(admin.flush(request).await.map_err(failed)?.into_inner())
    }

    /// How a gateway fares.
    pub(super) async fn stats(&self, gateway: &str) -> Result<GetStatsResponse, Exit> {
        let request = self.request(GetStatsRequest { gateway: gateway.to_owned() });
        let mut admin = AdminServiceClient::new(self.channel.clone());
        Ok(admin.get_stats(request).await.map_err(failed)?.into_inner())
    }

    /// Opens a stream of answers.
    pub(super) async fn read<T>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<Streaming<Kept<T>>, Exit>
    where
        T: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        grpc.ready().await.map_err(Exit::unavailable)?;
        let frame = Frame(request.encode_to_vec().into(), Default::default());
        let (path, codec) = (PathAndQuery::from_static(method), Codec::<T>::default());
        let answers = grpc.server_streaming(self.request(frame), path, codec).await;
        Ok(answers.map_err(failed)?.into_inner())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}

/// A call that failed ends the run: a figure of failing calls is none.
pub(super) fn failed(status: Status) -> Exit {
    Exit::unavailable(format!("a call failed: {} ({:?})", status.message(), status.code()))
}
