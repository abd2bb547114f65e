//! The gate: what a connection's first bytes begin. Shared by the kernel side and capture files.
//!
//! Cheap and generous: it keeps what could be HTTP by the token grammar (RFC 9110 5.6.2); the parser decides.

/// What first bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// An HTTP/1 message, a PROXY protocol header, or too few bytes to tell.
    Http,
    /// The HTTP/2 connection preface (RFC 9113 3.4).
    Http2,
    /// A TLS handshake record (RFC 8446 5.1).
    Tls,
    /// Something else.
    Other,
}
