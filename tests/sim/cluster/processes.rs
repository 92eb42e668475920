//! What can happen to a process of a [`Cluster`]: it goes on in another instance, is copied, or ends and begins anew over
//! its store.

use std::collections::BTreeMap;

use coheap_core::heap::Index;
use coheap_core::id::SegmentId;
use coheap_core::replica::{Input, Replica};

use super::Cluster;
use crate::node::{Node, options};

impl Cluster {
    /// A replica goes on in another instance, as in the full module: its connection is lost, its program notices nothing.
    pub fn move_replica(&mut self, at: usize) {
        self.disconnect(at);
        self.moves += 1;
        let packed = self.nodes[at].replica.export();
        let (id, unsaved) = (self.nodes[at].replica.id(), self.nodes[at].replica.unsaved());
        let before: BTreeMap<Index, _> =
            self.nodes[at].mirrors.iter().map(|(i, mirror)| (*i, mirror.value())).collect();
        let options = options(&mut self.draws);
        self.nodes[at].replica = Replica::import(options.clone(), &packed).expect("a replica reads what one wrote");
        let node = &mut self.nodes[at];
        assert_eq!((node.replica.id(), node.replica.unsaved()), (id, unsaved));
        assert_eq!(node.replica.export().len(), packed.len(), "nothing is lost on the way");
        // It shows what is here; what is to be made anew is so still.
        let rebuilding = node.rebuilding.clone();
        while let Some(output) = node.replica.poll() {
            node.perform(output);
        }
        node.rebuilding = rebuilding;
        for (index, mirror) in &node.mirrors {
            assert_eq!(Some(&mirror.value()), before.get(index), "what a program sees does not change by it");
        }
        for end in [0, packed.len() / 2, packed.len() - 1] {
            assert!(Replica::import(options.clone(), &packed[..end]).is_err(), "cut at {end}");
        }
    }

    /// A trap: the instance can be asked nothing, and the replica goes on from what was kept outside of it.
    pub fn lose_instance(&mut self, at: usize) {
        self.moves += 1;
        self.losses += 1;
        let options = options(&mut self.draws);
        let node = &mut self.nodes[at];
        let (replica, outputs) = node.kept.rebuild(node.replica.id(), &node.ids, options);
        let lost = std::mem::replace(&mut node.replica, replica);
        assert_eq!(node.replica.books(), lost.books(), "P4: it stands where it stood");
        let shown: BTreeMap<Index, _> = node.mirrors.iter().map(|(i, mirror)| (*i, mirror.value())).collect();
        let rebuilding = node.rebuilding.clone();
        for output in outputs {
            node.perform(output);
        }
        node.rebuilding = rebuilding;
        for (index, mirror) in &node.mirrors {
            assert_eq!(Some(&mirror.value()), shown.get(index), "what a program sees does not change by it");
        }
        // Its socket breaks with it; the relay notices.
        self.disconnect(at);
    }

    /// A process is copied, as when the snapshot of a machine is started beside it: all that it remembers, the state of its
    /// randomness too. Both go on; neither has a connection.
    pub fn copy_process(&mut self, at: usize) -> usize {
        self.disconnect(at);
        self.copied += 1;
        // Both are made of the same bytes and the same seed: no two processes could be more alike.
        let packed = self.nodes[at].replica.export();
        let options = options(&mut self.entropy);
        let [first, second] = [0; 2].map(|_| Replica::import(options.clone(), &packed).expect("a replica reads"));
        let other = self.nodes.len();
        let from = &self.nodes[at];
        let mut copy = Node::of(second);
        (copy.mirrors, copy.ids) = (from.mirrors.clone(), from.ids.clone());
        copy.suspended.clone_from(&from.suspended);
        (copy.rebuilding, copy.seen) = (from.rebuilding.clone(), from.seen.clone());
        (copy.inherited, copy.overruled) = (from.inherited, from.overruled);
        copy.problems.clone_from(&from.problems);
        copy.kept.clone_from(&from.kept);
        self.nodes.push(copy);
        self.nodes[at].replica = first;
        for at in [at, other] {
            let node = &mut self.nodes[at];
            let rebuilding = node.rebuilding.clone();
            while let Some(output) = node.replica.poll() {
                node.perform(output);
            }
            node.rebuilding = rebuilding;
        }
        self.ledger.copied(at, other);
        other
    }

    /// A process stores what it is.
    pub fn store(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.stored = Some((node.replica.export(), node.rebuilding.clone()));
    }

    /// A process ends, and another one opens its store, which may be older than what the first one knew and sent.
    pub fn restart(&mut self, at: usize) {
        let Some((stored, rebuilding)) = self.nodes[at].stored.clone() else { return };
        self.disconnect(at);
        self.restarts += 1;
        let options = options(&mut self.entropy);
        let mut node = Node::of(Replica::reopen(options, &stored).expect("a replica reads what one stored"));
        let unsaved = node.replica.unsaved_uids();
        node.inherited = unsaved.len() as u64;
        node.kept = self.nodes[at].kept.stored(unsaved.len());
        while let Some(output) = node.replica.poll() {
            node.perform(output);
        }
        // What was refused before it was stored is shown until then.
        node.rebuilding.clone_from(&rebuilding);
        node.stored = Some((stored, rebuilding));
        self.nodes[at] = node;
        if !self.ledger.off {
            self.ledger.restarted(at, &unsaved);
        }
        self.input(at, Input::Load(vec![(SegmentId::ROOT, true)]));
    }
}
