//! `lakesync revoke`: end a subject's streams at a gateway, and refuse its tokens of before now.

use lakesync::proto::admin::v1::RevokeSubjectRequest;
use serde_json::json;

use crate::exit::Exit;
use crate::operator::{self, Server};
use crate::show;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The `sub` of the tokens.
    subject: String,
    /// The gateway. A subject that may enter several is revoked at each.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { subject, gateway, server } = arguments;
    let json = server.json;
    server.run(async move |mut operator| {
        let (named, at) = (subject.clone(), gateway.clone());
        let request = operator.request(RevokeSubjectRequest { gateway, subject });
        let answer = operator.admin.revoke_subject(request).await;
        answer.map_err(|status| operator::refused(&status, Exit::usage))?;
        match json {
            true => show::line(json!({ "gateway": at, "revoked": named })),
            false => show::line(format_args!(
                "tokens of {named} that were issued before now are refused at gateway {at}"
            )),
        }
    })
}
