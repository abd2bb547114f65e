//! Where records meet what IPVS did with their connection: one worker's join, the board that it reads, and the records that wait.

use std::{sync::Arc, time::Duration};

use crate::{
    capture::{KernelInstant, Segment},
    enrich::reuse::{self, Failed},
    ipvs::{
        join::{Answer, Config, Join, Stats},
        met::Met,
    },
    reassembly::{Connection, Start},
    record::Record,
    sinks::Sinks,
    watch::board::{Board, Mark},
};

/// One worker's.
#[derive(Debug)]
pub struct Joint {
    join: Join<Record>,
    board: Arc<Board>,
    mark: Mark,
}

impl Joint {
    /// Reads `board` from its beginning.
    pub fn new(config: Config, board: Arc<Board>) -> Self {
        Self { join: Join::new(config), board, mark: Mark::default() }
    }

    /// Looks at a segment that may be a SYN.
    #[inline]
    pub fn see(&mut self, segment: &Segment<'_>) {
        if segment.opens() {
            self.join.syn(segment.source, segment.destination, segment.sequence, instant(segment.time));
        }
    }

    /// Writes `record`, with what is known of its connection; or has it wait until that is known.
    pub fn write(&mut self, record: &Record, connection: &Connection, now: KernelInstant, sinks: &mut Sinks) {
        let (client, to) = (connection.originator, connection.responder);
        self.note(record, connection);
        let (answer, syn) = self.ask(connection);
        match (answer, syn) {
            (Answer::No, _) | (Answer::InQuestion, None) => sinks.write(record),
            (Answer::Met(met), _) => sinks.write(&joined(record.clone(), Some(met))),
            (Answer::InQuestion, Some(syn)) => {
                let waits =
                    self.join.wait((client, to), syn, record.clone(), record.held_bytes(), instant(now));
                if let Err((record, met)) = waits {
                    sinks.write(&joined(record, met));
                }
            }
        }
    }

    fn ask(&self, connection: &Connection) -> (Answer, Option<Duration>) {
        let syn = connection.syn_time.filter(|_| connection.start == Start::Handshake).map(instant);
        (self.join.ask(connection.originator, connection.responder, syn), syn)
    }

    /// Has the reuse that `connection` may be name its failure, and no other's, though `record` itself may not be written.
    pub fn note(&self, record: &Record, connection: &Connection) {
        let (answer, _) = self.ask(connection);
        let Some(isn) = connection.originator_isn.filter(|_| answer != Answer::No) else { return };
        let (client, to) = (connection.originator, connection.responder);
        if record.error_type().is_some() {
            self.board.put_failed(client, to, Failed::of(record, isn));
        } else {
            self.board.note_other(client, to, isn);
        }
    }

    /// Takes what is new on the board, if anything is.
    #[inline]
    pub fn read(&mut self, sinks: &mut Sinks) {
        let Some(fresh) = self.board.fresh(&mut self.mark) else { return };
        let tell = &mut |record, met| sinks.write(&joined(record, met));
        for decision in &fresh.decisions {
            self.join.settle(decision, &fresh.kernel, tell);
        }
        match fresh.look {
            Some(Some(look)) => self.join.look(look, tell),
            Some(None) => self.join.lose(tell),
            None => {}
        }
    }

    /// Whether something has waited long enough at `now`.
    pub fn is_due(&self, now: KernelInstant) -> bool {
        self.join.next_deadline().is_some_and(|deadline| deadline <= instant(now))
    }

    /// Writes what has waited long enough at `now`.
    pub fn expire(&mut self, now: KernelInstant, sinks: &mut Sinks) {
        self.join.expire(instant(now), &mut |record, met| sinks.write(&joined(record, met)));
    }

    /// Writes all that waits.
    pub fn finish(&mut self, sinks: &mut Sinks) {
        self.join.finish(&mut |record, met| sinks.write(&joined(record, met)));
    }

    /// Records that wait.
    pub fn waiting(&self) -> usize {
        self.join.waiting()
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        self.join.stats()
    }
}

fn joined(mut record: Record, met: Option<Met>) -> Record {
    record.ipvs = met.map(|met| Box::new(reuse::met(&met)));
    record
}

const fn instant(time: KernelInstant) -> Duration {
    Duration::from_nanos(time.as_nanos())
}
