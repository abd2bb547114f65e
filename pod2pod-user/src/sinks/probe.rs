//! Asks targets once whether they are there and let us in, and leaves nothing behind but a table that is to be made: `pod2pod check --sinks`.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    OwnConnections, SinkConfig, TargetConfig, elasticsearch::Elasticsearch, file::LogFile, fluentd::Fluentd,
    http::Collector, otlp::Otlp, postgres::Postgres, syslog_http::SyslogHttp, transport::Carrier,
};
use crate::delivery::{Trouble, TroubleKind};

/// A target that has said nothing by then is not there. Longer than the time for one connection, so that its words are told.
pub const MAX_PROBE_TIME: Duration = Duration::from_secs(15);

/// What can be asked.
pub(super) trait Probe {
    /// What was found, in words.
    ///
    /// # Errors
    /// It is not there, or does not let us in.
    fn probe(&self) -> impl Future<Output = Result<String, Trouble>>;
}

impl SinkConfig {
    /// Asks its target; what was found, in words.
    ///
    /// # Errors
    /// A file cannot be used; the runtime cannot be started; the target is not there, does not let us in, or says nothing.
    pub fn probe(&self) -> Result<String, Trouble> {
        let own = Arc::<OwnConnections>::default();
        let unusable = |error: &dyn std::fmt::Display| Trouble::new(TroubleKind::Unauthorized, error);
        let files = |error| unusable(&error);
        match self.target.clone() {
            TargetConfig::Http(http) => ask(Collector::new(*http, own).map_err(files)?),
            TargetConfig::Elasticsearch(nodes) => ask(Elasticsearch::new(*nodes, own).map_err(files)?),
            TargetConfig::Logstash(logstash) => ask(Carrier::new(logstash.transport, own).map_err(files)?),
            TargetConfig::Syslog(syslog) => ask(Carrier::new(syslog.transport, own).map_err(files)?),
            TargetConfig::SyslogHttp(syslog) => ask(SyslogHttp::new(syslog.access, own).map_err(files)?),
            TargetConfig::Fluentd(fluentd) => ask(Fluentd::new(*fluentd, own).map_err(files)?),
            #[cfg(feature = "kafka")]
            TargetConfig::Kafka(kafka) => {
                ask(super::kafka::Kafka::new(*kafka, &self.common, own).map_err(files)?)
            }
            #[cfg(not(feature = "kafka"))]
            TargetConfig::Kafka(_) => Err(unusable(&super::NO_KAFKA)),
            TargetConfig::File(file) => ask(LogFile::new(*file).map_err(|error| unusable(&error))?),
            TargetConfig::Otlp(otlp) => ask(Otlp::new(*otlp, own).map_err(files)?),
            TargetConfig::Postgres(table) => ask(Postgres::new(*table, own).map_err(files)?),
        }
    }
}

fn ask(target: impl Probe) -> Result<String, Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Trouble::new(TroubleKind::Unavailable, error))?;
    let found = runtime.block_on(within(target.probe()));
    // A name that is still looked for keeps nobody waiting.
    runtime.shutdown_background();
    found
}

async fn within(found: impl Future<Output = Result<String, Trouble>>) -> Result<String, Trouble> {
    let silence = format!("it says nothing in {} s", MAX_PROBE_TIME.as_secs());
    timeout(MAX_PROBE_TIME, found).await.map_err(|_| Trouble::new(TroubleKind::Timeout, silence))?
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn a_target_has_its_time_and_no_more() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        // Nothing else happens meanwhile, so that the clock goes on by itself.
        let after = |time| {
            runtime.block_on(within(async move {
                let _ = timeout(time, pending::<()>()).await;
                Ok("there".to_owned())
            }))
        };
        assert_eq!(after(MAX_PROBE_TIME - Duration::from_millis(1)), Ok("there".to_owned()));
        let late = after(MAX_PROBE_TIME + Duration::from_millis(1)).unwrap_err();
        assert_eq!((late.kind, &*late.detail), (TroubleKind::Timeout, "it says nothing in 15 s"));
    }
}
