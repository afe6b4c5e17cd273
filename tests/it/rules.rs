//! Sync rules over real gRPC: what a token sees and writes, and that nobody else ever hears of it.

mod made_up;
mod oracle;
mod reader;
mod world;
