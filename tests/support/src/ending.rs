//! The end of threads that go on until they are told: a test that fails beside them would wait for them for ever.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that it is over when it is dropped, whatever ended the test.
#[derive(Debug)]
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, thread};

    use super::*;

    #[test]
    fn a_test_that_fails_does_not_wait_for_its_threads() {
        let is_over = AtomicBool::new(false);
        let failed = panic::catch_unwind(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                });
                let _ending = Ending(&is_over);
                panic::resume_unwind(Box::new("failed"));
            })
        });
        assert!(failed.is_err());
    }
}
