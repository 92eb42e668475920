//! What must hold after every step: of what a program sees, of what the relay says, of what is found on the disk.

use coheap_core::heap::Index;
use coheap_core::id::{Offset, Seq, Uid};
use coheap_core::relay::{ConnId, Recovered};
use coheap_core::wire::frame::Down;

use super::super::history::{SegmentNo, Touch};
use super::super::oracle::Amount;
use super::{Failure, World, fails};

impl World {
    /// What a program sees now is what it must see: in every segment the log below its cut, and its own commits.
    pub(super) fn judge(&self, at: usize) -> Result<(), Failure> {
        let process = &self.processes[at];
        let told = |problem: &&String| {
            let full = self.filled && problem.starts_with("ERR_STORAGE_FULL");
            !full && !self.is_frozen_by(at, problem)
        };
        if let Some(problem) = process.problems.iter().find(told) {
            return fails("P8", format!("process {} in place {at}: {problem}", process.number));
        }
        if let Some(offset) = process.told_twice {
            return fails("P3", format!("process {} in place {at} is told of {offset:?} in two steps", process.number));
        }
        if process.restoring && self.losses == 0 {
            return fails("R1", format!("process {} is to give back what was not lost", process.number));
        }
        for (index, view) in &process.views {
            let segment = process.segments[index];
            let must = self.must_see(at, *index, segment);
            if view.marks != must.marks {
                return self.wrong_marks(
                    at,
                    segment,
                    &view.marks.without(&must.marks),
                    &must.marks.without(&view.marks),
                );
            }
            let counts = self.heaps[self.heap_of(at)].oracle.counts_in(segment);
            let sum = must.counts.then_some(must.sum);
            if counts && view.sum() != sum {
                let what = format!("process {} counts {:?} in segment {segment}", process.number, view.sum());
                return fails("P6", format!("{what}, and sees commits that come to {sum:?}: {:?}", must.marks));
            }
        }
        Ok(())
    }

    /// R12: a process says of a segment that its engine cannot take it in, or what somebody kept of it as bytes, and so it is.
    fn is_frozen_by(&self, at: usize, problem: &str) -> bool {
        let of = &self.heaps[self.heap_of(at)];
        let poisoned = of.segments.iter().enumerate().filter(|(segment, _)| of.oracle.was_poisoned(*segment));
        let says = problem.starts_with("ERR_QUARANTINED") || problem.starts_with("ERR_CORRUPT: what was kept of");
        says && poisoned.into_iter().any(|(_, id)| problem.contains(&id.to_string()))
    }

    fn must_see(&self, at: usize, index: Index, segment: SegmentNo) -> Amount {
        let (process, heap) = (&self.processes[at], &self.heaps[self.heap_of(at)]);
        let mut content = heap.oracle.life(process.life).content(segment, process.replica.cut());
        let undone = process.undone.iter().filter(|(_, of)| *of == index).map(|(commit, _)| commit);
        for commit in process.open.iter().chain(undone) {
            for place in heap.oracle.made[*commit].places.iter().filter(|place| place.segment == segment) {
                content.add(*commit, place);
            }
        }
        content
    }

    /// Says which promise it is that does not hold.
    fn wrong_marks(
        &self,
        at: usize,
        segment: SegmentNo,
        extra: &super::super::marks::Marks,
        missing: &super::super::marks::Marks,
    ) -> Result<(), Failure> {
        let (process, heap) = (&self.processes[at], &self.heaps[self.heap_of(at)]);
        let cut = process.replica.cut();
        let who = format!("process {} in place {at}, cut {}, segment {segment}", process.number, cut.0);
        if let Some(commit) = extra.iter().next() {
            let made = &heap.oracle.made[commit];
            let place = heap.oracle.place(commit);
            return match place {
                _ if !process.open.contains(&commit) && process.line.contains(&commit) => {
                    fails("R11", format!("{who}: own commit {commit}, which was refused, is shown"))
                }
                _ if heap.oracle.is_void(commit) => fails("R11", format!("{who}: void commit {commit} is shown")),
                None => fails("P5", format!("{who}: commit {commit} is shown, and is not in the log: {made:?}")),
                Some(place) => fails("P2", format!("{who}: commit {commit} of offset {place} is shown too early")),
            };
        }
        let commit = missing.iter().next().unwrap_or_default();
        let made = &heap.oracle.made[commit];
        if process.line.contains(&commit) {
            return fails("P4", format!("{who}: own commit {commit} is not shown"));
        }
        let elsewhere = made.places.iter().any(|place| {
            place.segment != segment
                && process.shown(place.segment).is_some_and(|index| process.views[&index].marks.contains(commit))
        });
        if elsewhere {
            return fails("P3", format!("{who}: commit {commit} is shown in another segment only"));
        }
        fails("P2", format!("{who}: commit {commit} of offset {:?} is not shown", heap.oracle.place(commit)))
    }

