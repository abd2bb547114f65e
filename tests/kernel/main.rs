//! The kernel tier.

mod exchanges;
