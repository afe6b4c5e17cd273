//! The client against a gateway in memory: both transports, and whole replicas under faults.

mod fake;
mod follow;
mod large;
mod restored;
mod rounds;
mod site;
mod transports;
