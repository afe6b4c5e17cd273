//! `lakesync gateways`: list a server's gateways, make one, or delete one.

use lakesync::proto::admin::v1::{
    CreateGatewayRequest, DeleteGatewayRequest, Gateway, ListGatewaysRequest,
};
use serde_json::json;

use crate::exit::Exit;
use crate::operator::{self, Operator, Server};
use crate::show;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Make a gateway of this name.
    #[arg(long, value_name = "NAME")]
    create: Option<String>,
    /// Delete the gateway of this name, with its log and its rows. What was flushed stays in its
    /// backends.
    #[arg(long, value_name = "NAME", conflicts_with = "create")]
    delete: Option<String>,
    /// Delete without asking.
    #[arg(long, requires = "delete")]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let Arguments { create, delete, yes, server } = arguments;
    let json = server.json;
    server.run(async move |mut operator| {
        if let Some(gateway) = create {
            let request = operator.request(CreateGatewayRequest { gateway });
            let answer = operator.admin.create_gateway(request).await;
            let made =
                answer.map_err(|status| operator::refused(&status, Exit::usage))?.into_inner();
            return print(made.gateway.as_slice(), json);
        }
        if let Some(gateway) = delete {
            let question = format!("delete gateway {gateway}, its log and its rows?");
            operator::confirm(&question, yes)?;
            let request = operator.request(DeleteGatewayRequest { gateway: gateway.clone() });
            let answer = operator.admin.delete_gateway(request).await;
            answer.map_err(|status| operator::refused(&status, Exit::usage))?;
            return match json {
                true => show::line(json!({ "deleted": gateway })),
                false => show::line(format_args!("{gateway} deleted")),
            };
        }
        let gateways = list(&mut operator).await?;
        if gateways.is_empty() && !json {
            return show::line("no gateways; --create NAME makes one");
        }
        print(&gateways, json)
    })
}

/// All gateways that the token opens, page by page.
async fn list(operator: &mut Operator) -> Result<Vec<Gateway>, Exit> {
    let (mut gateways, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = operator.request(ListGatewaysRequest { page_size: 0, page_token });
        let answer = operator.admin.list_gateways(request).await;
        let page = answer.map_err(|status| operator::refused(&status, Exit::usage))?.into_inner();
        gateways.extend(page.gateways);
        if page.next_page_token.is_empty() {
            return Ok(gateways);
        }
        page_token = page.next_page_token;
    }
}

fn print(gateways: &[Gateway], json: bool) -> Result<(), Exit> {
    let created = |gateway: &Gateway| gateway.created.as_ref().map(show::time);
    if json {
        let all = gateways.iter();
        let all = all.map(|one| json!({ "name": one.name, "created": created(one) }));
        return show::line(json!({ "gateways": all.collect::<Vec<_>>() }));
    }
    let width = gateways.iter().map(|gateway| gateway.name.len()).max().unwrap_or(0);
    gateways.iter().try_for_each(|gateway| {
        let created = created(gateway).unwrap_or_default();
        show::line(format_args!("{:width$}  made {created}", gateway.name))
    })
}
