//! Waits for a ring: until the kernel side wakes its reader, a time is over, or the program should end.
//!
//! A ring polls as readable whenever it holds anything, and it nearly always does: what is waited for is the wake-up
//! itself. Edge-triggered, one wake-up of the kernel side ends one wait and no other (epoll(7)).

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
    time::Timespec,
};

const RING: EventData = EventData::new_u64(0);
const STOP: EventData = EventData::new_u64(1);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time is over, or a signal handler ran.
    ByTime,
    /// The kernel side says that the ring fills, or that a connection uses up its credit.
    ByRing,
    /// The program should end.
    ToStop,
}

/// A place to wait for one ring.
#[derive(Debug)]
pub struct Wake(OwnedFd);

impl Wake {
    /// Waits for wake-ups of `ring`, and for `stop` to become readable.
    ///
    /// # Errors
    /// The kernel has no more descriptors for us.
    pub fn new(ring: impl AsFd, stop: impl AsFd) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, ring, RING, EventFlags::IN | EventFlags::ET)?;
        epoll::add(&set, stop, STOP, EventFlags::IN)?;
        Ok(Self(set))
    }

    /// Waits for `longest` at most, in whole milliseconds.
    pub fn wait(&self, longest: Duration) -> Woken {
        let limit = Timespec {
            tv_sec: longest.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        };
        let mut events = [MaybeUninit::<Event>::uninit(); 2];
        // An error is an interruption: the caller looks at everything anyway.
        let Ok((events, _)) = epoll::wait(&self.0, &mut events, Some(&limit)) else { return Woken::ByTime };
        let is = |data: EventData| events.iter().any(|event| event.data.u64() == data.u64());
        if is(STOP) {
            Woken::ToStop
        } else if is(RING) {
            Woken::ByRing
        } else {
            Woken::ByTime
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn signal(event: &OwnedFd) {
        rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
    }

    #[test]
    fn a_wake_up_ends_one_wait_though_the_ring_stays_readable() {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let (ring, stop) = (eventfd(0, flags).unwrap(), eventfd(0, flags).unwrap());
        let wake = Wake::new(&ring, &stop).unwrap();
        let shortest = Duration::from_millis(1);
        assert_eq!(wake.wait(shortest), Woken::ByTime);
        signal(&ring);
        assert_eq!(wake.wait(Duration::from_secs(60)), Woken::ByRing);
        assert_eq!(wake.wait(shortest), Woken::ByTime);
        signal(&ring);
        assert_eq!(wake.wait(Duration::from_secs(60)), Woken::ByRing);
        signal(&stop);
        assert_eq!(wake.wait(Duration::from_secs(60)), Woken::ToStop);
        assert_eq!(wake.wait(Duration::from_secs(60)), Woken::ToStop);
    }
}