    /// The relay says something: nothing that is not on the disk (P5), and only what is true.
    pub(super) fn said(&mut self, heap: usize, to: &[ConnId], frame: &Down) -> Result<(), Failure> {
        if self.plan.claims {
            let links = self.processes.iter().filter_map(|process| process.link.as_ref());
            let of = links.filter(|link| to.contains(&link.conn));
            let to: Vec<_> = of.filter_map(|link| Some((link.conn, *link.own.first()?))).collect();
            self.heaps[heap].grants.down(self.now, &to, frame)?;
        }
        let of = &self.heaps[heap];
        let (position, what) = match frame {
            Down::Entry(entry) => {
                if of.oracle.uid(entry.offset) != Some(entry.uid) {
                    return fails("P5", format!("offset {} is told as another commit", entry.offset.0));
                }
                (entry.offset.next(), "an entry")
            }
            Down::Advance { position } => (*position, "an advance"),
            Down::Ack { position, seq, owner } => {
                self.acks(heap, to, *owner, *seq)?;
                (*position, "an ack")
            }
            Down::Refused { position, seq, owner, .. } => {
                self.acks(heap, to, *owner, *seq)?;
                (*position, "a refusal")
            }
            Down::Restored(frame) => {
                if self.losses == 0 {
                    return fails("R1", "something was given back, and nothing was lost");
                }
                (frame.position.max(frame.offset.next()), "what was given back")
            }
            Down::Snapshot { position, onto_copy, .. } => {
                self.tally.onto_copies += u64::from(*onto_copy);
                (*position, "a snapshot")
            }
            Down::Ok(welcome) => {
                if of.epochs_synced < of.oracle.epochs().len() && of.beginning {
                    return fails("R6", "a Hello is answered before its epoch is on the disk");
                }
                let known = of.oracle.epochs();
                if !known.is_empty()
                    && !of.beginning
                    && !welcome.epochs.starts_with(known.get(..of.epochs_synced).unwrap_or(known))
                {
                    return fails("R6", format!("the relay tells epochs {:?}, the disk has {known:?}", welcome.epochs));
                }
                self.tally.catch_ups += u64::from(welcome.catchup);
                of.oracle.forgets_up_to(welcome.forgotten)?;
                let goal = of.synced;
                let late = self.late.iter_mut().map(|(_, link)| link);
                let links = self.processes.iter_mut().filter_map(|process| process.link.as_mut()).chain(late);
                for link in links.filter(|link| to.contains(&link.conn)) {
                    link.answered = Some((welcome.catchup, goal));
                    link.forgotten = welcome.forgotten;
                }
                (welcome.position, "an answer to a Hello")
            }
            // F1: two go by one id.
            Down::Conflict { .. } if self.plan.clones => return Ok(()),
            Down::Roll(roll) => (roll.offset.next(), "a new generation"),
            // R2e: what was on its way when its segment went over.
            Down::Rebase { .. } if self.plan.rolls => return Ok(()),
            Down::Conflict { .. } | Down::Unknown { .. } | Down::Rebase { .. } => {
                return fails("R2", format!("an honest replica is told {frame:?}"));
            }
            _ => return Ok(()),
        };
        let of = &self.heaps[heap];
        if position > of.synced {
            return fails("P5", format!("{what} speaks of {}, the disk has synced {}", position.0, of.synced.0));
        }
        Ok(())
    }

