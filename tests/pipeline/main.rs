//! The pipeline tier.
