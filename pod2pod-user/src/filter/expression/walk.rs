//! What a compiled expression depends on: every path that a packet of a TCP connection can take through it.
//!
//! The walk knows what all packets of a connection have in common (EtherType, IP version, protocol, first fragment), leaves
//! open what differs between connections (addresses, ports), and refuses a program as soon as something else would decide
//! where it goes. Registers are known bit by bit, because fields share words.

use std::collections::HashSet;

use super::{
    library::Instruction,
    packet::{ETHER_IPV4, ETHER_IPV6, ETHERNET, TCP, TCP_HEADER},
    value::{Bits, Value},
};

/// Distinct states of a program that are looked at, of each kind of packet. A state an instruction is usual, and libpcap
/// takes minutes to compile so many.
pub const MAX_STATES: usize = 1 << 15;

/// Words of a program's memory (BPF_MEMWORDS, pcap/bpf.h).
const MEMORY: usize = 16;

/// From here on offsets are the kernel's own (SKF_LL_OFF, linux/filter.h).
const KERNEL_OFFSETS: u32 = 0xffe0_0000;

/// What a program depends on beside addresses, ports, protocol and IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub &'static str);

/// EtherTypes in whose frames an IP packet lies deeper. The capture looks through them, so a program that asks for them
/// would never see one.
const AROUND_IP: &[(u32, &str)] = &[
    (0x8100, "VLAN tags"),
    (0x88a8, "VLAN tags"),
    (0x9100, "VLAN tags"),
    (0x8847, "MPLS labels"),
    (0x8848, "MPLS labels"),
    (0x8864, "PPPoE sessions"),
];

/// Whether `program` can accept a packet of a TCP connection.
///
/// # Errors
/// Something that is not the same in all packets of a connection would decide it.
pub(super) fn may_match(program: &[Instruction]) -> Result<bool, Refusal> {
    let four = walk(program, Kind::Four)?;
    let six = walk(program, Kind::Six)?;
    // For what it asks of frames that are neither.
    walk(program, Kind::Other)?;
    Ok(four || six)
}

/// A kind of frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// TCP in IPv4.
    Four,
    /// TCP in IPv6.
    Six,
    /// Neither of them: may be asked for anything but its [`AROUND_IP`], since there is no such.
    Other,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    at: usize,
    a: Value,
    x: Value,
    memory: [Value; MEMORY],
}

/// Where a path goes on.
enum Next {
    /// At these instructions; a comparison whose outcome is open goes both ways.
    At([Option<usize>; 2]),
    /// It ends, and perhaps accepts.
    End { accepts: bool },
}

fn walk(program: &[Instruction], kind: Kind) -> Result<bool, Refusal> {
    let zero = Value::Bits(Bits::constant(0));
    let mut open = vec![State { at: 0, a: zero, x: zero, memory: [zero; MEMORY] }];
    let mut seen = HashSet::new();
    let mut accepts = false;
    while let Some(mut state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        if seen.len() > MAX_STATES {
            return Err(Refusal("more than can be looked through"));
        }
        let instruction = program.get(state.at).ok_or(Refusal("what lies behind its end"))?;
        match state.step(*instruction, kind)? {
            Next::End { accepts: end } => accepts |= end,
            Next::At(next) => open.extend(next.into_iter().flatten().map(|at| State { at, ..state.clone() })),
        }
    }
    Ok(accepts)
}

// Fields of an instruction's code (pcap/bpf.h).
const CLASS: u16 = 0x07;
const LD: u16 = 0x00;
const LDX: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const RET: u16 = 0x06;
const SIZE: u16 = 0x18;
const HALF: u16 = 0x08;
const BYTE: u16 = 0x10;
const MODE: u16 = 0xe0;
const IMM: u16 = 0x00;
const ABS: u16 = 0x20;
const IND: u16 = 0x40;
const MEM: u16 = 0x60;
const LEN: u16 = 0x80;
const MSH: u16 = 0xa0;
const OPERATION: u16 = 0xf0;
const FROM_X: u16 = 0x08;
const RET_A: u16 = 0x10;
const TXA: u16 = 0x80;
const JA: u16 = 0x00;
const JEQ: u16 = 0x10;
const JGT: u16 = 0x20;
const JGE: u16 = 0x30;
const JSET: u16 = 0x40;

const UNKNOWN: Refusal = Refusal("an instruction that is not known here");

