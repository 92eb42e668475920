//! The independent checker: reads a [`history`](super::history) alone, when it is over, and says what no program may see.
//! It shares no thought with the oracle: it has no log, no offsets and no cuts, only what programs did and were shown.
//!
//! | complaint | promise |
//! |---|---|
//! | a causal gap: a commit is shown, and not what its author had seen before | P2 |
//! | a fractured commit: shown in one segment that is here and not in another | P3 |
//! | own commits are not shown; what was shown has gone; a version does not cover what its giver saw | P4 |
//! | an acknowledged or flushed commit is not in the log in the end; a shown one is not | P5 |
//! | a counter is not the sum of the commits shown with it | P6 |
//! | a refused commit is shown to others, or is in the log | R11 |

use std::collections::BTreeMap;

use super::history::{CommitNo, Event, ProcessNo, SegmentNo, Touch};
use super::marks::Marks;

/// What is wrong, by the name of the promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// The promise.
    pub promise: &'static str,
    /// Where the history breaks it.
    pub event: usize,
    /// In words.
    pub what: String,
}

/// Marks by segment.
type Sight = BTreeMap<SegmentNo, Marks>;

#[derive(Debug)]
struct Commit {
    author: ProcessNo,
    places: Vec<Touch>,
    /// What its author had ever seen.
    seen: Sight,
}

#[derive(Debug, Default)]
struct Process {
    /// What is here.
    here: BTreeMap<SegmentNo, (Marks, Option<i64>)>,
    /// What has been shown, ever, but for own refused commits.
    seen: Sight,
    made: Marks,
    /// Segments that have changed since it last looked.
    changed: Vec<SegmentNo>,
    /// Commits first shown since it last looked.
    news: Marks,
    ended: bool,
}

#[derive(Debug, Default)]
struct Checker {
    commits: BTreeMap<CommitNo, Commit>,
    processes: BTreeMap<ProcessNo, Process>,
    /// What the giver of a version had seen.
    versions: BTreeMap<usize, Sight>,
    acked: Marks,
    refused: Marks,
    /// Refused ones, as the end of the history knows them: nothing may depend on them.
    ever_refused: Marks,
    /// Segments whose counter was made by a refused commit: nothing is counted there.
    uncounted: Vec<SegmentNo>,
    /// Shown to somebody who did not make them.
    shown: Marks,
}

/// Reads a whole history; the first thing that is wrong with it.
pub fn check(history: &[Event]) -> Result<(), Complaint> {
    let mut checker = Checker::default();
    for event in history {
        if let Event::Refused { commit, .. } = event {
            checker.ever_refused.insert(*commit);
        }
    }
    for event in history {
        if let Event::Made { commit, places, .. } = event
            && checker.ever_refused.contains(*commit)
        {
            let made = places.iter().filter(|place| place.makes_counter);
            checker.uncounted.extend(made.map(|place| place.segment));
        }
    }
    for (at, event) in history.iter().enumerate() {
        checker.event(event).map_err(|(promise, what)| Complaint { promise, event: at, what })?;
    }
    Ok(())
}

