//! What librdkafka and brokers say of a record, and what it means (librdkafka, `rdkafka.h`; Kafka protocol guide, "Error codes"). Pure.

use crate::delivery::TroubleKind;

/// A code: below zero librdkafka's own, above a broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) i32);

/// Trouble of all brokers at once.
pub(super) const ALL_BROKERS_DOWN: Code = Code(-187);

/// What it means for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The broker has it.
    Taken,
    /// The cluster does not have its topic.
    NoTopic,
    /// It is too large, or what it was sent with.
    TooLarge,
    /// No broker will ever take it.
    Refused,
    /// One may take it later.
    Later(TroubleKind),
    /// Nothing came of it in time; why, other trouble tells.
    Late,
    /// Nothing more comes of this producer.
    Fatal,
}

impl Code {
    /// It was taken.
    pub(super) const NONE: Self = Self(0);
    /// No such topic can be.
    pub(super) const INVALID_ARGUMENT: Self = Self(-186);

    /// What it means.
    pub(super) const fn meaning(self) -> Meaning {
        match self.0 {
            0 => Meaning::Taken,
            // _UNKNOWN_TOPIC, UNKNOWN_TOPIC_OR_PART
            -188 | 3 => Meaning::NoTopic,
            // MSG_SIZE_TOO_LARGE, RECORD_LIST_TOO_LARGE
            10 | 18 => Meaning::TooLarge,
            // _INVALID_ARG, INVALID_MSG, INVALID_MSG_SIZE, TOPIC_EXCEPTION, TOPIC_AUTHORIZATION_FAILED, INVALID_TIMESTAMP,
            // POLICY_VIOLATION, INVALID_RECORD
            -186 | 2 | 4 | 17 | 29 | 32 | 44 | 87 => Meaning::Refused,
            // _MSG_TIMED_OUT, _TIMED_OUT_QUEUE, ALL_BROKERS_DOWN
            -192 | -166 | -187 => Meaning::Late,
            // _FATAL, _STATE, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, UNKNOWN_PRODUCER_ID
            -150 | -172 | 45 | 47 | 59 => Meaning::Fatal,
            _ => Meaning::Later(self.trouble()),
        }
    }

    /// What kind of trouble it is, if it is any.
    pub(super) const fn trouble(self) -> TroubleKind {
        match self.0 {
            // _RESOLVE, _TRANSPORT, _ALL_BROKERS_DOWN
            -193 | -195 | -187 => TroubleKind::Connect,
            // _SSL
            -181 => TroubleKind::Tls,
            // _AUTHENTICATION, CLUSTER_AUTHORIZATION_FAILED, UNSUPPORTED_SASL_MECHANISM, SASL_AUTHENTICATION_FAILED
            -169 | 31 | 33 | 58 => TroubleKind::Unauthorized,
            // _MSG_TIMED_OUT, _TIMED_OUT, _TIMED_OUT_QUEUE, REQUEST_TIMED_OUT
            -192 | -185 | -166 | 7 => TroubleKind::Timeout,
            // _PURGE_QUEUE, _PURGE_INFLIGHT, _BAD_MSG, NETWORK_EXCEPTION
            -152 | -151 | -199 | 13 => TroubleKind::Closed,
            // _QUEUE_FULL, THROTTLING_QUOTA_EXCEEDED
            -184 | 89 => TroubleKind::Throttled,
            _ => TroubleKind::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_they_are_called() {
        use rdkafka_sys::rd_kafka_resp_err_t as native;
        for (code, expected) in [
            (native::RD_KAFKA_RESP_ERR_NO_ERROR, Meaning::Taken),
            (native::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, Meaning::NoTopic),
            (native::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Meaning::NoTopic),
            (native::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Meaning::TooLarge),
            (native::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, Meaning::TooLarge),
            (native::RD_KAFKA_RESP_ERR__INVALID_ARG, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_INVALID_MSG, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR_INVALID_RECORD, Meaning::Refused),
            (native::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, Meaning::Late),
            (native::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE, Meaning::Late),
            (native::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, Meaning::Late),
            (native::RD_KAFKA_RESP_ERR__FATAL, Meaning::Fatal),
            (native::RD_KAFKA_RESP_ERR__STATE, Meaning::Fatal),
            (native::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, Meaning::Fatal),
            (native::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Meaning::Fatal),
            (native::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Meaning::Fatal),
            (native::RD_KAFKA_RESP_ERR__RESOLVE, Meaning::Later(TroubleKind::Connect)),
            (native::RD_KAFKA_RESP_ERR__TRANSPORT, Meaning::Later(TroubleKind::Connect)),
            (native::RD_KAFKA_RESP_ERR__SSL, Meaning::Later(TroubleKind::Tls)),
            (native::RD_KAFKA_RESP_ERR__AUTHENTICATION, Meaning::Later(TroubleKind::Unauthorized)),
            (
                native::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
                Meaning::Later(TroubleKind::Unauthorized),
            ),
            (native::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM, Meaning::Later(TroubleKind::Unauthorized)),
            (native::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED, Meaning::Later(TroubleKind::Unauthorized)),
            (native::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Meaning::Later(TroubleKind::Timeout)),
            (native::RD_KAFKA_RESP_ERR__TIMED_OUT, Meaning::Later(TroubleKind::Timeout)),
            (native::RD_KAFKA_RESP_ERR__PURGE_QUEUE, Meaning::Later(TroubleKind::Closed)),
            (native::RD_KAFKA_RESP_ERR__PURGE_INFLIGHT, Meaning::Later(TroubleKind::Closed)),
            (native::RD_KAFKA_RESP_ERR__BAD_MSG, Meaning::Later(TroubleKind::Closed)),
            (native::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, Meaning::Later(TroubleKind::Closed)),
            (native::RD_KAFKA_RESP_ERR__QUEUE_FULL, Meaning::Later(TroubleKind::Throttled)),
            (native::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, Meaning::Later(TroubleKind::Throttled)),
            (native::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Meaning::Later(TroubleKind::Unavailable)),
        ] {
            assert_eq!(Code(code as i32).meaning(), expected, "{code:?}");
        }
    }
}