impl State {
    fn step(&mut self, instruction: Instruction, kind: Kind) -> Result<Next, Refusal> {
        let Instruction { code, k, .. } = instruction;
        let place = k as usize;
        match code & CLASS {
            LD => self.a = self.load(code, k, kind)?,
            LDX => self.x = self.load_x(code, k, kind)?,
            ST => *self.memory.get_mut(place).ok_or(UNKNOWN)? = self.a,
            STX => *self.memory.get_mut(place).ok_or(UNKNOWN)? = self.x,
            ALU => {
                let operand = if code & FROM_X == 0 { Value::Bits(Bits::constant(k)) } else { self.x };
                self.a = Value::computed(code & OPERATION, self.a, operand).ok_or(UNKNOWN)?;
            }
            JMP => return self.jump(instruction),
            RET if code & RET_A == 0 => return Ok(Next::End { accepts: k != 0 }),
            RET => {
                let nothing = self.a.bits()?.equals(Bits::constant(0))?;
                return Ok(Next::End { accepts: nothing != Some(true) });
            }
            _ if code & TXA == 0 => self.x = self.a,
            _ => self.a = self.x,
        }
        Ok(Next::At([Some(self.at + 1), None]))
    }

    fn load(&self, code: u16, k: u32, kind: Kind) -> Result<Value, Refusal> {
        let bytes = match code & SIZE {
            HALF => 2,
            BYTE => 1,
            _ => 4,
        };
        match code & MODE {
            IMM => Ok(Value::Bits(Bits::constant(k))),
            MEM => self.memory.get(k as usize).copied().ok_or(UNKNOWN),
            _ if kind == Kind::Other => Ok(Value::Bits(of_other(k, code))),
            LEN => Ok(Value::Bits(Bits::foreign(LENGTH))),
            ABS if k >= KERNEL_OFFSETS => Err(Refusal(of_kernel(k))),
            ABS => fields(kind, Place::Absolute(k), bytes),
            IND => fields(kind, self.place(k)?, bytes),
            _ => Err(UNKNOWN),
        }
    }

    fn load_x(&self, code: u16, k: u32, kind: Kind) -> Result<Value, Refusal> {
        match code & MODE {
            MSH if kind == Kind::Four && k as usize == ETHERNET => Ok(Value::IpHeader { plus: 0 }),
            MSH if kind == Kind::Other => Ok(Value::Bits(Bits::open())),
            // Four times the low half of a byte.
            MSH => {
                let byte = fields(kind, Place::Absolute(k), 1)?.bits()?;
                Ok(Value::Bits(byte.and(Bits::constant(0x0f)).shifted_left(2)))
            }
            _ => self.load(code & !SIZE, k, kind),
        }
    }

    /// Where X and an offset point to.
    fn place(&self, k: u32) -> Result<Place, Refusal> {
        match self.x {
            Value::IpHeader { plus } => Ok(Place::BehindIpHeader(k.wrapping_add(plus))),
            Value::Bits(bits) => match bits.known_whole() {
                Some(x) => Ok(Place::Absolute(k.wrapping_add(x))),
                None => Err(Refusal(bits.why.unwrap_or("a place that it computes"))),
            },
        }
    }

    fn jump(&self, instruction: Instruction) -> Result<Next, Refusal> {
        let Instruction { code, jump_true, jump_false, k } = instruction;
        let operation = code & OPERATION;
        if operation == JA {
            return Ok(Next::At([Some((self.at + 1).wrapping_add_signed(k as i32 as isize)), None]));
        }
        let operand = if code & FROM_X == 0 { Bits::constant(k) } else { self.x.bits()? };
        let a = self.a.bits()?;
        let asked = if operation == JEQ && a.is_ether_type { k } else { 0 };
        if let Some((_, what)) = AROUND_IP.iter().find(|(ether_type, _)| *ether_type == asked) {
            return Err(Refusal(what));
        }
        let is_ip = [ETHER_IPV4, ETHER_IPV6].map(u32::from).contains(&asked);
        let outcome = match operation {
            JEQ if is_ip && a.known_whole().is_none() => Some(false),
            JEQ => a.equals(operand)?,
            JGT => a.exceeds(operand)?,
            // a ≥ b is not b > a.
            JGE => operand.exceeds(a)?.map(|less| !less),
            JSET => a.shares_bits(operand)?,
            _ => return Err(UNKNOWN),
        };
        let target = |distance: u8| Some(self.at + 1 + usize::from(distance));
        let if_true = target(jump_true).filter(|_| outcome != Some(false));
        let if_false = target(jump_false).filter(|_| outcome != Some(true));
        Ok(Next::At([if_true, if_false]))
    }
}

