//! Follows one kind: a list, then a watch from there on, and again from where it was; a new list only if the server has
//! forgotten where that was.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::Body;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    access::Access,
    backoff::{Backoff, MAX_ASKED_WAIT},
    connect::MAX_PATH_SILENCE,
    shared::Shared,
    trouble::{Cause, Said, Trouble},
    wire::{self, How, MAX_LINE_BYTES, MAX_PAGE_BYTES, PAGE_OBJECTS, Page, Step},
};
use crate::kubernetes::{
    addresses::{MAX_SHORT_BREAK, News},
    objects::Kind,
};

/// The head of an answer that takes longer has failed.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A page that takes longer has failed.
pub(super) const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The server is asked to end a watch after this time, and up to twice it: agents that start together do not come back together.
pub(super) const WATCH_TIME: Duration = Duration::from_secs(300);
/// A watch that says nothing for longer is dead: a bookmark comes every minute or so.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(90);
/// After a break, what happened in it comes within this time of the watch's begin.
pub(super) const CATCH_UP: Duration = Duration::from_secs(2);
/// A watch that ended sooner has failed, whatever the server says.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// A watch that lasted is asked for again within this time: a server that goes ends those of all agents at once, and they do not
/// come back together. With it a break is still a short one.
const MAX_RETURN_DELAY: Duration = Duration::from_millis(500);

/// One kind.
pub(super) struct Follower {
    kind: Kind,
    shared: Shared,
    access: Arc<Access>,
    /// Whose turn it is to read a page.
    pages: Arc<Semaphore>,
    said: Said,
    backoff: Backoff,
    /// Objects that a page is asked for.
    page_objects: u32,
    /// Where the watch goes on; absent if a list is needed.
    version: Option<String>,
    /// How long the last watch went on; none if there was none.
    lasted: Duration,
    /// When contact was lost; absent while there is.
    lost: Option<Duration>,
    /// When it was lost last, for a moment only: what comes at once comes late.
    broken: Duration,
}

impl Follower {
    pub(super) fn new(kind: Kind, shared: Shared, access: Arc<Access>, pages: Arc<Semaphore>) -> Self {
        Self {
            kind,
            shared,
            access,
            pages,
            said: Said::default(),
            backoff: Backoff::default(),
            page_objects: PAGE_OBJECTS,
            version: None,
            lasted: Duration::ZERO,
            lost: Some(Duration::ZERO),
            broken: Duration::ZERO,
        }
    }

    /// For ever.
    pub(super) async fn follow(mut self) {
        loop {
            let ended = self.turn().await;
            self.shared.first_done(self.kind);
            tokio::time::sleep(self.wait_after(ended)).await;
        }
    }

    /// How long to wait after a turn that ended so.
    fn wait_after(&mut self, ended: Result<(), Trouble>) -> Duration {
        let is_expired = ended.as_ref().is_err_and(|trouble| trouble.cause == Cause::Expired);
        let has_lasted = self.lasted >= SHORTEST_WATCH;
        if is_expired {
            self.version = None;
        } else if has_lasted {
            self.backoff.reset();
        }
        match ended {
            Ok(()) if has_lasted => self.backoff.random().below(MAX_RETURN_DELAY),
            Ok(()) => self.backoff.next(None),
            Err(trouble) => {
                self.shared.count_failure(self.kind, trouble.cause);
                self.said.failed(self.kind, &trouble, Instant::now());
                if matches!(trouble.cause, Cause::Unauthorized | Cause::Unreachable) {
                    self.access.refused();
                }
                self.backoff.next(trouble.after)
            }
        }
    }

    /// A list if one is needed, and a watch until it ends.
    async fn turn(&mut self) -> Result<(), Trouble> {
        self.lasted = Duration::ZERO;
        let version = match self.version.take() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.shared.first_done(self.kind);
        // Whatever happens to the watch, it goes on from there.
        self.version = Some(version.clone());
        self.watch(&version).await
    }

