//! The calls into libpcap: text to program, program on packet. The only file that knows it.
//!
//! Programs are copied out of libpcap's memory, so nothing of it is held between calls.

use super::ExpressionError;

/// Whether libpcap is in this program.
pub const IS_BUILT: bool = cfg!(pcap);

/// `struct bpf_insn` (pcap/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// Instructions to pass over if a comparison holds.
    pub jump_true: u8,
    /// The same if it does not.
    pub jump_false: u8,
    /// A constant: value, offset, distance.
    pub k: u32,
}

/// Compiles `text` for Ethernet frames.
#[cfg(not(pcap))]
pub(super) const fn compile(_text: &str) -> Result<Vec<Instruction>, ExpressionError> {
    Err(ExpressionError::NotBuilt)
}

/// Whether `program` accepts `packet`.
#[cfg(not(pcap))]
pub(super) const fn matches(_program: &[Instruction], _packet: &[u8]) -> bool {
    false
}

#[cfg(pcap)]
pub(super) use with_pcap::{compile, matches};

#[cfg(pcap)]
mod with_pcap {
    use std::{
        ffi::{CStr, CString, c_char, c_int, c_uint},
        ptr::{self, NonNull},
        slice,
    };

    use super::{ExpressionError, Instruction};

    /// DLT_EN10MB (pcap/dlt.h).
    const ETHERNET: c_int = 1;
    /// What an accepting program returns; no packet is longer.
    const SNAP_LENGTH: c_int = 262_144;
    /// PCAP_NETMASK_UNKNOWN (pcap/pcap.h): `ip broadcast` is refused.
    const NO_NETMASK: u32 = u32::MAX;

    /// `pcap_t`.
    #[repr(C)]
    struct Handle {
        _opaque: [u8; 0],
    }

    /// `struct bpf_program` (pcap/bpf.h).
    #[repr(C)]
    struct Program {
        length: c_uint,
        instructions: *mut Instruction,
    }

    // pcap/pcap.h and pcap/bpf.h.
    unsafe extern "C" {
        fn pcap_open_dead(link_type: c_int, snap_length: c_int) -> *mut Handle;
        fn pcap_compile(
            handle: *mut Handle,
            program: *mut Program,
            text: *const c_char,
            optimize: c_int,
            netmask: u32,
        ) -> c_int;
        fn pcap_geterr(handle: *mut Handle) -> *const c_char;
        fn pcap_freecode(program: *mut Program);
        fn pcap_close(handle: *mut Handle);
        fn bpf_filter(
            program: *const Instruction,
            packet: *const u8,
            wire_length: c_uint,
            length: c_uint,
        ) -> c_uint;
    }

    /// Compiles `text` for Ethernet frames.
    pub(in super::super) fn compile(text: &str) -> Result<Vec<Instruction>, ExpressionError> {
        let refused = |message: &str| ExpressionError::Refused(message.to_owned());
        let text = CString::new(text).map_err(|_| refused("an expression holds no zero byte"))?;
        // SAFETY: takes numbers only.
        let handle = NonNull::new(unsafe { pcap_open_dead(ETHERNET, SNAP_LENGTH) });
        let handle = handle.ok_or_else(|| refused("out of memory"))?;
        let mut program = Program { length: 0, instructions: ptr::null_mut() };
        // SAFETY: the handle is open, the text ends with zero, and the program is ours to be written.
        let failed =
            unsafe { pcap_compile(handle.as_ptr(), &raw mut program, text.as_ptr(), 1, NO_NETMASK) != 0 };
        let result = if failed {
            // SAFETY: a failed compilation leaves a text that ends with zero in the open handle.
            let message = unsafe { CStr::from_ptr(pcap_geterr(handle.as_ptr())) };
            Err(refused(&message.to_string_lossy()))
        } else {
            // SAFETY: libpcap says that so many instructions are there, at least one; they are copied before they are freed.
            Ok(unsafe { slice::from_raw_parts(program.instructions, program.length as usize) }.to_vec())
        };
        // SAFETY: a program that was compiled is freed once; one that was not is empty, which is allowed.
        unsafe { pcap_freecode(&raw mut program) };
        // SAFETY: opened above, and used no more.
        unsafe { pcap_close(handle.as_ptr()) };
        result
    }

    /// Whether `program` accepts `packet`.
    pub(in super::super) fn matches(program: &[Instruction], packet: &[u8]) -> bool {
        let length = c_uint::try_from(packet.len()).unwrap_or(c_uint::MAX);
        // SAFETY: the program is libpcap's own, so every path of it ends with a return; of the packet it reads `length`
        // bytes at most.
        !program.is_empty() && unsafe { bpf_filter(program.as_ptr(), packet.as_ptr(), length, length) } != 0
    }
}