/// Where a load reads.
#[derive(Clone, Copy)]
enum Place {
    /// So many bytes from the packet's beginning.
    Absolute(u32),
    /// The IPv4 header's length more.
    BehindIpHeader(u32),
}

const LENGTH: &str = "the packet's length";
const PAYLOAD: &str = "the payload or TCP options";
const IP_OPTIONS: &str = "what lies at a fixed place behind the IP header, whatever its length";

/// The value of `bytes` bytes (1, 2 or 4) at `place`.
fn fields(kind: Kind, place: Place, bytes: u32) -> Result<Value, Refusal> {
    let mut value = Bits::constant(0);
    for index in 0..bytes {
        let byte = match place {
            Place::Absolute(offset) => at(kind, offset.wrapping_add(index) as usize)?,
            Place::BehindIpHeader(offset) => {
                let in_tcp =
                    (offset.wrapping_add(index) as usize).checked_sub(ETHERNET).ok_or(Refusal(IP_OPTIONS))?;
                in_tcp_header(in_tcp)?
            }
        };
        value = value.shifted_left(8).or(byte);
    }
    value.is_ether_type = bytes == 2 && matches!(place, Place::Absolute(12));
    Ok(Value::Bits(value))
}

/// One byte of an Ethernet frame.
fn at(kind: Kind, offset: usize) -> Result<Bits, Refusal> {
    match (offset.checked_sub(ETHERNET), kind) {
        (None, _) => Ok(in_ethernet(kind, offset)),
        (Some(in_ip), Kind::Four) => in_ipv4(in_ip),
        (Some(in_ip), Kind::Six) => in_ipv6(in_ip),
        (Some(_), Kind::Other) => Ok(Bits::open()),
    }
}

/// What a load gives of a frame without IP.
fn of_other(k: u32, code: u16) -> Bits {
    let mut bits = Bits::open();
    bits.is_ether_type = code & (MODE | SIZE) == ABS | HALF && k == 12;
    bits
}

const fn in_ethernet(kind: Kind, offset: usize) -> Bits {
    let [high, low] = match kind {
        Kind::Four => ETHER_IPV4.to_be_bytes(),
        Kind::Six => ETHER_IPV6.to_be_bytes(),
        Kind::Other => return Bits::open(),
    };
    match offset {
        12 => Bits::constant(high as u32),
        13 => Bits::constant(low as u32),
        _ => Bits::foreign_byte("MAC addresses"),
    }
}

/// RFC 791 3.1.
const fn in_ipv4(offset: usize) -> Result<Bits, Refusal> {
    Ok(match offset {
        0 => Bits::half_known(0xf0, 0x40, "the IP header's length"),
        1 => Bits::foreign_byte("the type of service"),
        2 | 3 => Bits::foreign_byte(LENGTH),
        4 | 5 => Bits::foreign_byte("the IP identification"),
        // Segments are made of whole packets: of fragments there is the first.
        6 => Bits::half_known(0x1f, 0, "the fragmentation flags"),
        7 => Bits::constant(0),
        8 => Bits::foreign_byte("the time to live"),
        9 => Bits::constant(TCP as u32),
        10 | 11 => Bits::foreign_byte("the IP checksum"),
        12..20 => Bits::open_byte(),
        _ => return Err(Refusal(IP_OPTIONS)),
    })
}

/// RFC 8200 3.
fn in_ipv6(offset: usize) -> Result<Bits, Refusal> {
    Ok(match offset {
        0 => Bits::half_known(0xf0, 0x60, "the traffic class"),
        1 => Bits::foreign_byte("the traffic class"),
        2 | 3 => Bits::foreign_byte("the flow label"),
        4 | 5 => Bits::foreign_byte(LENGTH),
        6 => Bits::constant(TCP.into()),
        7 => Bits::foreign_byte("the hop limit"),
        8..40 => Bits::open_byte(),
        _ => return in_tcp_header(offset - 40),
    })
}

