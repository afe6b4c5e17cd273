//! Staying in step, and telling what happens meanwhile.

use futures_util::StreamExt;
use lakesync::name::TableName;
use lakesync_client::{Event, Replica};

use crate::exit::Exit;
use crate::show::line;

/// Follows until interrupted.
pub(super) async fn stay(replica: &Replica) -> Result<(), Exit> {
    line("  following; interrupt to stop")?;
    let mut events = replica.events();
    let mut status = replica.status();
    let mut weather = Weather::default();
    let interrupted = async {
        // A process without signals follows until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    };
    let following = replica.follow(interrupted);
    tokio::pin!(following);
    loop {
        tokio::select! {
            () = &mut following => return Ok(()),
            Some(event) = events.next() => tell(event)?,
            Ok(()) = status.changed() => {
                let error = status.borrow_and_update().last_error.clone();
                if let Some(text) = weather.turn(error) {
                    line(text)?;
                }
            }
        }
    }
}

/// What is known to be wrong.
#[derive(Debug, Default)]
struct Weather(Option<String>);

impl Weather {
    /// Takes what is wrong now. What to say, if that is news.
    fn turn(&mut self, error: Option<String>) -> Option<String> {
        if self.0 == error {
            return None;
        }
        let text = match &error {
            Some(error) => format!("  out of step, trying again: {error}"),
            None => "  in step again".to_owned(),
        };
        self.0 = error;
        Some(text)
    }
}

fn tell(event: Event) -> Result<(), Exit> {
    match event {
        Event::Applied { tables } => {
            let names: Vec<_> = tables.iter().map(TableName::as_str).collect();
            line(format_args!("  received changes of {}", names.join(", ")))
        }
        Event::Pushed { rows, .. } => line(format_args!("  sent {rows} changes")),
        Event::CheckpointEnded { removed, restored } if 0 < removed + restored => {
            line(format_args!(
                "  received every row: {removed} removed here that this token no longer sees at the \
                 gateway, {restored} sent again that it had lost"
            ))
        }
        Event::Superseded(lost) => {
            let columns: Vec<_> = lost.columns.iter().map(|column| column.as_str()).collect();
            let (table, row) = (lost.table, lost.row_id);
            line(format_args!("  {table} {row}: a newer write won ({})", columns.join(", ")))
        }
        Event::Rejected(refused) => line(format_args!(
            "  #{} {} {}: refused: {}: {}",
            refused.id, refused.table, refused.row_id, refused.reason, refused.message
        )),
        Event::Parked(row) => {
            line(format_args!("  {} {}: waits: {}", row.table, row.row_id, row.reason))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let mut weather = Weather::default();
        let mut turn = |error: Option<&str>| weather.turn(error.map(str::to_owned));
        assert_eq!(turn(None), None);
        assert_eq!(turn(Some("gone")).as_deref(), Some("  out of step, trying again: gone"));
        assert_eq!(turn(Some("gone")), None);
        assert_eq!(turn(Some("busy")).as_deref(), Some("  out of step, trying again: busy"));
        assert_eq!(turn(None).as_deref(), Some("  in step again"));
        assert_eq!(turn(None), None);
    }
}
