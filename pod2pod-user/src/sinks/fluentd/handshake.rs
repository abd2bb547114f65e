//! How server and client show each other that they have the same key, without telling it: HELO, PING, PONG (forward protocol v1.5).

use rmp::encode;
use sha2::{Digest as _, Sha512};

use super::wire::{Fault, Reader};
use crate::{
    delivery::{Trouble, TroubleKind},
    record::msgpack::push_text,
};

/// Who we are to the server.
pub(super) struct Known<'a> {
    /// What both know.
    pub(super) shared_key: &'a [u8],
    /// A name and its password, for a server that asks for them too.
    pub(super) user: Option<(&'a str, &'a [u8])>,
    /// Our name: any but the server's.
    pub(super) hostname: &'a str,
    /// Random, and new for each connection: 32 hexadecimal digits.
    pub(super) salt: &'a [u8],
}

/// The server's HELO.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Helo<'a> {
    nonce: &'a [u8],
    /// Empty if it asks for no user.
    auth: &'a [u8],
}

impl<'a> Helo<'a> {
    /// Reads it.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != 2 || reader.text()? != b"HELO" {
            return Err(Fault::Nonsense);
        }
        let mut helo = Helo { nonce: b"", auth: b"" };
        for _ in 0..reader.map()? {
            match reader.text()? {
                b"nonce" => helo.nonce = reader.text()?,
                b"auth" => helo.auth = reader.text()?,
                _ => reader.skip()?,
            }
        }
        Ok(helo)
    }

    /// Our PING.
    pub(super) fn ping(&self, known: &Known<'_>) -> Vec<u8> {
        let Known { shared_key, user, hostname, salt } = known;
        let digest = hex_digest(&[salt, hostname.as_bytes(), self.nonce, shared_key]);
        let (user, password) = match user {
            Some((user, password)) if !self.auth.is_empty() => {
                (*user, hex_digest(&[self.auth, user.as_bytes(), password]))
            }
            Some(_) | None => ("", Vec::new()),
        };
        let mut ping = Vec::new();
        // A Vec takes every write.
        let _ = encode::write_array_len(&mut ping, 6);
        for text in [b"PING", hostname.as_bytes(), salt, &digest, user.as_bytes(), &password] {
            push_text(&mut ping, text);
        }
        ping
    }

    /// Whether the server's PONG lets us in, and is of one who has the key.
    pub(super) fn check_pong(&self, pong: &[u8], known: &Known<'_>) -> Result<Result<(), Trouble>, Fault> {
        let mut reader = Reader::new(pong);
        if reader.array()? < 3 || reader.text()? != b"PONG" {
            return Err(Fault::Nonsense);
        }
        let refused = |detail: &str| Ok(Err(Trouble::new(TroubleKind::Unauthorized, detail)));
        if !reader.boolean()? {
            let reason = String::from_utf8_lossy(reader.text()?).into_owned();
            return refused(&format!("the server refuses us: {reason}"));
        }
        reader.skip()?;
        let server = reader.text()?;
        let digest = hex_digest(&[known.salt, server, self.nonce, known.shared_key]);
        // Somebody who only repeats what we said has our name.
        if reader.text()? != digest || server == known.hostname.as_bytes() {
            return refused("the server has not the shared key");
        }
        Ok(Ok(()))
    }
}

pub(super) fn hex_digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    hex(&hash.finalize())
}

/// In lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| crate::record::number::push_hex::<2>(&mut text, (*byte).into()));
    text
}