/// RFC 9293 3.1.
fn in_tcp_header(offset: usize) -> Result<Bits, Refusal> {
    Ok(match offset {
        0..4 => Bits::open_byte(),
        4..8 => Bits::foreign_byte("TCP sequence numbers"),
        8..12 => Bits::foreign_byte("TCP acknowledgement numbers"),
        12 => Bits::foreign_byte("the TCP header's length"),
        13 => Bits::foreign_byte("TCP flags"),
        14 | 15 => Bits::foreign_byte("the TCP window"),
        16 | 17 => Bits::foreign_byte("the TCP checksum"),
        18..TCP_HEADER => Bits::foreign_byte("the TCP urgent pointer"),
        _ => return Err(Refusal(PAYLOAD)),
    })
}

/// Ancillary data (linux/filter.h, SKF_AD_OFF and on).
const fn of_kernel(k: u32) -> &'static str {
    match k.wrapping_sub(0xffff_f000) {
        4 => "the packet's direction at an interface",
        8 => "the interface",
        44 | 48 | 60 => "VLAN tags",
        _ => "what only a kernel knows of a packet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn op(code: u16, k: u32) -> Instruction {
        Instruction { code, jump_true: 0, jump_false: 0, k }
    }

    const fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
        Instruction { code: JMP | code, jump_true, jump_false, k }
    }

    const ACCEPT: Instruction = op(RET, 262_144);
    const REJECT: Instruction = op(RET, 0);

    #[test]
    fn a_port_behind_a_header_of_any_length_is_open() {
        // tcp src port 80, IPv4 only: what `tcpdump -d` shows, less the protocol.
        let program = [
            op(LD | HALF | ABS, 12),
            jump(JEQ, 0x800, 0, 5),
            op(LD | HALF | ABS, 20),
            jump(JSET, 0x1fff, 3, 0),
            op(LDX | BYTE | MSH, 14),
            op(LD | HALF | IND, 14),
            jump(JEQ, 80, 1, 0),
            REJECT,
            ACCEPT,
        ];
        // The jump of the EtherType leads to the last but one.
        assert_eq!(may_match(&program), Ok(true));
        let elsewhere = |k| {
            let mut program = program;
            program[5].k = k;
            may_match(&program)
        };
        assert_eq!(elsewhere(26), Err(Refusal("the TCP header's length")));
        assert_eq!(elsewhere(34), Err(Refusal(PAYLOAD)));
        assert_eq!(elsewhere(13), Err(Refusal(IP_OPTIONS)));
    }

    #[test]
    fn what_is_read_and_not_asked_for_does_not_matter() {
        let program = |mask| {
            [op(LD | ABS, 22), op(ALU | 0x50, mask), jump(JEQ, 0x0006_0000 & mask, 0, 1), ACCEPT, REJECT]
        };
        // The word holds time to live, protocol and checksum.
        assert_eq!(may_match(&program(0x00ff_0000)), Ok(true));
        assert_eq!(may_match(&program(0xffff_0000)), Err(Refusal("the time to live")));
        assert!(may_match(&program(0x00ff_0001)).is_err());
    }

    #[test]
    fn memory_keeps_what_is_known() {
        let program = [
            op(LD | LEN, 0),
            op(ST, 3),
            op(LD | IMM, 0),
            op(LDX | MEM, 3),
            op(7 | TXA, 0),
            jump(JGT, 100, 0, 1),
            ACCEPT,
            REJECT,
        ];
        assert_eq!(may_match(&program), Err(Refusal(LENGTH)));
    }

    #[test]
    fn a_program_that_never_ends_is_refused() {
        let mut counting = vec![op(LD | IMM, 0), op(ALU, 1), op(JMP, u32::MAX - 1)];
        assert_eq!(may_match(&counting), Err(Refusal("more than can be looked through")));
        counting[2] = op(7 | TXA, 0);
        assert_eq!(may_match(&counting), Err(Refusal("what lies behind its end")));
        assert_eq!(may_match(&[op(LD | IMM, 0), op(JMP, u32::MAX)]), Ok(false));
    }

    #[test]
    fn as_many_states_as_are_looked_at() {
        // Each turn of the loop adds one to A: three states, and the last one leaves it.
        let turns =
            |count: u32| [op(LD | IMM, 0), op(ALU, 1), jump(JEQ, count, 1, 0), op(JMP, u32::MAX - 2), ACCEPT];
        // A state for the beginning and one for the end.
        let most = (MAX_STATES as u32 - 1) / 3;
        assert_eq!(may_match(&turns(most)), Ok(true));
        assert_eq!(may_match(&turns(most + 1)), Err(Refusal("more than can be looked through")));
    }
}
