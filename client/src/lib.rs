//! Stub.

mod db;
