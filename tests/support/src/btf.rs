//! BTF made by hand: types one by one, as pahole would write them; a kernel and a module that have what exact mode needs; and
//! the properties of the reader over any bytes.

use pod2pod_common::decision::Field;
use pod2pod_user::ipvs::exact::{
    btf::{Place, Types},
    layout::{self, PROBES},
};

/// Bytes of a header.
const HEADER: usize = 24;

/// BTF being made. Types have the numbers that the methods give.
#[derive(Clone, Debug, Default)]
pub struct Btf {
    /// Types and bytes of strings below it.
    below: (u32, u32),
    count: u32,
    types: Vec<u8>,
    strings: Vec<u8>,
}

/// A member of a structure: name, type, and where it begins in bits.
pub type Member<'a> = (&'a str, u32, u32);

impl Btf {
    /// A kernel's, without types.
    pub fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    /// A module's on top of `base`.
    pub fn on(base: &Self) -> Self {
        let below = (base.below.0 + base.count, base.below.1 + base.strings.len() as u32);
        Self { below, ..Self::default() }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.below.1 + self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    /// Any type: kind, number of what follows, size or other type, and what follows.
    pub fn add(&mut self, name: &str, kind: u32, count: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, kind << 24 | count, size_or_type].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
        self.count += 1;
        self.below.0 + self.count
    }

    /// An integer of so many bytes.
    pub fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(name, 1, 0, bytes, &[bytes * 8])
    }

    /// A pointer.
    pub fn pointer(&mut self, to: u32) -> u32 {
        self.add("", 2, 0, to, &[])
    }

    /// Another name of a type.
    pub fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.add(name, 8, 0, of, &[])
    }

    /// A type that changes by itself.
    pub fn volatile(&mut self, of: u32) -> u32 {
        self.add("", 9, 0, of, &[])
    }

    /// A structure.
    pub fn structure(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        self.composite(4, name, bytes, members)
    }

    /// A union.
    pub fn union(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        self.composite(5, name, bytes, members)
    }

    /// A structure whose members have their sizes in bits too, in the upper eight bits of their places.
    pub fn structure_of_bits(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        self.composite(4 | 0x80, name, bytes, members)
    }

    fn composite(&mut self, kind: u32, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        let mut rest = Vec::new();
        for (name, id, bits) in members {
            rest.extend([self.string(name), *id, *bits]);
        }
        self.add(name, kind, members.len() as u32, bytes, &rest)
    }

    /// A function with parameters of these names.
    pub fn function(&mut self, name: &str, parameters: &[&str]) -> u32 {
        let rest: Vec<u32> = parameters.iter().flat_map(|name| [self.string(name), 0]).collect();
        let prototype = self.add("", 13, parameters.len() as u32, 0, &rest);
        self.add(name, 12, 1, prototype, &[])
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
        bytes.extend_from_slice(&[1, 0]);
        for word in [HEADER as u32, 0, types, types, strings] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }
}

/// A kernel and its module `ip_vs`, with fields where no real one has them all.
pub fn kernel() -> (Btf, Btf) {
    kernel_with(|_, _| {})
}

