//! Exports of the core to JavaScript.
