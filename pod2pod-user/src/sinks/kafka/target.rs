//! The cluster as a target: a producer, made anew when files change or it fails for good, and batches whose records are judged one by one.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::RwLock;

use super::{
    Config, UnknownTopic,
    code::{Code, Meaning},
    item::Item,
    library::{self, Message, Producer},
    settings::Secrets,
    topics::{Admission, Topics},
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, TroubleKind, Verdict},
    secrets::{SecretError, Watched},
    sinks::{own::OwnConnections, probe::Probe, remote::Common},
};

/// Brokers that told nothing of the cluster by then are not there.
const MAX_ASK_TIME: Duration = Duration::from_secs(10);

/// The cluster.
pub(in crate::sinks) struct Kafka {
    config: Config,
    common: Common,
    secrets: Watched<Arc<Secrets>>,
    own: Arc<OwnConnections>,
    producer: RefCell<Option<(Arc<Producer>, Arc<Secrets>)>>,
    topics: RefCell<Topics>,
    /// Who tries records one by one is alone: others' would be in the same batch.
    turn: RwLock<()>,
}

/// What is known of each item so far.
type Verdicts = Vec<Option<Verdict>>;

/// An item that is to be sent, and its place in the parcel.
#[derive(Clone, Copy)]
struct Piece<'a> {
    place: usize,
    item: Item<'a>,
}

/// Takes everything back that was not answered when it is dropped.
struct Attempt<'a> {
    kafka: &'a Kafka,
    producer: Arc<Producer>,
    is_answered: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.kafka.discard(&self.producer);
        }
    }
}

impl Target for Kafka {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.answer(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Probe for Kafka {
    async fn probe(&self) -> Result<String, Trouble> {
        let producer = self.producer()?;
        let asked = Arc::clone(&producer);
        // It blocks.
        let told = tokio::task::spawn_blocking(move || asked.ask(MAX_ASK_TIME)).await;
        match told.map_err(|error| Trouble::new(TroubleKind::Unavailable, error))? {
            Ok((brokers, topics)) => Ok(format!("{brokers} brokers, {topics} topics")),
            Err(code) => Err(trouble_of(&producer, code.trouble())),
        }
    }
}

impl Kafka {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(in crate::sinks) fn new(
        config: Config,
        common: &Common,
        own: Arc<OwnConnections>,
    ) -> Result<Self, SecretError> {
        let topics = Topics::new(config.allowed.clone(), config.default_topic.clone(), config.max_topics);
        Ok(Self {
            secrets: config.secrets()?,
            common: common.clone(),
            own,
            producer: RefCell::default(),
            topics: topics.into(),
            turn: RwLock::default(),
            config,
        })
    }

    /// The producer, of what the files say now.
    fn producer(&self) -> Result<Arc<Producer>, Trouble> {
        let secrets = self.secrets.current();
        let mut current = self.producer.borrow_mut();
        if let Some((producer, made_of)) = &*current
            && Arc::ptr_eq(made_of, &secrets)
        {
            return Ok(Arc::clone(producer));
        }
        let settings = self.config.settings(&self.common, &secrets);
        let made = Producer::new(&settings, &self.config.headers, Arc::clone(&self.own));
        let made = Arc::new(made.map_err(|error| Trouble::new(TroubleKind::Tls, error))?);
        *current = Some((Arc::clone(&made), secrets));
        Ok(made)
    }

    /// Nothing more is sent by it, and what is on its way is given up.
    fn discard(&self, producer: &Arc<Producer>) {
        let mut current = self.producer.borrow_mut();
        if current.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, producer)) {
            *current = None;
        }
        producer.purge();
    }

    async fn answer(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let mut attempt = Attempt { kafka: self, producer: self.producer()?, is_answered: false };
        let mut verdicts = vec![None; parcel.len()];
        let pieces = self.admit(parcel, &mut verdicts);
        match self.send_pieces(&attempt.producer, &pieces, &mut verdicts).await {
            Ok(()) => attempt.is_answered = true,
            // Some may be there already: only the others are sent again.
            Err(trouble) if verdicts.iter().any(Option::is_some) => {
                let unknown = verdicts.iter_mut().filter(|verdict| verdict.is_none());
                unknown.for_each(|verdict| *verdict = Some(Verdict::Later(trouble.kind)));
            }
            Err(trouble) => return Err(trouble),
        }
        Ok(answer(verdicts, &attempt.producer))
    }

