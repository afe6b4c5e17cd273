//! The embedded store against the shared suite.

use std::sync::Arc;

use super::*;
use crate::store::conformance::Home;

mod suite;
