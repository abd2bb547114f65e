//! Starts servers that end with this process, however it ends. What they are is not known here.
//!
//! The kernel sends a child its parent-death signal when the thread that started it ends (prctl(2), `PR_SET_PDEATHSIG`), and each
//! test is a thread: so one thread, which lives as long as the process does, starts them all.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    io,
    process::{Child, Command},
    sync::{
        LazyLock, Mutex,
        mpsc::{self, SyncSender},
    },
    thread,
};

struct Order {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

static KEEPER: LazyLock<Mutex<SyncSender<Order>>> = LazyLock::new(|| {
    let (orders, received) = mpsc::sync_channel::<Order>(0);
    let work = move || {
        for Order { mut command, answer } in received {
            // Who ordered it may have given up.
            let _ = answer.send(command.spawn());
        }
    };
    thread::Builder::new().name("keeper".to_owned()).spawn(work).unwrap();
    Mutex::new(orders)
});

/// A command whose process is killed when this one ends. Its arguments are those of `program`.
pub fn command(program: &std::path::Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Starts what [`command`] began.
///
/// # Errors
/// It cannot be started.
pub fn start(command: Command) -> io::Result<Child> {
    let (answer, answered) = mpsc::sync_channel(1);
    KEEPER.lock().unwrap().send(Order { command, answer }).unwrap();
    answered.recv().unwrap()
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Stdio};

    use super::*;

    #[test]
    fn a_child_outlives_the_thread_that_ordered_it_and_has_its_own_id() {
        let mut sleeping = thread::spawn(|| {
            let mut cat = command(Path::new("cat"));
            cat.stdin(Stdio::piped()).stdout(Stdio::piped());
            start(cat).unwrap()
        })
        .join()
        .unwrap();
        assert!(sleeping.try_wait().unwrap().is_none(), "it goes on");
        drop(sleeping.stdin.take());
        assert!(sleeping.wait().unwrap().success());
    }
}
