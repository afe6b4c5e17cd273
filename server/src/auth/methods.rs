//! The one table of what each method needs, and the table of those whose requests may be large. What is
//! not in the first is refused.

use lakesync::limits::{MESSAGE_BYTES_MAX, SMALL_REQUEST_BYTES_MAX};

/// What a method needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Public,
    /// `sync:read` or `sync`.
    Read,
    /// `sync`.
    Write,
    /// `admin`.
    Admin,
}

/// Every method that the server may serve, by its path. Whole services end in a slash: they are
/// not ours, and grow with their crates.
pub const METHODS: &[(&str, Access)] = &[
    ("/lakesync.v1.SyncService/GetServerInfo", Access::Public),
    ("/lakesync.v1.SyncService/GetSchema", Access::Read),
    ("/lakesync.v1.SyncService/Push", Access::Write),
    ("/lakesync.v1.SyncService/Pull", Access::Read),
    ("/lakesync.v1.SyncService/Checkpoint", Access::Read),
    ("/lakesync.admin.v1.AdminService/CreateGateway", Access::Admin),
    ("/lakesync.admin.v1.AdminService/ListGateways", Access::Admin),
    ("/lakesync.admin.v1.AdminService/DeleteGateway", Access::Admin),
    ("/lakesync.admin.v1.AdminService/PutSchema", Access::Admin),
    ("/lakesync.admin.v1.AdminService/PutSyncRules", Access::Admin),
    ("/lakesync.admin.v1.AdminService/GetSyncRules", Access::Admin),
    ("/lakesync.admin.v1.AdminService/DeleteSyncRules", Access::Admin),
    ("/lakesync.admin.v1.AdminService/ExplainAccess", Access::Admin),
    ("/lakesync.admin.v1.AdminService/RevokeSubject", Access::Admin),
    ("/lakesync.admin.v1.AdminService/Flush", Access::Admin),
    ("/lakesync.admin.v1.AdminService/VerifyBackend", Access::Admin),
    ("/lakesync.admin.v1.AdminService/Compact", Access::Admin),
    ("/lakesync.admin.v1.AdminService/GetStats", Access::Admin),
    ("/lakesync.admin.v1.AdminService/Backup", Access::Admin),
    ("/grpc.health.v1.Health/", Access::Public),
    ("/grpc.reflection.v1.ServerReflection/", Access::Public),
    ("/grpc.reflection.v1alpha.ServerReflection/", Access::Public),
];

/// The methods whose requests may be larger than [`SMALL_REQUEST_BYTES_MAX`]: a message of how many
/// bytes each takes. Whole services, whose requests are streams of small messages, end in a slash.
const LARGE: &[(&str, usize)] = &[
    ("/lakesync.v1.SyncService/Push", MESSAGE_BYTES_MAX),
    // A thousand tables, ten thousand positions and a cursor.
    ("/lakesync.v1.SyncService/Pull", 256 << 10),
    ("/lakesync.v1.SyncService/Checkpoint", 128 << 10),
    ("/lakesync.admin.v1.AdminService/PutSchema", MESSAGE_BYTES_MAX),
    ("/lakesync.admin.v1.AdminService/PutSyncRules", MESSAGE_BYTES_MAX),
    // Claims as JSON.
    ("/lakesync.admin.v1.AdminService/ExplainAccess", 64 << 10),
    // A subject is a text of the issuer's, of a token's size at most.
    ("/lakesync.admin.v1.AdminService/RevokeSubject", 16 << 10),
    ("/grpc.reflection.v1.ServerReflection/", 64 << 10),
    ("/grpc.reflection.v1alpha.ServerReflection/", 64 << 10),
];

/// How many bytes a request of the method at `path` may have, and whether it is a stream of messages,
/// which may pause.
pub fn request_bounds(path: &str) -> (usize, bool) {
    let found = LARGE.iter().find(|(known, _)| matches(known, path));
    let bytes_max = found.map_or(SMALL_REQUEST_BYTES_MAX, |(_, bytes_max)| *bytes_max);
    (bytes_max, found.is_some_and(|(known, _)| known.ends_with('/')))
}

/// What the method at `path` needs, if it is known.
pub fn access(path: &str) -> Option<Access> {
    METHODS.iter().find(|(known, _)| matches(known, path)).map(|(_, access)| *access)
}

/// Whether `path` is the method, or in the service, that an entry names.
fn matches(known: &str, path: &str) -> bool {
    match known.strip_suffix('/') {
        Some(_) => path.starts_with(known),
        None => path == known,
    }
}

#[cfg(test)]
mod tests {
    use lakesync::proto::DESCRIPTORS;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// All methods of our own services, by their path.
    fn described() -> Vec<String> {
        let files = FileDescriptorSet::decode(DESCRIPTORS).expect("whole descriptors").file;
        let path =
            |package: &str, service: &str, method: &str| format!("/{package}.{service}/{method}");
        let mut paths = Vec::new();
        for file in &files {
            for service in &file.service {
                let methods = service.method.iter();
                paths.extend(
                    methods.map(|method| path(file.package(), service.name(), method.name())),
                );
            }
        }
        paths
    }

    #[test]
    fn every_described_method_has_one_entry_and_every_entry_is_described() {
        let described = described();
        assert_eq!(described.len(), 19, "all services were walked: {described:?}");
        for path in &described {
            let entries = METHODS.iter().filter(|(known, _)| known == path).count();
            assert_eq!(entries, 1, "{path}");
        }
        for (known, _) in METHODS.iter().filter(|(known, _)| !known.ends_with('/')) {
            assert!(described.iter().any(|path| path == known), "{known} is described nowhere");
        }
    }

    #[test]
    fn only_what_tells_nothing_is_public() {
        let public = |path: &&String| access(path) == Some(Access::Public);
        let described = described();
        let paths: Vec<_> = described.iter().filter(public).collect();
        assert_eq!(paths, ["/lakesync.v1.SyncService/GetServerInfo"]);
    }

    #[test]
    fn large_requests_are_the_exception() {
        for (known, bytes_max) in LARGE {
            assert!(METHODS.iter().any(|(method, _)| method == known), "{known} is no method");
            assert!(SMALL_REQUEST_BYTES_MAX < *bytes_max, "{known}");
        }
        let ours = described();
        let open = ours.iter().filter(|path| access(path) == Some(Access::Public));
        for path in open.map(String::as_str).chain(["/grpc.health.v1.Health/Watch", "/nowhere"]) {
            assert_eq!(request_bounds(path), (SMALL_REQUEST_BYTES_MAX, false), "{path}");
        }
        assert!(request_bounds("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").1);
    }

    #[test]
    fn unknown_paths_have_no_entry() {
        for path in [
            "",
            "/",
            "/lakesync.v1.SyncService/",
            "/lakesync.v1.SyncService/Push/x",
            "/grpc.health.v1.Healt",
        ] {
            assert_eq!(access(path), None, "{path:?}");
        }
        assert_eq!(access("/grpc.health.v1.Health/Watch"), Some(Access::Public));
    }
}
