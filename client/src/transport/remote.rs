//! The generated clients over any line: silence noticed, tokens renewed, and answers checked.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use lakesync::error::{ErrorKind, Reason};
use lakesync::name::Gateway;
use lakesync::proto::admin::v1::admin_service_client::AdminServiceClient;
use lakesync::proto::admin::v1::{self as admin};
use lakesync::proto::v1::sync_service_client::SyncServiceClient;
use lakesync::proto::v1::{self as proto};
use lakesync::schema::{Column, Proposal, TableSchema};
use lakesync::status::{Problem, from_status};
use lakesync::wire::{decode_schema, encode_push, encode_schema};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

use super::assembly::Assembly;
use super::bearer::{Bearer, Bearers};
use super::line::Line;
use super::motion::{Meter, Silent, unless_silent};
use super::{
    Checkpoint, CheckpointStream, Pull, PullStream, Push, Pushed, ServerInfo, Token, Transport,
    decode,
};

/// Smaller messages hardly gain by being compressed.
const PACKED_BYTES_MIN: usize = 1 << 10;
/// One commit may exceed a page, and each of its rows may be large.
const RECEIVE_BYTES_MAX: usize = 16 << 20;

/// Gateways reached through generated clients.
#[derive(Clone)]
pub struct Remote {
    sync: SyncServiceClient<Line>,
    /// The same, with messages compressed both ways, where there is a line that gains by it.
    packed: SyncServiceClient<Line>,
    admin: AdminServiceClient<Line>,
    bearers: Arc<Bearers>,
    /// What people call the server.
    peer: Arc<str>,
    /// What the line has moved.
    meter: Arc<Meter>,
    /// How long a server may be silent that owes an answer.
    silence_max: Duration,
}

impl Remote {
    pub(super) fn new(
        peer: &str,
        line: Line,
        meter: Arc<Meter>,
        silence_max: Duration,
        token: Option<Token>,
    ) -> Self {
        let sync =
            SyncServiceClient::new(line.clone()).max_decoding_message_size(RECEIVE_BYTES_MAX);
        Self {
            peer: peer.into(),
            packed: sync.clone(),
            sync,
            admin: AdminServiceClient::new(line).max_decoding_message_size(RECEIVE_BYTES_MAX),
            bearers: Arc::new(Bearers::new(token)),
            meter,
            silence_max,
        }
    }

    /// Compresses large messages, and has streams compressed.
    pub(super) fn packing(mut self) -> Self {
        let packed = self.packed.send_compressed(CompressionEncoding::Zstd);
        self.packed = packed.accept_compressed(CompressionEncoding::Zstd);
        self
    }

    /// Makes a call, and makes it again if a fresh token may help. Answers the token it was made
    /// with, too.
    async fn call<Q, R, Fut>(
        &self,
        message: impl Fn() -> Q,
        call: impl Fn(Request<Q>) -> Fut,
    ) -> Result<(R, Option<Bearer>), Problem>
    where
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let bearer = self.bearers.get().await?;
        match self.attempt(message(), bearer.as_ref(), &call).await {
            Err(problem) if problem.kind == ErrorKind::Unauthenticated => {
                self.bearers.refuse(bearer.as_ref());
                let fresh = self.bearers.get().await?;
                if fresh == bearer {
                    return Err(problem);
                }
                let answer = self.attempt(message(), fresh.as_ref(), &call).await?;
                Ok((answer, fresh))
            }
            outcome => Ok((outcome?, bearer)),
        }
    }

    async fn attempt<Q, R, Fut>(
        &self,
        message: Q,
        bearer: Option<&Bearer>,
        call: impl Fn(Request<Q>) -> Fut,
    ) -> Result<R, Problem>
    where
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let mut request = Request::new(message);
        if let Some(bearer) = bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        let bytes_moved = || self.meter.bytes();
        match unless_silent(self.silence_max, bytes_moved, call(request)).await {
            Ok(answer) => {
                answer.map(Response::into_inner).map_err(|status| problem(&self.peer, &status))
            }
            Err(Silent) => Err(Problem {
                kind: ErrorKind::Unavailable,
                reason: None,
                message: format!(
                    "{} has not answered, and nothing has moved for {} s",
                    self.peer,
                    self.silence_max.as_secs_f32()
                ),
                retry_after: None,
                facts: BTreeMap::new(),
            }),
        }
    }

    /// Reads a stream until its end or first error. `decode` answers `None` for a message that
    /// makes an event only together with the next ones. A token that ran out is not used again.
    fn events<M: Send + 'static, E: Send + 'static>(
        &self,
        messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
        bearer: Option<Bearer>,
        mut decode: impl FnMut(M) -> Result<Option<E>, Problem> + Send + 'static,
    ) -> BoxStream<'static, Result<E, Problem>> {
        let (bearers, peer) = (Arc::clone(&self.bearers), Arc::clone(&self.peer));
        let event = move |message: Result<M, Status>| match message {
            Ok(message) => decode(message).transpose(),
            Err(status) => {
                let problem = problem(&peer, &status);
                if problem.kind == ErrorKind::Unauthenticated {
                    bearers.refuse(bearer.as_ref());
                }
                Some(Err(problem))
            }
        };
        let mut failed = false;
        let events = messages.map(event).filter_map(std::future::ready).take_while(move |event| {
            let over = failed;
            failed = event.is_err();
            std::future::ready(!over)
        });
        events.boxed()
    }
}

