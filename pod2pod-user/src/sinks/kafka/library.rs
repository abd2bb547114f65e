//! The calls into librdkafka: settings to a producer, records to it, and what became of each. The only file that knows it.
//!
//! Nothing of ours is handed to it but what outlives it: a record is copied, and what it carries back is a number.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    mem,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use foldhash::HashMap;
use rdkafka_sys as native;
use tokio::sync::watch;

use super::{
    code::{ALL_BROKERS_DOWN, Code},
    flights::Flights,
};
use crate::sinks::{
    own::OwnConnections,
    own_stream::{give_up, limit_unsent},
};

/// Reports are waited for so long at a time, milliseconds: so late a producer that nobody uses ends.
const POLL_MILLISECONDS: c_int = 100;
/// Bytes of what librdkafka says of a mistake.
const MESSAGE_BYTES: usize = 512;
/// How it is called in lists of threads.
const THREAD: &str = "kafka-reports";

/// A record that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Which topic.
    pub(super) topic: &'a str,
    /// What it is put into a partition by; any if absent.
    pub(super) key: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub(super) time: i64,
    /// What it says.
    pub(super) value: &'a [u8],
}

/// What the last trouble with a broker was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alarm {
    /// Which.
    pub(super) code: Code,
    /// In words of librdkafka.
    pub(super) reason: String,
}

/// What callbacks share with who sends; it lives as long as librdkafka's part.
struct Shared {
    flights: Flights,
    own: Arc<OwnConnections>,
    /// The last trouble with one broker.
    last: Mutex<Option<Alarm>>,
    /// All brokers are down before the first record was taken.
    is_vain: watch::Sender<bool>,
    /// A record was taken.
    is_proven: AtomicBool,
    topics: Mutex<HashMap<Box<str>, Topic>>,
    is_over: AtomicBool,
}

/// A topic as librdkafka knows it.
struct Topic(NonNull<native::rd_kafka_topic_t>);

// SAFETY: librdkafka's handles may be used from any thread (INTRODUCTION.md, "Threads and callbacks").
unsafe impl Send for Topic {}

/// The handle, on its way to the thread that gives it back.
struct Handle(NonNull<native::rd_kafka_t>);

// SAFETY: as of `Topic`.
unsafe impl Send for Handle {}

/// A producer. Its sockets are told to the kernel before they connect. Nobody who drops it waits: a thread of its own gives it back.
pub(super) struct Producer {
    handle: NonNull<native::rd_kafka_t>,
    shared: Arc<Shared>,
    headers: Vec<(CString, Vec<u8>)>,
}

// SAFETY: as of `Topic`; it is given back only after `Producer` is dropped.
unsafe impl Send for Producer {}
// SAFETY: as above.
unsafe impl Sync for Producer {}

