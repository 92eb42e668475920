//! R9: relays that share one log come to the same verdicts, since the rule looks at nothing but what the log says before an entry. There
//! is no such log yet (a store belongs to one relay): this is the rule alone, as every reader of a log has it, on a log that two
//! write to, each behind what the other has written.

use std::collections::BTreeSet;

use coheap_core::admit::{AdmitTable, Candidate, Verdict};
use coheap_core::id::{Offset, ReplicaId, Seq, Uid};
use coheap_core::wire::frame::down::{Fate, Row};

const AUTHORS: usize = 3;
const COMMITS: u64 = 12;

/// A relay: how far it has read the log, and what it knows by that.
#[derive(Default)]
struct Reader {
    table: AdmitTable,
    read: usize,
    /// Places of the log that it found to hold the next commit of a line.
    admitted: Vec<usize>,
}

/// A connection's relay is where it is; commits up to `acked` are over.
struct Author {
    at: usize,
    sent: u64,
    acked: u64,
}

fn candidate(author: usize, seq: u64) -> Candidate {
    let uid = |seq: u64| if seq == 0 { Uid::NONE } else { Uid(1 + author as u64 * 1000 + seq) };
    let owner = ReplicaId([author as u8 + 1; 16]);
    Candidate { owner, seq: Seq(seq), uid: uid(seq), prev: uid(seq - 1), after: None }
}

impl Reader {
    /// Reads the log up to its end; what it says of each entry.
    fn read(&mut self, log: &[(usize, usize, u64)]) -> Vec<(usize, Verdict)> {
        let mut said = Vec::new();
        for (place, (_, author, seq)) in log.iter().enumerate().skip(self.read) {
            let commit = candidate(*author, *seq);
            let verdict = self.table.line(&commit);
            if verdict == Verdict::Admit {
                let row = Row { seq: commit.seq, uid: commit.uid, fate: Fate::Admitted(1) };
                self.table.record(commit.owner, row, Offset(0), 0);
                self.admitted.push(place);
            }
            said.push((place, verdict));
        }
        self.read = log.len();
        said
    }
}

/// Two relays and three authors, who go from one to the other and send again what is not acknowledged. Gives how often a relay would
/// have appended by what it knew, and the log said otherwise.
fn world(seed: u64) -> usize {
    let mut draw = {
        let mut state = seed.wrapping_mul(2).wrapping_add(1);
        move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    };
    // Who wrote it, whose it is, its number.
    let mut log: Vec<(usize, usize, u64)> = Vec::new();
    let mut relays = [Reader::default(), Reader::default()];
    let mut authors: Vec<Author> = (0..AUTHORS).map(|_| Author { at: 0, sent: 0, acked: 0 }).collect();
    let (mut raced, mut meant) = (0, BTreeSet::new());
    while authors.iter().any(|author| author.acked < COMMITS) {
        let of = draw(AUTHORS);
        match draw(8) {
            0 => {
                // To the other relay: all that is not acknowledged is sent again.
                authors[of].at = 1 - authors[of].at;
                authors[of].sent = authors[of].acked;
            }
            1..5 if authors[of].sent < COMMITS => {
                authors[of].sent += 1;
                let (at, seq) = (authors[of].at, authors[of].sent);
                // A relay is behind what it and the other have written, so it writes what may be the next: the log decides.
                if relays[at].table.line(&candidate(of, seq)) == Verdict::Admit {
                    meant.insert(log.len());
                }
                log.push((at, of, seq));
            }
            _ => {
                let at = draw(2);
                for (place, verdict) in relays[at].read(&log) {
                    let (wrote, author, seq) = log[place];
                    raced += usize::from(meant.contains(&place) && wrote == at && verdict != Verdict::Admit);
                    // The relay that wrote it acts on what it reads back.
                    if wrote == at && matches!(verdict, Verdict::Admit | Verdict::Duplicate) {
                        let author = &mut authors[author];
                        assert!(seq <= author.acked + 1, "what is acknowledged has no gap");
                        author.acked = author.acked.max(seq);
                    }
                }
            }
        }
    }
    for relay in &mut relays {
        relay.read(&log);
    }
    assert_eq!(relays[0].admitted, relays[1].admitted, "one log, one order");
    assert_eq!(relays[0].table, relays[1].table);
    for author in 0..AUTHORS {
        let mine = relays[0].admitted.iter().filter(|place| log[**place].1 == author);
        let mine: Vec<u64> = mine.map(|place| log[*place].2).collect();
        assert_eq!(mine, (1..=COMMITS).collect::<Vec<u64>>(), "each once, in order");
    }
    raced
}

#[test]
fn r9_relays_that_share_a_log_act_on_what_it_says_at_each_place() {
    let raced: usize = (0..300).map(world).sum();
    assert!(raced > 100, "a relay that acted on what it knew would have appended twice {raced} times");
}
