//! Follows one kind: a list, then a watch from there on, and again from where it was; a new list only if the server has
//! forgotten where that was.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::Body;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    access::Access,
    backoff::Backoff,
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
            lost: Some(Duration::ZERO),
            broken: Duration::ZERO,
        }
    }

    /// For ever.
    pub(super) async fn follow(mut self) {
        loop {
            let begun = Instant::now();
            let ended = self.turn().await;
            self.shared.first_done(self.kind);
            let wait = match ended {
                Ok(()) if begun.elapsed() >= SHORTEST_WATCH => continue,
                Ok(()) => self.backoff.next(None),
                Err(trouble) => {
                    self.shared.count_failure(self.kind, trouble.cause);
                    self.said.failed(self.kind, &trouble, Instant::now());
                    if matches!(trouble.cause, Cause::Unauthorized | Cause::Unreachable) {
                        self.access.refused();
                    }
                    self.backoff.next(trouble.after)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// A list if one is needed, and a watch until it ends.
    async fn turn(&mut self) -> Result<(), Trouble> {
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
        let answer = match self.ask(&path, true).await {
            Ok(answer) => answer,
            Err(Refusal::Expired) => {
                self.version = None;
                return Ok(());
            }
            Err(Refusal::Other(trouble)) => return Err(trouble),
        };
        self.shared.count_watch(self.kind);
        self.said.goes_well(self.kind);
        self.backoff.reset();
        let mut heard = self.shared.now();
        let ended = self.read(answer.into_body(), &mut heard).await;
        // Silence is no news: what was heard last is all that is known. Otherwise until just now.
        let is_silent = ended.as_ref().is_err_and(|trouble| trouble.cause == Cause::Silent);
        let lost = if is_silent { heard } else { self.shared.now() };
        if self.lost.is_none() {
            self.lost = Some(lost);
            self.shared.set_lost(self.kind, self.lost);
        }
        ended
    }

    /// Until the watch ends. `heard` is when the server was last heard of.
    async fn read(&mut self, mut body: Body, heard: &mut Duration) -> Result<(), Trouble> {
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
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) => {
                    // A server that ends does not say so. Whether it is back is seen at once.
                    self.shared.count_failure(self.kind, Cause::Unreachable);
                    return Ok(());
                }
                Err(_) if self.lost.is_some() => continue,
                Err(_) => return Err(Trouble::new(Cause::Silent, "a watch is silent")),
            };
            *heard = self.shared.now();
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &rest) {
                let line = rest.split_to(end + 1);
                if !self.take(&line)? {
                    return Ok(());
                }
            }
            if rest.len() > MAX_LINE_BYTES {
                return Err(Trouble::new(Cause::Nonsense, "a line without end"));
            }
        }
    }

    /// Whether the watch goes on.
    fn take(&mut self, line: &[u8]) -> Result<bool, Trouble> {
        match wire::step(self.kind, line)? {
            Step::News(event, version) => {
                self.shared.apply(*event, self.news());
                self.go_on_after(version);
            }
            Step::Bookmark(version) => self.go_on_after(version),
            Step::Unreadable => self.shared.count_unreadable(self.kind),
            Step::Expired => {
                self.version = None;
                return Ok(false);
            }
            Step::Failed(trouble) => return Err(trouble),
        }
        Ok(true)
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

    async fn ask(&self, path: &str, is_watch: bool) -> Result<Response<Body>, Refusal> {
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
        if status == StatusCode::GONE {
            return Err(Refusal::Expired);
        }
        let after =
            answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut trouble = Trouble::new(wire::of_status(status.as_u16()), status);
        trouble.after = after.map(Duration::from_secs);
        Err(trouble.into())
    }
}

/// Why there is no answer.
enum Refusal {
    /// 410: what we know is too old, or the rest of the list.
    Expired,
    Other(Trouble),
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Self::Other(trouble)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // In the middle of a list: it begins again.
            Refusal::Expired => Self::new(Cause::Busy, "the list has expired"),
            Refusal::Other(trouble) => trouble,
        }
    }
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
        sync::Mutex,
        thread,
    };

    use super::*;
    use crate::{kubernetes::cluster::Cluster, kubernetes_api::access::Place};

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

    /// Follows pods at the port until it is so.
    fn follow(name: &str, port: u16, is_so: impl Fn(&Shared) -> bool) {
        let file = std::env::temp_dir().join(format!("pod2pod-{name}-{port}"));
        let server = format!("http://127.0.0.1:{port}");
        let config = format!(
            r#"{{"clusters":[{{"name":"a","cluster":{{"server":"{server}"}}}}],"users":[{{"name":"a","user":{{}}}}],
            "contexts":[{{"name":"a","context":{{"cluster":"a","user":"a"}}}}],"current-context":"a"}}"#
        );
        std::fs::write(&file, config).unwrap();
        let shared = Shared::new(Cluster::new(Default::default()), || {
            Duration::from_nanos(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u64)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let access = Arc::new(Access::new(Place::Files(file.clone()), Arc::default()));
            let follower = Follower::new(Kind::Pods, shared.clone(), access, Arc::new(Semaphore::new(1)));
            tokio::spawn(follower.follow());
            let deadline = Instant::now() + PATIENCE;
            while !is_so(&shared) {
                assert!(Instant::now() < deadline, "{:?}", shared.told());
                tokio::task::yield_now().await;
            }
        });
        std::fs::remove_file(file).unwrap();
    }

    fn nonsense(shared: &Shared) -> u64 {
        shared.told().0[Kind::Pods as usize].failures[Cause::Nonsense as usize]
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
    fn a_watch_is_heard_of_more_often_than_it_may_be_silent() {
        let bookmarks = Duration::from_secs(60);
        assert!(MAX_SILENCE > bookmarks && MAX_SILENCE < 2 * bookmarks && MAX_SILENCE < WATCH_TIME);
        assert!(CATCH_UP > MAX_SHORT_BREAK, "what follows a break that is not short is caught up with");
    }
}
