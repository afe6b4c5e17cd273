//! The yardstick: a gRPC server that does what must be done at the least, and nothing else.
//!
//! A push is decoded, its bytes are written to a file, and it is answered after a `fdatasync` that
//! it shares with whoever came meanwhile. A read gets answers recorded from the real server, from
//! memory. The listener is set up as the real server's.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use lakesync::limits::MESSAGE_BYTES_MAX;
use lakesync::proto::v1::{PullRequest, PushRequest, PushResponse};
use lakesync_server::app::listener;
use prost::Message;
use tokio::net::TcpListener;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tower::Service;

use self::disk::Disk;
use super::child::READY;
use super::codec::{Codec, Frame, Kept};
use super::link::{CHECKPOINT, PULL, PUSH};
use crate::exit::Exit;

mod disk;
mod recording;

pub(super) use recording::write as write_recording;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file that takes what is pushed.
    #[arg(long)]
    log: PathBuf,
    /// The file that holds what is read.
    #[arg(long)]
    recording: Option<PathBuf>,
}

/// Serves until its standard input ends, which it does when the harness is gone.
pub(super) async fn serve(arguments: Arguments) -> Result<(), Exit> {
    let answers = match &arguments.recording {
        Some(path) => recording::read(path).map_err(Exit::input_output)?,
        None => Vec::new(),
    };
    let disk = Disk::open(&arguments.log).map_err(Exit::input_output)?;
    let yardstick = Yardstick { disk, answers: answers.into() };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = TcpListener::bind(any).await.map_err(Exit::unavailable)?;
    let address = socket.local_addr().map_err(Exit::unavailable)?;
    writeln!(std::io::stdout(), "{READY}{address}").map_err(Exit::input_output)?;
    let gone = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        () = listener::serve_bare(socket, yardstick) => Err(Exit::unavailable("it ended by itself")),
        _ = gone => Ok(()),
    }
}

#[derive(Clone, Debug)]
struct Yardstick {
    disk: Disk,
    answers: Arc<[Bytes]>,
}

impl Service<Request<Body>> for Yardstick {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { disk, answers } = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                PUSH => push(disk, request).await,
                PULL | CHECKPOINT => read(answers, request).await,
                other => Status::unimplemented(other.to_owned()).into_http(),
            })
        })
    }
}

async fn push(disk: Disk, request: Request<Body>) -> Response<Body> {
    let answer = tower::service_fn(move |request: tonic::Request<Kept<PushRequest>>| {
        let disk = disk.clone();
        async move {
            let Kept { bytes, message } = request.into_inner();
            // What was decoded is looked at, so that nobody can leave the decoding out.
            let rows: usize = message.tables.iter().map(|table| table.rows.len()).sum();
            disk.keep(bytes).await?;
            let answer = PushResponse { position: rows as u64, ..PushResponse::default() };
            Ok(tonic::Response::new(Frame(answer.encode_to_vec().into(), Bytes::new())))
        }
    });
    let mut grpc =
        Grpc::new(Codec::<PushRequest>::default()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    grpc.unary(answer, request).await
}

async fn read(answers: Arc<[Bytes]>, request: Request<Body>) -> Response<Body> {
    // All that is said of a read is ignored: there is one answer.
    let answer = tower::service_fn(move |_: tonic::Request<Kept<PullRequest>>| {
        let answers = Arc::clone(&answers);
        let frames = (0..answers.len()).map(move |at| Ok(Frame(answers[at].clone(), Bytes::new())));
        std::future::ready(Ok(tonic::Response::new(tokio_stream::iter(frames))))
    });
    let mut grpc = Grpc::new(Codec::<PullRequest>::default());
    grpc.server_streaming(answer, request).await
}
