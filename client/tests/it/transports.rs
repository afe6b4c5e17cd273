//! Every transport against the shared suite.

mod local {
    lakesync_client::transport_conformance!(crate::fake::local);
}

mod grpc {
    lakesync_client::transport_conformance!(crate::fake::socket);
}
