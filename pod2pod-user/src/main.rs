//! The process: one subcommand, one exit code.

fn main() {}
