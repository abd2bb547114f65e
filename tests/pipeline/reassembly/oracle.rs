//! oracle.
