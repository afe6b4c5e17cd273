//! Real databases behind a real gateway. What they hold is read by their own clients, and never by
//! our reader: I13, backends are the gateway's rows, value for value.

mod cells;
mod configured;
mod faults;
mod guests;
mod history;
mod imported;
mod killed;
mod moved;
mod restored;
mod returned;
mod servers;
mod values;
mod verified;