    /// Sends all of them, in parts if they are too much at once; what becomes of them is in `verdicts`, as far as it is known.
    async fn send_pieces<'a>(
        &'a self,
        producer: &Arc<Producer>,
        pieces: &[Piece<'a>],
        verdicts: &mut Verdicts,
    ) -> Result<(), Trouble> {
        let mut too_large = {
            let _others = self.turn.read().await;
            let mut homeless = Vec::new();
            let mut too_large = self.send_all(producer, pieces, verdicts, &mut homeless).await?;
            let moved: Vec<_> = homeless.into_iter().map(|piece| self.for_default(piece)).collect();
            too_large.extend(self.send_all(producer, &moved, verdicts, &mut Vec::new()).await?);
            too_large
        };
        if !too_large.is_empty() {
            let _alone = self.turn.write().await;
            too_large.sort_unstable_by_key(|piece| piece.place);
            self.send_divided(producer, too_large, verdicts).await?;
        }
        Ok(())
    }

    /// What is to be sent; of the rest there is a verdict.
    fn admit<'a>(&'a self, parcel: &'a Parcel, verdicts: &mut Verdicts) -> Vec<Piece<'a>> {
        let now = Instant::now();
        let mut pieces = Vec::with_capacity(parcel.len());
        let mut topics = self.topics.borrow_mut();
        for ((place, item), verdict) in parcel.items().enumerate().zip(verdicts) {
            let Some(item) = Item::parse(item) else {
                *verdict = Some(rejected("it is no item of this sink"));
                continue;
            };
            match topics.admit(item.topic, now) {
                Admission::Sent => pieces.push(Piece { place, item }),
                Admission::Refused(why) => *verdict = Some(rejected(format_args!("{}: {why}", item.topic))),
                Admission::Missing => match self.without_topic(item.topic) {
                    Some(known) => *verdict = Some(known),
                    None => pieces.push(self.for_default(Piece { place, item })),
                },
            }
        }
        for topic in topics.take_gone() {
            if let Some((producer, _)) = &*self.producer.borrow() {
                producer.forget(&topic);
            }
        }
        pieces
    }

    /// The same, for the default topic.
    fn for_default<'a>(&'a self, Piece { place, item }: Piece<'a>) -> Piece<'a> {
        Piece { place, item: Item { topic: &self.config.default_topic, ..item } }
    }

    /// What becomes of a record whose topic the cluster does not have; absent if it goes to the default topic.
    fn without_topic(&self, topic: &str) -> Option<Verdict> {
        match self.config.unknown_topic {
            // There is nowhere else.
            UnknownTopic::Default if topic == self.config.default_topic => {
                Some(Verdict::Later(TroubleKind::Unavailable))
            }
            UnknownTopic::Default => None,
            UnknownTopic::Wait => Some(Verdict::Later(TroubleKind::Unavailable)),
            UnknownTopic::DeadLetter => {
                Some(rejected(format_args!("{topic}: the cluster has no such topic")))
            }
        }
    }

