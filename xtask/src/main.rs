//! What a developer can do.
fn main() {}
