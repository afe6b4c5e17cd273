//! `lakesync flush`: hand everything durable so far to the backends, and wait until they have it.

use indicatif::HumanBytes;
use lakesync::proto::admin::v1::{FlushRequest, FlushResponse};
use serde_json::json;

use crate::exit::Exit;
use crate::operator::{self, Server};
use crate::show::{self, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The gateway.
    #[arg(long, default_value = "main")]
    gateway: String,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { gateway, server } = arguments;
    let json = server.json;
    server.run(async move |mut operator| {
        let request = operator.request(FlushRequest { gateway });
        let answer = operator.admin.flush(request).await;
        let answer = answer.map_err(|status| operator::refused(&status, Exit::usage))?;
        let FlushResponse { position, rows, bytes } = answer.into_inner();
        if json {
            return show::line(json!({ "position": position, "rows": rows, "bytes": bytes }));
        }
        let (written, bytes) = (count(rows, "change"), HumanBytes(bytes));
        show::line(format_args!(
            "the backends have everything up to position {position}: {written} written ({bytes})"
        ))
    })
}
