//! The port through which rows leave LakeSync for a backend. Flushing is not wired yet; the
//! contract and its suite come first.
