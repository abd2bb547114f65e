//! What is asked of the API server and what it answers, as bytes: paths, pages of lists, lines of watches. Sends nothing.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::trouble::{Cause, Trouble};
use crate::kubernetes::objects::{self, Change, Event, Kind, Metadata};

/// Objects in a page: a page of pods is a megabyte or two.
pub(super) const PAGE_OBJECTS: u32 = 200;
/// Longest page, in bytes; of longer ones half as many objects are asked for. The largest object fits.
pub(super) const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Longest line of a watch, in bytes: etcd keeps objects up to 1.5 MiB.
pub(super) const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// What is answered: of owners only their metadata.
pub(super) fn accept(kind: Kind, is_watch: bool) -> &'static str {
    match (kind, is_watch) {
        (Kind::ReplicaSets | Kind::Jobs, false) => {
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        }
        (Kind::ReplicaSets | Kind::Jobs, true) => {
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        }
        (Kind::Pods | Kind::Services | Kind::EndpointSlices | Kind::Nodes, _) => "application/json",
    }
}

fn path(kind: Kind) -> String {
    match kind.group() {
        "" => format!("/api/v1/{}", kind.as_str()),
        group => format!("/apis/{group}/v1/{}", kind.as_str()),
    }
}

/// A page of so many objects of the list, the first without `after`.
pub(super) fn list_path(kind: Kind, objects: u32, after: Option<&str>) -> String {
    let path = format!("{}?limit={objects}", path(kind));
    match after {
        Some(after) => format!("{path}&continue={}", escaped(after)),
        None => path,
    }
}

/// A watch of all that happened after `version`, for so many seconds.
pub(super) fn watch_path(kind: Kind, version: &str, seconds: u64) -> String {
    format!(
        "{}?watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={seconds}",
        path(kind),
        escaped(version)
    )
}

/// Tokens are opaque: whatever is not plain is escaped (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    #[serde(default)]
    pub(super) metadata: PageMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

/// `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    pub(super) resource_version: Option<String>,
    #[serde(rename = "continue")]
    after: Option<String>,
}

impl Page<'_> {
    pub(super) fn read(bytes: &[u8]) -> Result<Page<'_>, Trouble> {
        let page: Page<'_> = serde_json::from_slice(bytes).map_err(|error| nonsense(&error))?;
        if page.metadata.resource_version.as_deref().is_none_or(str::is_empty) {
            return Err(Trouble::new(Cause::Nonsense, "a list without a version"));
        }
        Ok(page)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &str> {
        self.items.iter().flatten().map(|object| object.get())
    }

    /// What to ask for the next page with, if there is one.
    pub(super) fn after(&self) -> Option<&str> {
        self.metadata.after.as_deref().filter(|after| !after.is_empty())
    }
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    what: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Step {
    /// Something happened; where to go on after it.
    News(Box<Event>, String),
    /// An object that cannot be read, or a word that is not known.
    Unreadable,
    /// Nothing happened until then.
    Bookmark(String),
    /// The server cannot go on.
    Failed(Trouble),
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: Option<String>,
}

/// Reads a line of a watch.
pub(super) fn step(kind: Kind, line: &[u8]) -> Result<Step, Trouble> {
    let Line { what, object } = serde_json::from_slice(line).map_err(|error| nonsense(&error))?;
    let object = object.get();
    let how = match &*what {
        "ADDED" | "MODIFIED" => How::Applied,
        "DELETED" => How::Deleted,
        "BOOKMARK" => {
            return Ok(serde_json::from_str::<objects::Owned>(object)
                .map_or(Step::Unreadable, |object| Step::Bookmark(object.metadata.resource_version)));
        }
        "ERROR" => {
            let failure: Failure = serde_json::from_str(object).map_err(|error| nonsense(&error))?;
            let Failure { code, reason } = failure;
            let trouble =
                Trouble::new(of_status(code), format_args!("{code} {}", reason.unwrap_or_default()));
            return Ok(Step::Failed(trouble));
        }
        _ => return Ok(Step::Unreadable),
    };
    Ok(event(kind, how, object)
        .map_or(Step::Unreadable, |(event, version)| Step::News(Box::new(event), version)))
}

/// How an object is told of.
#[derive(Clone, Copy)]
pub(super) enum How {
    Listed,
    Applied,
    Deleted,
}

impl How {
    fn of<T>(self, object: T) -> Change<T> {
        match self {
            Self::Listed => Change::Listed(object),
            Self::Applied => Change::Applied(object),
            Self::Deleted => Change::Deleted(object),
        }
    }
}

/// Reads an object, and its version; absent if it cannot be.
pub(super) fn event(kind: Kind, how: How, object: &str) -> Option<(Event, String)> {
    fn read<T: DeserializeOwned>(
        text: &str,
        metadata: fn(&mut T) -> &mut Metadata,
        event: impl FnOnce(T) -> Event,
    ) -> Option<(Event, String)> {
        let mut object = serde_json::from_str(text).ok()?;
        let version = std::mem::take(&mut metadata(&mut object).resource_version);
        Some((event(object), version))
    }
    match kind {
        Kind::Pods => read::<objects::Pod>(object, |pod| &mut pod.metadata, |pod| Event::Pod(how.of(pod))),
        Kind::Services => read::<objects::Service>(
            object,
            |service| &mut service.metadata,
            |service| Event::Service(how.of(service)),
        ),
        Kind::EndpointSlices => {
            read::<objects::Slice>(object, |slice| &mut slice.metadata, |slice| Event::Slice(how.of(slice)))
        }
        Kind::Nodes => {
            read::<objects::Node>(object, |node| &mut node.metadata, |node| Event::Node(how.of(node)))
        }
        Kind::ReplicaSets => {
            read::<objects::Owned>(object, |set| &mut set.metadata, |set| Event::ReplicaSet(how.of(set)))
        }
        Kind::Jobs => read::<objects::Owned>(object, |job| &mut job.metadata, |job| Event::Job(how.of(job))),
    }
}

