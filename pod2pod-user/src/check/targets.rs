//! Targets of sinks, each asked once, all at the same time.

use std::thread;

use crate::{
    delivery::{Trouble, TroubleKind},
    finding::Finding,
    sinks::SinkConfig,
};

/// What was found of each.
pub(super) fn check(sinks: &[SinkConfig]) -> Vec<Finding> {
    if sinks.is_empty() {
        return vec![Finding::ok("sinks", "none is configured")];
    }
    // Each may take seconds.
    thread::scope(|scope| {
        let asked: Vec<_> = sinks.iter().map(|sink| (sink, scope.spawn(|| sink.probe()))).collect();
        asked.into_iter().map(|(sink, asked)| finding(&sink.common.name, asked.join().ok())).collect()
    })
}

fn finding(sink: &str, found: Option<Result<String, Trouble>>) -> Finding {
    let name = format!("sinks.{sink}");
    match found {
        Some(Ok(found)) => Finding::ok(name, found),
        Some(Err(Trouble { kind, detail, .. })) => {
            let found = format!("{}: {detail}", kind.as_str());
            Finding::missing(name, found).with(
                "its target",
                "its records wait, and are lost when there is no room",
                cure(kind),
            )
        }
        None => Finding::missing(name, "asking it failed").with(
            "its target",
            "its records wait, and are lost when there is no room",
            "tell us: this is a mistake in the program",
        ),
    }
}

const fn cure(kind: TroubleKind) -> &'static str {
    match kind {
        TroubleKind::Connect => {
            "see that it runs, that the address is right, and that the network lets this node reach it"
        }
        TroubleKind::Tls => "compare tls.ca, tls.server_name and the certificate that it shows",
        TroubleKind::Timeout => "see whether something between swallows packets, or it hangs",
        TroubleKind::Closed | TroubleKind::Nonsense => {
            "see that the address and the port are those of such a server"
        }
        TroubleKind::Unauthorized => {
            "see that the user, the password, the key or the token are those that it knows, and that their files can be read"
        }
        TroubleKind::Throttled | TroubleKind::Unavailable => {
            "it is there and may take records later: see what it says of itself"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn without_sinks_there_is_nothing_to_ask() {
        assert_eq!(check(&[]), [Finding::ok("sinks", "none is configured")]);
    }

    #[test]
    fn trouble_has_its_cure() {
        let trouble = |kind| finding("a", Some(Err(Trouble::new(kind, "why"))));
        for kind in TroubleKind::ALL {
            let Finding { name, status, found, cure, .. } = trouble(kind);
            assert_eq!(
                (&*name, status, found),
                ("sinks.a", Status::Missing, format!("{}: why", kind.as_str()))
            );
            assert!(!cure.is_empty());
        }
        assert_eq!(finding("a", Some(Ok("there".to_owned()))), Finding::ok("sinks.a", "there"));
        assert_eq!(finding("a", None).status, Status::Missing);
    }
}
