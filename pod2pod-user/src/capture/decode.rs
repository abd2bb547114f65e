//! capture/decode.
