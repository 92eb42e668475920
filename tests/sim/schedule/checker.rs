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
//!
//! A commit that its author was told is in doubt (G5) is as an acknowledged one if it is in the log in the end, and as a refused one
//! otherwise.
//!
//! A lost disk (CORE-PROTOCOL §14.2) excuses exactly the commits that were durable on it and are not on what took its place,
//! and of them: that they are in no segment, or not in all of theirs, in the end (P5, P3); that what was made on top of them is
//! shown without them (P2, tokens); and that they are not in a segment that was away and has come back (P4). What stays here
//! goes on to show them, so whoever has kept a segment has kept them for all. Counters stay exact, everybody agrees, and of all
//! other commits nothing is excused.

use std::collections::{BTreeMap, BTreeSet};

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
    places: Vec<Touch>,
    /// What its author had ever seen.
    seen: Sight,
}

#[derive(Clone, Debug, Default)]
struct Process {
    /// What is here.
    here: BTreeMap<SegmentNo, (Marks, Option<i64>)>,
    /// What has been shown, ever, but for own refused commits.
    seen: Sight,
    made: Marks,
    /// Segments that were here, and are not: what was lost may be missing when they come back.
    away: BTreeSet<SegmentNo>,
    /// Lost commits that were missing when their segment came back.
    gone: Sight,
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
    /// Durable once, and not on the disk that took the place of theirs.
    lost: Marks,
    /// Not acknowledged, and not in a generation that came back: in part until their authors have made the rest anew.
    superseded: Marks,
}