impl Producer {
    /// A producer of these settings, which connects by itself; records have these headers.
    ///
    /// # Errors
    /// A setting or a certificate is none; what librdkafka says, which holds no values.
    pub(super) fn new(
        settings: &[(&str, String)],
        headers: &[(String, String)],
        own: Arc<OwnConnections>,
    ) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            flights: Flights::default(),
            own,
            last: Mutex::default(),
            is_vain: watch::Sender::new(false),
            is_proven: AtomicBool::new(false),
            topics: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let settings = Settings::new(settings)?;
        let configuration = settings.0.as_ptr();
        // SAFETY: the settings are ours; what the callbacks are given is kept by the thread below until the handle is given back.
        unsafe {
            native::rd_kafka_conf_set_opaque(configuration, Arc::as_ptr(&shared).cast_mut().cast());
            native::rd_kafka_conf_set_dr_msg_cb(configuration, Some(reported));
            native::rd_kafka_conf_set_error_cb(configuration, Some(troubled));
            native::rd_kafka_conf_set_log_cb(configuration, Some(logged));
            native::rd_kafka_conf_set_connect_cb(configuration, Some(connect));
            native::rd_kafka_conf_set_closesocket_cb(configuration, Some(close));
        }
        let headers = headers.iter().map(|(name, value)| {
            let name = CString::new(name.as_str()).map_err(|_| "a header's name holds no zero byte")?;
            Ok((name, value.clone().into_bytes()))
        });
        let headers = headers.collect::<Result<_, &str>>()?;
        let handle = settings.start()?;
        let (reports, kept) = (Handle(handle), Arc::clone(&shared));
        let thread = thread::Builder::new().name(THREAD.into()).spawn(move || serve(reports, &kept));
        if let Err(error) = thread {
            // SAFETY: just made, and used by nobody.
            unsafe { native::rd_kafka_destroy(handle.as_ptr()) };
            return Err(error.to_string());
        }
        Ok(Self { handle, shared, headers })
    }

    /// Where it is told what became of records.
    pub(super) fn flights(&self) -> &Flights {
        &self.shared.flights
    }

    /// Tells when all brokers are down and none has ever taken a record.
    pub(super) fn is_vain(&self) -> watch::Receiver<bool> {
        self.shared.is_vain.subscribe()
    }

    /// How many brokers and topics the cluster has, as one of its brokers tells. Blocks for `time` at most.
    pub(super) fn ask(&self, time: Duration) -> Result<(usize, usize), Code> {
        let mut told = ptr::null();
        let milliseconds = c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the handle is valid; of no topic in particular is asked; what is told is given back below.
        let code = unsafe {
            native::rd_kafka_metadata(self.handle.as_ptr(), 1, ptr::null_mut(), &raw mut told, milliseconds)
        };
        if told.is_null() {
            return Err(Code(code as i32));
        }
        // SAFETY: what is not null is whole until it is destroyed, once, after it was read.
        unsafe {
            let count = |count: c_int| usize::try_from(count).unwrap_or_default();
            let counts = (count((*told).broker_cnt), count((*told).topic_cnt));
            native::rd_kafka_metadata_destroy(told);
            Ok(counts)
        }
    }

    /// The last trouble with a broker, if no record was taken since.
    pub(super) fn last(&self) -> Option<Alarm> {
        lock(&self.shared.last).clone()
    }

    /// Puts `message` on its way; `tag` comes back with what became of it. A copy is kept until then.
    pub(super) fn send(&self, tag: u64, message: Message<'_>) -> Code {
        let Some(topic) = self.topic(message.topic) else { return Code::INVALID_ARGUMENT };
        let Ok(tag) = usize::try_from(tag) else { return Code::INVALID_ARGUMENT };
        let bytes = |bytes: &[u8]| native::rd_kafka_vu_s__bindgen_ty_1 {
            mem: native::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.as_ptr().cast_mut().cast(),
                size: bytes.len(),
            },
        };
        use native::{rd_kafka_vtype_t as kind, rd_kafka_vu_s__bindgen_ty_1 as of};
        let value = |vtype, u| native::rd_kafka_vu_t { vtype, u };
        let mut values: smallvec::SmallVec<[_; 8]> = smallvec::smallvec![
            value(kind::RD_KAFKA_VTYPE_RKT, of { rkt: topic.as_ptr() }),
            value(kind::RD_KAFKA_VTYPE_MSGFLAGS, of { i: native::RD_KAFKA_MSG_F_COPY }),
            value(kind::RD_KAFKA_VTYPE_VALUE, bytes(message.value)),
            value(kind::RD_KAFKA_VTYPE_OPAQUE, of { ptr: ptr::without_provenance_mut(tag) }),
            value(kind::RD_KAFKA_VTYPE_TIMESTAMP, of { i64_: message.time }),
        ];
        values.extend(message.key.map(|key| value(kind::RD_KAFKA_VTYPE_KEY, bytes(key))));
        values.extend(self.headers.iter().map(|(name, text)| {
            let header = native::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                name: name.as_ptr(),
                val: text.as_ptr().cast(),
                size: text.len().cast_signed(),
            };
            value(kind::RD_KAFKA_VTYPE_HEADER, of { header })
        }));
        // SAFETY: the handle and the topic are valid, each value is of its kind, and all bytes are copied before this returns.
        let error =
            unsafe { native::rd_kafka_produceva(self.handle.as_ptr(), values.as_ptr(), values.len()) };
        if error.is_null() {
            return Code::NONE;
        }
        // SAFETY: an error that is not null is ours, and given back once.
        unsafe {
            let code = native::rd_kafka_error_code(error);
            native::rd_kafka_error_destroy(error);
            Code(code as i32)
        }
    }

    fn topic(&self, name: &str) -> Option<NonNull<native::rd_kafka_topic_t>> {
        let mut topics = lock(&self.shared.topics);
        if let Some(topic) = topics.get(name) {
            return Some(topic.0);
        }
        let text = CString::new(name).ok()?;
        // SAFETY: the handle is valid, the name ends with zero, and without settings it has those of the handle.
        let topic =
            unsafe { native::rd_kafka_topic_new(self.handle.as_ptr(), text.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic)?;
        topics.insert(name.into(), Topic(topic));
        Some(topic)
    }

    /// Nothing goes to this topic for now.
    pub(super) fn forget(&self, topic: &str) {
        if let Some(topic) = lock(&self.shared.topics).remove(topic) {
            // SAFETY: made once; whoever sends does it on one thread, which is this one.
            unsafe { native::rd_kafka_topic_destroy(topic.0.as_ptr()) };
        }
    }

    /// Gives up everything that is on its way. What a broker was sent already it may have.
    pub(super) fn purge(&self) {
        purge(self.handle);
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
    }
}

