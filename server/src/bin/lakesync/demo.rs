//! `lakesync demo`: the main job, start to end, on a copy of a real database.
//!
//! A gateway opens on a free port; one replica adopts the copy, a second comes up by checkpoint;
//! both edit the same row while offline; they sync, and the files are compared row by row.

mod compare;
mod data;
mod edit;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lakesync::clock::{SystemClock, WallClock};
use lakesync::name::{Gateway, TableName};
use lakesync_client::{Candidate, Config, Event, Replica};
use lakesync_server::app::App;
use lakesync_server::auth::Grant;
use lakesync_server::config::Texts;
use serde_json::Map;
use tokio::sync::oneshot;

use crate::exit::Exit;
use crate::show::{self, count, line};
use crate::sync::{adopt_all, failed};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Any SQLite file; it is copied and never changed. Without one, the world's time zones.
    file: Option<PathBuf>,
}

/// The gateway that the demo makes.
const GATEWAY: &str = "demo";

pub(crate) fn run(arguments: Arguments) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(Exit::input_output)?.block_on(demo(arguments))
}

async fn demo(arguments: Arguments) -> Result<(), Exit> {
    let dir =
        tempfile::Builder::new().prefix("lakesync-demo-").tempdir().map_err(Exit::input_output)?;
    let (left, right) = (dir.path().join("left.sqlite"), dir.path().join("right.sqlite"));
    let source = match &arguments.file {
        Some(file) => {
            data::copy(file, &left).await?;
            file.display().to_string()
        }
        None => {
            data::time_zones(&left).await?;
            "the world's time zones (examples/data)".to_owned()
        }
    };
    let server = Server::start(dir.path().join("gateway")).await?;
    line(format_args!("1. A gateway listens on {}. Nothing was installed.", server.url))?;

    line(format_args!("\n2. The left replica adopts a copy of {source}:"))?;
    let a = Replica::open(&left, server.config()).await.map_err(Exit::input_output)?;
    let tables = adopt_all(&a).await?;
    show::round(&a, "left").await.map_err(failed)?;
    show::leftovers(&a).await?;

    line("\n3. The right replica starts empty and receives every row by checkpoint:")?;
    let b = Replica::open(&right, server.config()).await.map_err(Exit::input_output)?;
    show::round(&b, "right").await.map_err(failed)?;

    line("\n4. Both go offline and edit the same row:")?;
    let edits = edit::both(&left, &right, &chosen(&a, &tables).await?).await?;
    match &edits {
        Some(edits) => line(edits)?,
        None => {
            line("  no table has a row with a column that can be edited: nothing to disagree on")?
        }
    }

    line("\n5. They come back, one after the other:")?;
    let mut events = Vec::new();
    for (replica, label) in [(&b, "right"), (&a, "left"), (&b, "right")] {
        events.extend(show::round(replica, label).await.map_err(failed)?.1);
    }
    if let Some(edits) = &edits {
        line(edits.verdict(&left, &events).await?)?;
    }
    show::leftovers(&b).await?;

    line("\n6. Compared row by row, column by column:")?;
    let (left, right) = ((left.as_path(), &a), (right.as_path(), &b));
    let found = compare::compare(left, right, &tables).await?;
    let (rows, tables) = (count(found.rows, "row"), count(tables.len() as u64, "table"));
    line(format_args!("  {rows} in {tables}: both replicas hold the same rows"))?;
    if 0 < found.refused {
        let refused = count(found.refused, "row");
        line(format_args!("  left out: {refused} that the gateway refused, see above"))?;
    }
    server.stop().await?;
    line(
        "
Try next:
  lakesync demo YOUR.sqlite            the same with a database of yours (it is copied, never changed)
  lakesync serve --dev                 a gateway that stays, with lines to paste
  lakesync sync FILE.sqlite --help     keep any SQLite file in step
(from a checkout, `cargo run --release --` stands for `lakesync`)",
    )
}

/// The candidates behind the adopted tables.
async fn chosen(replica: &Replica, tables: &[TableName]) -> Result<Vec<Candidate>, Exit> {
    let mut candidates = replica.inspect().await.map_err(Exit::input_output)?;
    candidates.retain(|candidate| tables.iter().any(|table| table.as_str() == candidate.table));
    Ok(candidates)
}

/// A server in this process, and the way to stop it.
struct Server {
    url: String,
    token: String,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<Result<(), lakesync_server::app::RunError>>,
}

impl Server {
    async fn start(data: PathBuf) -> Result<Self, Exit> {
        let data = data
            .into_os_string()
            .into_string()
            .map_err(|_| Exit::input_output("the temporary directory's name is no text"))?;
        let flags = [("data", Some(data)), ("listen", Some("127.0.0.1:0".to_owned()))];
        let config = Texts::defaults().flags(flags).and_then(|texts| texts.parse());
        let app = App::start(config.map_err(Exit::config)?).await.map_err(Exit::unavailable)?;
        let gateway = Gateway::parse(GATEWAY).expect("BUG: an illegal name");
        Arc::clone(&app.gateways()).create(&gateway).await.map_err(Exit::input_output)?;
        let grant = Grant {
            subject: "demo".to_owned(),
            scope: "sync admin".to_owned(),
            gateways: vec![gateway],
            claims: Map::new(),
            ttl: Duration::from_secs(60 * 60),
        };
        let token = grant.sign(app.secret(), SystemClock.now_ms()).map_err(Exit::config)?;
        let url = format!("http://{}", app.address());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(app.run(async {
            // A demo that failed has dropped its end: stop as well.
            let _ = stopped.await;
        }));
        Ok(Self { url, token, stop, running })
    }

    fn config(&self) -> Config {
        Config::new(&self.url, GATEWAY).with_token(self.token.as_str())
    }

    async fn stop(self) -> Result<(), Exit> {
        // A server that stopped by itself says why, below.
        let _ = self.stop.send(());
        self.running.await.map_err(Exit::unavailable)?.map_err(Exit::unavailable)
    }
}

/// The events that tell of a lost conflict.
fn superseded(events: &[Event]) -> impl Iterator<Item = &lakesync_client::Superseded> {
    events.iter().filter_map(|event| match event {
        Event::Superseded(lost) => Some(lost),
        _ => None,
    })
}
