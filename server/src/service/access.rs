//! `AdminService`, the part about access: sync rules, what they mean for a token, and whose tokens
//! count no longer.

use lakesync::name::{RowId, TableName};
use lakesync::proto::admin::v1::{self as proto};
use lakesync::rules::Claims;
use lakesync::wire::{self, WireError};
use tonic::Status;

use super::{Services, refuse};
use crate::auth::Principal;
use crate::gateway::Effect;

/// Tokens that one rehearsal may be for.
const REHEARSED_MAX: usize = 100;

impl Services {
    pub(super) async fn put_rules(
        &self,
        caller: &Principal,
        request: proto::PutSyncRulesRequest,
    ) -> Result<proto::PutSyncRulesResponse, Status> {
        let gateway = self.gateway(caller, &request.gateway).await?;
        let missing = || refuse(WireError::new("rules", "they are missing"));
        let draft = wire::decode_rules(request.rules.ok_or_else(missing)?).map_err(refuse)?;
        if request.dry_run {
            let claims = all_claims(&request.claims_json).map_err(refuse)?;
            let effects = gateway.rehearse(&draft, &claims).await.map_err(refuse)?;
            let effects = effects.into_iter().map(describe).collect();
            return Ok(proto::PutSyncRulesResponse { effects });
        }
        gateway.put_rules(draft).await.map_err(refuse)?;
        tracing::info!(gateway = request.gateway, by = caller.subject(), "sync rules put");
        Ok(proto::PutSyncRulesResponse::default())
    }

    pub(super) async fn get_rules(
        &self,
        caller: &Principal,
        request: proto::GetSyncRulesRequest,
    ) -> Result<proto::GetSyncRulesResponse, Status> {
        let gateway = self.gateway(caller, &request.gateway).await?;
        let rules = gateway.rules().as_ref().map(wire::encode_rules);
        Ok(proto::GetSyncRulesResponse { rules })
    }

    pub(super) async fn delete_rules(
        &self,
        caller: &Principal,
        request: proto::DeleteSyncRulesRequest,
    ) -> Result<proto::DeleteSyncRulesResponse, Status> {
        let gateway = self.gateway(caller, &request.gateway).await?;
        gateway.delete_rules().await.map_err(refuse)?;
        tracing::info!(gateway = request.gateway, by = caller.subject(), "sync rules deleted");
        Ok(proto::DeleteSyncRulesResponse {})
    }

    pub(super) async fn explain(
        &self,
        caller: &Principal,
        request: proto::ExplainAccessRequest,
    ) -> Result<proto::ExplainAccessResponse, Status> {
        let gateway = self.gateway(caller, &request.gateway).await?;
        let claims = claims("claims_json", &request.claims_json).map_err(refuse)?;
        let row = row(&request.table, &request.row_id).map_err(refuse)?;
        let explained = gateway.explain(&claims, row).await.map_err(refuse)?;
        Ok(proto::ExplainAccessResponse {
            buckets: explained.buckets,
            readable: explained.readable,
            writable: explained.writable,
            trace: explained.trace,
        })
    }

    pub(super) async fn revoke(
        &self,
        caller: &Principal,
        request: proto::RevokeSubjectRequest,
    ) -> Result<proto::RevokeSubjectResponse, Status> {
        let gateway = self.gateway(caller, &request.gateway).await?;
        if request.subject.is_empty() {
            return Err(refuse(WireError::new("subject", "it is missing")));
        }
        gateway.revoke(&request.subject).await.map_err(refuse)?;
        tracing::info!(gateway = request.gateway, by = caller.subject(), "a subject was revoked");
        Ok(proto::RevokeSubjectResponse {})
    }
}

fn describe(effect: Effect) -> proto::AccessEffect {
    let Effect { lost, gained, seen } = effect;
    proto::AccessEffect { rows_lost: lost, rows_gained: gained, rows_seen: seen }
}

fn all_claims(texts: &[String]) -> Result<Vec<Claims>, WireError> {
    if REHEARSED_MAX < texts.len() {
        let what = format!("{} tokens; the limit is {REHEARSED_MAX}", texts.len());
        return Err(WireError::new("claims_json", what));
    }
    let parsed = texts.iter().enumerate();
    parsed.map(|(at, text)| claims(&format!("claims_json[{at}]"), text)).collect()
}

fn claims(field: &str, text: &str) -> Result<Claims, WireError> {
    let text = if text.is_empty() { "{}" } else { text };
    serde_json::from_str(text)
        .map_err(|error| WireError::new(field, format!("a JSON object is needed: {error}")))
}

/// The row that is asked about, if one is.
fn row(table: &str, row_id: &str) -> Result<Option<(TableName, RowId)>, WireError> {
    if table.is_empty() && row_id.is_empty() {
        return Ok(None);
    }
    let table = TableName::parse(table).map_err(|error| WireError::new("table", error))?;
    let row_id = RowId::parse(row_id).map_err(|error| WireError::new("row_id", error))?;
    Ok(Some((table, row_id)))
}
