//! capture/packet.
