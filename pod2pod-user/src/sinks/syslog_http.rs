//! Records as lines of syslog in requests of HTTP, as the old forwarder sends them: `application/syslog`, a line each.

use std::{sync::Arc, time::SystemTime};

use http_body_util::Full;
use hyper::{Method, header};

use super::{
    http::{MAX_ANSWER_BYTES, judge},
    http_client::{Access, Client, MAX_BODY_TIME, Reading},
    own::OwnConnections,
    probe::Probe,
    syslog::Style,
};
use crate::{
    delivery::{Answer, Parcel, Target, Trouble, TroubleKind},
    secrets::SecretError,
};

/// Where to, and how.
///
/// Keys: `url` (`syslog+http://` or `syslog+https://`), those of HTTP and TLS, `format`, `facility`, `hostname`, `app_name`, `fields`,
/// `without_fields`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// What lines are like; their framing is that of lines.
    pub style: Style,
}

/// The collector.
pub(super) struct SyslogHttp(Client);

impl Probe for SyslogHttp {
    async fn probe(&self) -> Result<String, Trouble> {
        self.0.probe().await
    }
}

impl SyslogHttp {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(access: Access, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        // What became of the lines is in the head.
        Ok(Self(Client::new(access, own, Reading { most: MAX_ANSWER_BYTES, time: MAX_BODY_TIME })?))
    }

    async fn post(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let request = self.0.request(&Method::POST).header(header::CONTENT_TYPE, "application/syslog");
        let request = request.body(Full::new(parcel.bytes().clone()));
        let request = request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?;
        let (head, _) = self.0.send(request).await?;
        Ok(judge(head.status, &head.headers, SystemTime::now()))
    }
}

impl Target for SyslogHttp {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.post(parcel).await.unwrap_or_else(Answer::Later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{
        http_client::Url,
        loopback::{everything, exactly, listen, parcel, run, say, serve},
    };

    #[test]
    fn lines_are_posted_and_the_answer_is_judged() {
        let (listener, server) = listen();
        let script = |mut stream: std::net::TcpStream| {
            let mut request = Vec::new();
            while !request.ends_with(b"<134>1 b\n") {
                request.extend(exactly(&mut stream, 1));
            }
            say(&mut stream, b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n");
            everything(stream);
            String::from_utf8(request).unwrap()
        };
        let server_thread = serve(listener, vec![Box::new(script)]);
        let access = Access {
            url: Url::parse(&format!("http://127.0.0.1:{}/in", server.port())).unwrap(),
            headers: Vec::new(),
            header_files: Vec::new(),
            authorization: None,
            tls: Default::default(),
            server_name: None,
        };
        let target = SyslogHttp::new(access, Arc::default()).unwrap();
        let answer = run(target.send(&parcel(&["<134>1 a\n", "<134>1 b\n"])));
        assert!(
            matches!(answer, Answer::Later(Trouble { kind: TroubleKind::Unavailable, .. })),
            "{answer:?}"
        );
        drop(target);
        let request = server_thread.join().unwrap().remove(0);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /in HTTP/1.1") && head.contains("content-type: application/syslog"));
        assert_eq!(body, "<134>1 a\n<134>1 b\n");
    }
}
