//! The opinion tier.
