//! Exit codes, and the few words to the person at the terminal that are neither records nor logs.

use std::io::{self, Write as _};

/// Everything went well.
pub const OK: u8 = 0;
/// Something failed that is none of the following.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong.
pub const CONFIGURATION: u8 = 64;
/// An input file is damaged or no capture file.
pub const INPUT: u8 = 65;
/// A privilege or a kernel feature is missing.
pub const PRIVILEGE: u8 = 77;

/// Writes a line to standard error, in one piece.
pub fn tell(line: impl std::fmt::Display) {
    // There is nowhere to report that standard error is closed.
    let _ = io::stderr().write_all(format!("pod2pod: {line}\n").as_bytes());
}

/// Writes `text` to standard output; says how the program should exit. A reader that has enough is none that failed.
pub fn print(text: &[u8]) -> u8 {
    match io::stdout().write_all(text) {
        Ok(()) => OK,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            tell(format_args!("cannot write to standard output: {error}"));
            FAILURE
        }
    }
}
