//! Where a lake will be kept fit: changes folded into tables, what is superseded dropped.
//!
//! A door without rooms: nothing is built yet, and nothing depends on this crate. It will use the
//! core's merge and the adapters' layouts, and never touch what a reader may still need.
