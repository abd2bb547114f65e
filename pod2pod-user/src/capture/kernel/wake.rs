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
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};

const RING: EventData = EventData::new_u64(0);
const STOP: EventData = EventData::new_u64(1);
const TIMER: EventData = EventData::new_u64(2);

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

/// A place to wait for one ring. Its timer is one of the descriptors waited for: before Linux 5.11 a wait itself has whole
/// milliseconds (epoll_pwait2(2)).
#[derive(Debug)]
pub struct Wake {
    set: OwnedFd,
    timer: OwnedFd,
}

impl Wake {
    /// Waits for wake-ups of `ring`, and for `stop` to become readable.
    ///
    /// # Errors
    /// The kernel has no more descriptors for us.
    pub fn new(ring: impl AsFd, stop: impl AsFd) -> io::Result<Self> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&set, ring, RING, EventFlags::IN | EventFlags::ET)?;
        epoll::add(&set, stop, STOP, EventFlags::IN)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&set, &timer, TIMER, EventFlags::IN | EventFlags::ET)?;
        Ok(Self { set, timer })
    }

    /// Waits for `longest` at most; not at all if that is nothing.
    pub fn wait(&self, longest: Duration) -> Woken {
        let limit = Timespec {
            tv_sec: longest.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: longest.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: limit };
        let armed =
            !longest.is_zero() && timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok();
        // Without the timer whole milliseconds will do; not to wait at all would be a loop without rest.
        let limit = if armed { None } else { Some(&limit) };
        let mut events = [MaybeUninit::<Event>::uninit(); 3];
        // An error is an interruption: the caller looks at everything anyway.
        let Ok((events, _)) = epoll::wait(&self.set, &mut events, limit) else { return Woken::ByTime };
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