/// Settings that librdkafka did not take over yet.
struct Settings(NonNull<native::rd_kafka_conf_t>);

impl Settings {
    fn new(settings: &[(&str, String)]) -> Result<Self, String> {
        // SAFETY: takes nothing.
        let made = Self(NonNull::new(unsafe { native::rd_kafka_conf_new() }).ok_or("out of memory")?);
        for (name, value) in settings {
            let text = |text: &str| CString::new(text).map_err(|_| format!("{name}: it holds a zero byte"));
            let (key, value) = (text(name)?, text(value)?);
            let mut message = [0; MESSAGE_BYTES];
            // SAFETY: both texts end with zero, and of the message no more is written than there is.
            let set = unsafe {
                let (message, room) = (message.as_mut_ptr(), message.len());
                native::rd_kafka_conf_set(made.0.as_ptr(), key.as_ptr(), value.as_ptr(), message, room)
            };
            if set != native::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                // What is said repeats the value, which may be a secret.
                return Err(format!("librdkafka does not take its setting {name}"));
            }
        }
        Ok(made)
    }

    fn start(self) -> Result<NonNull<native::rd_kafka_t>, String> {
        let mut message = [0; MESSAGE_BYTES];
        // SAFETY: the settings are valid, and librdkafka's own from here on if it succeeds.
        let handle = unsafe {
            let (message, room) = (message.as_mut_ptr(), message.len());
            native::rd_kafka_new(native::rd_kafka_type_t::RD_KAFKA_PRODUCER, self.0.as_ptr(), message, room)
        };
        match NonNull::new(handle) {
            Some(handle) => {
                mem::forget(self);
                Ok(handle)
            }
            // SAFETY: it ends with zero, since it was zeros and is written as text.
            None => Err(unsafe { text(message.as_ptr()) }),
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // SAFETY: valid until here.
        unsafe { native::rd_kafka_conf_destroy(self.0.as_ptr()) };
    }
}

