//! What is known of a register: bit by bit whether it is known, differs between connections, or is foreign: different
//! between packets of one connection. Knows no packet and no program.

use super::walk::Refusal;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Bits(Bits),
    /// The length of the IPv4 header and so much more: to read with, not to ask for.
    IpHeader {
        plus: u32,
    },
}

/// Thirty-two bits: the `known` ones have the value's, the `foreign` ones must not decide anything, the rest is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Bits {
    known: u32,
    value: u32,
    foreign: u32,
    /// What the foreign bits are.
    pub(super) why: Option<&'static str>,
    /// It is the frame's EtherType as it was read.
    pub(super) is_ether_type: bool,
}

impl Value {
    /// The bits, if it is not the header's length.
    pub(super) const fn bits(self) -> Result<Bits, Refusal> {
        match self {
            Self::Bits(bits) => Ok(bits),
            Self::IpHeader { .. } => Err(Refusal(HEADER_LENGTH)),
        }
    }

    /// The result of an arithmetic instruction; absent if there is no such.
    pub(super) fn computed(operation: u16, left: Self, right: Self) -> Option<Self> {
        match (left, right) {
            (Self::Bits(left), Self::Bits(right)) => Bits::computed(operation, left, right).map(Self::Bits),
            (Self::IpHeader { plus }, Self::Bits(other)) | (Self::Bits(other), Self::IpHeader { plus })
                if operation == ADD && other.known_whole().is_some() =>
            {
                other.known_whole().map(|more| Self::IpHeader { plus: plus.wrapping_add(more) })
            }
            (Self::Bits(other), _) | (_, Self::Bits(other)) => {
                Some(Self::Bits(Bits::foreign(other.why.unwrap_or(HEADER_LENGTH))))
            }
            _ => Some(Self::Bits(Bits::foreign(HEADER_LENGTH))),
        }
    }
}

const HEADER_LENGTH: &str = "the IP header's length";

// Arithmetic of an instruction (pcap/bpf.h).
const ADD: u16 = 0x00;
const SUB: u16 = 0x10;
const MUL: u16 = 0x20;
const DIV: u16 = 0x30;
const OR: u16 = 0x40;
const AND: u16 = 0x50;
const LSH: u16 = 0x60;
const RSH: u16 = 0x70;
const NEG: u16 = 0x80;
const MOD: u16 = 0x90;
const XOR: u16 = 0xa0;

impl Bits {
    pub(super) const fn constant(value: u32) -> Self {
        Self { known: u32::MAX, value, foreign: 0, why: None, is_ether_type: false }
    }

    /// No bit known, and none foreign.
    pub(super) const fn open() -> Self {
        Self { known: 0, value: 0, foreign: 0, why: None, is_ether_type: false }
    }

    /// All bits foreign.
    pub(super) const fn foreign(why: &'static str) -> Self {
        Self { known: 0, value: 0, foreign: u32::MAX, why: Some(why), is_ether_type: false }
    }

    /// A byte that differs between packets.
    pub(super) const fn foreign_byte(why: &'static str) -> Self {
        Self::half_known(0, 0, why)
    }

    /// A byte of which the bits in `mask` are known to be those of `value`, and the others are foreign.
    pub(super) const fn half_known(mask: u8, value: u8, why: &'static str) -> Self {
        let known = !0xff | mask as u32;
        Self { known, value: value as u32, foreign: !known, why: Some(why), is_ether_type: false }
    }

    /// A byte that differs between connections.
    pub(super) const fn open_byte() -> Self {
        Self { known: !0xff, value: 0, foreign: 0, why: None, is_ether_type: false }
    }

    /// The value, if every bit is known.
    pub(super) const fn known_whole(self) -> Option<u32> {
        if self.known == u32::MAX { Some(self.value) } else { None }
    }

    /// Bit by bit: a zero makes a zero, whatever the other bit is.
    pub(super) const fn and(self, other: Self) -> Self {
        let zeros = self.zeros() | other.zeros();
        self.joined(other, zeros | self.known & other.known, self.value & other.value)
    }

    /// Bit by bit: a one makes a one.
    pub(super) const fn or(self, other: Self) -> Self {
        let ones = self.value | other.value;
        self.joined(other, ones | self.known & other.known, ones)
    }