/// A size as the protocol says it.
fn stated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A table without what is the server's to give.
fn declared(proposal: &Proposal) -> TableSchema {
    let Proposal { table, key, columns, primary_key } = proposal.clone();
    let column = |(name, kind)| Column { name, kind, field_id: 0 };
    let columns = columns.into_iter().map(column).collect();
    TableSchema { table, version: 0, key, columns, primary_key }
}

/// What a status says. A server's own word stands for itself; what failed on the way to it names the
/// server that was meant, and the cause at the bottom of what the layers in between say.
fn problem(peer: &str, status: &Status) -> Problem {
    let mut problem = from_status(status);
    if let Some(cause) = cause(status) {
        let said = problem.message;
        let told = said.contains(&cause) || cause.is_empty();
        let cause = if told { String::new() } else { format!(": {cause}") };
        problem.message = format!("{peer}: {said}{cause}");
    }
    problem
}

fn cause(status: &Status) -> Option<String> {
    let mut deepest: &dyn Error = status.source()?;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    Some(deepest.to_string())
}

#[async_trait]
impl Transport for Remote {
    async fn server_info(&self) -> Result<ServerInfo, Problem> {
        let client_version = concat!("lakesync-rust/", env!("CARGO_PKG_VERSION"));
        let message = || proto::GetServerInfoRequest { client_version: client_version.into() };
        let call = |request| {
            let mut sync = self.sync.clone();
            async move { sync.get_server_info(request).await }
        };
        let (info, _) = self.call(message, call).await?;
        Ok(decode::server_info(info))
    }

    async fn schema(&self, gateway: &Gateway) -> Result<Vec<TableSchema>, Problem> {
        let message = || proto::GetSchemaRequest { gateway: gateway.to_string() };
        let call = |request| {
            let mut sync = self.sync.clone();
            async move { sync.get_schema(request).await }
        };
        let (schema, _) = self.call(message, call).await?;
        decode_schema(&schema.tables).map_err(decode::not_understood)
    }

    async fn push(&self, push: Push<'_>) -> Result<Pushed, Problem> {
        let tables = encode_push(push.deltas.iter().cloned());
        let groups: Vec<_> = tables.iter().map(|table| table.rows.len()).collect();
        let message = proto::PushRequest {
            gateway: push.gateway.to_string(),
            client_id: push.client.to_string(),
            tables,
            atomic: false,
        };
        let bytes = message.encoded_len();
        let sync = if bytes < PACKED_BYTES_MIN { &self.sync } else { &self.packed };
        let call = |request| {
            let mut sync = sync.clone();
            async move { sync.push(request).await }
        };
        let (response, _) = self.call(|| message.clone(), call).await?;
        decode::pushed(response, &groups, bytes as u64)
    }

    async fn pull(&self, pull: Pull<'_>) -> Result<PullStream, Problem> {
        let message = || proto::PullRequest {
            gateway: pull.gateway.to_string(),
            client_id: pull.client.to_string(),
            cursor: pull.cursor.to_owned(),
            tables: Vec::new(),
            follow: pull.follow,
            max_rows: 0,
            skip_positions: pull.skip.iter().map(|position| position.0).collect(),
            max_bytes: stated(pull.bytes_max),
            whole_rows: false,
        };
        let sync = if pull.compress { &self.packed } else { &self.sync };
        let call = |request| {
            let mut sync = sync.clone();
            async move { sync.pull(request).await }
        };
        let (messages, bearer) = self.call(message, call).await?;
        let mut assembly = Assembly::default();
        let decode = move |message| assembly.take(decode::pull_event(message)?);
        Ok(self.events(messages, bearer, decode))
    }

    async fn checkpoint(&self, checkpoint: Checkpoint<'_>) -> Result<CheckpointStream, Problem> {
        let message = || proto::CheckpointRequest {
            gateway: checkpoint.gateway.to_string(),
            tables: Vec::new(),
            resume: checkpoint.resume.to_owned(),
            since: checkpoint.since.to_owned(),
            max_bytes: stated(checkpoint.bytes_max),
            whole_rows: false,
        };
        let call = |request| {
            let mut sync = self.packed.clone();
            async move { sync.checkpoint(request).await }
        };
        let (messages, bearer) = self.call(message, call).await?;
        let decode = |message| decode::checkpoint_event(message).map(Some);
        Ok(self.events(messages, bearer, decode))
    }

    fn bytes_moved(&self) -> u64 {
        self.meter.bytes()
    }

    async fn create_gateway(&self, gateway: &Gateway) -> Result<(), Problem> {
        let message = || admin::CreateGatewayRequest { gateway: gateway.to_string() };
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.create_gateway(request).await }
        };
        match self.call(message, call).await {
            Err(problem) if problem.reason == Some(Reason::GatewayExists) => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }

    async fn put_schema(
        &self,
        gateway: &Gateway,
        tables: &[Proposal],
    ) -> Result<Vec<TableSchema>, Problem> {
        let message = || admin::PutSchemaRequest {
            gateway: gateway.to_string(),
            tables: tables.iter().map(|table| encode_schema(&declared(table))).collect(),
            dry_run: false,
        };
        let call = |request| {
            let mut admin = self.admin.clone();
            async move { admin.put_schema(request).await }
        };
        let (schema, _) = self.call(message, call).await?;
        decode_schema(&schema.tables).map_err(decode::not_understood)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("bearers", &self.bearers).finish_non_exhaustive()
    }
}
