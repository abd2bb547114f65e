//! Records to Kafka, each in the topic that its fields name, judged one by one by what the brokers report.
//!
//! librdkafka keeps records for brokers that are away, up to nine tenths of the sink's time for an attempt; what is left then waits in the
//! sink's own queue. What an attempt leaves behind that nobody waits for any more is purged: the brokers may have a part of it that
//! will be sent again, so records may be there twice after such a failure, and never else: the producer is idempotent.

#[cfg(feature = "kafka")]
mod code;
#[cfg(feature = "kafka")]
mod flights;
pub mod item;
#[cfg(feature = "kafka")]
mod library;
pub mod settings;
#[cfg(feature = "kafka")]
mod target;
pub mod topics;

#[cfg(feature = "kafka")]
pub(super) use self::target::Kafka;
use self::topics::Allowed;
pub use self::{
    item::Encoder,
    settings::{Acks, Brokers, Compression, Mechanism, Partitioner, Sasl},
};
use crate::{route::Template, secrets::tls};

/// What is done with records for topics that the cluster does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTopic {
    /// They wait, and all others behind them.
    Wait,
    /// They are dead letters.
    #[default]
    DeadLetter,
    /// They go to the default topic.
    Default,
}

/// Where to, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where brokers are.
    pub brokers: Brokers,
    /// For brokers that speak TLS.
    pub tls: tls::Client,
    /// Who we are, if that is asked.
    pub sasl: Option<Sasl>,
    /// How we are called in a broker's logs and quotas.
    pub client_id: String,
    /// The topic of a record.
    pub topic: Template,
    /// Where records go that name none.
    pub default_topic: String,
    /// What is done with those whose topic there is not.
    pub unknown_topic: UnknownTopic,
    /// Which topics are sent to.
    pub allowed: Allowed,
    /// How many, at most.
    pub max_topics: usize,
    /// What a record is put into a partition by; any if absent.
    pub key: Option<Template>,
    /// How.
    pub partitioner: Partitioner,
    /// How many brokers must have a record.
    pub acks: Acks,
    /// Brokers know what they were sent already.
    pub is_idempotent: bool,
    /// How records are compressed.
    pub compression: Compression,
    /// Headers of every message.
    pub headers: Vec<(String, String)>,
    /// Bytes of a message at most, and of what is sent at once.
    pub message_bytes: usize,
}
