//! Reader of BTF, the kernel's description of its types (Documentation/bpf/btf.rst): where a field is in a structure, and what the
//! arguments of a function are called. BTF of a module is split: it goes on where the kernel's own ends.
//!
//! Any bytes may come: what is damaged is an error or is not found. Reads no file, and knows no structure by name.

/// Bytes that are read at most; a distribution's kernel has 4 to 7 MiB.
pub const MAX_BTF_BYTES: usize = 32 << 20;
/// Types that are read at most, of the kernel and a module together (`BTF_MAX_TYPE`, include/uapi/linux/btf.h).
pub const MAX_TYPES: u32 = 1 << 20;
/// Names, qualifiers and structures without a name that may be between a structure and its field.
pub const MAX_DEPTH: u32 = 16;
/// Members that are looked at for one field at most; `struct task_struct` has some hundred.
pub const MAX_STEPS: u32 = 1 << 16;

/// First bytes of BTF, in the byte order of the machine.
const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Bytes of a header, at least.
const HEADER: usize = 24;
/// Bytes of every type before what its kind adds.
const TYPE: usize = 12;

/// Kinds (include/uapi/linux/btf.h).
const INT: u8 = 1;
const POINTER: u8 = 2;
const ARRAY: u8 = 3;
const STRUCTURE: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const TYPEDEF: u8 = 8;
const VOLATILE: u8 = 9;
const CONST: u8 = 10;
const RESTRICT: u8 = 11;
const FUNCTION: u8 = 12;
const PROTOTYPE: u8 = 13;
const VARIABLE: u8 = 14;
const SECTION: u8 = 15;
const FLOAT: u8 = 16;
const DECLARATION_TAG: u8 = 17;
const TYPE_TAG: u8 = 18;
const ENUM64: u8 = 19;

/// Bytes of a pointer: of the machine that this runs on, as the kernel's is.
const POINTER_BYTES: u32 = size_of::<usize>() as u32;

/// Why bytes are no BTF that this reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// More than [`MAX_BTF_BYTES`].
    #[error("it has more than {MAX_BTF_BYTES} bytes")]
    TooLarge,
    /// It begins otherwise.
    #[error("it does not begin as BTF of this machine does")]
    Header,
    /// Of another version.
    #[error("it is of version {0}, not {VERSION}")]
    Version(u8),
    /// It ends in the midst of something.
    #[error("it ends in the midst of something")]
    Truncated,
    /// More than [`MAX_TYPES`].
    #[error("it has more than {MAX_TYPES} types")]
    TooManyTypes,
    /// A kind of type whose length is not known, so that what follows cannot be found.
    #[error("it has types of a kind {0}, which is newer than this program")]
    UnknownKind(u8),
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the beginning of the structure.
    pub offset: u32,
    /// Bytes of the field.
    pub size: u32,
}

