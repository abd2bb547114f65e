//! Metrics as the agent renders them, and whether its books balance.

/// Metrics as the agent renders them.
pub struct Metrics(String);

impl Metrics {
    pub fn parse(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// All of them, for people.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// A counter of the agent's own, without `pod2pod_` and `_total`, all its labels together.
    pub fn counter(&self, name: &str) -> u64 {
        let name = format!("pod2pod_{name}_total");
        let rows = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(&name)?;
            let value = rest.strip_prefix(' ').or_else(|| rest.split_once("} ").map(|(_, value)| value))?;
            value.parse::<f64>().ok()
        });
        let values: Vec<f64> = rows.collect();
        assert!(!values.is_empty(), "no metric {name}");
        values.iter().sum::<f64>() as u64
    }

    /// All rows of `name`, without `pod2pod_`, whose labels contain `label`, together.
    pub fn sum(&self, name: &str, label: &str) -> u64 {
        self.sum_of(name, &[label])
    }

    /// Those whose labels contain all of `wanted`.
    pub fn sum_of(&self, name: &str, wanted: &[&str]) -> u64 {
        let name = format!("pod2pod_{name}");
        let rows = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(&name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let is_one = labels.is_empty() || labels.starts_with('{');
            (is_one && wanted.iter().all(|label| labels.contains(label)))
                .then(|| value.parse::<f64>().unwrap_or_default())
        });
        rows.sum::<f64>() as u64
    }

    /// A kernel counter.
    pub fn kernel(&self, name: &str) -> u64 {
        self.counter(&format!("kernel_{name}"))
    }

    /// The kernel's books: every packet seen, every segment matched and every record sent is accounted for.
    pub fn balance(&self) -> Result<(), String> {
        let sum = |names: &[&str]| names.iter().map(|name| self.kernel(name)).sum::<u64>();
        let rows = [
            (
                "packets_seen",
                self.kernel("packets_seen"),
                sum(&[
                    "heartbeat_stale",
                    "not_ip",
                    "not_tcp",
                    "fragment",
                    "too_many_extension_headers",
                    "malformed_header",
                    "own_traffic",
                    "bare_ack",
                    "segments_matched",
                ]),
            ),
            (
                "segments_matched",
                self.kernel("segments_matched"),
                sum(&[
                    "segments_sent",
                    "segments_not_http",
                    "segments_unwanted",
                    "segments_skipped",
                    "segments_shed_connections",
                    "segments_ring_full",
                    "segments_unreadable",
                ]),
            ),
            (
                "bytes_matched",
                self.kernel("bytes_matched"),
                sum(&[
                    "bytes_sent",
                    "bytes_not_http",
                    "bytes_unwanted",
                    "bytes_skipped",
                    "bytes_over_credit",
                    "bytes_shed_bodies",
                    "bytes_shed_headers",
                    "bytes_shed_connections",
                    "bytes_ring_full",
                    "bytes_unreadable",
                    "bytes_truncated",
                ]),
            ),
            ("records_sent", self.kernel("records_sent"), self.counter("reader_records")),
        ];
        rows.iter().try_for_each(|(name, left, right)| {
            if left == right { Ok(()) } else { Err(format!("{name} is {left}, its parts are {right}")) }
        })
    }
}
