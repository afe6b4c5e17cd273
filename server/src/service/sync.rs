//! `SyncService`: what replicas talk to.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use lakesync::hlc::Hlc;
use lakesync::limits::{PROTOCOL_MAX, PROTOCOL_MIN, PULL_TABLES_MAX, SKIP_POSITIONS_MAX};
use lakesync::name::{ClientId, Position, TableName};
use lakesync::proto::v1::sync_service_server::SyncService;
use lakesync::proto::v1::{
    CheckpointRequest, CheckpointResponse, GetSchemaRequest, GetSchemaResponse,
    GetServerInfoRequest, GetServerInfoResponse, PullRequest, PullResponse, PushRequest,
    PushResponse,
};
use lakesync::wire::{self, WireError};
use tonic::{Request, Response, Status};

use super::{REFUSALS, Services, principal, refuse};
use crate::gateway::{Answers, CheckpointOptions, PullOptions};

/// A stream of answers.
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SyncService for Services {
    type PullStream = Streamed<PullResponse>;
    type CheckpointStream = Streamed<CheckpointResponse>;

    async fn get_server_info(
        &self,
        request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        tracing::debug!(client = request.get_ref().client_version, "a client asks who we are");
        Ok(Response::new(GetServerInfoResponse {
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            min_protocol: PROTOCOL_MIN,
            max_protocol: PROTOCOL_MAX,
            limits: Some(self.limits),
            server_hlc: Hlc::from_ms(self.clock.now_ms()).0,
        }))
    }

    async fn get_schema(
        &self,
        request: Request<GetSchemaRequest>,
    ) -> Result<Response<GetSchemaResponse>, Status> {
        let caller = principal(request.extensions())?;
        let gateway = self.gateway(&caller, &request.get_ref().gateway).await?;
        let schema = gateway.schema();
        let tables = schema.tables().map(|table| wire::encode_schema(table)).collect();
        Ok(Response::new(GetSchemaResponse { tables }))
    }

    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let gateway = self.gateway(&caller, &request.gateway).await?;
        let client = ClientId::parse(&request.client_id);
        let client = client.map_err(|error| refuse(WireError::new("client_id", error)))?;
        let bytes = wire::measure_push(&request).map_err(refuse)?;
        let offers = wire::decode_push(request.tables, &client);
        let ack = gateway.push(&Self::caller(&caller), client, offers, request.atomic, bytes).await;
        let ack = ack.map_err(refuse)?;
        REFUSALS.changes(&ack.outcomes);
        let (position, outcomes, server_hlc) = (ack.position.0, ack.outcomes, ack.hlc.0);
        let mut answer = PushResponse { position, outcomes, server_hlc };
        wire::fit_answer(&mut answer);
        Ok(Response::new(answer))
    }

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let gateway = self.gateway(&caller, &request.gateway).await?;
        let options = pull_options(request).map_err(refuse)?;
        let answers = gateway.pull(&Self::caller(&caller), options, self.stopped(&caller)).await;
        let answers = answers.map_err(refuse)?;
        Ok(streamed(answers))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<Self::CheckpointStream>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let gateway = self.gateway(&caller, &request.gateway).await?;
        let tables = table_names(&request.tables).map_err(refuse)?;
        let options = CheckpointOptions {
            tables,
            resume: request.resume,
            since: request.since,
            bytes_max: request.max_bytes as usize,
            whole_rows: request.whole_rows,
        };
        let (who, stopped) = (Self::caller(&caller), self.stopped(&caller));
        let answers = gateway.checkpoint(&who, options, stopped).await.map_err(refuse)?;
        Ok(streamed(answers))
    }
}

/// The answers, and what is to be told when bytes of them leave.
fn streamed<T: Send + 'static>(answers: Answers<T>) -> Response<Streamed<T>> {
    let sending = answers.sending();
    let answers = answers.map(|answer| answer.map_err(refuse));
    let mut response = Response::new(Box::pin(answers) as Streamed<T>);
    response.extensions_mut().insert(sending);
    response
}

fn pull_options(request: PullRequest) -> Result<PullOptions, WireError> {
    let client = match request.client_id.as_str() {
        "" => None,
        id => Some(ClientId::parse(id).map_err(|error| WireError::new("client_id", error))?),
    };
    let skipped = request.skip_positions.len();
    if SKIP_POSITIONS_MAX < skipped {
        let what = format!("{skipped} positions; the limit is {SKIP_POSITIONS_MAX}");
        return Err(WireError::new("skip_positions", what));
    }
    Ok(PullOptions {
        client,
        cursor: request.cursor,
        tables: table_names(&request.tables)?,
        follow: request.follow,
        rows_max: request.max_rows,
        skip: request.skip_positions.into_iter().map(Position).collect(),
        bytes_max: request.max_bytes as usize,
        whole_rows: request.whole_rows,
    })
}

fn table_names(texts: &[String]) -> Result<Vec<TableName>, WireError> {
    if PULL_TABLES_MAX < texts.len() {
        let what = format!("{} tables; the limit is {PULL_TABLES_MAX}", texts.len());
        return Err(WireError::new("tables", what));
    }
    let name = |(at, text): (usize, &String)| {
        TableName::parse(text).map_err(|error| WireError::new(format!("tables[{at}]"), error))
    };
    texts.iter().enumerate().map(name).collect()
}