    /// A line is said to be durable up to a number, by commits or by their refusals.
    fn acks(&self, heap: usize, to: &[ConnId], line: u64, seq: Seq) -> Result<(), Failure> {
        let late = self.late.iter().map(|(_, link)| link);
        let links = self.processes.iter().filter_map(|process| process.link.as_ref()).chain(late);
        for link in links.filter(|link| to.contains(&link.conn)) {
            let of = &self.heaps[heap];
            let owner = link.own.get(line as usize).copied().unwrap_or_default();
            let upto = of.oracle.reaches(owner, seq);
            if upto.is_none_or(|upto| upto > of.synced) {
                let what = format!("line {owner:?} is said to be durable up to {seq:?}");
                return fails("P5", format!("{what}, which the log has below {upto:?} of {:?}", of.synced));
            }
        }
        Ok(())
    }

    /// What a program is told is durable is on the disk, by itself or by what was given back; or was, when the relay said so.
    pub(super) fn told_durable(&mut self, at: usize) -> Result<(), Failure> {
        let news = std::mem::take(&mut self.processes[at].news);
        let (process, of) = (&self.processes[at], &self.heaps[self.heap_of(at)]);
        if process.link.as_ref().is_none_or(|link| link.life < self.losses) {
            return Ok(());
        }
        for commit in news {
            let place = of.oracle.place(commit).filter(|place| *place < of.synced.0 && !of.oracle.is_void(commit));
            let held = |place: &Touch| of.oracle.log().content(place.segment, of.synced).marks.contains(commit);
            if place.is_none() && !of.oracle.made[commit].places.iter().all(held) {
                let what = format!("process {} in place {at}: commit {commit} is acknowledged", process.number);
                return fails("P5", format!("{what}, and is not in the log below {:?}", of.synced));
            }
        }
        Ok(())
    }

    /// What the store found is what was written: all that was synced, and of what was handed over behind it a prefix.
    pub(super) fn found_on_disk(&mut self, heap: usize, recovered: &Recovered) -> Result<(), Failure> {
        let of = &mut self.heaps[heap];
        if recovered.head < of.synced || recovered.head > of.oracle.head() {
            let what = format!("the log ends at {:?}, synced was {:?}", recovered.head, of.synced);
            return fails("P5", format!("{what}, written {:?}", of.oracle.head()));
        }
        let (epochs, known) = (recovered.epochs.len(), of.oracle.epochs());
        if epochs < of.epochs_synced || known.get(..epochs) != Some(&recovered.epochs[..]) {
            return fails("R6", format!("the disk has the epochs {:?}, written were {known:?}", recovered.epochs));
        }
        of.oracle.truncate(recovered.head, recovered.segments.len());
        of.oracle.forget_epochs(epochs);
        of.synced = of.synced.max(Offset(recovered.head.0));
        of.epochs_synced = epochs;
        let born: Vec<_> = of.oracle.segments().iter().map(|segment| of.segments.get(*segment)).collect();
        let found: Vec<_> = recovered.segments.iter().map(|row| Some(&row.id)).collect();
        if born != found {
            return fails("P5", format!("the disk has the segments {found:?}, the log made {born:?}"));
        }
        if recovered.forgotten > of.oracle.forgotten {
            return fails("G5", format!("the disk has dropped lines below {:?}", recovered.forgotten));
        }
        of.oracle.forgotten = recovered.forgotten;
        for owner in of.oracle.dropped.clone() {
            let is_there = recovered.admit.iter().any(|(id, _)| *id == owner);
            of.oracle.finds(owner, is_there, recovered.forgotten)?;
        }
        let dropped = &of.oracle.dropped;
        let owners = of.oracle.owners().into_iter().filter(|owner| !dropped.contains(owner)).collect::<Vec<_>>();
        for owner in owners.iter().copied() {
            let row = recovered.admit.iter().find(|(id, _)| *id == owner);
            let row = row.map(|(_, row)| (row.last(), row.line_uid()));
            // Of a line of which somebody gave back what is not acknowledged, nothing else is known.
            if row != Some(of.oracle.line(owner).unwrap_or((Seq(0), Uid::NONE))) {
                return fails("P6", format!("the disk has {row:?} of {owner:?}, the log {:?}", of.oracle.line(owner)));
            }
        }
        if recovered.admit.len() != owners.len() {
            return fails("P6", "the disk has lines that the log does not know");
        }
        Ok(())
    }
}