/// Serves reports until the producer is dropped, and gives it back: what waits for a name's address may take its time.
fn serve(handle: Handle, shared: &Shared) {
    let Handle(handle) = handle;
    while !shared.is_over.load(Ordering::Acquire) {
        // SAFETY: the handle is valid until it is destroyed below.
        unsafe { native::rd_kafka_poll(handle.as_ptr(), POLL_MILLISECONDS) };
    }
    purge(handle);
    for (_, topic) in lock(&shared.topics).drain() {
        // SAFETY: made once, and used by nobody since the producer was dropped.
        unsafe { native::rd_kafka_topic_destroy(topic.0.as_ptr()) };
    }
    // SAFETY: used by nobody any more; callbacks come until it returns, and what they are given is borrowed here.
    unsafe { native::rd_kafka_destroy(handle.as_ptr()) };
}

fn purge(handle: NonNull<native::rd_kafka_t>) {
    let all = native::RD_KAFKA_PURGE_F_QUEUE
        | native::RD_KAFKA_PURGE_F_INFLIGHT
        | native::RD_KAFKA_PURGE_F_NON_BLOCKING;
    // SAFETY: the handle is valid: whoever calls has it.
    unsafe { native::rd_kafka_purge(handle.as_ptr(), all) };
}

/// What librdkafka calls a code.
pub(super) fn name(code: Code) -> String {
    let known = native::rd_kafka_resp_err_t::try_from(code.0);
    // SAFETY: names are texts that end with zero and are never given back.
    known
        .map_or_else(|_| format!("error {}", code.0), |code| unsafe { text(native::rd_kafka_err2name(code)) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text of librdkafka's.
///
/// # Safety
/// It is null or ends with zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// What became of a record.
unsafe extern "C" fn reported(
    _: *mut native::rd_kafka_t,
    message: *const native::rd_kafka_message_t,
    shared: *mut c_void,
) {
    // SAFETY: librdkafka gives a valid message, and what it was told in `Producer::new`.
    let (message, shared) = unsafe { (&*message, &*shared.cast::<Shared>()) };
    let code = Code(message.err as i32);
    if code == Code::NONE && !shared.is_proven.swap(true, Ordering::Relaxed) {
        lock(&shared.last).take();
    }
    shared.flights.land(message._private.addr() as u64, code);
}

/// Trouble with a broker, or with all of them.
unsafe extern "C" fn troubled(
    _: *mut native::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    shared: *mut c_void,
) {
    // SAFETY: as of `reported`; the reason ends with zero.
    let (shared, reason) = unsafe { (&*shared.cast::<Shared>(), text(reason)) };
    tracing::debug!(code, reason, "librdkafka reports trouble");
    let mut last = lock(&shared.last);
    if code != ALL_BROKERS_DOWN.0 {
        *last = Some(Alarm { code: Code(code), reason });
    } else {
        last.get_or_insert(Alarm { code: Code(code), reason });
        if !shared.is_proven.load(Ordering::Relaxed) {
            shared.is_vain.send_replace(true);
        }
    }
}

/// What librdkafka has to say.
unsafe extern "C" fn logged(
    _: *const native::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: both end with zero.
    let (facility, line) = unsafe { (text(facility), text(line)) };
    tracing::debug!(level, facility, line, "librdkafka");
}

/// Connects a socket to a broker, after it was told to the kernel: the agent never observes itself.
unsafe extern "C" fn connect(
    socket: c_int,
    address: *const native_socket::Address,
    length: c_int,
    _: *const c_char,
    shared: *mut c_void,
) -> c_int {
    // SAFETY: as of `reported`; the socket is open while this runs, the address is as long as is said.
    let (shared, socket, address) = unsafe {
        (
            &*shared.cast::<Shared>(),
            BorrowedFd::borrow_raw(socket),
            native_socket::read(address, usize::try_from(length).unwrap_or_default()),
        )
    };
    let Some(address) = address else { return libc::EAFNOSUPPORT };
    begin(&shared.own, socket, address).map_or_else(rustix::io::Errno::raw_os_error, |()| 0)
}

/// As [`crate::sinks::own::OwnSocket`] does, of a socket that is another's and does not wait.
fn begin(own: &OwnConnections, socket: BorrowedFd<'_>, server: SocketAddr) -> rustix::io::Result<()> {
    use rustix::{io::Errno, net};
    if let Ok(cookie) = net::sockopt::socket_cookie(socket) {
        own.opened(cookie);
    }
    // Where it is not known, more waits.
    let _ = limit_unsent(&socket);
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let local = || net::getsockname(socket).and_then(SocketAddr::try_from);
    net::bind(socket, &SocketAddr::new(any, 0))?;
    own.connecting(local()?.port(), server);
    match net::connect(socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // The first packet has left, so the address is known.
    own.connected(local()?, server);
    Ok(())
}

/// Closes a socket.
unsafe extern "C" fn close(socket: c_int, shared: *mut c_void) -> c_int {
    // SAFETY: as of `reported`; the socket is librdkafka's, and it closes it by this.
    let (shared, socket) = unsafe { (&*shared.cast::<Shared>(), OwnedFd::from_raw_fd(socket)) };
    if let Ok(cookie) = rustix::net::sockopt::socket_cookie(&socket) {
        shared.own.closed(cookie);
    }
    give_up(&socket);
    0
}

/// Addresses as C has them.
mod native_socket {
    use super::{IpAddr, SocketAddr, SocketAddrV6, ptr};

    pub(super) type Address = libc::sockaddr;

    /// What is at `address`, if it is of a kind that we know.
    ///
    /// # Safety
    /// So many bytes are there.
    pub(super) unsafe fn read(address: *const Address, length: usize) -> Option<SocketAddr> {
        if length < size_of::<libc::sockaddr_in>() {
            return None;
        }
        // SAFETY: its family is within the shortest of them.
        let family = c_family(unsafe { (*address).sa_family });
        if family == libc::AF_INET {
            // SAFETY: as long as was said, and of this family.
            let four = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            let ip = IpAddr::from(four.sin_addr.s_addr.to_ne_bytes());
            return Some(SocketAddr::new(ip, u16::from_be(four.sin_port)));
        }
        if family != libc::AF_INET6 || length < size_of::<libc::sockaddr_in6>() {
            return None;
        }
        // SAFETY: the same.
        let six = unsafe { ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
        let ip = six.sin6_addr.s6_addr.into();
        let port = u16::from_be(six.sin6_port);
        Some(SocketAddrV6::new(ip, port, six.sin6_flowinfo, six.sin6_scope_id).into())
    }

    const fn c_family(family: libc::sa_family_t) -> i32 {
        family as i32
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    /// With brokers of librdkafka's own, on loopback.
    fn settings(more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let own = [("test.mock.num.brokers", "1"), ("allow.auto.create.topics", "true"), ("linger.ms", "1")];
        own.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    fn send(producer: &Producer, messages: &[Message<'_>]) -> Vec<Code> {
        let mut flight = producer.flights().begin(messages.len());
        for (place, message) in messages.iter().enumerate() {
            let code = producer.send(flight.tag(place), *message);
            if code != Code::NONE {
                producer.flights().land(flight.tag(place), code);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let landed = async { tokio::time::timeout(Duration::from_secs(60), flight.landed()).await };
        runtime.block_on(landed).unwrap().unwrap()
    }

    #[test]
    fn every_record_is_reported_and_every_socket_is_told_to_the_kernel_and_taken_back() {
        let told = Arc::<Mutex<HashSet<u64>>>::default();
        let (gone, over) = std::sync::mpsc::sync_channel(1);
        let (opened, closed) = (Arc::clone(&told), Arc::clone(&told));
        let own = Arc::new(OwnConnections::new(
            Box::new(move |cookie| assert!(opened.lock().unwrap().insert(cookie))),
            Box::new(move |cookie| {
                let mut left = closed.lock().unwrap();
                // The brokers' own are closed the same way.
                if left.remove(&cookie) && left.is_empty() {
                    // It may be told more than once, or when nobody waits.
                    let _ = gone.try_send(());
                }
            }),
        ));
        let headers = [("source".to_owned(), "pod2pod".to_owned())];
        let settings = settings(&[("message.max.bytes", "1000")]);
        let producer = Producer::new(&settings, &headers, Arc::clone(&own)).unwrap();
        let message = Message { topic: "a", key: Some(b"k"), time: 1, value: b"{}" };
        let large = Message { value: &[b'x'; 2000], ..message };
        let codes = send(&producer, &[message, large, Message { key: None, topic: "b", ..message }, message]);
        assert_eq!(codes, [Code::NONE, Code(10), Code::NONE, Code::NONE]);
        assert!(!told.lock().unwrap().is_empty());
        // Each with its own address and without, as attempts have it that fail.
        assert!(own.tuples().iter().any(|(client, server)| client.ip() == server.ip()));
        assert!(own.tuples().iter().any(|(client, _)| client.ip().is_unspecified()));
        while over.try_recv().is_ok() {}
        drop(producer);
        over.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn when_all_brokers_are_down_from_the_start_it_is_told_why() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = [("bootstrap.servers", closed.to_string()), ("reconnect.backoff.ms", "10".to_owned())];
        let producer = Producer::new(&settings, &[], Arc::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut vain = producer.is_vain();
        let told = async {
            tokio::time::timeout(Duration::from_secs(60), vain.wait_for(|is_vain| *is_vain)).await.is_ok()
        };
        assert!(runtime.block_on(told));
        let last = producer.last().unwrap();
        assert!(last.reason.contains("Connection refused"), "{last:?}");
    }

    #[test]
    fn what_is_purged_is_reported() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let producer =
            Producer::new(&[("bootstrap.servers", closed.to_string())], &[], Arc::default()).unwrap();
        let mut flight = producer.flights().begin(1);
        let message = Message { topic: "a", key: None, time: 1, value: b"{}" };
        assert_eq!(producer.send(flight.tag(0), message), Code::NONE);
        producer.purge();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let landed = async { tokio::time::timeout(Duration::from_secs(60), flight.landed()).await };
        assert_eq!(runtime.block_on(landed).unwrap().unwrap(), [Code(-152)]);
    }

    #[test]
    fn a_wrong_setting_is_told_without_its_value() {
        let told =
            Producer::new(&[("sasl.mechanism\0", "hunter2".to_owned())], &[], Arc::default()).err().unwrap();
        assert!(told.contains("sasl.mechanism") && !told.contains("hunter2"), "{told}");
        let told = Producer::new(&[("acks", "hunter2".to_owned())], &[], Arc::default()).err().unwrap();
        assert_eq!(told, "librdkafka does not take its setting acks");
        assert!(Producer::new(&[], &[("a\0".to_owned(), String::new())], Arc::default()).is_err());
    }

    #[test]
    fn addresses_are_read_as_c_has_them() {
        // SAFETY: zeros are values of all of its parts, which are numbers.
        let mut four: libc::sockaddr_in = unsafe { mem::zeroed() };
        four.sin_family = libc::AF_INET as libc::sa_family_t;
        (four.sin_port, four.sin_addr.s_addr) = (9092_u16.to_be(), u32::from_ne_bytes([127, 0, 0, 1]));
        let address = (&raw const four).cast();
        // SAFETY: as long as is said.
        let read = |length| unsafe { native_socket::read(address, length) };
        assert_eq!(read(size_of_val(&four)), Some("127.0.0.1:9092".parse().unwrap()));
        assert_eq!(read(4), None);
    }

    #[test]
    fn codes_have_names() {
        assert_eq!(
            (name(Code(10)).as_str(), name(Code(12_345)).as_str()),
            ("MSG_SIZE_TOO_LARGE", "error 12345")
        );
    }
}
