//! Asks agents for their pages: all of them side by side, on a thread of its own, so that keys and signals need not wait. Judges only
//! whether an answer is a page of an agent.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::page::Page;
use crate::{OWN_USER_AGENT, sinks::http_client::Url};

/// An agent that has not told all by then is given up.
pub const MAX_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a page at most: that of an agent with all label sets and pairs is 22 MB.
pub const MAX_PAGE_BYTES: usize = 64 << 20;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("no agent answers ({0}): is it running, and is metrics.listen this address?")]
    Connection(io::Error),
    #[error("the answer broke off: {0}")]
    Answer(String),
    #[error("the answer is {0}: is this the path of an agent's metrics?")]
    Status(u16),
    #[error("no answer within {} s", MAX_WAIT.as_secs())]
    TimeOut,
    #[error("what answers there is no pod2pod agent")]
    Other,
    #[error("it counts no pairs: an agent does, a replay and older versions do not")]
    NoPairs,
}

/// Pages that are on their way, in the order of their URLs.
pub(super) struct Reading {
    thread: JoinHandle<Vec<Result<Page, Trouble>>>,
    /// Its other end is closed when all is read.
    over: UnixStream,
}

impl Reading {
    /// Asks all of them.
    ///
    /// # Errors
    /// There is no thread or socket to be had.
    pub(super) fn start(urls: Vec<Url>) -> io::Result<Self> {
        let (over, other) = UnixStream::pair()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("pages".to_owned()).spawn(move || {
            let pages = runtime.block_on(all(urls));
            // A name that is still looked for keeps nobody waiting.
            runtime.shutdown_background();
            drop(other);
            pages
        })?;
        Ok(Self { thread, over })
    }

    /// What came. Waits for it, unless [`Self::as_fd`] is readable.
    ///
    /// # Errors
    /// Asking failed in a way that is none of an agent's.
    pub(super) fn finish(mut self) -> io::Result<Vec<Result<Page, Trouble>>> {
        // Nothing is ever written: it ends.
        let _ = self.over.read(&mut [0]);
        self.thread.join().map_err(|_| io::Error::other("the thread that asks agents panicked"))
    }
}

impl AsFd for Reading {
    /// Readable once all is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.over.as_fd()
    }
}

async fn all(urls: Vec<Url>) -> Vec<Result<Page, Trouble>> {
    let mut pages: Vec<_> = urls.iter().map(|_| Err(Trouble::TimeOut)).collect();
    let mut asking = JoinSet::new();
    for (place, url) in urls.into_iter().enumerate() {
        asking.spawn(async move {
            let told = tokio::time::timeout(MAX_WAIT, page(&url)).await;
            (place, told.unwrap_or(Err(Trouble::TimeOut)))
        });
    }
    while let Some(told) = asking.join_next().await {
        if let Ok((place, told)) = told
            && let Some(page) = pages.get_mut(place)
        {
            *page = told;
        }
    }
    pages
}

async fn page(url: &Url) -> Result<Page, Trouble> {
    let page = Page::parse(&get(url).await?);
    match page.overflowed {
        _ if !page.is_ours => Err(Trouble::Other),
        None => Err(Trouble::NoPairs),
        Some(_) => Ok(page),
    }
}

async fn get(url: &Url) -> Result<String, Trouble> {
    let stream = connect(url).await.map_err(Trouble::Connection)?;
    let broken = |error: hyper::Error| Trouble::Answer(error.to_string());
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let driver = tokio::spawn(driver);
    let request = Request::get(url.path())
        .header(header::HOST, url.authority())
        .header(header::USER_AGENT, OWN_USER_AGENT)
        .header(header::ACCEPT, "text/plain")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::Answer(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(Trouble::Status(status.as_u16()));
    }
    let body = Limited::new(answer.into_body(), MAX_PAGE_BYTES).collect().await;
    let body = body.map_err(|error| Trouble::Answer(error.to_string()))?.to_bytes();
    // The connection is not used again.
    driver.abort();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn connect(url: &Url) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((url.host(), url.port())).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