/// The same; `change` may change members of a structure before it is made.
pub fn kernel_with(mut change: impl FnMut(&str, &mut Vec<Member<'_>>)) -> (Btf, Btf) {
    let mut base = Btf::new();
    let [byte, short, int, long] =
        [("unsigned char", 1), ("short unsigned int", 2), ("unsigned int", 4), ("long unsigned int", 8)]
            .map(|(name, bytes)| base.int(name, bytes));
    let u16 = base.typedef("__u16", short);
    let bytes = base.pointer(byte);
    let mut make = |btf: &mut Btf, name: &str, size: u32, members: &[Member<'_>]| {
        let mut members = members.to_vec();
        change(name, &mut members);
        btf.structure(name, size, &members)
    };
    let atomic = base.structure("", 4, &[("counter", int, 0)]);
    let atomic = base.typedef("atomic_t", atomic);
    let common = base.structure("ns_common", 16, &[("stashed", bytes, 0), ("inum", int, 96)]);
    make(&mut base, "net", 64, &[("passive", atomic, 0), ("ns", common, 256)]);
    let inner = base.structure("", 8, &[("len", int, 0), ("data_len", int, 32)]);
    let either = base.union("", 8, &[("csum", int, 0), ("", inner, 0)]);
    make(&mut base, "sk_buff", 64, &[("next", bytes, 0), ("", either, 128), ("data", bytes, 320)]);
    let address = base.union("nf_inet_addr", 16, &[("ip", int, 0)]);
    let timer = base.structure("timer_list", 24, &[("entry", bytes, 0), ("expires", long, 64)]);
    let mut module = Btf::on(&base);
    let flags = module.volatile(int);
    let instance = make(&mut module, "netns_ipvs", 16, &[("net", bytes, 64)]);
    let instance = module.pointer(instance);
    make(
        &mut module,
        "ip_vs_iphdr",
        52,
        &[
            ("hdr_flags", int, 0),
            ("len", int, 64),
            ("fragoffs", u16, 96),
            ("protocol", u16, 112),
            ("saddr", address, 160),
            ("daddr", address, 288),
        ],
    );
    make(
        &mut module,
        "ip_vs_dest",
        32,
        &[("addr", address, 0), ("flags", flags, 128), ("weight", atomic, 160)],
    );
    make(
        &mut module,
        "ip_vs_conn",
        256,
        &[
            ("cport", u16, 0),
            ("dport", u16, 16),
            ("vport", u16, 32),
            ("caddr", address, 64),
            ("daddr", address, 320),
            ("flags", flags, 448),
            ("daf", u16, 480),
            ("timer", timer, 512),
            ("timeout", long, 768),
            ("state", u16, 832),
            ("control", bytes, 896),
            ("dest", instance, 960),
        ],
    );
    add_functions(&mut module);
    (base, module)
}

/// The functions that the probes go to.
fn add_functions(module: &mut Btf) {
    for probe in &PROBES {
        let name = probe.functions[0];
        if name == "ip_vs_conn_in_get_proto" && probe.arguments.is_empty() {
            continue;
        }
        let most = probe.arguments.iter().map(|(index, _)| index + 1).max().unwrap_or_default();
        let mut names = vec!["other"; most];
        probe.arguments.iter().for_each(|(index, name)| names[*index] = name);
        module.function(name, &names);
    }
}

/// Where a field of a kernel of [`kernel`] is.
pub fn expected(field: Field) -> u32 {
    match field {
        Field::PacketData => 40,
        Field::PacketLength => 16,
        Field::PacketDataLength => 20,
        Field::HeaderFlags => 0,
        Field::HeaderLength => 8,
        Field::HeaderFragment => 12,
        Field::HeaderProtocol => 14,
        Field::HeaderSource => 20,
        Field::HeaderDestination => 36,
        Field::InstanceNamespace => 8,
        Field::NamespaceInode => 44,
        Field::EntryClient => 8,
        Field::EntryClientPort => 0,
        Field::EntryServicePort => 4,
        Field::EntryServer => 40,
        Field::EntryServerPort => 2,
        Field::EntryServerFamily => 60,
        Field::EntryFlags => 56,
        Field::EntryState => 104,
        Field::EntryTimeout => 96,
        Field::EntryExpires => 72,
        Field::EntryDestination => 120,
        Field::EntryControl => 112,
        Field::ServerWeight => 20,
        Field::ServerFlags => 16,
    }
}

/// Kernel and module as one input of the fuzz target: the kernel's length first.
pub fn input(kernel: &[u8], module: &[u8]) -> Vec<u8> {
    [&(kernel.len() as u32).to_ne_bytes(), kernel, module].concat()
}

/// The fuzz target: any bytes as a kernel's types and as a module's on top of them. Nothing panics or runs on, a module's types come
/// after the kernel's, and what is found is found again.
pub fn properties(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<4>() else { return };
    let length = (u32::from_ne_bytes(*length) as usize).min(rest.len());
    let (kernel, module) = rest.split_at(length);
    let Ok(base) = Types::parse(kernel, None) else { return };
    look(&base);
    let Ok(split) = Types::parse(module, Some(&base)) else { return };
    assert!(split.len() >= base.len(), "a module has the kernel's types too");
    look(&split);
}

fn look(types: &Types<'_>) {
    let layout = layout::fields(types);
    for (index, field) in Field::ALL.iter().enumerate() {
        let (structure, paths) = field.place();
        if let Ok(layout) = layout {
            let is_it = |(path, size): &(&str, u32)| {
                types.field(structure, path) == Some(Place { offset: layout.0[index], size: *size })
            };
            assert!(paths.iter().any(is_it) && types.has_structure(structure), "{field:?}");
        }
    }
    for probe in &PROBES {
        if let Ok(name) = layout::function(probe, types, |_| true) {
            assert!(types.parameters(name).is_some(), "{name}");
        }
    }
}
