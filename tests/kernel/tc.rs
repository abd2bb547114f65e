//! The second attacher: programs on network interfaces, by tcx and by clsact. Everything that the kernel offers is tried.

mod frames;
mod others;
mod seen;
mod tunnels;
pub(crate) mod world;
