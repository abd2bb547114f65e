//! Who has the machine: most tests share it, a few want all of it.
//!
//! Where the machine is slow, a flood or a full load starves whoever runs beside it, of time and of patience. There tests
//! that make one run while no other watches anything. What a test has it has to its end, or until it gives it back.

use std::{
    cell::RefCell,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use support::scale;

static MACHINE: RwLock<()> = RwLock::new(());

/// What the test of this thread has of the machine, until the thread ends.
enum Part {
    Shared {
        _held: RwLockReadGuard<'static, ()>,
    },
    Whole {
        _held: RwLockWriteGuard<'static, ()>,
    },
    /// What the test has that waits for this thread.
    OfTest,
}

thread_local! {
    static PART: RefCell<Option<Part>> = const { RefCell::new(None) };
}

/// The test of this thread begins to watch, beside others that do. Whatever watches calls it; a second time it does nothing.
pub(crate) fn share() {
    PART.with_borrow_mut(|part| {
        // Not asked for twice: one who waits for the whole machine would be between the two.
        part.get_or_insert_with(|| Part::Shared {
            _held: MACHINE.read().unwrap_or_else(PoisonError::into_inner),
        });
    });
}

/// The test of this thread runs alone from here on, where the machine is slow; to be called before it begins to watch.
pub(crate) fn take_whole() {
    if scale::is_slow() {
        take();
    }
}

/// This thread works for a test that waits for it, and has what that has.
pub(crate) fn share_with_test() {
    PART.set(Some(Part::OfTest));
}

/// The test of this thread does no more that another could be starved by, or that needs much.
pub(crate) fn give_back() {
    PART.set(None);
}

fn take() {
    PART.with_borrow_mut(|part| {
        // The runner may have run another test on this thread.
        *part = None;
        *part = Some(Part::Whole { _held: MACHINE.write().unwrap_or_else(PoisonError::into_inner) });
    });
}

#[test]
fn who_has_the_whole_machine_is_alone() {
    use std::thread;

    let is_free = |ask: fn() -> bool| thread::spawn(ask).join().unwrap();
    take();
    assert!(!is_free(|| MACHINE.try_read().is_ok()), "two had it");
    give_back();
    assert!(PART.with_borrow(Option::is_none));
    share();
    share();
    assert!(PART.with_borrow(|part| matches!(part, Some(Part::Shared { .. }))));
    assert!(!is_free(|| MACHINE.try_write().is_ok()), "it was taken from one who shares it");
}
