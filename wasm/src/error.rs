//! What a call can fail with, as JavaScript sees it.

use wasm_bindgen::prelude::*;

/// A call that was refused; the instance is unharmed and goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// No operation has this number: the JavaScript and the module are of different builds.
    UnknownOp(u32),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownOp(op) => write!(f, "unknown operation {op}: the package's JavaScript and wasm do not match"),
        }
    }
}

impl From<CallError> for JsValue {
    fn from(error: CallError) -> Self {
        JsError::new(&error.to_string()).into()
    }
}
