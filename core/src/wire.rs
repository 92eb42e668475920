#![doc = include_str!("../WIRE.md")]

pub mod code;
pub mod codec;
pub mod frame;
pub mod list;
