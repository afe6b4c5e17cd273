//! A verification's progress → `VerifyBackendResponse`s.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use lakesync::proto::admin::v1::row_difference::Kind;
use lakesync::proto::admin::v1::{RowDifference, VerifyBackendRequest, VerifyBackendResponse};
use tonic::Status;

use crate::auth::Principal;
use crate::flush::verify::{Answers, Difference, Order, Table};
use crate::service::refuse;

/// What a caller orders.
pub(super) fn order(request: VerifyBackendRequest, caller: &Principal) -> Order {
    let VerifyBackendRequest { backend, repair, remove_extra, .. } = request;
    let backend = Some(backend).filter(|name| !name.is_empty());
    Order { backend, repair, remove_extra, expires_ms: caller.refused_from_ms() }
}

/// The tables of a verification, as they are compared.
#[derive(Debug)]
pub struct Tables(pub(super) Answers);

impl Stream for Tables {
    type Item = Result<VerifyBackendResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = self.0.poll_recv(context);
        answer.map(|answer| Some(answer?.map(|table| encode(&table)).map_err(refuse)))
    }
}

fn encode(table: &Table) -> VerifyBackendResponse {
    let (gateway_digest, backend_digest) = match &table.digests {
        Some((own, theirs)) => (own.to_vec(), theirs.to_vec()),
        None => Default::default(),
    };
    let example = |(row_id, difference): &(lakesync::name::RowId, Difference)| RowDifference {
        row_id: row_id.as_str().to_owned(),
        kind: kind(*difference).into(),
    };
    VerifyBackendResponse {
        table: table.name.clone(),
        rows: table.rows,
        missing: table.missing,
        outdated: table.outdated,
        changed: table.changed,
        extra: table.extra,
        newer: table.newer,
        unsettled: table.unsettled,
        repaired: table.repaired,
        refused: table.refused,
        examples: table.examples.iter().map(example).collect(),
        gateway_digest,
        backend_digest,
        tables_left: u32::try_from(table.left).unwrap_or(u32::MAX),
    }
}

fn kind(difference: Difference) -> Kind {
    match difference {
        Difference::Missing => Kind::Missing,
        Difference::Outdated => Kind::Outdated,
        Difference::Changed => Kind::Changed,
        Difference::Extra => Kind::Extra,
        Difference::Newer => Kind::Newer,
    }
}