    /// Sends all of them at once, and waits for the reports: those of which there is no verdict yet since they, or what they were sent
    /// with, are too large; and those that are to go to the default topic.
    async fn send_all<'a>(
        &self,
        producer: &Arc<Producer>,
        pieces: &[Piece<'a>],
        verdicts: &mut Verdicts,
        homeless: &mut Vec<Piece<'a>>,
    ) -> Result<Vec<Piece<'a>>, Trouble> {
        let codes = fly(producer, pieces).await?;
        let (mut too_large, mut is_over) = (Vec::new(), false);
        for (piece, code) in pieces.iter().zip(codes) {
            let verdict = match code.meaning() {
                Meaning::Taken => Verdict::Delivered,
                Meaning::TooLarge => {
                    too_large.push(*piece);
                    continue;
                }
                Meaning::NoTopic => {
                    self.topics.borrow_mut().miss(piece.item.topic, Instant::now());
                    match self.without_topic(piece.item.topic) {
                        Some(verdict) => verdict,
                        None => {
                            homeless.push(*piece);
                            continue;
                        }
                    }
                }
                Meaning::Refused => rejected(format_args!("{}: {}", piece.item.topic, library::name(code))),
                Meaning::Later(kind) => Verdict::Later(kind),
                Meaning::Late => {
                    Verdict::Later(producer.last().map_or(TroubleKind::Timeout, |last| last.code.trouble()))
                }
                Meaning::Fatal => {
                    is_over = true;
                    Verdict::Later(TroubleKind::Closed)
                }
            };
            if let Some(known) = verdicts.get_mut(piece.place) {
                *known = Some(verdict);
            }
        }
        if is_over {
            self.discard(producer);
        }
        Ok(too_large)
    }

    /// Brokers limit what is sent at once: halves of it, until it is one record that is too large.
    async fn send_divided(
        &self,
        producer: &Arc<Producer>,
        pieces: Vec<Piece<'_>>,
        verdicts: &mut Verdicts,
    ) -> Result<(), Trouble> {
        // Until here others may have been in the same batch.
        let refused = self.send_all(producer, &pieces, verdicts, &mut Vec::new()).await?;
        let mut waiting = vec![refused];
        while let Some(refused) = waiting.pop() {
            if refused.is_empty() {
                continue;
            }
            if let [piece] = &refused[..] {
                let detail = format_args!("one record of {} bytes", piece.item.value.len());
                if let Some(known) = verdicts.get_mut(piece.place) {
                    *known = Some(Verdict::Never(Refusal::new(RefusalKind::TooLarge, detail)));
                }
                continue;
            }
            let (first, second) = refused.split_at(refused.len() / 2);
            for half in [second, first] {
                let too_large = self.send_all(producer, half, verdicts, &mut Vec::new()).await?;
                waiting.push(too_large);
            }
        }
        Ok(())
    }
}

/// Sends all of them and waits for the reports, one of each.
async fn fly(producer: &Arc<Producer>, pieces: &[Piece<'_>]) -> Result<Vec<Code>, Trouble> {
    if pieces.is_empty() {
        return Ok(Vec::new());
    }
    let mut vain = producer.is_vain();
    let mut flight = producer.flights().begin(pieces.len());
    for (number, Piece { item, .. }) in pieces.iter().enumerate() {
        let Item { topic, time, key, value } = *item;
        let code = producer.send(flight.tag(number), Message { topic, key, time, value });
        if code != Code::NONE {
            producer.flights().land(flight.tag(number), code);
        }
    }
    tokio::select! {
        codes = flight.landed() => codes.ok_or_else(|| Trouble::new(TroubleKind::Closed, "the producer ended")),
        _ = vain.wait_for(|is_vain| *is_vain) => Err(trouble_of(producer, TroubleKind::Connect)),
    }
}

/// What the last trouble was, if there was any.
fn trouble_of(producer: &Producer, instead: TroubleKind) -> Trouble {
    match producer.last() {
        Some(last) => Trouble::new(last.code.trouble(), last.reason),
        None => Trouble::new(instead, "no broker took the records in time"),
    }
}

fn answer(verdicts: Verdicts, producer: &Producer) -> Answer {
    let later = |verdict: &Option<Verdict>| match verdict {
        Some(Verdict::Later(kind)) => Some(*kind),
        None => Some(TroubleKind::Unavailable),
        Some(Verdict::Delivered | Verdict::Duplicate | Verdict::Never(_)) => None,
    };
    let is_delivered = |verdict: &Option<Verdict>| *verdict == Some(Verdict::Delivered);
    if verdicts.iter().all(is_delivered) {
        return Answer::Delivered;
    }
    if let Some(kind) = verdicts.first().and_then(later)
        && verdicts.iter().all(|verdict| later(verdict).is_some())
    {
        return Answer::Later(Trouble { kind, ..trouble_of(producer, kind) });
    }
    let verdicts =
        verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Later(TroubleKind::Unavailable)));
    Answer::Judged(verdicts.collect())
}

fn rejected(detail: impl ToString) -> Verdict {
    Verdict::Never(Refusal::new(RefusalKind::Rejected, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::probe::MAX_PROBE_TIME;

    #[test]
    fn brokers_that_are_asked_have_less_time_than_who_asks() {
        assert!(MAX_ASK_TIME < MAX_PROBE_TIME);
    }
}
