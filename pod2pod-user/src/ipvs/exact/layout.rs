//! What the programs in the kernel rely on, found in its types: where fields are, and that functions take what they took when the
//! programs were written. Reads no file.

use pod2pod_common::{
    decision::{FIELDS, Field, Layout},
    names,
};

use super::btf::Types;

/// A program, and the function of the kernel that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The program.
    pub program: &'static str,
    /// Names that the function has had, the newest first.
    pub functions: &'static [&'static str],
    /// Arguments that the program takes: position and name.
    pub arguments: &'static [(usize, &'static str)],
}

/// The programs, those that end what others begin first: so no end is missed.
pub const PROBES: [Probe; 6] = [
    Probe { program: names::PROGRAM_IPVS_END, functions: &["ip_vs_in_hook", "ip_vs_in"], arguments: &[] },
    Probe { program: names::PROGRAM_IPVS_LEAVE, functions: &["ip_vs_leave"], arguments: &[(1, "skb")] },
    Probe { program: names::PROGRAM_IPVS_MAKE, functions: &["ip_vs_conn_new"], arguments: &[] },
    Probe {
        program: names::PROGRAM_IPVS_EXPIRE,
        functions: &["ip_vs_conn_expire_now"],
        arguments: &[(0, "cp")],
    },
    Probe { program: names::PROGRAM_IPVS_FOUND, functions: &["ip_vs_conn_in_get_proto"], arguments: &[] },
    Probe {
        program: names::PROGRAM_IPVS_LOOK_UP,
        functions: &["ip_vs_conn_in_get_proto"],
        arguments: &[(0, "ipvs"), (1, "af"), (2, "skb"), (3, "iph")],
    },
];

/// What this kernel does not have as the programs need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A structure.
    #[error("there is no structure {0} in this kernel's types")]
    Structure(&'static str),
    /// A field, or one of whole bytes.
    #[error("there is no field {1} in this kernel's structure {0}")]
    Field(&'static str, &'static str),
    /// A field of that size.
    #[error("the field {field} of this kernel's structure {structure} has {size} bytes, not {expected}")]
    Size {
        /// The structure.
        structure: &'static str,
        /// The field.
        field: &'static str,
        /// Bytes that it has.
        size: u32,
        /// Bytes that it should have.
        expected: u32,
    },
    /// A function.
    #[error("this kernel has no function {0} of its own: it is called otherwise, or built into its callers")]
    Function(&'static str),
    /// Arguments of a function.
    #[error("this kernel's function {0} takes other arguments")]
    Arguments(&'static str),
}

/// Where each field is.
///
/// # Errors
/// One is not there, or of another size.
pub fn fields(types: &Types<'_>) -> Result<Layout, Unfit> {
    let mut layout = Layout([0; FIELDS]);
    for (field, offset) in Field::ALL.iter().zip(&mut layout.0) {
        let (structure, paths) = field.place();
        let found = paths.iter().find_map(|(path, size)| Some((types.field(structure, path)?, *path, *size)));
        let Some((place, path, expected)) = found else {
            let path = paths.last().map_or("", |(path, _)| path);
            let is_there = types.has_structure(structure);
            return Err(if is_there { Unfit::Field(structure, path) } else { Unfit::Structure(structure) });
        };
        if place.size != expected {
            return Err(Unfit::Size { structure, field: path, size: place.size, expected });
        }
        *offset = place.offset;
    }
    Ok(layout)
}

/// The function that a program is to follow: the newest that this kernel has and that `is_there` confirms.
///
/// # Errors
/// There is none, or it takes other arguments.
pub fn function(
    probe: &Probe,
    types: &Types<'_>,
    is_there: impl Fn(&str) -> bool,
) -> Result<&'static str, Unfit> {
    let named = |name: &&&str| types.parameters(name).is_some() && is_there(name);
    let Some(name) = probe.functions.iter().find(named) else {
        return Err(Unfit::Function(probe.functions.first().copied().unwrap_or_default()));
    };
    let parameters = types.parameters(name).unwrap_or_default();
    let fits = |(index, expected): &(usize, &str)| {
        parameters.get(*index).is_some_and(|parameter| *parameter == expected.as_bytes())
    };
    if probe.arguments.iter().all(fits) { Ok(name) } else { Err(Unfit::Arguments(name)) }
}
