//! Records to fluentd or Fluent Bit by the forward protocol v1.5: PackedForward, each chunk acknowledged, over TCP or TLS, with a shared
//! key if the server asks for one.
//!
//! A chunk that is not acknowledged is sent again: some events may arrive twice.

mod handshake;
mod wire;

use std::{sync::Arc, time::Duration};

use rmp::{Marker, encode};
use rustls::crypto::ring;
use tokio::time::timeout;

use self::{
    handshake::{Helo, Known, hex},
    wire::{Fault, Reader},
};
use super::{
    coding::gzip,
    http_client::Secret,
    objects::Entries,
    own::OwnConnections,
    probe::Probe,
    stream_client::{Access, Client, Lent},
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, TroubleKind, Verdict},
    record::{Record, msgpack::push_text, text::push_base64},
    route::{Filler, Template},
    secrets::SecretError,
};

/// Bytes of events in a chunk, before they are compressed: what a batch has at most, and an eighth of what fluentd takes by default.
pub const MAX_CHUNK_BYTES: usize = 1024 * 1024;
/// Bytes of a tag at most: its length is one byte.
pub const MAX_TAG_BYTES: usize = 255;
/// What a server says at once has at most so many bytes: an acknowledgement about 40.
pub const MAX_SAID_BYTES: usize = 16 * 1024;
/// A handshake takes two answers.
pub const MAX_HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Its number among the extensions of MessagePack.
const EVENT_TIME: u8 = 0;
const NANOSECONDS: u64 = 1_000_000_000;

/// Where to, and how.
///
/// Keys: `url` (`fluentd://`, `fluentd+tcp://` or `fluentd+tls://`, host and port), `failover`, `tag`, `compression`, `shared_key_file`,
/// `user`, `password_file`, `hostname`, `tls.*`, `fields`, `without_fields`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where servers are.
    pub access: Access,
    /// The tag of a record; something for every placeholder.
    pub tag: Template,
    /// Chunks are compressed (CompressedPackedForward).
    pub gzip: bool,
    /// Who we are, for a server that asks.
    pub login: Option<Login>,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// What server and client know.
    pub shared_key: Secret,
    /// A name and its password, if the server asks for them too.
    pub user: Option<(String, Secret)>,
    /// Our name: any but the server's.
    pub hostname: String,
}

impl Config {
    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        let login = self.login.iter().filter_map(|login| login.read().err());
        self.access.check_files().into_iter().chain(login).collect()
    }
}

/// A shared key, and a password if there is a user.
type Keys = (Vec<u8>, Option<Vec<u8>>);

impl Login {
    fn read(&self) -> Result<Keys, SecretError> {
        let password = self.user.as_ref().map(|(_, password)| password.read()).transpose()?;
        Ok((self.shared_key.read()?, password))
    }
}

/// Makes items: a tag, and an event of it.
#[derive(Clone, Debug)]
pub struct Encoder {
    entries: Entries,
    tag: Template,
    filler: Filler,
}

impl Encoder {
    /// Events with these entries.
    pub fn new(entries: Entries, tag: Template) -> Self {
        Self { entries, tag, filler: Filler::default() }
    }

    /// Appends the item of `record`, if its format has one.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        let begin = out.len();
        out.extend_from_slice(&[Marker::Str8.to_u8(), 0]);
        let start = out.len();
        let clean = |byte: u8| byte.is_ascii_graphic().then_some(byte);
        // A template of this sink has something for every placeholder.
        self.tag.fill(&mut self.filler, record, out, clean);
        out.truncate(start + MAX_TAG_BYTES);
        let length = u8::try_from(out.len() - start).unwrap_or(u8::MAX);
        if let Some(room) = out.get_mut(start - 1) {
            *room = length;
        }
        out.extend_from_slice(&[Marker::FixArray(2).to_u8(), Marker::FixExt8.to_u8(), EVENT_TIME]);
        // Until the year 2106.
        let seconds = u32::try_from(record.time / NANOSECONDS).unwrap_or(u32::MAX);
        let nanoseconds = u32::try_from(record.time % NANOSECONDS).unwrap_or_default();
        out.extend_from_slice(&seconds.to_be_bytes());
        out.extend_from_slice(&nanoseconds.to_be_bytes());
        if !self.entries.push(out, record) {
            out.truncate(begin);
        }
    }
}

