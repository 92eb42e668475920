//! `Replica`: the one class JavaScript sees, and the numbers of its operations.

use wasm_bindgen::prelude::*;

use crate::error::CallError;

/// Answers with the version of this crate as UTF-8, so that JavaScript can tell a stale module from its own.
const OP_VERSION: u32 = 0;

/// One open heap inside this wasm instance.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Replica {}

#[wasm_bindgen]
impl Replica {
    /// Makes a replica from encoded options. No option is defined yet, so none is read.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(#[wasm_bindgen(js_name = "options", unchecked_param_type = "Uint8Array")] _options: &[u8]) -> Self {
        Self {}
    }

    /// Runs one operation on a whole batch: bytes in, bytes out. Takes `&self`, because a listener that runs later in
    /// the same turn may call again.
    ///
    /// # Errors
    /// Throws an `Error` for an operation this build does not know. The replica is unharmed.
    pub fn call(
        &self,
        op: u32,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] input: &[u8],
    ) -> Result<Vec<u8>, JsValue> {
        Ok(self.dispatch(op, input)?)
    }
}

impl Replica {
    fn dispatch(&self, op: u32, _input: &[u8]) -> Result<Vec<u8>, CallError> {
        match op {
            OP_VERSION => Ok(env!("CARGO_PKG_VERSION").as_bytes().to_vec()),
            unknown => Err(CallError::UnknownOp(unknown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_zero_tells_the_version() {
        assert_eq!(Replica::new(&[]).dispatch(OP_VERSION, &[]).unwrap(), env!("CARGO_PKG_VERSION").as_bytes());
    }

    #[test]
    fn an_unknown_operation_is_an_error_and_not_a_panic() {
        assert_eq!(Replica::new(&[]).dispatch(u32::MAX, &[]), Err(CallError::UnknownOp(u32::MAX)));
    }
}
