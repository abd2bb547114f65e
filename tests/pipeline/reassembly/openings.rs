//! openings.