    const fn xor(self, other: Self) -> Self {
        let known = self.known & other.known;
        self.joined(other, known, (self.value ^ other.value) & known)
    }

    /// Zeros come in.
    pub(super) const fn shifted_left(self, count: u32) -> Self {
        if count > 31 {
            return Self::constant(0);
        }
        let known = self.known << count | !(u32::MAX << count);
        Self::of(known, self.value << count, self.foreign << count, self.why)
    }

    const fn shifted_right(self, count: u32) -> Self {
        if count > 31 {
            return Self::constant(0);
        }
        let known = self.known >> count | !(u32::MAX >> count);
        Self::of(known, self.value >> count, self.foreign >> count, self.why)
    }

    /// Whether both are the same; absent if that differs between connections.
    pub(super) fn equals(self, other: Self) -> Result<Option<bool>, Refusal> {
        let differing = (self.value ^ other.value) & self.known & other.known;
        match (differing, self.known & other.known) {
            (1.., _) => Ok(Some(false)),
            (0, u32::MAX) => Ok(Some(true)),
            (0, _) => self.undecided(other),
        }
    }

    /// Whether this is more than the other, without signs.
    pub(super) fn exceeds(self, other: Self) -> Result<Option<bool>, Refusal> {
        // Unknown bits are zero at least and one at most.
        if self.value > other.value | !other.known {
            Ok(Some(true))
        } else if self.value | !self.known <= other.value {
            Ok(Some(false))
        } else {
            self.undecided(other)
        }
    }

    /// Whether a bit is one in both.
    pub(super) fn shares_bits(self, other: Self) -> Result<Option<bool>, Refusal> {
        let both = self.and(other);
        match (both.value, both.known_whole()) {
            (1.., _) => Ok(Some(true)),
            (0, Some(_)) => Ok(Some(false)),
            (0, None) => both.undecided(both),
        }
    }

    /// The outcome differs between connections: an error if foreign bits have a part in it.
    const fn undecided(self, other: Self) -> Result<Option<bool>, Refusal> {
        match (self.why, other.why) {
            (Some(why), _) | (_, Some(why)) => Err(Refusal(why)),
            (None, None) => Ok(None),
        }
    }

    fn computed(operation: u16, left: Self, right: Self) -> Option<Self> {
        let whole = left.known_whole().zip(right.known_whole());
        let result = match (operation, whole, right.known_whole()) {
            (AND, ..) => left.and(right),
            (OR, ..) => left.or(right),
            (XOR, ..) => left.xor(right),
            (LSH, _, Some(count)) => left.shifted_left(count),
            (RSH, _, Some(count)) => left.shifted_right(count),
            (ADD, Some((left, right)), _) => Self::constant(left.wrapping_add(right)),
            (SUB, Some((left, right)), _) => Self::constant(left.wrapping_sub(right)),
            (MUL, Some((left, right)), _) => Self::constant(left.wrapping_mul(right)),
            (DIV, Some((left, right)), _) => Self::constant(left.checked_div(right)?),
            (MOD, Some((left, right)), _) => Self::constant(left.checked_rem(right)?),
            (NEG, ..) if left.known_whole().is_some() => Self::constant(left.value.wrapping_neg()),
            (ADD | SUB | MUL | DIV | MOD | NEG | LSH | RSH, ..) => left.mixed(right),
            _ => return None,
        };
        Some(result)
    }

    /// Every bit depends on every bit.
    const fn mixed(self, other: Self) -> Self {
        match (self.why, other.why) {
            (Some(why), _) | (_, Some(why)) => Self::foreign(why),
            (None, None) => Self::open(),
        }
    }

    const fn zeros(self) -> u32 {
        self.known & !self.value
    }

    /// What two words make bit by bit. Bits that are known are foreign no more.
    const fn joined(self, other: Self, known: u32, value: u32) -> Self {
        let why = match self.why {
            Some(why) => Some(why),
            None => other.why,
        };
        Self::of(known, value, (self.foreign | other.foreign) & !known, why)
    }

