//! The kernel's types: what is found in BTF made by hand, in this kernel's own, and in none.

use std::{fs, path::Path};

use pod2pod_common::decision::Field;
use pod2pod_user::ipvs::exact::{
    btf::{BtfError, MAX_BTF_BYTES, MAX_DEPTH, MAX_STEPS, MAX_TYPES, Place, Types},
    layout::{self, PROBES, Unfit},
};
use support::{
    btf::{Btf, Member, expected, kernel, kernel_with, properties},
    rng::Rng,
};

/// This kernel's types.
const OWN: &str = "/sys/kernel/btf/vmlinux";

#[test]
fn fields_are_found_in_a_module_on_top_of_a_kernel() {
    let (base, module) = kernel();
    let (base, module) = (base.bytes(), module.bytes());
    let base = Types::parse(&base, None).unwrap();
    let types = Types::parse(&module, Some(&base)).unwrap();
    let layout = layout::fields(&types).unwrap();
    for (field, offset) in Field::ALL.iter().zip(layout.0) {
        assert_eq!(offset, expected(*field), "{field:?}");
    }
    assert_eq!(base.field("ip_vs_conn", "state"), None, "the kernel alone has none of the module's");
    assert_eq!(types.field("sk_buff", "nothing"), None);
    assert_eq!(types.field("sk_buff", "next.nothing"), None, "a pointer has no members");
    assert_eq!(types.field("sk_buff", ""), None);
}

#[test]
fn what_a_kernel_lacks_is_said() {
    // Those two are in a structure without a name, which they share.
    let has_own = |field: &&Field| !matches!(field, Field::PacketLength | Field::PacketDataLength);
    for field in Field::ALL.iter().filter(has_own) {
        let (structure, paths) = field.place();
        let path = paths.last().unwrap().0;
        let first = path.split('.').next().unwrap();
        let unfit = |change: &dyn Fn(&mut Member<'_>)| {
            let (base, module) = kernel_with(|name, members| {
                let own = members.iter_mut().filter(|member| name == structure && member.0 == first);
                own.for_each(change);
            });
            let (base, module) = (base.bytes(), module.bytes());
            let base = Types::parse(&base, None).unwrap();
            layout::fields(&Types::parse(&module, Some(&base)).unwrap()).unwrap_err()
        };
        let missing = Unfit::Field(structure, path);
        assert_eq!(unfit(&|member| member.0 = "renamed"), missing, "{field:?}");
        assert_eq!(unfit(&|member| member.2 += 1), missing, "{field:?}: not at a byte");
        if path == first {
            // The first type is a byte.
            let said = unfit(&|member| member.1 = 1);
            assert!(matches!(said, Unfit::Size { size: 1, .. }), "{field:?}: {said}");
        }
    }
    // Newer kernels have some flags apart, and those are read then.
    let (base, module) = kernel_with(|name, members| {
        if name == "ip_vs_dest" {
            members.push(("cflags", 4, 192));
        }
    });
    let (base, module) = (base.bytes(), module.bytes());
    let base = Types::parse(&base, None).unwrap();
    let layout = layout::fields(&Types::parse(&module, Some(&base)).unwrap()).unwrap();
    assert_eq!(layout.0[Field::ServerFlags as usize], 24);

    let base = Btf::new().bytes();
    let types = Types::parse(&base, None).unwrap();
    assert_eq!(layout::fields(&types), Err(Unfit::Structure("sk_buff")));
    assert!(types.is_empty());
}

