//! Places where a test may have the process killed, as a power cut would. Builds for release have
//! none.

/// The environment variable that names the place.
const VARIABLE: &str = "LAKESYNC_TEST_FAILPOINT";

/// Dies here, if this is the place: no destructor runs, and nothing is written any more.
pub(super) fn reach(place: &str) {
    if cfg!(debug_assertions) && std::env::var_os(VARIABLE).is_some_and(|named| *named == *place) {
        std::process::abort();
    }
}