    async fn list(&mut self) -> Result<String, Trouble> {
        self.shared.count_list(self.kind);
        self.shared.apply(wire::mark(self.kind, false), self.news());
        let mut after: Option<String> = None;
        let pages = Arc::clone(&self.pages);
        loop {
            let path = wire::list_path(self.kind, self.page_objects, after.as_deref());
            let answer = self.ask(&path, false).await?;
            // Nobody closes it; without it there would only be more at a time.
            let _turn = pages.acquire().await;
            let body = timeout(PAGE_TIMEOUT, Limited::new(answer.into_body(), MAX_PAGE_BYTES).collect());
            let body = body.await.map_err(|_| Trouble::new(Cause::Silent, "a page takes too long"))?;
            let bytes = body.map_err(|error| self.unread(&*error))?.to_bytes();
            let page = Page::read(&bytes)?;
            for object in page.objects() {
                match wire::event(self.kind, How::Listed, object) {
                    Some((event, _)) => self.shared.apply(event, self.news()),
                    None => self.shared.count_unreadable(self.kind),
                }
            }
            after = page.after().map(str::to_owned);
            if after.is_none() {
                self.shared.apply(wire::mark(self.kind, true), self.news());
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
            // Others have their turn: the thread is shared.
            tokio::task::yield_now().await;
        }
    }

    /// A page was not read to its end.
    fn unread(&mut self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Trouble {
        if error.is::<LengthLimitError>() {
            self.page_objects = (self.page_objects / 2).max(1);
            return Trouble::new(Cause::Nonsense, "a page is too long; a shorter one is asked for");
        }
        Trouble::new(Cause::Unreachable, error)
    }

    async fn watch(&mut self, version: &str) -> Result<(), Trouble> {
        let jitter = self.backoff.random().below(WATCH_TIME);
        let path = wire::watch_path(self.kind, version, (WATCH_TIME + jitter).as_secs());
        let answer = self.ask(&path, true).await?;
        self.shared.count_watch(self.kind);
        self.said.goes_well(self.kind);
        let begun = Instant::now();
        let mut heard = self.shared.now();
        let ended = self.read(answer.into_body(), &mut heard).await;
        self.lasted = begun.elapsed();
        if self.lost.is_none() {
            self.lost = Some(sure_until(&ended, heard, self.shared.now()));
            self.shared.set_lost(self.kind, self.lost);
        }
        ended.map(|_| ())
    }

    /// Until the watch ends. `heard` is when the server was last heard of.
    async fn read(&mut self, mut body: Body, heard: &mut Duration) -> Result<End, Trouble> {
        let begun = *heard;
        let is_short = self.lost.is_none_or(|lost| begun.saturating_sub(lost) <= MAX_SHORT_BREAK);
        let caught_up = if is_short { begun } else { begun + CATCH_UP };
        let mut rest = BytesMut::new();
        loop {
            let now = self.shared.now();
            if self.lost.is_some() && now >= caught_up {
                self.broken = self.lost.take().filter(|_| is_short).unwrap_or(self.broken);
                self.shared.set_lost(self.kind, None);
            }
            let until = if self.lost.is_some() { caught_up } else { *heard + MAX_SILENCE };
            let wait = until.saturating_sub(now);
            let frame = match timeout(wait, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok(End::Whole),
                Ok(Some(Err(error))) => {
                    // A server that ends does not say so. Whether it is back is seen at once.
                    self.shared.count_failure(self.kind, Cause::Unreachable);
                    return Ok(if is_end(&error) { End::Whole } else { End::Cut });
                }
                Err(_) if self.lost.is_some() => continue,
                Err(_) => return Err(Trouble::new(Cause::Silent, "a watch is silent")),
            };
            *heard = self.shared.now();
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line = rest.split_to(end + 1);
                self.take(&line)?;
            }
            if rest.len() > MAX_LINE_BYTES {
                return Err(Trouble::new(Cause::Nonsense, "a line without end"));
            }
        }
    }

    /// What a line says.
    fn take(&mut self, line: &[u8]) -> Result<(), Trouble> {
        match wire::step(self.kind, line)? {
            Step::News(event, version) => {
                self.shared.apply(*event, self.news());
                self.go_on_after(version);
            }
            Step::Bookmark(version) => self.go_on_after(version),
            Step::Unreadable => self.shared.count_unreadable(self.kind),
            Step::Failed(trouble) => return Err(trouble),
        }
        Ok(())
    }

    fn go_on_after(&mut self, version: String) {
        if !version.is_empty() {
            self.version = Some(version);
        }
    }

    fn news(&self) -> News {
        let at = self.shared.now();
        let is_late = at.saturating_sub(self.broken) <= MAX_SHORT_BREAK;
        News { at, heard: self.lost.unwrap_or(if is_late { self.broken } else { at }) }
    }

    async fn ask(&self, path: &str, is_watch: bool) -> Result<Response<Body>, Trouble> {
        let client = self.access.client().await?;
        let request = Request::get(path)
            .header(header::ACCEPT, wire::accept(self.kind, is_watch))
            .body(Body::empty())
            .map_err(|error| Trouble::new(Cause::Nonsense, error))?;
        let answer = timeout(ANSWER_TIMEOUT, client.send(request)).await;
        let answer = answer.map_err(|_| Trouble::new(Cause::Silent, "no answer in time"))?;
        let answer = answer.map_err(|error| Trouble::new(Cause::Unreachable, whole(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(refusal(status, answer.headers()))
    }
}

/// The server answers with a refusal; it may say when to ask again.
fn refusal(status: StatusCode, headers: &HeaderMap) -> Trouble {
    let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs);
    let mut trouble = Trouble::new(wire::of_status(status.as_u16()), status);
    if let Some(asked) = after.filter(|asked| *asked > MAX_ASKED_WAIT) {
        let (asked, most) = (asked.as_secs(), MAX_ASKED_WAIT.as_secs());
        trouble.detail.push_str(&format!("; to be asked again after {asked} s, and is after {most} s"));
    }
    trouble.after = after;
    trouble
}

/// How a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With all that was sent before.
    Whole,
    /// Whatever was on its way may be lost.
    Cut,
}

/// Until when all is known, of a watch that has just ended and was heard of last at `heard`.
fn sure_until(ended: &Result<End, Trouble>, heard: Duration, now: Duration) -> Duration {
    match ended {
        // It may have been silent because nothing happened or because nothing came through, but no longer than that.
        Ok(End::Cut) => heard.max(now.saturating_sub(MAX_PATH_SILENCE)),
        // What was heard last is all that is known.
        Err(trouble) if trouble.cause == Cause::Silent => heard,
        Ok(End::Whole) | Err(_) => now,
    }
}

/// Whether an error of reading is but the end of the stream, which comes after all that was sent.
fn is_end(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let is_eof = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
        if error.downcast_ref().is_some_and(is_eof)
            || error.downcast_ref().is_some_and(hyper::Error::is_incomplete_message)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error with all that caused it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        sync::{
            Mutex,
            atomic::{AtomicU64, Ordering::Relaxed},
            mpsc,
        },
        thread,
    };

    use super::*;
    use crate::{
        kubernetes::cluster::Cluster,
        kubernetes_api::{access::Place, backoff},
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Answers a list and, to a watch, what it is given; says what it was asked.
    fn serve(list: impl Fn() -> Vec<u8> + Send + 'static, watch: Vec<u8>) -> (u16, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&asked);
        thread::spawn(move || {
            // Those of watches stay open.
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let request = lines.next().unwrap().unwrap();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let is_watch = request.contains("watch=1");
                told.lock().unwrap().push(request);
                let body = if is_watch { watch.clone() } else { list() };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
                // Whoever had enough of it is gone.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
                if is_watch {
                    open.push(stream);
                }
            }
        });
        (port, asked)
    }

    /// One that follows pods at the port, once `with` is done with it.
    fn with_follower(
        name: &str,
        port: u16,
        clock: fn() -> Duration,
        with: impl AsyncFnOnce(Follower, Shared),
    ) {
        let file = std::env::temp_dir().join(format!("pod2pod-{name}-{port}"));
        let server = format!("http://127.0.0.1:{port}");
        let config = format!(
            r#"{{"clusters":[{{"name":"a","cluster":{{"server":"{server}"}}}}],"users":[{{"name":"a","user":{{}}}}],
            "contexts":[{{"name":"a","context":{{"cluster":"a","user":"a"}}}}],"current-context":"a"}}"#
        );
        std::fs::write(&file, config).unwrap();
        let shared = Shared::new(Cluster::new(Default::default()), clock);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let access = Arc::new(Access::new(Place::Files(file.clone()), Arc::default()));
            let pages = Arc::new(Semaphore::new(1));
            with(Follower::new(Kind::Pods, shared.clone(), access, pages), shared).await;
        });
        std::fs::remove_file(file).unwrap();
    }

    async fn until(shared: &Shared, is_so: impl Fn(&Shared) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(shared) {
            assert!(Instant::now() < deadline, "{:?}", shared.told());
            tokio::task::yield_now().await;
        }
    }

    /// Follows pods at the port until it is so.
    fn follow(name: &str, port: u16, is_so: impl Fn(&Shared) -> bool) {
        with_follower(name, port, standing, async |follower, shared| {
            tokio::spawn(follower.follow());
            until(&shared, is_so).await;
        });
    }

    /// A clock that nearly stands still.
    fn standing() -> Duration {
        Duration::from_nanos(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u64)
    }

    fn failures(shared: &Shared, cause: Cause) -> u64 {
        shared.told().0[Kind::Pods as usize].failures[cause as usize]
    }

    fn nonsense(shared: &Shared) -> u64 {
        failures(shared, Cause::Nonsense)
    }

    const EMPTY: &str = r#"{"metadata":{"resourceVersion":"7"},"items":[]}"#;

    #[test]
    fn a_line_of_a_watch_has_a_length() {
        let begin = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8","name":""#;
        let end = r#""}}}"#;
        let fill = "a".repeat(MAX_LINE_BYTES - begin.len() - end.len());
        let pod = r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"b","uid":"00000000-0000-4000-8000-000000000001"}}}"#;
        let (port, _) = serve(|| EMPTY.into(), format!("{begin}{fill}{end}\n{pod}\n").into());
        follow("line", port, |shared| shared.told().0[Kind::Pods as usize].objects == 1);
        let (port, _) = serve(|| EMPTY.into(), "a".repeat(MAX_LINE_BYTES + 1).into());
        follow("line", port, |shared| nonsense(shared) > 0);
    }

    #[test]
    fn a_page_has_a_length_and_a_shorter_one_is_asked_for() {
        let page = |length: usize| {
            let mut page = EMPTY.as_bytes().to_vec();
            page.resize(length, b' ');
            page
        };
        let (port, asked) = serve(move || page(MAX_PAGE_BYTES), Vec::new());
        follow("page", port, |shared| shared.told().0[Kind::Pods as usize].watches == 1);
        assert!(asked.lock().unwrap()[0].contains(&format!("limit={PAGE_OBJECTS} ")));
        let (port, asked) = serve(move || page(MAX_PAGE_BYTES + 1), Vec::new());
        follow("page", port, |shared| nonsense(shared) > 1);
        let halved = format!("limit={} ", PAGE_OBJECTS / 2);
        assert!(asked.lock().unwrap()[1].contains(&halved), "{:?}", asked.lock());
    }

    #[test]
    fn a_watch_that_fails_at_once_is_waited_for_longer_each_time() {
        let forgotten = r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#;
        for (name, line, cause, lists) in
            [("forgotten", forgotten, Cause::Expired, 3), ("nonsense", "x", Cause::Nonsense, 1)]
        {
            let (port, _) = serve(|| EMPTY.into(), format!("{line}\n").into());
            with_follower(name, port, standing, async |mut follower, shared| {
                for most in [1, 2, 4].map(Duration::from_secs) {
                    let ended = follower.turn().await;
                    let wait = follower.wait_after(ended);
                    assert!(most / 2 <= wait && wait < most, "{name}: {wait:?} of {most:?}");
                }
                assert_eq!(failures(&shared, cause), 3, "{name}");
                assert_eq!(shared.told().0[Kind::Pods as usize].lists, lists, "{name}");
            });
        }
    }

    #[test]
    fn after_a_watch_that_lasted_nobody_waits_for_long_and_not_all_for_the_same_time() {
        with_follower("lasted", 0, standing, async |mut follower, _| {
            let almost = SHORTEST_WATCH - Duration::from_nanos(1);
            let mut after = |lasted, cause: Option<Cause>| {
                follower.lasted = lasted;
                follower.wait_after(cause.map_or(Ok(()), |cause| Err(Trouble::new(cause, "x"))))
            };
            assert!(after(almost, None) >= backoff::FIRST_WAIT / 2);
            assert!(after(almost, None) >= backoff::FIRST_WAIT, "it failed twice");
            let waits: Vec<_> = (0..100).map(|_| after(SHORTEST_WATCH, None)).collect();
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most < MAX_RETURN_DELAY && *most - *least > MAX_RETURN_DELAY / 2, "{waits:?}");
            assert!(after(SHORTEST_WATCH, Some(Cause::Busy)) < backoff::FIRST_WAIT, "it went well before");
            // A list each time: more and more rarely, however long the watch goes on.
            for most in [2, 4, 8].map(Duration::from_secs) {
                assert!(after(SHORTEST_WATCH, Some(Cause::Expired)) >= most / 2);
            }
        });
        assert!(2 * MAX_RETURN_DELAY <= MAX_SHORT_BREAK, "half of it is for connecting");
    }

    #[test]
    fn contact_lasted_until_all_is_known_of_it() {
        let second = Duration::from_secs;
        let nearly = second(200) - MAX_PATH_SILENCE - Duration::from_nanos(1);
        let failed = |cause| Err(Trouble::new(cause, "x"));
        for (ended, heard, until) in [
            (Ok(End::Whole), second(100), second(200)),
            (failed(Cause::Nonsense), second(100), second(200)),
            (failed(Cause::Silent), second(100), second(100)),
            (Ok(End::Cut), second(100), second(200) - MAX_PATH_SILENCE),
            (Ok(End::Cut), nearly, second(200) - MAX_PATH_SILENCE),
            (Ok(End::Cut), second(199), second(199)),
        ] {
            assert_eq!(sure_until(&ended, heard, second(200)), until, "{ended:?} {heard:?}");
        }
    }

    /// Gives an empty list and a watch that ends in its middle once it is told how: with a reset or not. Nothing further is answered.
    fn serve_and_break() -> (u16, mpsc::SyncSender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, told) = mpsc::sync_channel::<bool>(1);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let is_watch = lines.next().unwrap().unwrap().contains("watch=1");
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let rest = if is_watch {
                    "Transfer-Encoding: chunked\r\n\r\n".to_owned()
                } else {
                    format!("Connection: close\r\nContent-Length: {}\r\n\r\n{EMPTY}", EMPTY.len())
                };
                stream.write_all(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes()).unwrap();
                if let Some(is_reset) = is_watch.then(|| told.recv().unwrap()) {
                    let linger = is_reset.then_some(Duration::ZERO);
                    rustix::net::sockopt::set_socket_linger(&stream, linger).unwrap();
                    drop((lines, stream));
                    let _ = told.recv();
                    return;
                }
            }
        });
        (port, tell)
    }

    #[test]
    fn contact_was_lost_before_a_connection_broke_and_when_it_was_closed() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        for (name, is_reset, passed, silence) in [
            ("reset", true, 3 * MAX_PATH_SILENCE, MAX_PATH_SILENCE),
            ("reset-soon", true, MAX_PATH_SILENCE / 2, MAX_PATH_SILENCE / 2),
            ("closed", false, 3 * MAX_PATH_SILENCE, Duration::ZERO),
        ] {
            let set = |now: Duration| NOW.store(now.as_nanos() as u64, Relaxed);
            set(Duration::ZERO);
            let (port, tell) = serve_and_break();
            with_follower(
                name,
                port,
                || Duration::from_nanos(NOW.load(Relaxed)),
                async |follower, shared| {
                    let silence_of = |shared: &Shared| shared.told().0[Kind::Pods as usize].silence;
                    // As long as there is no contact this is silence.
                    let begin = Duration::from_nanos(1);
                    set(begin);
                    tokio::spawn(follower.follow());
                    until(&shared, |shared| silence_of(shared).is_zero()).await;
                    set(begin + passed);
                    tell.send(is_reset).unwrap();
                    until(&shared, |shared| failures(shared, Cause::Unreachable) == 1).await;
                    assert_eq!(silence_of(&shared), silence, "{name}");
                    set(begin + passed + Duration::from_secs(1));
                    assert_eq!(silence_of(&shared), silence + Duration::from_secs(1), "{name}: it is lost");
                },
            );
        }
    }

    #[test]
    fn a_refusal_says_when_to_ask_again_and_what_is_made_of_it() {
        let refused = |status: u16, after: &str| {
            let headers = [(header::RETRY_AFTER, after.parse().unwrap())].into_iter().collect();
            let Trouble { cause, detail, after } = refusal(StatusCode::from_u16(status).unwrap(), &headers);
            (cause, detail, after.map(|after| after.as_secs()))
        };
        let told = |cause, detail: &str, after| (cause, detail.to_owned(), after);
        assert_eq!(refused(429, "1"), told(Cause::Busy, "429 Too Many Requests", Some(1)));
        assert_eq!(refused(410, "?"), told(Cause::Expired, "410 Gone", None));
        assert_eq!(refused(503, "300"), told(Cause::Busy, "503 Service Unavailable", Some(300)));
        let long = "503 Service Unavailable; to be asked again after 301 s, and is after 300 s";
        assert_eq!(refused(503, "301"), told(Cause::Busy, long, Some(301)));
    }

    #[test]
    fn a_watch_is_heard_of_more_often_than_it_may_be_silent() {
        let bookmarks = Duration::from_secs(60);
        assert!(MAX_SILENCE > bookmarks && MAX_SILENCE < 2 * bookmarks && MAX_SILENCE < WATCH_TIME);
        assert!(CATCH_UP > MAX_SHORT_BREAK, "what follows a break that is not short is caught up with");
    }
}