#[test]
fn functions_are_those_that_the_programs_were_written_for() {
    let (base, module) = kernel();
    let (base_bytes, module_bytes) = (base.bytes(), module.bytes());
    let base_types = Types::parse(&base_bytes, None).unwrap();
    let types = Types::parse(&module_bytes, Some(&base_types)).unwrap();
    for probe in &PROBES {
        let name = probe.functions[0];
        assert_eq!(layout::function(probe, &types, |_| true), Ok(name));
        // Built into its callers: described, and in no table of symbols.
        assert_eq!(layout::function(probe, &types, |_| false), Err(Unfit::Function(name)));
        assert_eq!(layout::function(probe, &base_types, |_| true), Err(Unfit::Function(name)));
    }
    let [end, ..] = PROBES;
    let mut older = Btf::on(&base);
    older.function("ip_vs_in", &["ipvs", "hooknum", "skb", "af"]);
    older.function("ip_vs_conn_in_get_proto", &["af", "skb", "iph", "ipvs"]);
    let older = older.bytes();
    let older = Types::parse(&older, Some(&base_types)).unwrap();
    assert_eq!(layout::function(&end, &older, |_| true), Ok("ip_vs_in"), "before Linux 5.16");
    let look_up = PROBES.last().unwrap();
    let refused = layout::function(look_up, &older, |_| true);
    assert_eq!(refused, Err(Unfit::Arguments("ip_vs_conn_in_get_proto")), "in another order");
}

#[test]
fn bits_and_arrays() {
    let mut btf = Btf::new();
    let int = btf.int("int", 4);
    let array = btf.add("", 3, 0, 0, &[int, int, 5]);
    let huge = btf.add("", 3, 0, 0, &[int, int, u32::MAX]);
    let structure = btf.structure("has", 64, &[("five", array, 64), ("huge", huge, 256), ("void", 0, 0)]);
    btf.typedef("has_t", structure);
    let members = [("whole", int, 32), ("bit", int, 1 << 24 | 64), ("bits", int, 3 << 24 | 65)];
    btf.structure_of_bits("flags", 16, &members);
    let bytes = btf.bytes();
    let types = Types::parse(&bytes, None).unwrap();
    assert_eq!(types.field("has", "five"), Some(Place { offset: 8, size: 20 }));
    assert_eq!(types.field("has", "huge"), None, "more bytes than there are");
    assert_eq!(types.field("has", "void"), None);
    assert_eq!(types.field("has_t", "five"), None, "no structure");
    assert_eq!(types.field("flags", "whole"), Some(Place { offset: 4, size: 4 }));
    assert_eq!((types.field("flags", "bit"), types.field("flags", "bits")), (None, None));
}

#[test]
fn names_and_structures_may_be_nested_so_deep() {
    let depth = |levels: u32, is_named: bool| {
        let mut btf = Btf::new();
        let mut inner = btf.int("int", 4);
        for level in 0..levels {
            inner = match (is_named, level) {
                (true, _) => btf.typedef("name", inner),
                (false, 0) => btf.structure("", 4, &[("deep", inner, 0)]),
                (false, _) => btf.structure("", 4, &[("", inner, 0)]),
            };
        }
        let name = if is_named { "deep" } else { "" };
        btf.structure("outer", 4, &[(name, inner, 0)]);
        let bytes = btf.bytes();
        Types::parse(&bytes, None).unwrap().field("outer", "deep")
    };
    let found = Some(Place { offset: 0, size: 4 });
    for is_named in [false, true] {
        assert_eq!(depth(MAX_DEPTH, is_named), found, "{is_named}");
        assert_eq!(depth(MAX_DEPTH + 1, is_named), None, "{is_named}");
    }
}

