//! How lines travel for which no server answers: in a stream over TCP or TLS, or each in a datagram.

use std::sync::Arc;

use super::{
    datagram_client,
    failover::Server,
    own::OwnConnections,
    probe::Probe,
    stream_client::{self, Access},
};
use crate::{
    delivery::{Answer, Parcel, Target, Trouble},
    secrets::SecretError,
};

/// How, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One item behind the other, each framed by whoever made it.
    Stream(Access),
    /// An item a datagram. One server at least; the first is asked as long as it does not refuse.
    Datagrams(Vec<Server>),
}

impl Transport {
    /// Whether items follow one another in it.
    pub const fn is_stream(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Datagrams(_) => false,
        }
    }

    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        match self {
            Self::Stream(access) => access.check_files(),
            Self::Datagrams(_) => Vec::new(),
        }
    }
}

/// What carries them.
pub(super) enum Carrier {
    /// A stream.
    Stream(stream_client::Client),
    /// Datagrams.
    Datagrams(datagram_client::Client),
}

impl Carrier {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(transport: Transport, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        Ok(match transport {
            Transport::Stream(access) => Self::Stream(stream_client::Client::new(access, own)?),
            Transport::Datagrams(servers) => Self::Datagrams(datagram_client::Client::new(servers, own)),
        })
    }
}

impl Probe for Carrier {
    async fn probe(&self) -> Result<String, Trouble> {
        match self {
            Self::Stream(client) => {
                client.lend().await?.keep();
                Ok("takes a connection; it never says what it took".to_owned())
            }
            Self::Datagrams(client) => {
                client.probe().await?;
                Ok("has an address; whether somebody listens there cannot be known".to_owned())
            }
        }
    }
}

impl Target for Carrier {
    /// `Delivered` says what [`stream_client`] and [`datagram_client`] can tell, which is less than an answer of the server's would.
    async fn send(&self, parcel: &Parcel) -> Answer {
        match self {
            Self::Stream(client) => {
                client.deliver(parcel.bytes()).await.map_or_else(Answer::Later, |()| Answer::Delivered)
            }
            Self::Datagrams(client) => client.deliver(parcel).await,
        }
    }
}
