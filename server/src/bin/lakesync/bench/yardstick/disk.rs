//! A file that takes whatever comes, and syncs for all who wait at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// How many writes may wait.
const WAITING_MAX: usize = 1_024;

/// A handle to the file; its thread ends with the last.
#[derive(Clone, Debug)]
pub(super) struct Disk(mpsc::Sender<Waiting>);

#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    done: oneshot::Sender<()>,
}

impl Disk {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        std::thread::Builder::new().name("disk".to_owned()).spawn(|| write(file, waiting))?;
        Ok(Self(sender))
    }

    /// Returns once the bytes would survive a power cut.
    pub(super) async fn keep(&self, bytes: Bytes) -> Result<(), Status> {
        let (done, kept) = oneshot::channel();
        let failed = || Status::unavailable("the disk said no");
        self.0.send(Waiting { bytes, done }).await.map_err(|_| failed())?;
        kept.await.map_err(|_| failed())
    }
}

/// Ends at the first failure: nobody is answered from then on.
fn write(mut file: File, mut waiting: mpsc::Receiver<Waiting>) {
    let mut group = Vec::with_capacity(WAITING_MAX);
    let mut buffer = Vec::new();
    while 0 < waiting.blocking_recv_many(&mut group, WAITING_MAX) {
        buffer.clear();
        group.iter().for_each(|write| buffer.extend_from_slice(&write.bytes));
        if file.write_all(&buffer).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for write in group.drain(..) {
            // A caller that hung up learns nothing.
            let _ = write.done.send(());
        }
    }
}
