//! `Replica`: the one class JavaScript sees. A call is decoded, handled by the core's machine, and everything that came of it
//! goes back as one buffer. `coheap_core::edge` has the formats.

use std::cell::RefCell;

use coheap_core::edge;
use coheap_core::replica as core;
use wasm_bindgen::prelude::*;

use crate::error::CallError;

#[cfg(target_arch = "wasm32")]
#[wasm_bindgen]
extern "C" {
    /// An engine is about to be given what came from elsewhere for this segment (its index), or is done (`u32::MAX`). When a call
    /// traps, nothing in here can be asked any more: the last word that got out says whose content it was. A parameter of
    /// the generated factory (`xtask/src/glue.rs`).
    fn touching(segment: u32);
}

/// One open heap inside this wasm instance.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Replica {
    machine: RefCell<core::Replica>,
}

#[wasm_bindgen]
impl Replica {
    /// Opens a heap: nothing is resident, nothing is connected.
    ///
    /// # Errors
    /// Throws an `Error` for options that do not parse: the package's JavaScript and wasm do not match.
    #[wasm_bindgen(constructor)]
    pub fn new(
        #[wasm_bindgen(js_name = "options", unchecked_param_type = "Uint8Array")] options: &[u8],
    ) -> Result<Replica, JsValue> {
        let options = edge::options(options).map_err(CallError::Options)?;
        #[cfg_attr(not(target_arch = "wasm32"), expect(unused_mut, reason = "there is nobody to tell"))]
        let mut machine = core::Replica::new(options);
        #[cfg(target_arch = "wasm32")]
        machine.set_witness(|segment| touching(segment.map_or(u32::MAX, |index| index.0)));
        Ok(Replica { machine: RefCell::new(machine) })
    }

    /// Runs one operation on a whole batch: bytes in, records out. Takes `&self`, because a listener that runs later in
    /// the same turn may call again.
    ///
    /// # Errors
    /// Throws an `Error` for an input this build cannot read. The replica is unharmed.
    pub fn call(
        &self,
        op: u32,
        #[wasm_bindgen(unchecked_param_type = "Uint8Array")] input: &[u8],
    ) -> Result<Vec<u8>, JsValue> {
        Ok(self.run(op, input)?)
    }
}

impl Replica {
    fn run(&self, op: u32, input: &[u8]) -> Result<Vec<u8>, CallError> {
        let (now, input) = edge::read(op, input).map_err(CallError::Input)?;
        let mut machine = self.machine.try_borrow_mut().map_err(|_| CallError::Reentered)?;
        machine.handle(now, input);
        let mut records = Vec::new();
        while let Some(output) = machine.poll() {
            edge::write(&output, &mut records);
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Replica {
        let mut options = vec![7; 32];
        options.extend_from_slice(&[1, b'h', 0, 0, 0]);
        Replica::new(&options).unwrap()
    }

    #[test]
    fn a_tick_of_an_idle_replica_says_nothing() {
        assert_eq!(replica().run(0, &[0]), Ok(Vec::new()));
    }

    #[test]
    fn a_call_that_cannot_be_read_is_an_error_and_not_a_panic() {
        assert!(matches!(replica().run(99, &[0]), Err(CallError::Input(_))));
        assert!(matches!(replica().run(1, &[]), Err(CallError::Input(_))));
    }
}