#[test]
fn so_many_members_are_looked_at() {
    let many = |before: u32| {
        let mut btf = Btf::new();
        let int = btf.int("int", 4);
        // Twice as many as one structure can have.
        let half = |count: u32| vec![("x", int, 0); count as usize];
        let first = btf.structure("", 4, &half(before / 2));
        let second = btf.structure("", 4, &half(before - before / 2 - 2));
        btf.structure("outer", 4, &[("", first, 0), ("", second, 0), ("last", int, 0)]);
        let bytes = btf.bytes();
        Types::parse(&bytes, None).unwrap().field("outer", "last").is_some()
    };
    assert_eq!((many(MAX_STEPS - 1), many(MAX_STEPS)), (true, false));
    // Each level has the next one twice: 2^16 ways to go, and then a structure in itself.
    let mut btf = Btf::new();
    let mut inner = btf.structure("", 4, &[("", 1, 0), ("", 1, 0)]);
    for _ in 0..MAX_DEPTH {
        inner = btf.structure("", 4, &[("", inner, 0), ("", inner, 0)]);
    }
    btf.structure("outer", 4, &[("", inner, 0)]);
    let bytes = btf.bytes();
    assert_eq!(Types::parse(&bytes, None).unwrap().field("outer", "nothing"), None);
}

#[test]
fn what_is_no_btf_is_refused() {
    let good = kernel().0.bytes();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Types::parse(&bytes, None).err()
    };
    assert_eq!(Types::parse(&good, None).err(), None);
    assert_eq!(Types::parse(b"", None).err(), Some(BtfError::Header));
    assert_eq!(changed(0, 0), Some(BtfError::Header));
    assert_eq!(changed(2, 2), Some(BtfError::Version(2)));
    assert_eq!(changed(4, 23), Some(BtfError::Header));
    assert_eq!(changed(4, 255), Some(BtfError::Truncated));
    assert_eq!(changed(24 + 7, 31), Some(BtfError::UnknownKind(31)));
    for length in 1..good.len() {
        let cut = Types::parse(&good[..length], None).err();
        assert!(matches!(cut, Some(BtfError::Header | BtfError::Truncated)), "{length}: {cut:?}");
    }
    let mut large = good.clone();
    large.resize(MAX_BTF_BYTES, 0);
    assert_eq!(Types::parse(&large, None).err(), None);
    large.push(0);
    assert_eq!(Types::parse(&large, None).err(), Some(BtfError::TooLarge));
}

#[test]
fn so_many_types_are_read() {
    let many = |count: u32| {
        let mut btf = Btf::new();
        for _ in 0..count / 2 {
            btf.pointer(0);
        }
        let mut module = Btf::on(&btf);
        for _ in count / 2..count {
            module.pointer(0);
        }
        let (base, module) = (btf.bytes(), module.bytes());
        let base = Types::parse(&base, None).unwrap();
        Types::parse(&module, Some(&base)).err()
    };
    // Type 0 is among them.
    assert_eq!((many(MAX_TYPES - 1), many(MAX_TYPES)), (None, Some(BtfError::TooManyTypes)));
}

/// The kernel that this runs on, where it describes itself.
#[test]
fn a_real_kernel_is_understood() {
    if !Path::new(OWN).exists() {
        return;
    }
    let bytes = fs::read(OWN).unwrap();
    let types = Types::parse(&bytes, None).unwrap();
    assert!(types.len() > 10_000, "{}", types.len());
    for (structure, path, size) in [
        ("sk_buff", "data", 8),
        ("sk_buff", "data_len", 4),
        ("net", "ns.inum", 4),
        ("timer_list", "expires", 8),
    ] {
        assert_eq!(types.field(structure, path).map(|place| place.size), Some(size), "{structure} {path}");
    }
    // include/linux/netdevice.h
    assert_eq!(types.parameters("netif_rx"), Some(vec![&b"skb"[..]]));
}

#[test]
fn damaged_types_have_the_properties() {
    let (base, module) = kernel();
    let whole = support::btf::input(&base.bytes(), &module.bytes());
    properties(&whole);
    let seed = 0x5eed_b7f0;
    println!("seed {seed:#x}");
    let mut rng = Rng::new(seed);
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        for _ in 0..rng.below(4) + 1 {
            let at = rng.below(damaged.len());
            damaged[at] = rng.next_u64() as u8;
        }
        if rng.below(4) == 0 {
            damaged.truncate(rng.below(damaged.len()));
        }
        properties(&damaged);
    }
}
