//! What a call can fail with, as JavaScript sees it.

use coheap_core::edge::BadCall;
use coheap_core::wire::codec::Malformed;
use wasm_bindgen::prelude::*;

/// A call that was refused; the instance is unharmed and goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The input of a call does not parse: the JavaScript and the module are of different builds.
    Input(BadCall),
    /// The options do not parse, for the same reason.
    Options(Malformed),
    /// A call was made from within a call.
    Reentered,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(bad) => write!(f, "{bad}: the package's JavaScript and wasm do not match"),
            Self::Options(bad) => write!(f, "options: {bad}: the package's JavaScript and wasm do not match"),
            Self::Reentered => write!(f, "called from within a call"),
        }
    }
}

impl From<CallError> for JsValue {
    fn from(error: CallError) -> Self {
        JsError::new(&error.to_string()).into()
    }
}
