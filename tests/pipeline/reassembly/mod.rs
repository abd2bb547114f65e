//! reassembly.
