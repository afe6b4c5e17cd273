//! `AdminService`: what operators and grpcurl talk to. Compaction answers UNIMPLEMENTED until there
//! is a lake to compact.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Empty};
use lakesync::name::Gateway;
use lakesync::proto::admin::v1::admin_service_server::AdminService;
use lakesync::proto::admin::v1::{self as proto};
use lakesync::wire::{self, WireError};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{NotOffered, Services, enter, principal, refuse};
use crate::auth::Principal;
use crate::flush::Flushed;
use crate::store::{GatewayRecord, StoreError};

/// How many gateways a page lists where the caller does not say.
const PAGE_DEFAULT: u32 = 100;
/// How many gateways a page lists at most.
const PAGE_MAX: u32 = 1_000;

mod stats;
mod verify;

#[tonic::async_trait]
impl AdminService for Services {
    type BackupStream = BoxStream<'static, Result<proto::BackupResponse, Status>>;
    type CompactStream = Empty<Result<proto::CompactResponse, Status>>;
    type VerifyBackendStream = verify::Tables;

    async fn create_gateway(
        &self,
        request: Request<proto::CreateGatewayRequest>,
    ) -> Result<Response<proto::CreateGatewayResponse>, Status> {
        let name = enter(&principal(request.extensions())?, &request.get_ref().gateway)?;
        self.flush.check_name(&name).map_err(refuse)?;
        let record = self.gateways.create(&name).await.map_err(refuse)?;
        tracing::info!(gateway = %name, "gateway created");
        Ok(Response::new(proto::CreateGatewayResponse { gateway: Some(describe(&record)) }))
    }

