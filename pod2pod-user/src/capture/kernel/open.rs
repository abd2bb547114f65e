//! Opens the capture at a place: loads the object as configured, takes its maps, attaches its programs.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
};
use aya_log::EbpfLogger;
use pod2pod_common::{control::SHED_NONE, limits::DEFAULT_WAKE_THRESHOLD_BYTES, names};

use super::{
    Capture, Config, MAX_RING_BYTES, MIN_RING_BYTES, OpenError, Paths, Stats,
    attach::{Attachment, Place},
    object,
    own_sockets::OwnSockets,
    rings,
    verdicts::Verdicts,
};

/// The wake-up must come while most of the ring is free.
const WAKE_SHARE_OF_RING: u32 = 4;
/// Rings that one worker reads.
const RING_COUNT: u32 = 1;
/// aya-log's levels (aya_log_common::Level).
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

impl Capture {
    /// Loads and attaches.
    pub(super) fn open_at(config: &Config, place: Place) -> Result<Self, OpenError> {
        let object = object::embedded().ok_or(OpenError::NoObject)?;
        let scope_kind = place.scope_kind(config);
        let ring_bytes = config.ring_bytes.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
        let wake_threshold = u64::from(DEFAULT_WAKE_THRESHOLD_BYTES.min(ring_bytes / WAKE_SHARE_OF_RING));
        let log_level = if config.debug_log { LOG_DEBUG } else { LOG_OFF };
        let mut ebpf = EbpfLoader::new()
            .override_global(names::GLOBAL_SCOPE_KIND, &scope_kind, true)
            .override_global(names::GLOBAL_WAKE_THRESHOLD, &wake_threshold, true)
            .override_global(names::GLOBAL_LOG_LEVEL, &log_level, true)
            .override_global(names::GLOBAL_RING_COUNT, &RING_COUNT, true)
            .map_max_entries(names::MAP_CONNECTIONS, config.max_connections)
            .map_max_entries(names::MAP_VERDICTS, config.max_verdicts)
            .load(object)
            .map_err(|cause| OpenError::Load { cause: Box::new(cause) })?;
        let instructions = place.load(&mut ebpf)?;
        let logger = if config.debug_log { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let ring = rings::open(&mut ebpf, RING_COUNT, ring_bytes)?
            .pop()
            .ok_or(OpenError::ObjectMismatch { name: names::MAP_SEGMENTS })?;
        let mut capture = Self {
            ring,
            counters: map(&mut ebpf, names::MAP_COUNTERS)?,
            rings: map(&mut ebpf, names::MAP_RINGS)?,
            control: map(&mut ebpf, names::MAP_CONTROL)?,
            shed_level: SHED_NONE,
            verdicts: Verdicts {
                verdicts: map(&mut ebpf, names::MAP_VERDICTS)?,
                connections: map(&mut ebpf, names::MAP_CONNECTIONS)?,
                scope_kind,
            },
            own_sockets: OwnSockets::new(map(&mut ebpf, names::MAP_OWN_SOCKETS)?),
            attachment: Attachment::Programs(ebpf),
            logger,
            scope_kind,
            description: String::new(),
            instructions,
            paths: Paths::default(),
            stats: Stats::default(),
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
