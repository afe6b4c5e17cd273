//! The generated stubs of `proto/`, and its descriptors. Everything beyond `wire` and the services
//! speaks domain types instead.

/// `lakesync.v1`: what replicas talk to.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, reason = "generated")]
    tonic::include_proto!("lakesync.v1");
}

/// `lakesync.admin.v1`: what operators talk to.
pub mod admin {
    /// The first version.
    pub mod v1 {
        #![allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, reason = "generated")]
        tonic::include_proto!("lakesync.admin.v1");
    }
}

/// The encoded `google.protobuf.FileDescriptorSet` of all of `proto/`, imports included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
