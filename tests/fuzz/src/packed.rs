//! A replica made of bytes that claim to be another one, packed.

use coheap_core::edge;
use coheap_core::replica::Replica;

use crate::contained::forgiving;
use crate::count::applies;
use crate::replica::turn;
use crate::talk::{op, options, timed};

/// The target.
pub fn packed(data: &[u8]) {
    forgiving("automerge", || {
        let Ok(mut replica) = applies("an import", data.len(), || Replica::import(options(9), data)) else { return };
        while replica.poll().is_some() {}
        for (op, bytes) in [(op::CONNECTED, &[0; 33][..]), (op::STATS, &[]), (op::TICK, &[]), (op::DUMP, &[0])] {
            let (now, input) = edge::read(op.into(), &timed(5, bytes)).expect("a call of ours");
            turn(&mut replica, now, input);
        }
        let again = Replica::import(options(9), &replica.export()).expect("what was packed is unpacked");
        assert_eq!((again.id(), again.cut(), again.unsaved()), (replica.id(), replica.cut(), replica.unsaved()));
    });
}
