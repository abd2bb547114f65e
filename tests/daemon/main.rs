//! The daemon tier.