/// The tag and the event of an item; nothing if it is none.
fn parts(item: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader::new(item);
    let tag = reader.text().ok()?;
    (!reader.rest.is_empty()).then_some((tag, reader.rest))
}

/// Events of one tag.
struct Chunk<'a> {
    tag: &'a [u8],
    events: Vec<u8>,
    /// Where they are in the parcel.
    places: Vec<usize>,
    /// What its acknowledgement says.
    id: Vec<u8>,
}

impl Chunk<'_> {
    fn push_message(&self, out: &mut Vec<u8>, is_gzip: bool) {
        // A Vec takes every write.
        let _ = encode::write_array_len(out, 3);
        push_text(out, self.tag);
        let packed = is_gzip.then(|| gzip(&self.events));
        let _ = encode::write_bin(out, packed.as_deref().unwrap_or(&self.events));
        let _ = encode::write_map_len(out, if is_gzip { 3 } else { 2 });
        push_text(out, b"size");
        let _ = encode::write_uint(out, self.places.len() as u64);
        push_text(out, b"chunk");
        push_text(out, &self.id);
        if is_gzip {
            push_text(out, b"compressed");
            push_text(out, b"gzip");
        }
    }
}

/// The parcel's events by their tags, in their order, no chunk larger than it may be; and the places of what is no event.
fn chunks(parcel: &Parcel) -> Result<(Vec<Chunk<'_>>, Vec<usize>), Trouble> {
    let (mut chunks, mut others) = (Vec::<Chunk<'_>>::new(), Vec::new());
    for (place, item) in parcel.items().enumerate() {
        let Some((tag, event)) = parts(item) else {
            others.push(place);
            continue;
        };
        let last = chunks.iter_mut().rfind(|chunk| chunk.tag == tag);
        match last.filter(|chunk| chunk.events.len() + event.len() <= MAX_CHUNK_BYTES) {
            Some(chunk) => {
                chunk.events.extend_from_slice(event);
                chunk.places.push(place);
            }
            None => {
                let mut id = Vec::new();
                push_base64(&mut id, &random()?);
                chunks.push(Chunk { tag, events: event.to_vec(), places: vec![place], id });
            }
        }
    }
    Ok((chunks, others))
}

fn random() -> Result<[u8; 16], Trouble> {
    let mut bytes = [0; 16];
    let filled = ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Trouble::new(TroubleKind::Unavailable, "no random numbers"))?;
    Ok(bytes)
}

/// The servers.
pub(super) struct Fluentd {
    client: Client,
    gzip: bool,
    login: Option<Login>,
}

impl Target for Fluentd {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.forward(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Probe for Fluentd {
    async fn probe(&self) -> Result<String, Trouble> {
        self.lend().await?.keep();
        let found =
            if self.login.is_some() { "has the shared key, and lets us in" } else { "takes a connection" };
        Ok(found.to_owned())
    }
}

impl Fluentd {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Config { access, gzip, login, .. } = config;
        login.as_ref().map(Login::read).transpose()?;
        Ok(Self { client: Client::new(access, own)?, gzip, login })
    }

    async fn forward(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let (mut chunks, others) = chunks(parcel)?;
        let sent = chunks.len();
        let trouble = if chunks.is_empty() { None } else { self.exchange(&mut chunks).await.err() };
        let kind = match trouble {
            // Nothing of it was taken.
            Some(trouble) if chunks.len() == sent => return Err(trouble),
            None if others.is_empty() => return Ok(Answer::Delivered),
            Some(trouble) => Some(trouble.kind),
            None => None,
        };
        let mut verdicts = vec![Verdict::Delivered; parcel.len()];
        let mut set = |places: &[usize], verdict: &Verdict| {
            for place in places {
                if let Some(room) = verdicts.get_mut(*place) {
                    *room = verdict.clone();
                }
            }
        };
        for (chunk, kind) in chunks.iter().zip(kind.into_iter().cycle()) {
            set(&chunk.places, &Verdict::Later(kind));
        }
        set(&others, &Verdict::Never(Refusal::new(RefusalKind::Rejected, "it is no event of a tag")));
        Ok(Answer::Judged(verdicts))
    }

    /// A connection whose server lets us in.
    async fn lend(&self) -> Result<Lent<'_>, Trouble> {
        let mut lent = self.client.lend().await?;
        if let (true, Some(login)) = (lent.is_fresh, &self.login) {
            let greeted = timeout(MAX_HANDSHAKE_TIME, greet(&mut lent, login)).await;
            let late = |_| Trouble::new(TroubleKind::Timeout, "the server does not greet us");
            greeted.map_err(late)??;
        }
        Ok(lent)
    }