/// The types of a kernel, or of a module on top of it. Type 0 is `void`.
#[derive(Debug)]
pub struct Types<'a> {
    base: Option<&'a Types<'a>>,
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`.
    begins: Vec<u32>,
    /// The first type that is here and not in `base`.
    first: u32,
    /// The first string that is.
    first_string: u32,
}

/// One type.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u8,
    /// Members, parameters and the like.
    count: u32,
    has_bit_sizes: bool,
    /// Of some kinds its size, of others another type.
    size_or_type: u32,
    rest: &'a [u8],
}

impl<'a> Types<'a> {
    /// Finds the types in `bytes`; of a module's, `base` are the kernel's.
    ///
    /// # Errors
    /// It is no BTF, damaged, too large, or newer than this program.
    pub fn parse(bytes: &'a [u8], base: Option<&'a Self>) -> Result<Self, BtfError> {
        if bytes.len() > MAX_BTF_BYTES {
            return Err(BtfError::TooLarge);
        }
        let [first, second, version, ..] = *bytes else { return Err(BtfError::Header) };
        if u16::from_ne_bytes([first, second]) != MAGIC {
            return Err(BtfError::Header);
        }
        if version != VERSION {
            return Err(BtfError::Version(version));
        }
        let header = word(bytes, 4).ok_or(BtfError::Truncated)?;
        if (header as usize) < HEADER {
            return Err(BtfError::Header);
        }
        let section = |at: usize| {
            let begin = header.checked_add(word(bytes, at)?)?;
            bytes.get(begin as usize..begin.checked_add(word(bytes, at + 4)?)? as usize)
        };
        let types = section(8).ok_or(BtfError::Truncated)?;
        let strings = section(16).ok_or(BtfError::Truncated)?;
        let (first, first_string) = base.map_or((1, 0), |base| (base.end(), base.end_of_strings()));
        let mut found = Self { base, types, strings, begins: Vec::new(), first, first_string };
        found.index()?;
        Ok(found)
    }

    /// Notes where each type begins.
    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            if self.end() >= MAX_TYPES {
                return Err(BtfError::TooManyTypes);
            }
            let info = word(self.types, at + 4).ok_or(BtfError::Truncated)?;
            let begin = u32::try_from(at).map_err(|_| BtfError::TooLarge)?;
            let (kind, count) = kind_and_count(info);
            at += TYPE + length_of_rest(kind, count).ok_or(BtfError::UnknownKind(kind))?;
            if at > self.types.len() {
                return Err(BtfError::Truncated);
            }
            self.begins.push(begin);
        }
        self.begins.shrink_to_fit();
        Ok(())
    }

    /// The first number that no type has.
    fn end(&self) -> u32 {
        self.first.saturating_add(u32::try_from(self.begins.len()).unwrap_or(u32::MAX))
    }

    fn end_of_strings(&self) -> u32 {
        self.first_string.saturating_add(u32::try_from(self.strings.len()).unwrap_or(u32::MAX))
    }

    /// Types, those of the kernel among them.
    pub fn len(&self) -> usize {
        self.end() as usize - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type with this number.
    fn at(&self, id: u32) -> Option<Type<'a>> {
        let Some(index) = id.checked_sub(self.first) else { return self.base?.at(id) };
        let begin = *self.begins.get(index as usize)? as usize;
        let info = word(self.types, begin + 4)?;
        let (kind, count) = kind_and_count(info);
        let rest = begin + TYPE;
        Some(Type {
            name: word(self.types, begin)?,
            kind,
            count,
            has_bit_sizes: info >> 31 != 0,
            size_or_type: word(self.types, begin + 8)?,
            rest: self.types.get(rest..rest + length_of_rest(kind, count)?)?,
        })
    }

    /// The string at this offset, without its end.
    fn string(&self, at: u32) -> &'a [u8] {
        let Some(begin) = at.checked_sub(self.first_string) else {
            return self.base.map_or(&[], |base| base.string(at));
        };
        let rest = self.strings.get(begin as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Whether the string at this offset is `name`.
    fn is_named(&self, at: u32, name: &str) -> bool {
        let Some(begin) = at.checked_sub(self.first_string) else {
            return self.base.is_some_and(|base| base.is_named(at, name));
        };
        let rest = self.strings.get(begin as usize..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The first type of this kind and name, those of the module before the kernel's.
    fn find(&self, kind: u8, name: &str) -> Option<u32> {
        let own = (self.first..self.end()).find(|id| {
            self.at(*id).is_some_and(|found| found.kind == kind && self.is_named(found.name, name))
        });
        own.or_else(|| self.base?.find(kind, name))
    }

    /// Whether there is such a structure.
    pub fn has_structure(&self, name: &str) -> bool {
        self.find(STRUCTURE, name).is_some()
    }

    /// Where a field of a structure is. `path` is as C has it, with dots (`timer.expires`); what is in structures and unions
    /// without a name belongs to the one around them. Absent if there is none, or if it is of single bits.
    pub fn field(&self, structure: &str, path: &str) -> Option<Place> {
        let mut inside = self.find(STRUCTURE, structure)?;
        let mut place = Place { offset: 0, size: 0 };
        let mut steps = 0;
        for name in path.split('.') {
            let (offset, id) = self.member(inside, name, MAX_DEPTH, &mut steps)?;
            place.offset = place.offset.checked_add(offset)?;
            (inside, place.size) = self.plain(id)?;
        }
        Some(place)
    }

    /// Offset and type of a member.
    fn member(&self, structure: u32, name: &str, depth: u32, steps: &mut u32) -> Option<(u32, u32)> {
        let found = self.at(structure).filter(|found| matches!(found.kind, STRUCTURE | UNION))?;
        for index in 0..found.count as usize {
            *steps += 1;
            if *steps > MAX_STEPS {
                return None;
            }
            let at = index * 12;
            let (own_name, id, place) =
                (word(found.rest, at)?, word(found.rest, at + 4)?, word(found.rest, at + 8)?);
            let (bits, bit_size) =
                if found.has_bit_sizes { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            let offset = bits / 8;
            let is_whole = bits % 8 == 0 && bit_size == 0;
            if own_name == 0 {
                let inner = depth.checked_sub(1).filter(|_| is_whole).and_then(|depth| {
                    let (id, _) = self.plain(id)?;
                    self.member(id, name, depth, steps)
                });
                if let Some((inner, id)) = inner {
                    return Some((offset.checked_add(inner)?, id));
                }
            } else if self.is_named(own_name, name) {
                return is_whole.then_some((offset, id));
            }
        }
        None
    }

    /// The type behind names and qualifiers, and its size in bytes.
    fn plain(&self, id: u32) -> Option<(u32, u32)> {
        let mut id = id;
        for _ in 0..=MAX_DEPTH {
            let found = self.at(id)?;
            match found.kind {
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = found.size_or_type,
                POINTER => return Some((id, POINTER_BYTES)),
                INT | STRUCTURE | UNION | ENUM | ENUM64 | FLOAT => return Some((id, found.size_or_type)),
                // Arrays of arrays are not read.
                ARRAY => {
                    let (element, count) = (word(found.rest, 0)?, word(found.rest, 8)?);
                    let size = match self.at(element)? {
                        inner if matches!(inner.kind, INT | STRUCTURE | UNION | ENUM) => inner.size_or_type,
                        inner if inner.kind == POINTER => POINTER_BYTES,
                        _ => return None,
                    };
                    return Some((id, size.checked_mul(count)?));
                }
                _ => return None,
            }
        }
        None
    }

    /// What the parameters of a function are called; absent if there is no such function.
    pub fn parameters(&self, function: &str) -> Option<Vec<&'a [u8]>> {
        let function = self.at(self.find(FUNCTION, function)?)?;
        let prototype = self.at(function.size_or_type).filter(|found| found.kind == PROTOTYPE)?;
        let names = prototype.rest.chunks_exact(8).map(|parameter| word(parameter, 0));
        names.map(|name| name.map(|name| self.string(name))).collect()
    }
}

/// A number in the byte order of the machine.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

const fn kind_and_count(info: u32) -> (u8, u32) {
    ((info >> 24 & 0x1f) as u8, info & 0xffff)
}

/// Bytes that a type of this kind has behind its beginning; absent if the kind is not known.
const fn length_of_rest(kind: u8, count: u32) -> Option<usize> {
    let count = count as usize;
    match kind {
        INT | VARIABLE | DECLARATION_TAG => Some(4),
        ARRAY => Some(12),
        STRUCTURE | UNION | SECTION | ENUM64 => Some(12 * count),
        ENUM | PROTOTYPE => Some(8 * count),
        // A pointer, a name declared ahead, a name, qualifiers, a function, a float, a tag.
        POINTER | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNCTION | FLOAT | TYPE_TAG => Some(0),
        _ => None,
    }
}
