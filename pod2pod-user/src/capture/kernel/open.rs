//! Opens the capture at a place: loads the object as configured, takes its maps, attaches its programs.

use std::os::fd::AsFd as _;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError},
};
use aya_log::EbpfLogger;
use pod2pod_common::{control::SHED_NONE, limits::DEFAULT_WAKE_THRESHOLD_BYTES, names};

use super::{
    Capture, Config, MAX_RING_BYTES, MIN_RING_BYTES, OpenError, Reader, Stats,
    attach::{Attachment, Place},
    batch::Entries,
    census::Census,
    object,
    own_sockets::OwnSockets,
    ring::Ring,
    rings,
    verdicts::{Epoch, Verdicts},
};

/// The wake-up must come while most of the ring is free.
const WAKE_SHARE_OF_RING: u32 = 4;
/// aya-log's levels (aya_log_common::Level).
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

impl Capture {
    /// Loads and attaches.
    pub(super) fn open_at(config: &Config, place: Place) -> Result<Self, OpenError> {
        let object = object::embedded().ok_or(OpenError::NoObject)?;
        let scope_kind = place.scope_kind(config);
        let ring_bytes = config.ring_bytes.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
        let ring_count = config.workers.count();
        let wake_threshold = u64::from(DEFAULT_WAKE_THRESHOLD_BYTES.min(ring_bytes / WAKE_SHARE_OF_RING));
        let log_level = if config.debug_log { LOG_DEBUG } else { LOG_OFF };
        let mut ebpf = EbpfLoader::new()
            .override_global(names::GLOBAL_SCOPE_KIND, &scope_kind, true)
            .override_global(names::GLOBAL_WAKE_THRESHOLD, &wake_threshold, true)
            .override_global(names::GLOBAL_LOG_LEVEL, &log_level, true)
            .override_global(names::GLOBAL_RING_COUNT, &ring_count, true)
            .map_max_entries(names::MAP_CONNECTIONS, config.max_connections)
            .map_max_entries(names::MAP_VERDICTS, config.max_verdicts)
            .load(object)
            .map_err(|cause| OpenError::Load { cause: Box::new(cause) })?;
        let instructions = place.load(&mut ebpf)?;
        let logger = if config.debug_log { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let rings = rings::open(&mut ebpf, ring_count, ring_bytes)?;
        let mut connections = handles(&mut ebpf, names::MAP_CONNECTIONS, rings.len() + 1)?;
        let mut verdicts = handles(&mut ebpf, names::MAP_VERDICTS, rings.len() + 1)?;
        let connection_entries = entries(connections.pop(), names::MAP_CONNECTIONS)?;
        let verdict_entries = entries(verdicts.pop(), names::MAP_VERDICTS)?;
        let readers = readers(&mut ebpf, rings, (verdicts, connections), scope_kind)?;
        let mut capture = Self {
            readers,
            entries: connection_entries,
            verdict_entries,
            census: Census::default(),
            counters: map(&mut ebpf, names::MAP_COUNTERS)?,
            rings: map(&mut ebpf, names::MAP_RINGS)?,
            control: map(&mut ebpf, names::MAP_CONTROL)?,
            shed_level: SHED_NONE,
            own_sockets: OwnSockets::new(map(&mut ebpf, names::MAP_OWN_SOCKETS)?),
            attachment: Attachment::Loaded(ebpf),
            logger,
            scope_kind,
            description: String::new(),
            instructions,
        };
        capture.beat();
        capture.attach(config, &place)
    }
}

/// Takes a map out of the loaded object.
///
/// # Errors
/// There is none of that name, or it is of another kind.
pub(super) fn map<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, OpenError> {
    let map = ebpf.take_map(name).ok_or(OpenError::ObjectMismatch { name })?;
    T::try_from(map).map_err(|cause| OpenError::Map { name, cause })
}

/// A reader for each of `rings`, with handles of its own on the maps of connections.
fn readers(
    ebpf: &mut Ebpf,
    rings: Vec<Ring>,
    (verdict_maps, connection_maps): (Vec<Map>, Vec<Map>),
    scope_kind: u32,
) -> Result<Vec<Reader>, OpenError> {
    let (verdicts, connections) = (names::MAP_VERDICTS, names::MAP_CONNECTIONS);
    let (mut verdict_maps, mut connection_maps) = (verdict_maps.into_iter(), connection_maps.into_iter());
    let epoch = Epoch::new(map(ebpf, names::MAP_VERDICT_EPOCH)?);
    let mut readers = Vec::new();
    for ring in rings {
        let verdicts = Verdicts {
            verdicts: typed(verdict_maps.next(), verdicts)?,
            connections: typed(connection_maps.next(), connections)?,
            epoch: epoch.clone(),
            scope_kind,
        };
        readers.push(Reader { ring, verdicts, paths: None, stats: Stats::default() });
    }
    Ok(readers)
}

/// `count` handles on one LRU hash map.
fn handles(ebpf: &mut Ebpf, name: &'static str, count: usize) -> Result<Vec<Map>, OpenError> {
    let failed = |cause| OpenError::Map { name, cause };
    let Some(Map::LruHashMap(data)) = ebpf.take_map(name) else {
        return Err(OpenError::ObjectMismatch { name });
    };
    let mut handles = Vec::new();
    for _ in 0..count {
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| failed(error.into()))?;
        handles.push(Map::LruHashMap(MapData::from_fd(fd).map_err(failed)?));
    }
    Ok(handles)
}

/// A table of connections, to be looked through.
fn entries(map: Option<Map>, name: &'static str) -> Result<Entries, OpenError> {
    let Some(Map::LruHashMap(data)) = map else { return Err(OpenError::ObjectMismatch { name }) };
    Entries::of(data).map_err(|cause| OpenError::Map { name, cause })
}

fn typed<T: TryFrom<Map, Error = MapError>>(map: Option<Map>, name: &'static str) -> Result<T, OpenError> {
    let map = map.ok_or(OpenError::ObjectMismatch { name })?;
    T::try_from(map).map_err(|cause| OpenError::Map { name, cause })
}