type Checked = Result<(), (&'static str, String)>;

fn wrong(promise: &'static str, what: String) -> Checked {
    Err((promise, what))
}

impl Checker {
    fn event(&mut self, event: &Event) -> Checked {
        match event {
            Event::Made { process, commit, places } => {
                let of = self.processes.entry(*process).or_default();
                of.made.insert(*commit);
                let seen = of.seen.clone();
                let made = Commit { author: *process, places: places.clone(), seen };
                if self.commits.insert(*commit, made).is_some() {
                    return wrong("history", format!("commit {commit} is made twice"));
                }
            }
            Event::Shown { process, segment, marks, sum } => {
                let of = self.processes.entry(*process).or_default();
                let before = of.here.insert(*segment, (*marks, *sum)).map_or(Marks::default(), |(marks, _)| marks);
                of.changed.push(*segment);
                of.news.extend(&marks.without(&before));
                let foreign = marks.without(&of.made);
                self.shown.extend(&foreign);
            }
            Event::Hidden { process, segment } => {
                self.processes.entry(*process).or_default().here.remove(segment);
            }
            Event::Looks { process } => return self.looks(*process),
            Event::Acked { process, commit } => {
                if self.commits.get(commit).is_none_or(|made| made.author != *process) {
                    return wrong("P5", format!("process {process} is told of commit {commit}, which it did not make"));
                }
                if self.refused.contains(*commit) {
                    return wrong("R11", format!("commit {commit} is acknowledged after its refusal"));
                }
                self.acked.insert(*commit);
            }
            Event::Refused { process, commit } => {
                if self.acked.contains(*commit) {
                    return wrong("P5", format!("commit {commit} of process {process} is refused after its Ack"));
                }
                self.refused.insert(*commit);
            }
            Event::Version { process, version } => {
                let sight = self.processes.entry(*process).or_default().seen.clone();
                self.versions.insert(*version, sight);
            }
            Event::Reached { process, version } => return self.reached(*process, *version),
            Event::Flushed { process, upto } => {
                let Some(upto) = upto else { return Ok(()) };
                let made = self.processes.entry(*process).or_default().made;
                let open = made
                    .iter()
                    .find(|commit| commit <= upto && !self.acked.contains(*commit) && !self.refused.contains(*commit));
                if let Some(open) = open {
                    return wrong("P5", format!("a flush of process {process} ended, and commit {open} is open"));
                }
            }
            Event::Ended { process } => self.processes.entry(*process).or_default().ended = true,
            Event::Rest { log } => return self.rest(log),
        }
        Ok(())
    }

    /// A program may look at what it is shown.
    fn looks(&mut self, number: ProcessNo) -> Checked {
        let Some(process) = self.processes.get_mut(&number) else { return Ok(()) };
        let (changed, news) = (std::mem::take(&mut process.changed), std::mem::take(&mut process.news));
        let mine = process.made;
        let of_others = process.made.common(&self.refused);
        for segment in &changed {
            let Some((marks, _)) = process.here.get(segment) else { continue };
            // P4: what was shown stays.
            let seen = process.seen.entry(*segment).or_default();
            let gone = seen.without(marks).without(&of_others);
            if !gone.is_empty() {
                return wrong("P4", format!("process {number}: {gone:?} have gone from segment {segment}"));
            }
            seen.extend(marks);
            let bad = marks.common(&self.ever_refused).without(&mine);
            if !bad.is_empty() {
                return wrong(
                    "R11",
                    format!("process {number} is shown {bad:?} of segment {segment}, which were refused"),
                );
            }
        }
        let Some(process) = self.processes.get(&number) else { return Ok(()) };
        for segment in changed.iter().filter(|segment| !self.uncounted.contains(segment)) {
            if let Some((marks, sum)) = process.here.get(segment) {
                self.count(number, *segment, marks, *sum)?;
            }
        }
        for commit in mine.without(&self.refused).iter() {
            let Some(made) = self.commits.get(&commit) else { continue };
            for place in &made.places {
                // P4: read your writes.
                if process.here.get(&place.segment).is_some_and(|(marks, _)| !marks.contains(commit)) {
                    let what = format!("process {number} does not see its own {commit} in segment {}", place.segment);
                    return wrong("P4", what);
                }
            }
        }
        // What is new is held against all that is here; what has come here, against all that is shown.
        let mut candidates = news;
        if changed.iter().any(|segment| process.here.contains_key(segment)) {
            for (marks, _) in process.here.values() {
                candidates.extend(marks);
            }
        }
        for commit in candidates.without(&mine).iter() {
            self.causes(number, commit)?;
        }
        Ok(())
    }

    /// P6: a counter is the sum of what the commits shown with it added.
    fn count(&self, number: ProcessNo, segment: SegmentNo, marks: &Marks, sum: Option<i64>) -> Checked {
        let (mut total, mut made) = (0, false);
        for commit in marks.iter() {
            let Some(commit) = self.commits.get(&commit) else {
                return wrong("P5", format!("process {number} is shown commit {commit}, which nobody made"));
            };
            for place in commit.places.iter().filter(|place| place.segment == segment) {
                total += place.adds;
                made |= place.makes_counter;
            }
        }
        match sum {
            Some(sum) if sum != total => {
                let what = format!("process {number} counts {sum} in segment {segment}; what it is shown adds {total}");
                wrong("P6", what)
            }
            None if made => wrong("P3", format!("process {number} is shown the commit, not the counter of {segment}")),
            _ => Ok(()),
        }
    }

    /// P2 and P3 of one commit of somebody else that is shown here.
    fn causes(&self, number: ProcessNo, commit: CommitNo) -> Checked {
        let (Some(process), Some(made)) = (self.processes.get(&number), self.commits.get(&commit)) else {
            return Ok(());
        };
        for place in &made.places {
            if process.here.get(&place.segment).is_some_and(|(marks, _)| !marks.contains(commit)) {
                return wrong(
                    "P3",
                    format!("process {number} is shown a part of {commit}, not that of {}", place.segment),
                );
            }
        }
        for (segment, (marks, _)) in &process.here {
            let Some(causes) = made.seen.get(segment) else { continue };
            let missing = causes.without(marks).without(&self.ever_refused);
            if !missing.is_empty() {
                return wrong(
                    "P2",
                    format!("process {number} is shown {commit}, and not {missing:?} in segment {segment}"),
                );
            }
        }
        Ok(())
    }

    /// P4: who has reached a version sees what its giver saw, of what is here.
    fn reached(&self, number: ProcessNo, version: usize) -> Checked {
        let Some(sight) = self.versions.get(&version) else {
            return wrong("history", format!("version {version} was not given"));
        };
        // A process that was never shown anything has nothing here.
        let Some(process) = self.processes.get(&number) else { return Ok(()) };
        for (segment, (marks, _)) in &process.here {
            let missing = sight.get(segment).copied().unwrap_or_default().without(marks).without(&self.ever_refused);
            if !missing.is_empty() {
                let what = format!("process {number} has reached version {version} without {missing:?} of {segment}");
                return wrong("P4", what);
            }
        }
        Ok(())
    }

    /// The end: nothing that was promised is missing, and everybody shows the same.
    fn rest(&self, log: &Marks) -> Checked {
        let lost = self.acked.without(log);
        if !lost.is_empty() {
            return wrong("P5", format!("{lost:?} were acknowledged, and are lost"));
        }
        let lost = self.shown.without(log);
        if !lost.is_empty() {
            return wrong("P5", format!("{lost:?} were shown to others, and are lost"));
        }
        let bad = log.common(&self.ever_refused);
        if !bad.is_empty() {
            return wrong("R11", format!("{bad:?} were refused, and are in the log"));
        }
        let mut all = Sight::new();
        for commit in log.iter() {
            let Some(made) = self.commits.get(&commit) else {
                return wrong("P5", format!("commit {commit} is in the log, and nobody made it"));
            };
            for place in &made.places {
                all.entry(place.segment).or_default().insert(commit);
            }
        }
        for (number, process) in self.processes.iter().filter(|(_, process)| !process.ended) {
            for (segment, (marks, _)) in &process.here {
                let whole = all.get(segment).copied().unwrap_or_default();
                if *marks != whole {
                    let what = format!("process {number} rests at {marks:?} of segment {segment}, not at {whole:?}");
                    return wrong("P1", what);
                }
            }
            let open = process.made.without(&self.refused).without(&self.acked);
            if !open.is_empty() {
                return wrong("P5", format!("{open:?} of process {number} were never answered"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history as it is told: `A`, `B` are processes 0 and 1, segments 0 and 1.
    fn made(process: ProcessNo, commit: CommitNo, places: &[(SegmentNo, i64)]) -> Event {
        let place = |(segment, adds): &(SegmentNo, i64)| Touch { segment: *segment, adds: *adds, makes_counter: false };
        Event::Made { process, commit, places: places.iter().map(place).collect() }
    }

    fn shown(process: ProcessNo, segment: SegmentNo, marks: &[CommitNo], sum: i64) -> Event {
        Event::Shown { process, segment, marks: marks.iter().copied().collect(), sum: Some(sum) }
    }

    fn looks(process: ProcessNo) -> Event {
        Event::Looks { process }
    }

    /// Process 0 makes commit 0 in both segments and is shown it.
    fn begun() -> Vec<Event> {
        vec![made(0, 0, &[(0, 1), (1, 1)]), shown(0, 0, &[0], 1), shown(0, 1, &[0], 1), looks(0)]
    }

    fn finds(promise: &str, history: &[Event]) {
        let complaint = check(history).expect_err("the history is bad");
        assert_eq!(complaint.promise, promise, "{complaint:?}");
        assert!(check(&history[..complaint.event]).is_ok(), "it is not found earlier: {complaint:?}");
    }

    fn continued(more: &[Event]) -> Vec<Event> {
        begun().into_iter().chain(more.iter().cloned()).collect()
    }

    #[test]
    fn a_good_history_passes() {
        let log = [0, 1].into_iter().collect();
        let good = continued(&[
            shown(1, 0, &[0], 1),
            shown(1, 1, &[0], 1),
            looks(1),
            made(1, 1, &[(0, 2)]),
            shown(1, 0, &[0, 1], 3),
            looks(1),
            Event::Version { process: 1, version: 0 },
            Event::Acked { process: 0, commit: 0 },
            Event::Acked { process: 1, commit: 1 },
            Event::Flushed { process: 1, upto: Some(1) },
            shown(0, 0, &[0, 1], 3),
            looks(0),
            Event::Reached { process: 0, version: 0 },
            Event::Rest { log },
        ]);
        assert_eq!(check(&good), Ok(()));
    }

    #[test]
    fn a_causal_gap_is_found() {
        let gap = [
            shown(1, 0, &[0], 1),
            shown(1, 1, &[0], 1),
            looks(1),
            // Behind commit 0, in a segment of its own.
            made(1, 1, &[(2, 0)]),
            Event::Shown { process: 2, segment: 2, marks: [1].into_iter().collect(), sum: None },
            shown(2, 0, &[], 0),
            looks(2),
        ];
        finds("P2", &continued(&gap));
        // The same, when the segment comes later, behind the log.
        let mut late = gap.to_vec();
        late.insert(5, looks(2));
        finds("P2", &continued(&late));
    }

    #[test]
    fn a_fractured_commit_is_found() {
        finds("P3", &continued(&[shown(1, 0, &[0], 1), shown(1, 1, &[], 0), looks(1)]));
    }

    #[test]
    fn broken_sessions_are_found() {
        // Own commit not shown.
        finds("P4", &continued(&[shown(0, 1, &[], 0), looks(0)]));
        // Shown and gone, in between not even here.
        let gone = [
            shown(1, 0, &[0], 1),
            looks(1),
            Event::Hidden { process: 1, segment: 0 },
            looks(1),
            shown(1, 0, &[], 0),
            looks(1),
        ];
        finds("P4", &continued(&gone));
        // A version that does not cover what its giver saw.
        let short = [Event::Version { process: 0, version: 0 }, shown(1, 0, &[], 0), looks(1)];
        finds("P4", &continued(&[&short[..], &[Event::Reached { process: 1, version: 0 }]].concat()));
    }

    #[test]
    fn lost_commits_are_found() {
        let rest = Event::Rest { log: Marks::default() };
        finds("P5", &continued(&[Event::Acked { process: 0, commit: 0 }, rest.clone()]));
        finds("P5", &continued(&[shown(1, 0, &[0], 1), looks(1), rest]));
        finds("P5", &continued(&[Event::Flushed { process: 0, upto: Some(0) }]));
        finds("P5", &continued(&[Event::Acked { process: 0, commit: 0 }, Event::Refused { process: 0, commit: 0 }]));
    }

    #[test]
    fn double_effects_are_found() {
        finds("P6", &continued(&[shown(1, 0, &[0], 2), looks(1)]));
    }

    #[test]
    fn refused_commits_are_found() {
        let refused = Event::Refused { process: 0, commit: 0 };
        finds("R11", &continued(&[shown(1, 0, &[0], 1), looks(1), refused.clone()]));
        finds("R11", &continued(&[refused, Event::Rest { log: [0].into_iter().collect() }]));
    }

    #[test]
    fn what_differs_in_the_end_is_found() {
        let rest = Event::Rest { log: [0].into_iter().collect() };
        let behind = [shown(1, 0, &[], 0), looks(1), Event::Acked { process: 0, commit: 0 }, rest];
        finds("P1", &continued(&behind));
    }
}