/// That a list of the kind begins, or is complete.
pub(super) fn mark(kind: Kind, is_end: bool) -> Event {
    fn change<T>(is_end: bool) -> Change<T> {
        if is_end { Change::Done } else { Change::Begin }
    }
    match kind {
        Kind::Pods => Event::Pod(change(is_end)),
        Kind::Services => Event::Service(change(is_end)),
        Kind::EndpointSlices => Event::Slice(change(is_end)),
        Kind::Nodes => Event::Node(change(is_end)),
        Kind::ReplicaSets => Event::ReplicaSet(change(is_end)),
        Kind::Jobs => Event::Job(change(is_end)),
    }
}

/// What a refusal means.
pub(super) const fn of_status(code: u16) -> Cause {
    match code {
        401 => Cause::Unauthorized,
        403 => Cause::Forbidden,
        404 => Cause::Unknown,
        410 => Cause::Expired,
        408 | 429 | 500..=599 => Cause::Busy,
        _ => Cause::Nonsense,
    }
}

fn nonsense(error: &serde_json::Error) -> Trouble {
    // Where, and not what: objects hold other people's secrets.
    let detail = format_args!("no JSON as expected, at line {} column {}", error.line(), error.column());
    Trouble::new(Cause::Nonsense, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(list_path(Kind::Pods, 7, None), "/api/v1/pods?limit=7");
        assert_eq!(
            list_path(Kind::EndpointSlices, 200, Some("a+b/c=")),
            "/apis/discovery.k8s.io/v1/endpointslices?limit=200&continue=a%2Bb%2Fc%3D"
        );
        assert_eq!(
            watch_path(Kind::ReplicaSets, "12", 300),
            "/apis/apps/v1/replicasets?watch=1&allowWatchBookmarks=true&resourceVersion=12&timeoutSeconds=300"
        );
    }

    #[test]
    fn pages_are_read_object_by_object() {
        let page = br#"{"metadata":{"resourceVersion":"7","continue":"x"},
            "items":[{"metadata":{"name":"a"}},{"metadata":5},null]}"#;
        let page = Page::read(page).unwrap();
        assert_eq!((page.after(), page.objects().count()), (Some("x"), 3));
        let read = page.objects().filter(|object| event(Kind::Pods, How::Listed, object).is_some());
        assert_eq!(read.count(), 1);
        let last = br#"{"metadata":{"resourceVersion":"7","continue":""},"items":null}"#;
        let last = Page::read(last).unwrap();
        assert_eq!((last.after(), last.objects().count()), (None, 0));
        for nonsense in
            ["", "null", "[]", "{}", r#"{"metadata":{}}"#, "<html>", r#"{"metadata":{"resourceVersion":"#]
        {
            assert_eq!(Page::read(nonsense.as_bytes()).unwrap_err().cause, Cause::Nonsense, "{nonsense}");
        }
    }

    #[test]
    fn lines_of_a_watch() {
        let said = |line: &str| match step(Kind::Pods, line.as_bytes()) {
            Ok(Step::News(event, version)) => {
                let is_deletion = matches!(*event, Event::Pod(Change::Deleted(_)));
                format!("{} {version}", if is_deletion { "deleted" } else { "applied" })
            }
            Ok(Step::Bookmark(version)) => format!("bookmark {version}"),
            Ok(Step::Failed(trouble)) => trouble.cause.as_str().to_owned(),
            Ok(step) => format!("{step:?}"),
            Err(trouble) => format!("{} {}", trouble.cause.as_str(), trouble.detail),
        };
        let object = r#""object":{"metadata":{"name":"a","resourceVersion":"9","password":"secret"}}"#;
        for (line, expected) in [
            (format!(r#"{{"type":"ADDED",{object}}}"#), "applied 9"),
            (format!(r#"{{"type":"MODIFIED",{object}}}"#), "applied 9"),
            (format!(r#"{{"type":"DELETED",{object}}}"#), "deleted 9"),
            (format!(r#"{{"type":"BOOKMARK",{object}}}"#), "bookmark 9"),
            (format!(r#"{{"type":"OTHER",{object}}}"#), "Unreadable"),
            (r#"{"type":"ADDED","object":{"metadata":5}}"#.to_owned(), "Unreadable"),
            (r#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#.to_owned(), "expired"),
            (r#"{"type":"ERROR","object":{"code":500}}"#.to_owned(), "busy"),
            (r#"{"type":"ERROR","object":{}}"#.to_owned(), "nonsense"),
            (
                r#"{"type":"ADDED","object":{"secret"#.to_owned(),
                "nonsense no JSON as expected, at line 1 column 33",
            ),
        ] {
            assert_eq!(said(&line), expected, "{line}");
        }
    }

    #[test]
    fn refusals_have_causes() {
        for (code, cause) in [
            (401, Cause::Unauthorized),
            (403, Cause::Forbidden),
            (404, Cause::Unknown),
            (410, Cause::Expired),
            (429, Cause::Busy),
            (503, Cause::Busy),
            (302, Cause::Nonsense),
        ] {
            assert_eq!(of_status(code), cause, "{code}");
        }
    }
}
