//! capture/file.