    /// Sends `chunks`, and takes out those that are acknowledged.
    async fn exchange(&self, chunks: &mut Vec<Chunk<'_>>) -> Result<(), Trouble> {
        let mut lent = self.lend().await?;
        let mut messages = Vec::new();
        chunks.iter().for_each(|chunk| chunk.push_message(&mut messages, self.gzip));
        lent.write(&messages).await?;
        let mut said = Vec::new();
        while !chunks.is_empty() {
            let (id, length) = hear(&mut lent, &mut said, |said| {
                let mut reader = Reader::new(said);
                acknowledgement(&mut reader).map(|id| (id.to_vec(), said.len() - reader.rest.len()))
            })
            .await?;
            said.drain(..length);
            let place = chunks.iter().position(|chunk| chunk.id == id);
            let place = place.ok_or_else(|| nonsense("the server acknowledges what was not sent"))?;
            chunks.remove(place);
        }
        if !said.is_empty() {
            return Err(nonsense("the server says more than was asked"));
        }
        lent.keep();
        Ok(())
    }
}

/// The id in an acknowledgement.
fn acknowledgement<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    let mut id = None;
    for _ in 0..reader.map()? {
        match reader.text()? {
            b"ack" => id = Some(reader.text()?),
            _ => reader.skip()?,
        }
    }
    id.ok_or(Fault::Nonsense)
}

fn nonsense(detail: &str) -> Trouble {
    Trouble::new(TroubleKind::Nonsense, detail)
}

/// What `read` makes of what the server says, as soon as that is long enough.
async fn hear<T>(
    lent: &mut Lent<'_>,
    said: &mut Vec<u8>,
    read: impl Fn(&[u8]) -> Result<T, Fault>,
) -> Result<T, Trouble> {
    loop {
        match read(said) {
            Ok(heard) => return Ok(heard),
            Err(Fault::Short) if said.len() < MAX_SAID_BYTES => lent.read(said).await?,
            Err(Fault::Short) => return Err(nonsense("the server says too much")),
            Err(Fault::Nonsense) if Helo::read(said).is_ok() => {
                return Err(Trouble::new(TroubleKind::Unauthorized, "the server asks for a shared key"));
            }
            Err(Fault::Nonsense) => return Err(nonsense("the server does not speak the forward protocol")),
        }
    }
}

