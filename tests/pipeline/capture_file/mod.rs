//! capture_file.