    async fn list_gateways(
        &self,
        request: Request<proto::ListGatewaysRequest>,
    ) -> Result<Response<proto::ListGatewaysResponse>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let after = decode_page_token(&request.page_token).map_err(refuse)?;
        let size = match request.page_size {
            0 => PAGE_DEFAULT,
            size => size.min(PAGE_MAX),
        } as usize;
        let opened = self.opened(&caller, after, size).await.map_err(refuse)?;
        // The token names a gateway of this page, so it tells the caller nothing new.
        let last = opened.last().filter(|_| opened.len() == size);
        let next_page_token = last.map(|record| URL_SAFE_NO_PAD.encode(record.name.as_str()));
        Ok(Response::new(proto::ListGatewaysResponse {
            gateways: opened.iter().map(describe).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    async fn delete_gateway(
        &self,
        request: Request<proto::DeleteGatewayRequest>,
    ) -> Result<Response<proto::DeleteGatewayResponse>, Status> {
        let caller = principal(request.extensions())?;
        let name = enter(&caller, &request.get_ref().gateway)?;
        // One that can't be opened may be deleted all the same.
        if let Ok(gateway) = self.gateways.get(&name).await {
            gateway.admit(&Self::caller(&caller)).map_err(refuse)?;
        }
        self.gateways.delete(&name).await.map_err(refuse)?;
        tracing::info!(gateway = %name, "gateway deleted");
        Ok(Response::new(proto::DeleteGatewayResponse {}))
    }

    async fn put_schema(
        &self,
        request: Request<proto::PutSchemaRequest>,
    ) -> Result<Response<proto::PutSchemaResponse>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let gateway = self.gateway(&caller, &request.gateway).await?;
        let proposals = wire::decode_proposals(&request.tables).map_err(refuse)?;
        let schema = gateway.put_schema(proposals, request.dry_run).await.map_err(refuse)?;
        let tables = schema.tables().map(|table| wire::encode_schema(table)).collect();
        Ok(Response::new(proto::PutSchemaResponse { tables }))
    }

    async fn get_stats(
        &self,
        request: Request<proto::GetStatsRequest>,
    ) -> Result<Response<proto::GetStatsResponse>, Status> {
        let caller = principal(request.extensions())?;
        let gateway = self.gateway(&caller, &request.get_ref().gateway).await?;
        let stats = gateway.stats().map_err(refuse)?;
        Ok(Response::new(stats::encode(&stats, &gateway.lags(self.clock.now_ms()))))
    }

    async fn put_sync_rules(
        &self,
        request: Request<proto::PutSyncRulesRequest>,
    ) -> Result<Response<proto::PutSyncRulesResponse>, Status> {
        let caller = principal(request.extensions())?;
        Ok(Response::new(self.put_rules(&caller, request.into_inner()).await?))
    }

    async fn get_sync_rules(
        &self,
        request: Request<proto::GetSyncRulesRequest>,
    ) -> Result<Response<proto::GetSyncRulesResponse>, Status> {
        let caller = principal(request.extensions())?;
        Ok(Response::new(self.get_rules(&caller, request.into_inner()).await?))
    }

    async fn delete_sync_rules(
        &self,
        request: Request<proto::DeleteSyncRulesRequest>,
    ) -> Result<Response<proto::DeleteSyncRulesResponse>, Status> {
        let caller = principal(request.extensions())?;
        Ok(Response::new(self.delete_rules(&caller, request.into_inner()).await?))
    }

    async fn explain_access(
        &self,
        request: Request<proto::ExplainAccessRequest>,
    ) -> Result<Response<proto::ExplainAccessResponse>, Status> {
        let caller = principal(request.extensions())?;
        Ok(Response::new(self.explain(&caller, request.into_inner()).await?))
    }

    async fn revoke_subject(
        &self,
        request: Request<proto::RevokeSubjectRequest>,
    ) -> Result<Response<proto::RevokeSubjectResponse>, Status> {
        let caller = principal(request.extensions())?;
        Ok(Response::new(self.revoke(&caller, request.into_inner()).await?))
    }

    async fn flush(
        &self,
        request: Request<proto::FlushRequest>,
    ) -> Result<Response<proto::FlushResponse>, Status> {
        let caller = principal(request.extensions())?;
        let gateway = self.gateway(&caller, &request.get_ref().gateway).await?;
        let Flushed { position, changes, bytes } =
            self.flush.flush(&gateway, &mut self.shutdown.clone()).await.map_err(refuse)?;
        Ok(Response::new(proto::FlushResponse { position: position.0, rows: changes, bytes }))
    }

    async fn backup(
        &self,
        request: Request<proto::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let caller = principal(request.extensions())?;
        caller.enter_all().map_err(refuse)?;
        let pieces = self.gateways.copy(self.shutdown.clone()).await.map_err(refuse)?;
        tracing::info!(subject = caller.subject(), "a copy of all gateways is handed out");
        let answer = |piece: bytes::Bytes| proto::BackupResponse { piece: piece.into() };
        let pieces = pieces.map(move |piece| piece.map(answer).map_err(refuse));
        Ok(Response::new(pieces.boxed()))
    }

    async fn verify_backend(
        &self,
        request: Request<proto::VerifyBackendRequest>,
    ) -> Result<Response<Self::VerifyBackendStream>, Status> {
        let caller = principal(request.extensions())?;
        let request = request.into_inner();
        let gateway = self.gateway(&caller, &request.gateway).await?;
        let order = verify::order(request, &caller);
        let tables = self.flush.verify(gateway, order, self.shutdown.clone());
        Ok(Response::new(verify::Tables(tables)))
    }

    async fn compact(
        &self,
        _: Request<proto::CompactRequest>,
    ) -> Result<Response<Self::CompactStream>, Status> {
        Err(refuse(NotOffered { method: "Compact" }))
    }
}

impl Services {
    /// Up to `size` gateways after `after` that the caller may enter.
    async fn opened(
        &self,
        caller: &Principal,
        mut after: Option<Gateway>,
        size: usize,
    ) -> Result<Vec<GatewayRecord>, StoreError> {
        let mut opened = Vec::new();
        loop {
            let listed = self.gateways.list(after.as_ref(), PAGE_MAX as usize).await?;
            let Some(last) = listed.last() else { return Ok(opened) };
            after = Some(last.name.clone());
            let entered = listed.into_iter().filter(|record| caller.opens(&record.name));
            opened.extend(entered.take(size - opened.len()));
            if opened.len() == size {
                return Ok(opened);
            }
        }
    }
}

fn describe(record: &GatewayRecord) -> proto::Gateway {
    proto::Gateway { name: record.name.to_string(), created: Some(timestamp(record.created_ms)) }
}

/// A time in milliseconds since the Unix epoch.
fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).expect("BUG: less than a second");
    Timestamp { seconds: ms / 1_000, nanos }
}

/// A page token is the last name of the page before. It carries no authority.
fn decode_page_token(token: &str) -> Result<Option<Gateway>, WireError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let name = bytes.and_then(|bytes| Gateway::parse(str::from_utf8(&bytes).ok()?).ok());
    let malformed = || WireError::new("page_token", "it is malformed; send it back as received");
    name.map(Some).ok_or_else(malformed)
}
