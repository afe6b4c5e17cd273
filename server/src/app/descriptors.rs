//! How many files and sockets the process may have open, and who may have how many of them.
//!
//! The store must never be the one that finds none left: a server that can't open its next file can
//! confirm no write. So connections get what remains after the store and everything else.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More connections than this are accepted only where a setting says so.
const CONNECTIONS_MAX: usize = 10_000;
/// Stands for the limit where the system sets none.
const UNLIMITED: u64 = 1 << 20;
/// More table files than this are never kept open.
const TABLE_FILES_MAX: usize = 900;

/// Who may have how many descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    /// All that the process may have.
    pub(super) limit: usize,
    /// Table files that the store keeps open between two reads.
    pub(super) table_files: usize,
    /// Connections of gRPC clients. What is left is for the journal, for compaction, for connections
    /// to backends, for the operators' pages and for the runtime.
    pub(super) connections: usize,
}

impl Shares {
    /// Divides `limit`.
    fn of(limit: usize) -> Self {
        let table_files = (limit / 8).clamp(16, TABLE_FILES_MAX);
        let others = (limit / 4).clamp(64, 2_048);
        let connections = limit.saturating_sub(table_files + others).max(1);
        Self { limit, table_files, connections }
    }

    /// Divides what the process may have now.
    pub(super) fn of_process() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED).min(UNLIMITED);
        Self::of(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// How many connections are accepted if `wanted` is set. Zero means as many as there are
    /// descriptors for, up to a bound of our own. No setting takes descriptors away from the store.
    pub(super) fn connections(&self, wanted: u64) -> usize {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        if wanted == 0 {
            return self.connections.min(CONNECTIONS_MAX);
        }
        if self.connections < wanted {
            let (most, limit) = (self.connections, self.limit);
            tracing::warn!(
                "connections_max = {wanted}, but with {limit} file descriptors only {most} \
                 connections are accepted; raise the limit (ulimit -n, LimitNOFILE)"
            );
        }
        wanted.min(self.connections)
    }
}

/// Raises the number of descriptors that the process may have as far as the system allows.
pub(super) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    if current == maximum {
        tracing::info!("file descriptors: {}", text(current));
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::info!("file descriptors: {}, raised from {}", text(maximum), text(current));
        }
        Err(error) => {
            let (now, hard) = (text(current), text(maximum));
            tracing::warn!(%error, "file descriptors: {now}; raising them to {hard} was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_and_the_others_always_have_their_share() {
        for limit in [128, 256, 1_024, 4_096, 20_000, 1 << 20] {
            let shares = Shares::of(limit);
            let others = limit - shares.table_files - shares.connections;
            assert!(64 <= others, "{shares:?}");
            assert!(16 <= shares.table_files, "{shares:?}");
            assert!(limit / 4 <= shares.connections, "{shares:?}");
        }
        // So few that nothing can be promised: the server starts all the same.
        assert_eq!(Shares::of(10).connections, 1);
    }

    #[test]
    fn no_setting_takes_what_is_the_stores() {
        let shares = Shares::of(1_024);
        assert_eq!(shares.connections(0), shares.connections);
        assert_eq!(shares.connections(10), 10);
        assert_eq!(shares.connections(1_000_000), shares.connections);
        assert_eq!(Shares::of(1 << 20).connections(0), CONNECTIONS_MAX);
        assert_eq!(Shares::of(1 << 20).connections(50_000), 50_000);
    }
}