/// Shows that we have the key, and asks for the same.
async fn greet(lent: &mut Lent<'_>, login: &Login) -> Result<(), Trouble> {
    let (shared_key, password) =
        login.read().map_err(|error| Trouble::new(TroubleKind::Unauthorized, error))?;
    let salt = hex(&random()?);
    let user = login.user.as_ref().zip(password.as_deref());
    let user = user.map(|((user, _), password)| (user.as_str(), password));
    let known = Known { shared_key: &shared_key, user, hostname: &login.hostname, salt: &salt };
    let mut said = Vec::new();
    hear(lent, &mut said, |said| Helo::read(said).map(|_| ())).await?;
    let Ok(helo) = Helo::read(&said) else { return Err(nonsense("no HELO")) };
    lent.write(&helo.ping(&known)).await?;
    let mut answer = Vec::new();
    hear(lent, &mut answer, |answer| helo.check_pong(answer, &known)).await?
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write},
        net::TcpStream,
    };

    use flate2::read::GzDecoder;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        record::{Kind, msgpack::decoded, selected::Fields},
        sinks::{
            Format,
            loopback::{everything, listen, parcel, plain, run, say, serve},
        },
    };

    const KEY: &str = "canary-of-the-key";
    const PASSWORD: &str = "canary-of-the-password";

    fn items(count: usize) -> Parcel {
        let fields = Fields::parse(&["http.response.status_code"], &[] as &[&str]).unwrap();
        let tag = Template::parse("pod2pod.{kind}").unwrap();
        let mut encoder = Encoder::new(Entries::of(Format::Json, Some(fields.into())), tag);
        let items = (0..count).map(|index| {
            let kind = if index % 3 == 2 { Kind::Connect } else { Kind::Http };
            let status = u16::try_from(200 + index).ok();
            let record = Record { time: 1_795_249_530_000_000_007, kind, status, ..Record::blank() };
            let mut item = Vec::new();
            encoder.push(&mut item, &record);
            item
        });
        parcel(&items.collect::<Vec<_>>())
    }

    fn login(key: &str) -> Login {
        let user = Some(("agent".to_owned(), Secret::Given(PASSWORD.to_owned())));
        Login { shared_key: Secret::Given(key.to_owned()), user, hostname: "node-1".to_owned() }
    }

    fn target(access: Access, gzip: bool, login: Option<Login>) -> Fluentd {
        let config = Config { access, tag: Template::parse("a").unwrap(), gzip, login };
        assert!(!format!("{config:?}").contains("canary"));
        Fluentd::new(config, Arc::default()).unwrap()
    }

    /// Reads values until there are as many as asked for; what came.
    fn values(stream: &mut TcpStream, count: usize) -> (Vec<Value>, Vec<u8>) {
        let mut bytes = Vec::new();
        let mut room = [0; 4096];
        loop {
            let mut reader = Reader::new(&bytes);
            if (0..count).all(|_| reader.skip().is_ok()) {
                let mut rest = &bytes[..];
                return ((0..count).map(|_| decoded(&mut rest)).collect(), bytes);
            }
            let length = stream.read(&mut room).unwrap();
            assert!(length > 0, "it ends");
            bytes.extend_from_slice(&room[..length]);
        }
    }

    fn ack(stream: &mut impl Write, id: &str) {
        let mut bytes = vec![0x81];
        push_text(&mut bytes, b"ack");
        push_text(&mut bytes, id.as_bytes());
        say(stream, &bytes);
    }

    fn id(message: &Value) -> &str {
        message[2]["chunk"].as_str().unwrap()
    }

    /// Tag and events of a message.
    fn events(message: &Value) -> (String, Vec<Value>) {
        // Bytes are shown as characters of their numbers.
        let mut bytes: Vec<u8> = message[1].as_str().unwrap().chars().map(|c| c as u8).collect();
        if message[2]["compressed"] == "gzip" {
            bytes = {
                let mut all = Vec::new();
                GzDecoder::new(&bytes[..]).read_to_end(&mut all).unwrap();
                all
            };
        }
        let mut rest = &bytes[..];
        let mut events = Vec::new();
        while !rest.is_empty() {
            events.push(decoded(&mut rest));
        }
        assert_eq!(message[2]["size"], events.len());
        (message[0].as_str().unwrap().to_owned(), events)
    }

    #[test]
    fn a_chunk_a_tag_is_delivered_once_it_is_acknowledged() {
        for gzip in [false, true] {
            let (listener, server) = listen();
            let script = |mut stream: TcpStream| {
                let (messages, _) = values(&mut stream, 2);
                // In whatever order.
                messages.iter().rev().for_each(|message| ack(&mut stream, id(message)));
                let (again, _) = values(&mut stream, 1);
                ack(&mut stream, id(&again[0]));
                everything(stream);
                messages
            };
            let server_thread = serve(listener, vec![Box::new(script)]);
            let fluentd = target(plain(&[&server]), gzip, None);
            run(async {
                assert_eq!(fluentd.send(&items(3)).await, Answer::Delivered);
                assert_eq!(fluentd.send(&items(1)).await, Answer::Delivered);
            });
            drop(fluentd);
            let messages = server_thread.join().unwrap().remove(0);
            // Seconds and nanoseconds, 1795249530 and 7, of the extension 0.
            let time = "0:6b01557a00000007";
            let event = |status: u16| json!([time, { "http.response.status_code": status }]);
            assert_eq!(events(&messages[0]), ("pod2pod.http".to_owned(), vec![event(200), event(201)]));
            assert_eq!(events(&messages[1]), ("pod2pod.connect".to_owned(), vec![event(202)]));
            assert_ne!(id(&messages[0]), id(&messages[1]));
        }
    }

    fn answer_to(script: impl FnOnce(TcpStream) + Send + 'static, login: Option<Login>) -> Answer {
        let (listener, server) = listen();
        let server_thread = serve(listener, vec![Box::new(script)]);
        let fluentd = target(plain(&[&server]), false, login);
        let answer = run(fluentd.send(&items(3)));
        drop(fluentd);
        server_thread.join().unwrap();
        answer
    }

    fn kind(answer: &Answer) -> Option<TroubleKind> {
        if let Answer::Later(trouble) = answer { Some(trouble.kind) } else { None }
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let says = |bytes: &'static [u8]| {
            answer_to(
                move |mut stream| {
                    values(&mut stream, 2);
                    say(&mut stream, bytes);
                },
                None,
            )
        };
        for (bytes, expected) in [
            (&b""[..], TroubleKind::Closed),
            (b"\x81\xa3ack", TroubleKind::Closed),
            (b"\x81\xa3ack\xa5other", TroubleKind::Nonsense),
            (b"\x80", TroubleKind::Nonsense),
            (b"\x81\xa4nack\xa1x", TroubleKind::Nonsense),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", TroubleKind::Nonsense),
            (b"\x92\xa4HELO\x81\xa5nonce\xa1n", TroubleKind::Unauthorized),
        ] {
            assert_eq!(kind(&says(bytes)), Some(expected), "{bytes:x?}");
        }
        let half = answer_to(
            |mut stream| {
                let (messages, _) = values(&mut stream, 2);
                ack(&mut stream, id(&messages[1]));
            },
            None,
        );
        let later = Verdict::Later(TroubleKind::Closed);
        assert_eq!(half, Answer::Judged(vec![later.clone(), later, Verdict::Delivered]));
    }

    /// What a server says at once is that long.
    #[test]
    fn a_server_may_say_so_much() {
        for (length, expected) in
            [(MAX_SAID_BYTES - 1, TroubleKind::Closed), (MAX_SAID_BYTES, TroubleKind::Nonsense)]
        {
            let answer = answer_to(
                move |mut stream| {
                    values(&mut stream, 2);
                    let mut bytes = vec![b'x'; length];
                    bytes[..6].copy_from_slice(b"\x81\xc6\0\xff\xff\xff");
                    say(&mut stream, &bytes);
                },
                None,
            );
            assert_eq!(kind(&answer), Some(expected), "{length}");
        }
    }

    /// A server that knows `key`, and says its digest if `is_honest`.
    fn lets_in(mut stream: TcpStream, key: &str, is_honest: bool) -> Vec<u8> {
        say(&mut stream, b"\x92\xa4HELO\x83\xa5nonce\xc4\x02\x01\x7f\xa4auth\xa4salt\xa9keepalive\xc3");
        let (ping, mut seen) = values(&mut stream, 1);
        let text = |place: usize| ping[0][place].as_str().unwrap().as_bytes();
        let digest = |parts: &[&[u8]]| handshake::hex_digest(parts);
        let nonce = b"\x01\x7f";
        assert_eq!((text(0), text(1), text(4)), (&b"PING"[..], &b"node-1"[..], &b"agent"[..]));
        assert_eq!(text(5), digest(&[b"salt", b"agent", PASSWORD.as_bytes()]));
        let is_known = text(3) == digest(&[text(2), b"node-1", nonce, key.as_bytes()]);
        let mut pong = b"\x95\xa4PONG".to_vec();
        pong.push(if is_known { 0xc3 } else { 0xc2 });
        push_text(&mut pong, if is_known { b"" } else { b"shared_key mismatch" });
        push_text(&mut pong, b"server");
        push_text(
            &mut pong,
            &digest(&[text(2), b"server", nonce, if is_honest { key.as_bytes() } else { b"" }]),
        );
        say(&mut stream, &pong);
        if is_known && is_honest {
            let (messages, bytes) = values(&mut stream, 2);
            messages.iter().for_each(|message| ack(&mut stream, id(message)));
            seen.extend(bytes);
        }
        seen.extend(everything(stream));
        seen
    }

    #[test]
    fn both_show_that_they_have_the_key_and_never_tell_it() {
        for (ours, is_honest, expected) in [
            (KEY, true, None),
            ("another", true, Some(TroubleKind::Unauthorized)),
            (KEY, false, Some(TroubleKind::Unauthorized)),
        ] {
            let script = move |stream: TcpStream| {
                let seen = lets_in(stream, KEY, is_honest);
                assert!(!String::from_utf8_lossy(&seen).contains("canary"));
            };
            let answer = answer_to(script, Some(login(ours)));
            assert_eq!(kind(&answer), expected, "{answer:?}");
            assert!(!format!("{answer:?}").contains("canary"));
            assert_eq!(answer == Answer::Delivered, expected.is_none());
        }
        let nonsense = answer_to(|mut stream| say(&mut stream, b"\x92\xa4HULO\x80"), Some(login(KEY)));
        assert_eq!(kind(&nonsense), Some(TroubleKind::Nonsense));
    }

    #[test]
    fn a_server_that_does_not_greet_has_its_time() {
        let (_listener, server) = listen();
        let fluentd = target(plain(&[&server]), false, Some(login(KEY)));
        run(async {
            tokio::time::pause();
            let begin = tokio::time::Instant::now();
            assert_eq!(kind(&fluentd.send(&items(1)).await), Some(TroubleKind::Timeout));
            assert!(begin.elapsed() >= MAX_HANDSHAKE_TIME);
        });
    }

    #[test]
    fn chunks_and_tags_are_as_large_as_allowed() {
        let event = |length: usize| [&b"\xa1a"[..], &vec![0; length]].concat();
        for (second, expected) in [(MAX_CHUNK_BYTES - 7, 1), (MAX_CHUNK_BYTES - 6, 2)] {
            let parcel = parcel(&[event(7), event(second), b"\xc0".to_vec()]);
            let (chunks, others) = chunks(&parcel).unwrap();
            assert_eq!((chunks.len(), others), (expected, vec![2]));
        }
        // One event that is larger has a chunk of its own.
        assert_eq!(chunks(&parcel(&[event(MAX_CHUNK_BYTES + 1)])).unwrap().0.len(), 1);
        for length in [MAX_TAG_BYTES, MAX_TAG_BYTES + 1] {
            let tag = Template::parse(&"a".repeat(length)).unwrap();
            let mut item = Vec::new();
            Encoder::new(Entries::of(Format::Json, None), tag).push(&mut item, &Record::blank());
            assert_eq!(parts(&item).unwrap().0.len(), MAX_TAG_BYTES);
        }
    }

    #[test]
    fn what_is_no_event_is_refused_and_the_rest_goes_on() {
        let parcel = parcel(&["\u{0}"]);
        let fluentd = target(plain(&[]), false, None);
        let Answer::Judged(verdicts) = run(fluentd.send(&parcel)) else { panic!() };
        assert!(matches!(&verdicts[..], [Verdict::Never(_)]));
    }
}