    const fn of(known: u32, value: u32, foreign: u32, why: Option<&'static str>) -> Self {
        let why = if foreign == 0 { None } else { why };
        Self { known, value, foreign, why, is_ether_type: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREIGN: &str = "foreign";

    fn half() -> Bits {
        Bits::half_known(0xf0, 0x40, FOREIGN)
    }

    #[test]
    fn masks_take_foreign_bits_away() {
        assert_eq!(half().and(Bits::constant(0xf0)).equals(Bits::constant(0x40)), Ok(Some(true)));
        assert_eq!(half().and(Bits::constant(0xf1)).equals(Bits::constant(0x40)), Err(Refusal(FOREIGN)));
        assert_eq!(half().shifted_right(4).equals(Bits::constant(4)), Ok(Some(true)));
        assert_eq!(half().or(Bits::constant(0x0f)).equals(Bits::constant(0x4f)), Ok(Some(true)));
        assert_eq!(
            half().shifted_left(4).and(Bits::constant(0xf00)).equals(Bits::constant(0x400)),
            Ok(Some(true))
        );
        assert_eq!(half().shifted_left(4).equals(Bits::constant(0x400)), Err(Refusal(FOREIGN)));
        assert_eq!(half().xor(half()).and(Bits::constant(0xf0)).equals(Bits::constant(0)), Ok(Some(true)));
    }

    #[test]
    fn comparisons_that_known_bits_decide() {
        assert_eq!(half().equals(Bits::constant(0x51)), Ok(Some(false)));
        assert_eq!(half().exceeds(Bits::constant(0x3f)), Ok(Some(true)));
        assert_eq!(half().exceeds(Bits::constant(0x4f)), Ok(Some(false)));
        assert_eq!(half().exceeds(Bits::constant(0x4e)), Err(Refusal(FOREIGN)));
        assert_eq!(half().shares_bits(Bits::constant(0x41)), Ok(Some(true)));
        assert_eq!(half().shares_bits(Bits::constant(0xb0)), Ok(Some(false)));
        assert_eq!(half().shares_bits(Bits::constant(0x01)), Err(Refusal(FOREIGN)));
    }

    #[test]
    fn open_bits_leave_the_outcome_open() {
        let open = Bits::open_byte();
        assert_eq!(open.equals(Bits::constant(0x100)), Ok(Some(false)));
        assert_eq!(open.equals(Bits::constant(0x80)), Ok(None));
        assert_eq!(open.exceeds(Bits::constant(0xff)), Ok(Some(false)));
        assert_eq!(open.exceeds(Bits::constant(0xfe)), Ok(None));
        assert_eq!(open.equals(half()), Err(Refusal(FOREIGN)));
    }

    #[test]
    fn arithmetic() {
        let computed = |operation, left, right| {
            Bits::computed(operation, Bits::constant(left), Bits::constant(right)).and_then(Bits::known_whole)
        };
        let cases = [
            (ADD, 7, u32::MAX, Some(6)),
            (SUB, 7, 8, Some(u32::MAX)),
            (MUL, 7, 3, Some(21)),
            (DIV, 7, 2, Some(3)),
            (DIV, 7, 0, None),
            (MOD, 7, 4, Some(3)),
            (MOD, 7, 0, None),
            (OR, 5, 2, Some(7)),
            (AND, 7, 2, Some(2)),
            (XOR, 7, 2, Some(5)),
            (LSH, 7, 2, Some(28)),
            (LSH, 7, 32, Some(0)),
            (RSH, 7, 1, Some(3)),
            (NEG, 1, 0, Some(u32::MAX)),
            (0xf0, 1, 1, None),
        ];
        for (operation, left, right, expected) in cases {
            assert_eq!(computed(operation, left, right), expected, "{operation:#x} {left} {right}");
        }
        let sum = Bits::computed(ADD, half(), Bits::constant(1)).unwrap();
        assert_eq!(
            sum.shares_bits(Bits::constant(0xf0)),
            Err(Refusal(FOREIGN)),
            "a carry may come from anywhere"
        );
    }

    #[test]
    fn a_headers_length_can_be_added_to_and_nothing_else() {
        let header = Value::IpHeader { plus: 2 };
        let three = Value::Bits(Bits::constant(3));
        assert_eq!(Value::computed(ADD, header, three), Some(Value::IpHeader { plus: 5 }));
        assert_eq!(Value::computed(ADD, three, header), Some(Value::IpHeader { plus: 5 }));
        assert!(header.bits().is_err());
        let product = Value::computed(MUL, header, three).unwrap().bits().unwrap();
        assert!(product.equals(Bits::constant(60)).is_err());
    }
}
