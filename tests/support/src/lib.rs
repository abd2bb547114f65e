//! The test vocabulary.