/// Reads a whole history; the first thing that is wrong with it.
pub fn check(history: &[Event]) -> Result<(), Complaint> {
    let mut checker = Checker::default();
    let content = history.iter().find_map(|event| if let Event::Rest { log } = event { Some(&log[..]) } else { None });
    let content = content.unwrap_or_default();
    for event in history {
        // What is in doubt is there, once, or nowhere; in the end that shows.
        let is_nowhere = |commit: &CommitNo| !content.iter().any(|marks| marks.contains(*commit));
        match event {
            Event::Refused { commit, .. } => drop(checker.ever_refused.insert(*commit)),
            Event::Doubted { commit, .. } if is_nowhere(commit) => drop(checker.ever_refused.insert(*commit)),
            _ => {}
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
                let made = Commit { places: places.clone(), seen };
                if self.commits.insert(*commit, made).is_some() {
                    return wrong("history", format!("commit {commit} is made twice"));
                }
            }
            Event::Shown { process, segment, marks, sum } => {
                let of = self.processes.entry(*process).or_default();
                if of.away.remove(segment) {
                    let missing = self.lost.without(marks);
                    of.seen.entry(*segment).or_default().take_out(&missing);
                    of.gone.insert(*segment, missing);
                }
                let before = of.here.insert(*segment, (*marks, *sum)).map_or(Marks::default(), |(marks, _)| marks);
                of.changed.push(*segment);
                of.news.extend(&marks.without(&before));
                let foreign = marks.without(&of.made);
                self.shown.extend(&foreign);
            }
            Event::Hidden { process, segment } => {
                let of = self.processes.entry(*process).or_default();
                if of.here.remove(segment).is_some() {
                    of.away.insert(*segment);
                }
            }
            Event::Looks { process } => return self.looks(*process),
            Event::Acked { process, commit } => {
                if self.processes.get(process).is_none_or(|of| !of.made.contains(*commit)) {
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
            Event::Doubted { commit, .. } if self.ever_refused.contains(*commit) => drop(self.refused.insert(*commit)),
            Event::Doubted { commit, .. } => drop(self.acked.insert(*commit)),
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
            Event::Copied { from, process } => {
                let copy = self.processes.get(from).cloned().unwrap_or_default();
                self.processes.insert(*process, copy);
            }
            Event::Reopened { process, made } => self.processes.entry(*process).or_default().made.extend(made),
            Event::Lost { commits } => self.lost.extend(commits),
            Event::Superseded { commits } => self.superseded.extend(commits),
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
            // P4: what was shown stays. Of what its author makes anew in a generation that came back, to the author.
            let seen = process.seen.entry(*segment).or_default();
            let gone = seen.without(marks).without(&of_others).without(&self.superseded.without(&mine));
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
                let excused = process.gone.get(&place.segment).is_some_and(|gone| gone.contains(commit));
                let hidden = process.here.get(&place.segment).is_some_and(|(marks, _)| !marks.contains(commit));
                if hidden && !excused {
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
        let excused = self.lost.contains(commit) || self.superseded.contains(commit);
        for place in made.places.iter().filter(|_| !excused) {
            if process.here.get(&place.segment).is_some_and(|(marks, _)| !marks.contains(commit)) {
                return wrong(
                    "P3",
                    format!("process {number} is shown a part of {commit}, not that of {}", place.segment),
                );
            }
        }
        for (segment, (marks, _)) in &process.here {
            let Some(causes) = made.seen.get(segment) else { continue };
            let missing =
                causes.without(marks).without(&self.ever_refused).without(&self.lost).without(&self.superseded);
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
            let missing = sight.get(segment).copied().unwrap_or_default().without(marks);
            let missing = missing.without(&self.ever_refused).without(&self.lost);
            if !missing.is_empty() {
                let what = format!("process {number} has reached version {version} without {missing:?} of {segment}");
                return wrong("P4", what);
            }
        }
        Ok(())
    }

    /// The end: nothing that was promised is missing, and everybody shows the same.
    fn rest(&self, content: &[Marks]) -> Checked {
        let log = content.iter().fold(Marks::default(), |mut all, marks| {
            all.extend(marks);
            all
        });
        let missing = self.acked.without(&log).without(&self.lost);
        if !missing.is_empty() {
            return wrong("P5", format!("{missing:?} were acknowledged, and are lost"));
        }
        let missing = self.shown.without(&log).without(&self.lost);
        if !missing.is_empty() {
            return wrong("P5", format!("{missing:?} were shown to others, and are lost"));
        }
        let bad = log.common(&self.ever_refused);
        if !bad.is_empty() {
            return wrong("R11", format!("{bad:?} were refused, and are in the log"));
        }
        for commit in log.iter() {
            let Some(made) = self.commits.get(&commit) else {
                return wrong("P5", format!("commit {commit} is in the log, and nobody made it"));
            };
            let lies = |segment: SegmentNo| content.get(segment).is_some_and(|marks| marks.contains(commit));
            let torn = made.places.iter().find(|place| !lies(place.segment));
            if let Some(place) = torn.filter(|_| !self.lost.contains(commit)) {
                return wrong("P3", format!("commit {commit} is in the log, and not in segment {}", place.segment));
            }
            let strays = (0..content.len())
                .find(|segment| lies(*segment) && made.places.iter().all(|place| place.segment != *segment));
            if let Some(segment) = strays {
                return wrong("P3", format!("commit {commit} is in segment {segment}, where it did nothing"));
            }
        }
        for (number, process) in self.processes.iter().filter(|(_, process)| !process.ended) {
            for (segment, (marks, _)) in &process.here {
                let whole = content.get(*segment).copied().unwrap_or_default();
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
        let place = |(segment, adds): &(SegmentNo, i64)| Touch { segment: *segment, adds: *adds, ..Touch::default() };
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
        let log = vec![[0, 1].into_iter().collect(), [0].into_iter().collect()];
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
        let rest = Event::Rest { log: Vec::new() };
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
        finds("R11", &continued(&[refused, Event::Rest { log: vec![[0].into_iter().collect(); 2] }]));
    }

    #[test]
    fn what_differs_in_the_end_is_found() {
        let rest = Event::Rest { log: vec![[0].into_iter().collect(); 2] };
        let behind = [shown(1, 0, &[], 0), looks(1), Event::Acked { process: 0, commit: 0 }, rest];
        finds("P1", &continued(&behind));
    }

    /// Parts and causes, while the author makes the rest anew, and what others were shown of it; not what it was shown itself, and not
    /// the end.
    #[test]
    fn a_generation_that_came_back_excuses_parts_of_what_it_has_not() {
        let superseded = |commits: &[CommitNo]| Event::Superseded { commits: commits.iter().copied().collect() };
        let half = [shown(1, 0, &[0], 1), shown(1, 1, &[], 0), looks(1)];
        finds("P3", &continued(&half));
        assert_eq!(check(&continued(&[&[superseded(&[0])], &half[..]].concat())), Ok(()));
        finds("P3", &continued(&[&[superseded(&[1])], &half[..]].concat()));
        let acked = Event::Acked { process: 0, commit: 0 };
        finds(
            "P5",
            &continued(&[superseded(&[0]), acked, Event::Ended { process: 0 }, Event::Rest { log: Vec::new() }]),
        );
        finds("P4", &continued(&[superseded(&[0]), shown(0, 0, &[], 0), looks(0)]));
        let flickers = [shown(1, 0, &[0], 1), shown(1, 1, &[0], 1), looks(1), shown(1, 0, &[], 0), looks(1)];
        finds("P4", &continued(&flickers));
        assert_eq!(check(&continued(&[&[superseded(&[0])], &flickers[..]].concat())), Ok(()));
    }

    #[test]
    fn a_lost_disk_excuses_what_it_lost_and_nothing_else() {
        let acked = Event::Acked { process: 0, commit: 0 };
        let lost = |commits: &[CommitNo]| Event::Lost { commits: commits.iter().copied().collect() };
        let (hidden, ended) = (Event::Hidden { process: 0, segment: 0 }, Event::Ended { process: 0 });
        let nothing = Event::Rest { log: Vec::new() };
        // Nobody holds it any more.
        assert_eq!(check(&continued(&[acked.clone(), lost(&[0]), ended.clone(), nothing.clone()])), Ok(()));
        finds("P5", &continued(&[acked.clone(), lost(&[1]), ended.clone(), nothing.clone()]));
        // Who holds it holds it for all: where the segment stays, and in the end.
        finds("P4", &continued(&[acked.clone(), lost(&[0]), shown(0, 0, &[], 0), looks(0)]));
        finds("P1", &continued(&[acked.clone(), lost(&[0]), nothing]));
        // Where it was away, what was lost may be missing, the own commit too; not what was not.
        let back = [acked, lost(&[0]), hidden.clone(), looks(0), shown(0, 0, &[], 0), looks(0)];
        assert_eq!(check(&continued(&back)), Ok(()));
        finds("P4", &continued(&[hidden, looks(0), shown(0, 0, &[], 0), looks(0)]));
        // Half of it is left with one who held half.
        let half = [lost(&[0]), ended, shown(1, 0, &[0], 1), shown(1, 1, &[], 0), looks(1)];
        assert_eq!(check(&continued(&half)), Ok(()));
        let log = vec![[0].into_iter().collect(), Marks::default()];
        assert_eq!(check(&continued(&[&half[..], &[Event::Rest { log: log.clone() }]].concat())), Ok(()));
        finds("P3", &continued(&[Event::Acked { process: 0, commit: 0 }, Event::Rest { log }]));
        // Counters are exact all the same.
        finds("P6", &continued(&[lost(&[0]), shown(1, 0, &[], 1), looks(1)]));
    }

    #[test]
    fn a_copy_and_a_process_over_a_store_know_what_they_took_over() {
        let copied = Event::Copied { from: 0, process: 1 };
        let acked = Event::Acked { process: 1, commit: 0 };
        assert_eq!(check(&continued(&[copied.clone(), acked.clone()])), Ok(()));
        finds("P5", &continued(std::slice::from_ref(&acked)));
        finds("P4", &continued(&[copied, shown(1, 0, &[], 0), looks(1)]));
        let reopened = Event::Reopened { process: 1, made: [0].into_iter().collect() };
        assert_eq!(check(&continued(&[reopened.clone(), acked])), Ok(()));
        finds("P4", &continued(&[reopened, shown(1, 0, &[], 0), looks(1)]));
    }
}
