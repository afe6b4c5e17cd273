//! The fake's `SyncService`.

use futures_util::stream::BoxStream;
use lakesync::error::Reason;
use lakesync::proto::v1::sync_service_server::SyncService;
use lakesync::proto::v1::{
    CheckpointRequest, CheckpointResponse, GetSchemaRequest, GetSchemaResponse,
    GetServerInfoRequest, GetServerInfoResponse, Limits, PullRequest, PullResponse, PushRequest,
    PushResponse,
};
use lakesync::wire::{decode_push, encode_schema};
use tonic::{Request, Response, Status};

use super::{Call, Fake, Fault, TOKEN, refuse};

#[tonic::async_trait]
impl SyncService for Fake {
    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        self.enter(Call::Info)?;
        let mut world = self.world();
        let limits = Limits {
            max_push_rows: world.push_rows_max as u32,
            heartbeat: Some(world.heartbeat.try_into().expect("short")),
            ..Limits::default()
        };
        Ok(Response::new(GetServerInfoResponse {
            server_version: "fake".into(),
            min_protocol: world.protocol.0,
            max_protocol: world.protocol.1,
            limits: Some(limits),
            server_hlc: world.now().0,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<GetSchemaRequest>,
    ) -> Result<Response<GetSchemaResponse>, Status> {
        authenticate(&request)?;
        self.enter(Call::Schema)?;
        let world = self.world();
        let tables = world.schema()?.tables().map(|table| encode_schema(table)).collect();
        Ok(Response::new(GetSchemaResponse { tables }))
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        authenticate(&request)?;
        let fault = self.enter(Call::Push)?;
        let PushRequest { client_id, tables, .. } = request.into_inner();
        let client = client_id.parse().map_err(|error| refuse(Reason::InvalidRequest, error))?;
        let offers = decode_push(tables, &client);
        let mut world = self.world();
        world.schema()?;
        if world.push_rows_max < offers.len() {
            return Err(refuse(Reason::TooLarge, format!("{} rows", offers.len())));
        }
        let (position, outcomes) = world.admit(&client, offers);
        let server_hlc = world.now().0;
        drop(world);
        self.publish();
        match fault {
            Some(Fault::LoseReply) => Err(Status::unavailable("the connection was lost")),
            _ => Ok(Response::new(PushResponse { position, outcomes, server_hlc })),
        }
    }

    type PullStream = BoxStream<'static, Result<PullResponse, Status>>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        authenticate(&request)?;
        let request = request.into_inner();
        let fault = self.enter(if request.follow { Call::Follow } else { Call::Pull })?;
        Ok(Response::new(self.pull_events(request, fault)?))
    }

    type CheckpointStream = BoxStream<'static, Result<CheckpointResponse, Status>>;

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<Self::CheckpointStream>, Status> {
        authenticate(&request)?;
        let fault = self.enter(Call::Checkpoint)?;
        Ok(Response::new(self.checkpoint_events(request.into_inner(), fault)?))
    }
}

pub(super) fn authenticate<T>(request: &Request<T>) -> Result<(), Status> {
    let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if given == Some(format!("Bearer {TOKEN}").as_str()) {
        return Ok(());
    }
    Err(refuse(Reason::TokenInvalid, "no such token"))
}
