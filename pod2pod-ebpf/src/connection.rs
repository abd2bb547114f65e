//! Which state a segment belongs to. The decisions on it are `pod2pod_common::gate`'s.

use aya_ebpf::bindings::BPF_NOEXIST;
use pod2pod_common::{
    counters::Counter,
    flow::{ConnectionState, FlowKey, GATE_OWN, SCOPE_COOKIE, SCOPE_OF_HANDSHAKE},
    gate::Facts,
};

use crate::{count::Counters, maps::CONNECTIONS};

/// A socket end's state, and how it was come by.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// In the map.
    pub(crate) state: *mut ConnectionState,
    /// It is the handshake's: the socket end needs an entry of its own.
    pub(crate) linked: bool,
    /// Another connection hid its start.
    pub(crate) hidden: bool,
}

/// Finds the state of `key`, or makes one if the segment opens a connection or carries payload.
#[inline(always)]
pub(crate) fn find_or_insert(key: &mut FlowKey, facts: &Facts, counters: Counters) -> Option<Found> {
    let scope = key.scope;
    let by_cookie = key.scope_kind == SCOPE_COOKIE;
    if by_cookie && facts.at_listener() {
        key.scope = SCOPE_OF_HANDSHAKE;
    }
    let mut hidden = false;
    let shared: &FlowKey = key;
    if let Some(state) = CONNECTIONS.get_ptr_mut(shared) {
        return Some(Found { state, linked: false, hidden });
    }
    if by_cookie && !facts.at_listener() {
        key.scope = SCOPE_OF_HANDSHAKE;
        let shared: &FlowKey = key;
        let handshake = CONNECTIONS.get_ptr_mut(shared);
        key.scope = scope;
        if let Some(state) = handshake {
            // SAFETY: an element of the map; others may write it at once, see `ConnectionState`.
            if unsafe { &*state }.links(facts) {
                return Some(Found { state, linked: true, hidden });
            }
            hidden = true;
        }
    }
    if facts.payload_length == 0 && !facts.opens() && !facts.answers() {
        return None;
    }
    let mut fresh = ConnectionState::first_seen(facts);
    if by_cookie && facts.at_listener() {
        fresh.listener_cookie = scope;
    }
    if fresh.generation_known == 0 {
        counters.bump(Counter::DataWithoutEntry);
    }
    let state = insert(key, &fresh, Present::Stays, counters)?;
    Some(Found { state, linked: false, hidden })
}

/// Gives a child socket its own entry, with what its handshake's has come to.
#[inline(always)]
pub(crate) fn settle(key: &FlowKey, found: Found, counters: Counters) -> *mut ConnectionState {
    if !found.linked {
        return found.state;
    }
    // SAFETY: an element of the map; others may write it at once, see `ConnectionState`.
    let mut own = unsafe { *found.state };
    if own.listener_cookie == key.scope {
        return found.state;
    }
    own.listener_cookie = 0;
    insert(key, &own, Present::IsReplaced, counters).unwrap_or(found.state)
}

/// Makes a state for a socket of the agent itself, whatever was there.
#[inline(always)]
pub(crate) fn insert_own(key: &mut FlowKey, facts: &Facts, counters: Counters) {
    let mut own = ConnectionState::first_seen(facts);
    own.gate = GATE_OWN;
    if key.scope_kind == SCOPE_COOKIE && facts.at_listener() {
        own.listener_cookie = key.scope;
        key.scope = SCOPE_OF_HANDSHAKE;
    }
    insert(key, &own, Present::IsReplaced, counters);
}

/// What becomes of an entry that is there already: another CPU may have inserted it first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    Stays,
    IsReplaced,
}

/// Inserts only what is not there, so that evictions can be told from the count of insertions.
#[inline(always)]
fn insert(
    key: &FlowKey,
    state: &ConnectionState,
    present: Present,
    counters: Counters,
) -> Option<*mut ConnectionState> {
    let inserted = CONNECTIONS.insert(key, state, u64::from(BPF_NOEXIST)).is_ok();
    if inserted {
        counters.bump(Counter::ConnectionsInserted);
    }
    let Some(entry) = CONNECTIONS.get_ptr_mut(key) else {
        counters.bump(Counter::ConnectionsRefused);
        return None;
    };
    if !inserted && present == Present::IsReplaced {
        // SAFETY: an element of the map; others may write it at once, see `ConnectionState`.
        unsafe { *entry = *state };
    }
    Some(entry)
}
