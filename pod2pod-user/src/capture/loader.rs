//! capture/loader.
