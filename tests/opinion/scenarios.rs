//! The scenarios: which server, which client, what they say to each other. Records and compares nothing.

use anyhow::Result;

use crate::stage::Stage;

/// A conversation of real programs.
pub(crate) struct Scenario {
    /// Unique name, also of the committed capture.
    pub(crate) name: &'static str,
    /// Starts the server.
    pub(crate) server: fn(&mut Stage) -> Result<()>,
    /// Runs the clients to their end.
    pub(crate) client: fn(&mut Stage) -> Result<()>,
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario { name: "nginx-curl-keepalive", server: nginx, client: curl_keepalive }];

fn nginx(stage: &mut Stage) -> Result<()> {
    stage.nginx()
}

fn curl_keepalive(stage: &mut Stage) -> Result<()> {
    let (small, big) = (stage.number(1, 5000), stage.number(100_000, 300_000));
    stage.publish("small", small)?;
    stage.publish("big", big)?;
    stage.pause(5);
    stage.client("curl", &["--version"])?;
    stage.curl(&["/small", "/missing", "/big?q=1&r=%20", "/small#fragment", "/"])
}
