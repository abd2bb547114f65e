//! Virtual services: a real director with real clients and servers. Skipped, and told so, where the kernel has no IPVS.

pub(crate) mod director;

mod arrivals;
mod case;
mod cost;
mod decided;
mod exact;
mod followed;
mod joined;
mod live;
mod modes;
mod once;
mod poller;
mod scenarios;
mod score;
mod update;
mod world;
