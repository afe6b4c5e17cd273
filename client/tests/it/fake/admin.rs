//! The fake's `AdminService`, as far as replicas use it.

use futures_util::stream::BoxStream;
use lakesync::error::Reason;
use lakesync::proto::admin::v1::admin_service_server::AdminService;
use lakesync::proto::admin::v1::*;
use lakesync::wire::{decode_proposals, encode_schema};
use tonic::{Request, Response, Status};

use super::sync::authenticate;
use super::{Fake, refuse};

macro_rules! unsupported {
    ($($call:ident($request:ty) -> $response:ty;)+) => {
        #[tonic::async_trait]
        impl AdminService for Fake {
            type CompactStream = BoxStream<'static, Result<CompactResponse, Status>>;

            async fn compact(
                &self,
                _: Request<CompactRequest>,
            ) -> Result<Response<Self::CompactStream>, Status> {
                Err(refuse(Reason::Unimplemented, "compact"))
            }

            type VerifyBackendStream = BoxStream<'static, Result<VerifyBackendResponse, Status>>;

            async fn verify_backend(
                &self,
                _: Request<VerifyBackendRequest>,
            ) -> Result<Response<Self::VerifyBackendStream>, Status> {
                Err(refuse(Reason::Unimplemented, "verify_backend"))
            }

            type BackupStream = BoxStream<'static, Result<BackupResponse, Status>>;

            async fn backup(
                &self,
                _: Request<BackupRequest>,
            ) -> Result<Response<Self::BackupStream>, Status> {
                Err(refuse(Reason::Unimplemented, "backup"))
            }

            async fn create_gateway(
                &self,
                request: Request<CreateGatewayRequest>,
            ) -> Result<Response<CreateGatewayResponse>, Status> {
                authenticate(&request)?;
                let mut world = self.world();
                if world.schema.is_some() {
                    return Err(refuse(Reason::GatewayExists, "it exists"));
                }
                world.schema = Some(Default::default());
                Ok(Response::new(CreateGatewayResponse { gateway: None }))
            }

            async fn put_schema(
                &self,
                request: Request<PutSchemaRequest>,
            ) -> Result<Response<PutSchemaResponse>, Status> {
                authenticate(&request)?;
                let mut world = self.world();
                let wishes = decode_proposals(&request.into_inner().tables)
                    .map_err(|error| refuse(Reason::InvalidRequest, error))?;
                let schema = world
                    .schema()?
                    .evolve(&wishes)
                    .map_err(|error| refuse(Reason::InvalidRequest, error))?;
                let tables = schema.tables().map(|table| encode_schema(table)).collect();
                world.schema = Some(schema);
                Ok(Response::new(PutSchemaResponse { tables }))
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(refuse(Reason::Unimplemented, stringify!($call)))
            })+
        }
    };
}

unsupported! {
    list_gateways(ListGatewaysRequest) -> ListGatewaysResponse;
    delete_gateway(DeleteGatewayRequest) -> DeleteGatewayResponse;
    put_sync_rules(PutSyncRulesRequest) -> PutSyncRulesResponse;
    get_sync_rules(GetSyncRulesRequest) -> GetSyncRulesResponse;
    delete_sync_rules(DeleteSyncRulesRequest) -> DeleteSyncRulesResponse;
    explain_access(ExplainAccessRequest) -> ExplainAccessResponse;
    revoke_subject(RevokeSubjectRequest) -> RevokeSubjectResponse;
    flush(FlushRequest) -> FlushResponse;
    get_stats(GetStatsRequest) -> GetStatsResponse;
}
