//! Makes the rings and puts them where the programs look for them. Reads none.

use aya::{
    Ebpf,
    maps::{ArrayOfMaps, MapData, MapError},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use pod2pod_common::{limits::MAX_RINGS, names};

use super::{OpenError, open::map, ring::Ring};

/// Makes `count` rings of `bytes` each, at most [`MAX_RINGS`]; the programs must have been loaded with that count. They
/// are in the order of their indices, and what the kernel writes to a ring is in the order in which a connection had it.
///
/// # Errors
/// The kernel has no memory for them, or the object is not ours.
pub(super) fn open(ebpf: &mut Ebpf, count: u32, bytes: u32) -> Result<Vec<Ring>, OpenError> {
    let failed = |cause| OpenError::Map { name: names::MAP_SEGMENTS, cause };
    let mut all: ArrayOfMaps<MapData> = map(ebpf, names::MAP_SEGMENTS)?;
    let mut rings = Vec::new();
    for index in 0..count.clamp(1, MAX_RINGS) {
        let data = create(bytes).map_err(failed)?;
        all.set(index, &data, 0).map_err(failed)?;
        rings.push(Ring::open(data, bytes).map_err(|cause| OpenError::Ring { cause })?);
    }
    Ok(rings)
}

fn create(bytes: u32) -> Result<MapData, MapError> {
    let definition = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, bytes, 0);
    MapData::create(definition, names::MAP_SEGMENTS, None)
}
